//! Following a run until it ends: what is new between two looks.

use crds::RunStep;
use region_plan::RunId;

use crate::view::View;

/// Something that is worth a line.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// A region's phase changed.
    Phase {
        /// Which region.
        region: String,
        /// The phase now; absent: unknown.
        phase: Option<String>,
        /// What its operator says.
        reason: Option<String>,
    },
    /// A step began.
    Began(RunStep),
    /// A step ended, after so many seconds.
    Ended(RunStep, f64),
    /// The verdict changed.
    Summary(String),
}

/// What is new in `now` compared with `before`, in the order in which it happened.
pub fn changes(before: Option<&View>, now: &View) -> Vec<Change> {
    let mut changes = Vec::new();
    for region in &now.regions {
        let old = before.and_then(|view| view.region(&region.name));
        if old
            .is_none_or(|old| old.phase != region.phase || old.unknown.is_some() != region.unknown.is_some())
        {
            let reason = region.unknown.clone().or_else(|| region.reason.clone());
            changes.push(Change::Phase { region: region.name.clone(), phase: region.phase.clone(), reason });
        }
    }
    let followed = now.run.as_ref().or_else(|| before?.run.as_ref()).map(|run| run.summary.id);
    let old_steps: Vec<&RunStep> = before.into_iter().flat_map(|view| steps(view, followed)).collect();
    for step in steps(now, followed) {
        let same =
            old_steps.iter().find(|old| old.region == step.region && old.record.step == step.record.step);
        match (same, step.record.finished_at) {
            (Some(old), _) if old.record.finished_at.is_some() => {}
            (_, Some(end)) => {
                let took = end.duration_since(step.record.started_at).as_secs_f64();
                changes.push(Change::Ended(step.clone(), took));
            }
            (None, None) => changes.push(Change::Began(step.clone())),
            (Some(_), None) => {}
        }
    }
    if before.is_none_or(|before| before.summary != now.summary) {
        changes.push(Change::Summary(now.summary.clone()));
    }
    changes
}

/// Steps of the followed run: its last steps may only be seen once it stands in the history.
fn steps(view: &View, followed: Option<RunId>) -> impl Iterator<Item = &RunStep> {
    let run = view.run.iter().chain(&view.history).find(move |run| Some(run.summary.id) == followed);
    run.into_iter().flat_map(|run| &run.summary.steps)
}
