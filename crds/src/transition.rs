//! How the active region changes, and who must agree.

use kube::KubeSchema;
use region_plan::Epoch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::{AcceptedLoss, Duration};

/// How a change of `activeRegion` is made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.mode != 'Failover' || (has(self.acceptDataLoss) && has(self.fromEpoch) && has(self.reason))")
        .message("mode Failover needs acceptDataLoss (such as 30s, or Unknown), fromEpoch (status.epoch now) and reason"),
    validation = Rule::new("self.mode == 'Failover' || (!has(self.acceptDataLoss) && !has(self.fromEpoch))")
        .message("acceptDataLoss and fromEpoch belong to mode Failover: take them out, or set mode: Failover")
)]
pub struct Transition {
    /// How the change is made.
    #[serde(default)]
    pub mode: TransitionMode,
    /// Why, for the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub reason: Option<String>,
    /// Failover: the loss that is accepted, as a duration, or the word Unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accept_data_loss: Option<AcceptedLoss>,
    /// Failover: the epoch that it ends, so that it cannot fire again later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub from_epoch: Option<Epoch>,
}

/// Planned: nothing is lost, both regions take part. Failover: the other region is lost, and data up to a bound may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TransitionMode {
    /// Nothing is lost; both regions take part.
    #[default]
    Planned,
    /// The other region is lost; data up to a bound may be.
    Failover,
}

/// Whether a second person must agree before a run starts. This version has no approvals yet: it refuses to be asked for one
/// before planned switches, and carries out no failover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Approval {
    /// For which runs.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self != 'Always'")
        .message("this version cannot ask for an approval of a planned switch: set approval.required to Failover or Never"))]
    pub required: ApprovalRequired,
    /// An approval is void after this time.
    #[serde(default = "expires_after")]
    pub expires_after: Duration,
}

impl Default for Approval {
    fn default() -> Self {
        Self { required: ApprovalRequired::default(), expires_after: expires_after() }
    }
}

/// Runs that need an approval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ApprovalRequired {
    /// None.
    Never,
    /// Failovers only.
    #[default]
    Failover,
    /// All; not served yet.
    Always,
}

fn expires_after() -> Duration {
    Duration::from_secs(600)
}
