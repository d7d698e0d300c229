//! The application's database: the global cluster, how to log in, and the lease.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reference::SecretRef;

/// The database of the application.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// The Aurora global database that both regions share. Its identity is immutable.
    pub aurora_global: AuroraGlobal,
    /// How operator and keeper log in.
    pub connection: Connection,
    /// The lease that fences writers.
    #[serde(default)]
    pub lease: Lease,
}

/// An Aurora global database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuroraGlobal {
    /// Identifier of the global cluster. Immutable.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("globalCluster cannot change: the lease lives in it; create another TradingRegion"))]
    pub global_cluster: String,
    /// The member cluster of each region, under the region's name. Immutable but for endpoint.
    #[schemars(extend("minProperties" = 2, "maxProperties" = 2))]
    #[x_kube(
        validation = Rule::new("self.all(region, region in oldSelf && self[region].arn == oldSelf[region].arn)")
            .message("clusters cannot change: the lease lives in them; create another TradingRegion"),
        validation = Rule::new("self.all(region, self[region].arn.contains(':rds:' + region + ':'))")
            .message("a cluster's ARN is of another region than the one that it stands under: swap or correct the ARNs")
    )]
    pub clusters: BTreeMap<String, AuroraCluster>,
}

/// The member of a global cluster in one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuroraCluster {
    /// The cluster's ARN.
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^arn:aws[a-z-]*:rds:[a-z0-9-]+:[0-9]{12}:cluster:[A-Za-z0-9-]+$')")
        .message("write the cluster's ARN: arn:aws:rds:REGION:ACCOUNT:cluster:ID"))]
    pub arn: String,
    /// Address of the region's RDS API, where it is not AWS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self.matches('^https://[^@/?# ]+/?$')")
        .message("write endpoint as https://HOST:PORT, or leave it out to use the AWS endpoint"))]
    pub endpoint: Option<String>,
}

/// How operator and keeper log in to the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Name of the database that holds the application's tables and the schema `region`. Immutable.
    #[schemars(length(min = 1, max = 63))]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("database cannot change: the lease lives in it; create another TradingRegion"))]
    pub database: String,
    /// Secret with `operator-username`, `operator-password`, `keeper-username`, `keeper-password` and `ca.crt`.
    pub secret_ref: SecretRef,
}

/// The lease in the database that every writing transaction is checked against. How long one renewal of it lasts stands in its
/// row, which the application's migrations make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// What happens when fewer than three ARC endpoints answer for longer than the lease.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == 'Stop'")
        .message("only onWitnessLoss: Stop is served in this version"))]
    pub on_witness_loss: WitnessLoss,
}

/// Stop: the lease runs out and writers are refused until the witness answers again.
/// HoldWhilePeerAgrees: the holder goes on by the other region's word; not served yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum WitnessLoss {
    /// The lease runs out and writers are refused until the witness answers again.
    #[default]
    Stop,
    /// The holder goes on by the other region's word; not served yet.
    HoldWhilePeerAgrees,
}
