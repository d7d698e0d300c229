//! What each side says of itself in its own copy's status. Each operator writes only its own report, by
//! compare-and-set on the object's resourceVersion; the other side reads it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, GrantId, Region, RunId};
use crate::intent::HookPoint;
use crate::step::StepKind;

/// The report of one side, kept over restarts of the operator.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SideReport {
    /// The region that reports.
    pub region: Region,
    /// The highest epoch that this side ever saw or was about to grant. Written before the grant.
    pub highest_epoch: Epoch,
    /// The highest epoch that this side ever saw in the lease row. A row below it was restored from an old copy.
    #[serde(default)]
    pub row_epoch: Epoch,
    /// Replicas of each Deployment when this side was last steady and active: what the other side needs to carry the
    /// same load.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sizes: BTreeMap<String, i32>,
    /// The run that this side takes part in, or the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunReport>,
}

/// One side's part in one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RunReport {
    /// Identity, chosen by the new side.
    pub id: RunId,
    /// The side that gives.
    pub from: Region,
    /// The side that takes, and leads the run.
    pub to: Region,
    /// The epoch that the run ends.
    pub from_epoch: Epoch,
    /// Generation of my copy's spec when I entered the run: a run that was given up is not repeated by itself.
    #[serde(default)]
    pub generation: i64,
    /// When this side entered the run.
    pub opened_at: Timestamp,
    /// How far this side is.
    pub mark: Mark,
    /// The new side is scaled up and its PreWarm hooks are done.
    #[serde(default)]
    pub warm: bool,
    /// When the old side ordered its ingress to close.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closing_since: Option<Timestamp>,
    /// Since when all drain checks read zero without a break.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_since: Option<Timestamp>,
    /// The grant that this side is about to make or has made. Written before the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Grant>,
    /// Hooks that succeeded in this run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks_done: Vec<HookPoint>,
    /// Times of this side's steps, in the order of their start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<StepRecord>,
    /// When this side's part ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Why the run was given up, if it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far a side is. The old side goes `Accepted → Fenced → Finished` or ends `Aborted`;
/// the new side goes `Proposed → Begun → Finished` or ends `Declined`. `Begun` and `Declined` exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Mark {
    /// New side: asks for the run.
    Proposed,
    /// Old side: takes part.
    Accepted,
    /// Old side: its lease is given up for this run. Nothing more will be written there.
    Fenced,
    /// New side: forward only from here.
    Begun,
    /// New side: will not take over in this run. Never withdrawn.
    Declined,
    /// Old side: gave the run up before the fence. Never withdrawn.
    Aborted,
    /// Either side: its part is done and the new side is active.
    Finished,
}

impl Mark {
    /// Whether this side's part of the run has ended.
    pub fn ended(self) -> bool {
        matches!(self, Mark::Declined | Mark::Aborted | Mark::Finished)
    }
}

/// A grant that a side makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// Number.
    pub epoch: Epoch,
    /// Identity.
    pub id: GrantId,
}

/// When a step began and ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StepRecord {
    /// Which step.
    pub step: StepKind,
    /// First attempt.
    pub started_at: Timestamp,
    /// When its proof was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Timestamp>,
    /// Attempts so far; an attempt is repeated only when its outcome is not known or was refused for now.
    pub attempts: u32,
    /// What the last attempt answered, if not plain success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl RunReport {
    /// A report of a run that this side enters now.
    pub fn open(
        id: RunId,
        from: &Region,
        to: &Region,
        from_epoch: Epoch,
        mark: Mark,
        now: Timestamp,
    ) -> Self {
        Self {
            id,
            from: from.clone(),
            to: to.clone(),
            from_epoch,
            generation: 0,
            opened_at: now,
            mark,
            warm: false,
            closing_since: None,
            drained_since: None,
            grant: None,
            hooks_done: Vec::new(),
            steps: Vec::new(),
            ended_at: None,
            reason: None,
        }
    }

    /// A run in which a region takes the lease that nobody holds: the first start, or a new one.
    pub fn is_start(&self) -> bool {
        self.from == self.to
    }
}

impl SideReport {
    /// The report of a side that has none yet.
    pub fn new(region: &Region) -> Self {
        Self {
            region: region.clone(),
            highest_epoch: Epoch(0),
            row_epoch: Epoch(0),
            sizes: BTreeMap::new(),
            run: None,
        }
    }

    /// The run that is still open here.
    pub fn open_run(&self) -> Option<&RunReport> {
        self.run.as_ref().filter(|run| !run.mark.ended())
    }

    /// Whether this side takes in a move that it has begun: it goes forward, whatever the other side says.
    pub fn has_begun(&self) -> bool {
        self.open_run().is_some_and(|run| run.mark == Mark::Begun && !run.is_start())
    }
}
