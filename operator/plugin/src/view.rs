//! The one structure that text, watch and JSON show.

use crds::RunSummary;
use jiff::{SignedDuration, Timestamp};
use region_plan::{Mark, RunId};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::exit::Exit;

/// Numbers are written at least this often by an operator.
pub(crate) const PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// What is true of one application, as far as it is known.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct View {
    /// `regions.trading.dev/view/v1`.
    pub api_version: String,
    /// When it was read.
    pub at: Timestamp,
    /// The object.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The region that holds the lease, if the copies that answer do not contradict each other.
    pub active: Option<String>,
    /// Number of the present grant.
    pub epoch: Option<u64>,
    /// The region that both copies want; absent if they differ or one is unknown.
    pub wanted: Option<String>,
    /// `Ok`, `Degraded`, `WaitForUser`, `PeerUnknown` or `Skew`.
    pub verdict: String,
    /// One sentence.
    pub summary: String,
    /// One entry for each region, in the order of the spec.
    pub regions: Vec<RegionView>,
    /// The open run.
    pub run: Option<RunView>,
    /// What is waited for.
    pub waits: Vec<WaitView>,
    /// What stands in the way; the same finding of both regions once.
    pub findings: Vec<FindingView>,
    /// What a switch to the other region would do, as published by the operators.
    pub plan: Option<PlanView>,
    /// The last runs, newest first.
    pub history: Vec<RunView>,
    /// Options by which the clusters were found: what is told to be typed next repeats them. No part of the JSON.
    #[serde(skip)]
    pub way: String,
}

/// One region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionView {
    /// Its name.
    pub name: String,
    /// The context that it was read through.
    pub context: String,
    /// Why nothing is known of it.
    pub unknown: Option<String>,
    /// `active`, `standby`, or absent: not known.
    pub role: Option<String>,
    /// What its copy wants to be active.
    pub wants: Option<String>,
    /// The operator has seen the newest change of the copy.
    pub observed: bool,
    /// Seconds since its operator last wrote a reading; absent: it wrote none.
    pub heard_seconds_ago: Option<i64>,
    /// Generation of the copy.
    pub generation: i64,
    /// Where the object stands there.
    pub phase: Option<String>,
    /// One sentence of its operator.
    pub reason: Option<String>,
    /// Condition Ready.
    pub ready: Option<String>,
    /// Condition StandbyReady.
    pub standby_ready: Option<String>,
    /// Replication lag of its database.
    pub lag: Option<Reading>,
    /// How long its lease lasts without a renewal.
    pub lease: Option<Reading>,
    /// Its drain checks.
    pub drain: Vec<Reading>,
    /// How far its side of a run is.
    pub mark: Option<Mark>,
    /// The run that the mark belongs to.
    pub mark_of: Option<String>,
    /// Version of its operator.
    pub operator_version: Option<String>,
}

/// A number with its age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    /// What it is.
    pub name: String,
    /// The value; absent: unknown.
    pub value: Option<String>,
    /// Seconds since it was read.
    pub age_seconds: Option<i64>,
    /// `fresh`, `old` (twice its period), or `unknown` (six times, or never read).
    pub freshness: String,
    /// Why it is unknown.
    pub why: Option<String>,
}

/// A run, open or ended, put together from both copies.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunView {
    /// As the copies have it; steps of both regions in the order of their start.
    #[serde(flatten)]
    pub summary: RunSummary,
    /// Seconds since it began, or that it took.
    pub seconds: f64,
    /// The old side is fenced or the new side has begun: there is no way back.
    pub past_return: bool,
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitView {
    /// Who waits.
    pub region: String,
    /// On what.
    pub on: String,
    /// For how many seconds so far.
    pub for_seconds: Option<i64>,
    /// For how many seconds at most from now; below zero: it is over time.
    pub left_seconds: Option<i64>,
}

/// A finding and where it leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FindingView {
    /// Its code.
    pub code: String,
    /// Who has it.
    pub regions: Vec<String>,
    /// The fact.
    pub message: String,
    /// It keeps a planned run from starting.
    pub blocks: bool,
    /// What to do next.
    pub next: String,
    /// Where the documentation has it.
    pub docs: String,
}

/// What a switch would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// Where to.
    pub to: String,
    /// Hash that an act must carry.
    pub hash: String,
    /// The region whose operator worked it out.
    pub by: String,
    /// The steps.
    pub steps: Vec<crds::PreviewStep>,
    /// Expected length.
    pub estimate: Option<String>,
    /// Expected interruption of customers.
    pub unavailable: Option<String>,
    /// What stands in the way.
    pub blocking: Vec<FindingView>,
}

/// What tells a run from others on a screen: the end of its id. The beginning is a time, the same for a minute.
pub(crate) fn short(id: RunId) -> String {
    let id = id.to_string();
    id[id.len().saturating_sub(8)..].to_owned()
}

impl RegionView {
    /// Its operator has written no reading for so long that nothing it says counts as present.
    pub fn silent(&self) -> bool {
        self.heard_seconds_ago.is_some_and(|seconds| seconds > (PERIOD * 6).as_secs())
    }
}

impl View {
    /// The code that `status --exit-code` ends with.
    pub fn exit(&self) -> Exit {
        match self.verdict.as_str() {
            "Ok" => Exit::Ok,
            "WaitForUser" => Exit::WaitForUser,
            "PeerUnknown" => Exit::PeerUnknown,
            "Skew" => Exit::Skew,
            _ => Exit::Degraded,
        }
    }

    /// The run whose id is this, or begins or ends so.
    ///
    /// # Errors
    /// None is, or several are; in words.
    pub fn named_run(&self, id: &str) -> Result<&RunView, String> {
        let wanted = id.to_ascii_lowercase();
        let fits = |run: &&RunView| {
            let id = run.summary.id.to_string();
            id.starts_with(&wanted) || id.ends_with(&wanted)
        };
        let fitting: Vec<&RunView> = self.run.iter().chain(&self.history).filter(fits).collect();
        match fitting.as_slice() {
            [run] => Ok(run),
            [] => Err(format!("no run {id}; kubectl region history lists them")),
            several => {
                let ids: Vec<String> = several.iter().map(|run| run.summary.id.to_string()).collect();
                Err(format!("{id} stands for several runs, write more of one: {}", ids.join(", ")))
            }
        }
    }

    /// The part of one region.
    pub fn region(&self, name: &str) -> Option<&RegionView> {
        self.regions.iter().find(|region| region.name == name)
    }
}
