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
    /// A step is about to be tried for the first time.
    pub(super) fn begun(&self, kind: StepKind, run: Option<&RunReport>) {
        self.normal(kind.name(), "StartStep", &format!("{} begun{}", kind.name(), of(run)));
    }

    /// A step was tried.
    pub(super) fn attempted(&self, attempt: &Attempt, run: Option<&RunReport>) {
        if let Outcome::Refused(why) | Outcome::Unknown(why) = &attempt.outcome {
            let note = format!("{} is tried again{}: {why}", attempt.kind.name(), of(run));
            self.warn(attempt.kind.name(), "TryStep", &note);
        }
    }

    /// The proof of a step was seen.
    pub(super) fn proved(&self, kind: StepKind, took: SignedDuration) {
        let note = format!("{} proved after {:.1} s", kind.name(), took.as_secs_f64());
        self.normal(kind.name(), "ProveStep", &note);
    }

    /// The object stands elsewhere than before.
    pub(super) fn phase(&self, phase: Phase, reason: &str) {
        if phase == Phase::WaitForUser {
            self.warn(phase.name(), "ChangePhase", reason);
        } else {
            self.normal(phase.name(), "ChangePhase", reason);
        }
    }

    fn normal(&self, reason: &str, action: &str, note: &str) {
        self.events.tell(&self.about, Severity::Normal, reason, action, note);
    }

    fn warn(&self, reason: &str, action: &str, note: &str) {
        self.events.tell(&self.about, Severity::Warning, reason, action, note);
    }
}

fn of(run: Option<&RunReport>) -> String {
    run.map_or_else(String::new, |run| format!(" (run {})", run.id))
}
