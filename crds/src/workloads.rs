//! Which Deployments belong to the application, and how many replicas they have where.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The application's Deployments in the namespace of the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Workloads {
    /// Which Deployments. Immutable.
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("selector cannot change: what was selected would be left half moved; create another TradingRegion"))]
    pub selector: Selector,
    /// Their size where the application is active.
    #[serde(default)]
    pub active: Active,
    /// Their size where it is on standby.
    #[serde(default)]
    pub standby: Standby,
}

/// Selects Deployments by label.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Selector {
    /// Labels that a Deployment must all carry.
    #[schemars(extend(
        "minProperties" = 1, "maxProperties" = 8,
        "additionalProperties" = { "type": "string", "maxLength": 63 }
    ))]
    pub match_labels: BTreeMap<String, String>,
}

/// Size of an active Deployment. The wanted number is the annotation `regions.trading.dev/active-replicas`, or else what
/// the active region has when the application moves; never below the floor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Active {
    /// Least number of replicas.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 10_000))]
    pub floor: i32,
}

impl Default for Active {
    fn default() -> Self {
        Self { floor: one() }
    }
}

/// Size of a Deployment on standby.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Standby {
    /// Replicas; more than 0 makes the standby warm.
    #[serde(default)]
    #[schemars(range(min = 0, max = 10_000))]
    pub replicas: i32,
}

fn one() -> i32 {
    1
}
