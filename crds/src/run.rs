//! What a run would do, does, and did.

use jiff::Timestamp;
use region_plan::{Epoch, Finding, Region, RunId, StepKind, StepRecord};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;
use crate::transition::TransitionMode;

/// What a switch to the other region would do, worked out by the operator. Changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preview {
    /// Where to.
    pub to: Region,
    /// Digest of what a person sees here; `kubectl region switch` does not act on it once it has changed.
    pub plan_hash: String,
    /// The steps, in order.
    #[schemars(length(max = 64))]
    pub steps: Vec<PreviewStep>,
    /// How long it would take: the median of the history, or the sum of the known parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Duration>,
    /// How long customers would not be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Duration>,
    /// What stands in the way. Empty: a switch may start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub blocking: Vec<Finding>,
}

/// One step of a preview.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PreviewStep {
    /// Which side does it.
    pub region: Region,
    /// Which step.
    pub step: StepKind,
    /// How long it is expected to take; absent: no run was measured yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimate: Option<Duration>,
    /// From here on a run only goes forward.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_return: bool,
}

/// One run, open or ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunSummary {
    /// Identity.
    pub id: RunId,
    /// The side that gave.
    pub from: Region,
    /// The side that took.
    pub to: Region,
    /// The epoch that the run ends.
    pub from_epoch: Epoch,
    /// The epoch that it begins, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_epoch: Option<Epoch>,
    /// Planned or failover.
    #[serde(default)]
    pub mode: TransitionMode,
    /// Why, in the words of the person who asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Digest of the plan that the person who asked had seen. Absent: nobody told, or another plan stood when it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_hash: Option<String>,
    /// When this copy's side entered it.
    pub started_at: Timestamp,
    /// When this copy's side left it. Absent: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// How it ended. Absent: it is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why it was given up, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Times of the steps that are known here, in the order of their start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 96))]
    pub steps: Vec<RunStep>,
    /// Where the time went.
    #[serde(default)]
    pub times: RunTimes,
}

/// How a run ended. Finished: the new side is active. Aborted: given up before the fence, the old side is open again.
/// Declined: given up after the fence, the old side holds a new grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
pub enum Outcome {
    /// The new side is active.
    Finished,
    /// Given up before the fence; the old side is open again.
    Aborted,
    /// Given up after the fence; the old side holds a new grant.
    Declined,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunStep {
    /// The side that did it.
    pub region: Region,
    /// What, when, how often.
    #[serde(flatten)]
    pub record: StepRecord,
}

/// Where a run's time went. Absent: not reached, or not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunTimes {
    /// Start to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<Duration>,
    /// Until ingress was ordered to close: customers notice nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prepare: Option<Duration>,
    /// Ingress closed until the fence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Duration>,
    /// Fence until the new grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub promote: Option<Duration>,
    /// Grant until ingress is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub open: Option<Duration>,
    /// Order to close ingress in the old region until it is open in the new one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unavailable: Option<Duration>,
}
