//! What the operator of one region says: the region's own copy of the object tells that region's truth.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use region_plan::{Epoch, Finding, Phase, Region, SideReport, Wait};
use serde::{Deserialize, Serialize};

use crate::reading::{CheckReading, DurationReading, LeaseReading};
use crate::run::{Preview, RunSummary};

/// Most runs that are kept in [`TradingRegionStatus::history`].
pub const MAX_HISTORY: usize = 10;
/// Newest runs of them, and newest that finished, whose steps are kept: the object is read and written whole some hundred times in a run.
pub const MAX_HISTORY_WITH_STEPS: usize = 3;

/// The state of the application as this region's operator sees it. It has no "last updated" of its own: an equal
/// status is not written, and every number carries the time at which it was read.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct TradingRegionStatus {
    /// The `metadata.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The region that holds the lease, as observed. Absent: none does, or it is not known (see findings).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_region: Option<Region>,
    /// Number of the present grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// Where the object stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// One sentence for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// This side's part in runs; the other region's operator reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side: Option<SideReport>,
    /// What is waited for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub waits: Vec<Wait>,
    /// What stands in the way of readiness or of the run. `kubectl region explain CODE` tells what to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub findings: Vec<Finding>,
    /// What a switch to the other region would do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
    /// The open run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub current_run: Option<RunSummary>,
    /// The last ten runs, newest first; the newest three, and the newest three that finished, with their steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<RunSummary>,
    /// How far the standby database is behind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<DurationReading>,
    /// The drain checks of this region.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub drain: Vec<CheckReading>,
    /// The lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseReading>,
    /// Conditions; docs/conditions.md lists types and reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
    /// Version of the operator that wrote this status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator_version: Option<String>,
}

impl TradingRegionStatus {
    /// The condition of that type.
    pub fn condition(&self, type_: &str) -> Option<&Condition> {
        self.conditions.iter().find(|condition| condition.type_ == type_)
    }
}
