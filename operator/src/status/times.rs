//! Where a run's time went, and what the next one may be expected to take.

use crds::{Duration, Outcome, RunSummary, RunTimes};
use jiff::{SignedDuration, Timestamp};
use region_plan::{RunReport, StepKind};

/// The parts of a run's time, from both sides' reports.
pub(super) fn of_run(old: Option<&RunReport>, new: Option<&RunReport>) -> RunTimes {
    let opened = new.or(old).map(|part| part.opened_at);
    let ended = new.or(old).and_then(|part| part.ended_at);
    let closing = old.and_then(|part| part.closing_since);
    let fenced = finished(old, StepKind::Fence);
    let granted = finished(new, StepKind::Grant);
    let ingress = finished(new, StepKind::FlipIngressOn);
    RunTimes {
        total: between(opened, ended),
        prepare: between(opened, closing),
        drain: between(closing, fenced),
        promote: between(fenced, granted),
        open: between(granted, ingress),
        unavailable: between(closing, ingress),
    }
}

fn finished(part: Option<&RunReport>, kind: StepKind) -> Option<Timestamp> {
    part?.steps.iter().find(|record| record.step == kind)?.finished_at
}

fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<Duration> {
    Some(Duration::from(to?.duration_since(from?)))
}

/// The median of one part of the time over the finished runs.
pub(super) fn median(
    history: &[RunSummary],
    part: impl Fn(&RunTimes) -> Option<Duration>,
) -> Option<Duration> {
    middle(finished_runs(history).filter_map(|run| part(&run.times)).map(Duration::get).collect())
}

/// The median time of one step over the finished runs.
pub(super) fn median_of_step(history: &[RunSummary], kind: StepKind) -> Option<Duration> {
    let took = |run: &RunSummary| {
        let record = &run.steps.iter().find(|step| step.record.step == kind)?.record;
        Some(record.finished_at?.duration_since(record.started_at))
    };
    middle(finished_runs(history).filter_map(took).collect())
}

fn finished_runs(history: &[RunSummary]) -> impl Iterator<Item = &RunSummary> {
    history.iter().filter(|run| run.outcome == Some(Outcome::Finished))
}

fn middle(mut spans: Vec<SignedDuration>) -> Option<Duration> {
    spans.sort();
    spans.get(spans.len() / 2).copied().map(Duration::from)
}
