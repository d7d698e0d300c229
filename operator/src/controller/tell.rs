//! Events about a pass: each step's start and proof, what was refused, and where the object stands.

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::ObjectReference;
use region_plan::{Phase, RunReport, StepKind};

use crate::apply::{Attempt, Outcome};
use crate::events::{Events, Severity};

/// Tells of one object.
pub(super) struct Teller<'a> {
    pub(super) events: &'a Events,
    pub(super) about: ObjectReference,
}

impl Teller<'_> {
    /// A step was tried. `first`: for the first time in its run.
    pub(super) fn attempted(&self, attempt: &Attempt, run: Option<&RunReport>, first: bool) {
        let of_run = run.map_or_else(String::new, |run| format!(" (run {})", run.id));
        match &attempt.outcome {
            Outcome::Done | Outcome::AlreadyDone if first => {
                self.normal(
                    attempt.kind.name(),
                    "StartStep",
                    &format!("{} begun{of_run}", attempt.kind.name()),
                );
            }
            Outcome::Done | Outcome::AlreadyDone => {}
            Outcome::Refused(why) | Outcome::Unknown(why) => {
                let note = format!("{} is tried again{of_run}: {why}", attempt.kind.name());
                self.warn(attempt.kind.name(), "TryStep", &note);
            }
        }
    }

    /// The proof of a step was seen.
    pub(super) fn proved(&self, kind: StepKind, took: SignedDuration) {
        let note = format!("{} proved after {:.1} s", kind.name(), took.as_secs_f64());
        self.normal(kind.name(), "ProveStep", &note);
    }

    /// The object stands elsewhere than before.
    pub(super) fn phase(&self, phase: Phase, reason: &str) {
        let name = format!("{phase:?}");
        if phase == Phase::WaitForUser {
            self.warn(&name, "ChangePhase", reason);
        } else {
            self.normal(&name, "ChangePhase", reason);
        }
    }

    fn normal(&self, reason: &str, action: &str, note: &str) {
        self.events.tell(&self.about, Severity::Normal, reason, action, note);
    }

    fn warn(&self, reason: &str, action: &str, note: &str) {
        self.events.tell(&self.about, Severity::Warning, reason, action, note);
    }
}
