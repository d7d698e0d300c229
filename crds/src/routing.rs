//! Where customers' traffic goes, and the registers that decide who may write.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Routing of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Routing {
    /// Amazon Application Recovery Controller: the witness.
    pub arc: Arc,
    /// A name that must answer the active region; only checked, never changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dns: Option<Dns>,
}

/// The ARC cluster and the application's routing controls in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Arc {
    /// The cluster's five endpoints.
    #[schemars(length(min = 5, max = 5))]
    #[x_kube(
        merge_strategy = ListMerge::Map(vec!["region".into()]),
        validation = Rule::new("self.all(one, self.exists_one(other, other.url == one.url))")
            .message("two endpoints have the same url: list the ARC cluster's five different endpoints")
    )]
    pub endpoints: Vec<ArcEndpoint>,
    /// The three controls of each region, under the region's name. Immutable.
    #[schemars(extend("minProperties" = 2, "maxProperties" = 2))]
    #[x_kube(
        validation = Rule::new("self == oldSelf")
            .message("controls cannot change: the lock would move to registers that nobody holds; create another TradingRegion"),
        validation = Rule::new(
            "self.all(one, self.all(other, one == other || !([self[one].ingress, self[one].intake, self[one].app]\
             .exists(arn, arn in [self[other].ingress, self[other].intake, self[other].app]))))")
            .message("both regions name the same routing control: each region has its own three")
    )]
    pub controls: BTreeMap<String, Controls>,
}

/// One endpoint of the ARC cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArcEndpoint {
    /// The endpoint's own AWS region, which signs its requests.
    #[schemars(length(min = 1, max = 32))]
    pub region: String,
    /// Its address.
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^https://[^@/?# ]+(/v1)?/?$')")
        .message("write url as https://HOST/v1, as describe-cluster lists it"))]
    pub url: String,
}

/// The routing controls of one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.ingress != self.intake && self.intake != self.app && self.ingress != self.app")
    .message("ingress, intake and app must be three different routing controls"))]
pub struct Controls {
    /// Customers' traffic goes to the region (DNS).
    #[schemars(length(max = 256))]
    #[x_kube(validation = control_arn())]
    pub ingress: String,
    /// The edge of the region may consume.
    #[schemars(length(max = 256))]
    #[x_kube(validation = control_arn())]
    pub intake: String,
    /// The region may hold the lease.
    #[schemars(length(max = 256))]
    #[x_kube(validation = control_arn())]
    pub app: String,
}

/// The customers' name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Dns {
    /// The name that customers resolve.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// HOST:PORT of the server that is asked. Absent: the cluster's own resolver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9.-]+:[0-9]{1,5}$')")
        .message("write server as HOST:PORT, such as 10.0.0.2:53"))]
    pub server: Option<String>,
}

fn control_arn() -> kube::core::Rule {
    kube::core::Rule::new(
        "self.matches('^arn:aws[a-z-]*:route53-recovery-control::[0-9]{12}:controlpanel/[A-Za-z0-9_-]+/routingcontrol/[A-Za-z0-9_-]+$')",
    )
    .message(
        "write the routing control's ARN: arn:aws:route53-recovery-control::ACCOUNT:controlpanel/PANEL/routingcontrol/ID",
    )
}
