//! The record of runs: when each step began, when its proof was seen, how often it was tried, and the last ten runs.

use crds::{MAX_HISTORY, MAX_HISTORY_WITH_STEPS, Outcome as RunOutcome, RunStep, RunSummary};
use jiff::Timestamp;
use region_plan::{Mark, RunId, RunReport, SideReport, StepKind, StepRecord};

use super::{Inputs, times};
use crate::apply::Outcome;

/// Ends the time of each proved step. Answers the steps whose time ended just now, with what it was. A step that was made
/// while the object could not be written has no record yet: it gets one that begins and ends now.
pub fn prove(
    side: &mut SideReport,
    proved: &[StepKind],
    now: Timestamp,
) -> Vec<(StepKind, jiff::SignedDuration)> {
    let Some(run) = side.run.as_mut() else { return Vec::new() };
    for kind in proved {
        if untried(run, *kind) {
            note_begun(run, *kind, now);
        }
    }
    let open = run.steps.iter_mut().filter(|r| r.finished_at.is_none() && proved.contains(&r.step));
    open.map(|record| {
        record.finished_at = Some(now);
        (record.step, now.duration_since(record.started_at))
    })
    .collect()
}

/// Whether no attempt of that step was noted in this run.
pub fn untried(run: &RunReport, kind: StepKind) -> bool {
    run.steps.iter().all(|record| record.step != kind)
}

/// Notes the first attempt of a step, which begins now. A record that is written anew in the same run begins anew.
pub fn note_begun(run: &mut RunReport, kind: StepKind, now: Timestamp) {
    run.steps.retain(|record| record.step != kind);
    run.steps.push(StepRecord { step: kind, started_at: now, finished_at: None, attempts: 1, note: None });
}

/// Notes how an attempt of a step ended whose first one was noted; `first`: this is that one. A step that has to be made
/// again after it was proved is open again.
pub fn note_ended(run: &mut RunReport, kind: StepKind, first: bool, outcome: &Outcome) {
    let Some(record) = run.steps.iter_mut().find(|record| record.step == kind) else { return };
    record.finished_at = None;
    record.note = outcome.note();
    if !first && *outcome != Outcome::AlreadyDone {
        record.attempts = record.attempts.saturating_add(1);
    }
}

/// The history with the own last run in it once that has ended. A run in which one region only started is no move.
pub(super) fn of(inputs: &Inputs<'_>, previous: &[RunSummary]) -> Vec<RunSummary> {
    let mut history = previous.to_vec();
    let Some(run) = inputs.side.run.as_ref().filter(|run| run.mark.ended() && !run.is_start()) else {
        return history;
    };
    let known = history.first().is_some_and(|newest| newest.id == run.id);
    // The other side's steps come in until it has left the run too.
    if known && peer_part(inputs, run).is_none() {
        return history;
    }
    let told = if known { history.remove(0).reason } else { inputs.object.spec.transition.reason.clone() };
    let mut ended = summary(inputs, run);
    ended.reason = told;
    history.insert(0, ended);
    history.truncate(MAX_HISTORY);
    drop_old_steps(&mut history);
    history
}

/// Steps stay with the newest runs, and with the newest that finished: what a switch would take is told from those.
fn drop_old_steps(history: &mut [RunSummary]) {
    let mut finished = 0;
    for (age, run) in history.iter_mut().enumerate() {
        finished += usize::from(run.outcome == Some(RunOutcome::Finished));
        let estimates = run.outcome == Some(RunOutcome::Finished) && finished <= MAX_HISTORY_WITH_STEPS;
        if age >= MAX_HISTORY_WITH_STEPS && !estimates {
            run.steps.clear();
        }
    }
}

fn peer_part<'a>(inputs: &'a Inputs<'_>, run: &RunReport) -> Option<&'a RunReport> {
    inputs.world.peer.get()?.as_ref()?.run.as_ref().filter(|part| part.id == run.id)
}

/// A run as people see it: the steps of both sides in the order of their start.
pub(super) fn summary(inputs: &Inputs<'_>, run: &RunReport) -> RunSummary {
    let theirs = peer_part(inputs, run);
    let of = |region: &region_plan::Region, part: &RunReport| -> Vec<RunStep> {
        part.steps.iter().map(|record| RunStep { region: region.clone(), record: record.clone() }).collect()
    };
    let other = if *inputs.me == run.from { &run.to } else { &run.from };
    let mut steps = of(inputs.me, run);
    steps.extend(theirs.map(|part| of(other, part)).unwrap_or_default());
    steps.sort_by_key(|step| (step.record.started_at, step.record.step));
    let (old, new) = if *inputs.me == run.from { (Some(run), theirs) } else { (theirs, Some(run)) };
    let granted = new.and_then(|part| part.grant).or(run.grant);
    RunSummary {
        id: run.id,
        from: run.from.clone(),
        to: run.to.clone(),
        from_epoch: run.from_epoch,
        to_epoch: granted.map(|grant| grant.epoch),
        mode: inputs.object.spec.transition.mode,
        reason: inputs.object.spec.transition.reason.clone(),
        plan_hash: plan_hash(inputs, run.id),
        started_at: run.opened_at,
        ended_at: run.ended_at,
        outcome: outcome(run.mark),
        note: run.reason.clone(),
        steps,
        times: times::of_run(old, new),
    }
}

/// The plan that a person saw, as it was noted when the run began; at its beginning the annotation, if the plan that stood
/// here until now is the same. An annotation of an earlier switch names another epoch's plan.
fn plan_hash(inputs: &Inputs<'_>, run: RunId) -> Option<String> {
    let before = inputs.object.status.as_ref()?;
    let mut known = before.current_run.iter().chain(&before.history);
    if let Some(noted) = known.find(|summary| summary.id == run) {
        return noted.plan_hash.clone();
    }
    let annotations = inputs.object.metadata.annotations.as_ref()?;
    let seen = annotations.get(crds::PLAN_HASH_ANNOTATION)?;
    before.preview.as_ref().filter(|preview| preview.plan_hash == *seen).map(|_| seen.clone())
}

fn outcome(mark: Mark) -> Option<RunOutcome> {
    match mark {
        Mark::Finished => Some(RunOutcome::Finished),
        Mark::Aborted => Some(RunOutcome::Aborted),
        Mark::Declined => Some(RunOutcome::Declined),
        Mark::Proposed | Mark::Accepted | Mark::Fenced | Mark::Begun => None,
    }
}
