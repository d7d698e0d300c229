//! What a run tells: for people as text, for programs as JSON.

use std::fmt;

use serde::Serialize;

use services_common::telemetry::chain;

use super::finding::{Comparison, Findings};
use super::{Job, ReconcileError};

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// There was nothing to do.
    Clean,
    /// What was missing is there now, and nothing else was found.
    Repaired,
    /// Something is left for people.
    Differences,
}

impl Outcome {
    /// The word in the audit row.
    pub fn word(self) -> &'static str {
        match self {
            Self::Clean => "clean",
            Self::Repaired => "repaired",
            Self::Differences => "differences",
        }
    }
}

/// What a replay did at one boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Replayed {
    /// Missing before.
    pub found: u64,
    /// Records sent again; one that had to be sent twice counts twice.
    pub replayed: u64,
    /// Missing afterwards.
    pub left: u64,
    /// How it ended.
    pub outcome: Outcome,
}

/// One boundary.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Boundary {
    /// The comparison; with a replay, the one after it.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// What the replay did; `None` where nothing was to be changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Replayed>,
}

/// A boundary of which it could not be told whether the stores agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Untold {
    /// The boundary.
    pub job: Job,
    /// Why.
    pub reason: String,
}

impl Untold {
    /// What one boundary could not tell is no reason to keep back what the others told.
    /// What stands in the way of the `first` stands in the way of the run.
    pub(super) fn of(job: Job, error: ReconcileError, first: bool) -> Result<Self, ReconcileError> {
        match &error {
            ReconcileError::Standby | ReconcileError::Lease(_) if !first => {}
            ReconcileError::Peer { .. }
            | ReconcileError::NotPrimary { .. }
            | ReconcileError::TooDifferent { .. }
            | ReconcileError::Read { .. } => {}
            ReconcileError::Config(_)
            | ReconcileError::Standby
            | ReconcileError::Elsewhere { .. }
            | ReconcileError::Closed { .. }
            | ReconcileError::Lease(_)
            | ReconcileError::Write(_)
            | ReconcileError::Broker(_) => return Err(error),
        }
        Ok(Self { job, reason: chain(&error) })
    }
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The application.
    pub app: String,
    /// The region whose stores were compared.
    pub region: String,
    /// Whether nothing was found, or nothing is left after the replay, and every boundary could be compared.
    pub agrees: bool,
    /// The boundaries, in the order in which a trade passes them.
    pub boundaries: Vec<Boundary>,
    /// Those that could not be compared, or not to their end.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub untold: Vec<Untold>,
}

impl Report {
    /// Whether anything was found, and is left.
    pub fn differs(&self) -> bool {
        !self.boundaries.iter().all(Boundary::agrees)
    }
}

impl Boundary {
    /// Records that the later store lacks; after a replay also those that were sent again and have not arrived.
    pub fn missing(&self) -> u64 {
        self.comparison.missing.count.max(self.replay.map_or(0, |replay| replay.left))
    }

    /// Whether nothing is left to be told.
    pub fn agrees(&self) -> bool {
        self.comparison.clean() && self.replay.is_none_or(|replay| replay.left == 0)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Boundary { comparison, replay } in &self.boundaries {
            let Comparison { job, compared, under_way, set_apart, repeated, missing, ahead, differs, .. } =
                comparison;
            write!(
                f,
                "{:<14}  {compared} compared: {} missing, {} ahead, {} differ; {under_way} under way, {set_apart} set apart",
                job.word(),
                missing.count,
                ahead.count,
                differs.count
            )?;
            writeln!(f, "{}", if *repeated > 0 { format!(", {repeated} repeated") } else { String::new() })?;
            for (kind, findings) in [("missing", missing), ("ahead", ahead), ("differs", differs)] {
                list(f, kind, findings)?;
            }
            if let Some(Replayed { found, replayed, left, outcome }) = replay {
                writeln!(
                    f,
                    "  replay: {found} missing before, {replayed} sent again, {left} left: {}",
                    outcome.word()
                )?;
            }
        }
        for Untold { job, reason } in &self.untold {
            writeln!(f, "{:<14}  could not be told: {reason}", job.word())?;
        }
        let verdict = match (self.agrees, self.differs()) {
            (true, _) => "the stores agree",
            (false, true) => "the stores differ",
            (false, false) => "not known whether the stores agree",
        };
        write!(f, "{} in {}: {verdict}", self.app, self.region)
    }
}

fn list(f: &mut fmt::Formatter<'_>, kind: &str, findings: &Findings) -> fmt::Result {
    for finding in &findings.first {
        writeln!(f, "  {kind}  {}  {}", finding.id, finding.what)?;
    }
    let more = findings.count - findings.first.len() as u64;
    if more > 0 { writeln!(f, "  {kind}  and {more} more") } else { Ok(()) }
}
