//! What is written into the object: built by pure functions from world and plan, and not written when it is equal.

mod conditions;
mod history;
mod times;

use crds::{
    CheckReading, Duration as Span, DurationReading, LeaseReading, Preview, PreviewStep, RunTimes,
    TradingRegion, TradingRegionStatus,
};
use jiff::{SignedDuration, Timestamp};
use region_plan::{Fact, Finding, Intent, Opened, Plan, Region, SideReport, World};

pub use history::{note_begun, note_ended, prove, untried};

/// Bounds of the lists in the schema.
const MOST_WAITS: usize = 32;
const MOST_FINDINGS: usize = 64;
/// Numbers that change in every pass, and the other side's steps, are written at most this often.
const PERIOD_IN_RUN: SignedDuration = SignedDuration::from_secs(1);
const PERIOD: SignedDuration = SignedDuration::from_secs(10);

/// Everything that a status tells.
#[derive(Debug)]
pub struct Inputs<'a> {
    /// The time of this pass.
    pub now: Timestamp,
    /// The own region.
    pub me: &'a Region,
    /// The object as it was read.
    pub object: &'a TradingRegion,
    /// What people want.
    pub intent: &'a Intent,
    /// What was observed.
    pub world: &'a World,
    /// What was decided.
    pub plan: &'a Plan,
    /// What a switch would do, if one could be told.
    pub preview: Option<region_plan::Preview>,
    /// The report to publish.
    pub side: SideReport,
    /// How long guards still accept without a renewal; `None` in it: no limit.
    pub lease_remaining: Fact<Option<SignedDuration>>,
    /// How far the own standby is behind; unknown where the own database is the writer.
    pub lag: Option<Fact<SignedDuration>>,
    /// What the spec names and cannot be used.
    pub bad_references: &'a [String],
}

/// The whole status of this pass.
pub fn build(inputs: Inputs<'_>) -> TradingRegionStatus {
    let previous = inputs.object.status.clone().unwrap_or_default();
    let lease = inputs.world.lease.get().and_then(Option::as_ref);
    let mut waits = inputs.plan.waits.clone();
    waits.truncate(MOST_WAITS);
    let conditions = conditions::all(&inputs, previous.conditions.clone());
    let history = history::of(&inputs, &previous.history);
    let run_open = inputs.side.open_run().is_some();
    TradingRegionStatus {
        observed_generation: inputs.object.metadata.generation,
        active_region: lease.and_then(|row| row.holder.clone()),
        epoch: lease.map(|row| row.epoch),
        phase: Some(inputs.plan.phase),
        reason: Some(inputs.plan.reason.clone()),
        waits,
        findings: first(&inputs.plan.findings, MOST_FINDINGS),
        preview: if run_open {
            None
        } else {
            inputs.preview.as_ref().map(|preview| shown(preview, &history))
        },
        current_run: inputs.side.open_run().map(|run| history::summary(&inputs, run)),
        history,
        lag: inputs.lag.as_ref().map(|lag| DurationReading::from(&lag.clone().map(Span::from))),
        drain: inputs.world.drain.iter().map(|(name, fact)| CheckReading::new(name, fact)).collect(),
        lease: Some(lease_reading(&inputs)),
        conditions,
        operator_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        side: Some(inputs.side),
    }
}

fn first(findings: &[Finding], most: usize) -> Vec<Finding> {
    findings.iter().take(most).cloned().collect()
}

fn lease_reading(inputs: &Inputs<'_>) -> LeaseReading {
    let (row, at, unknown) = match &inputs.world.lease {
        Fact::Known { value, at } => (value.as_ref(), Some(*at), None),
        Fact::Unknown { why } => (None, None, Some(why.clone())),
    };
    LeaseReading {
        holder: row.and_then(|row| row.holder.clone()),
        epoch: row.map(|row| row.epoch),
        remaining: inputs.lease_remaining.get().copied().flatten().map(Span::from),
        at,
        unknown,
    }
}

fn shown(preview: &region_plan::Preview, history: &[crds::RunSummary]) -> Preview {
    let step = |step: &region_plan::PreviewStep| PreviewStep {
        region: step.region.clone(),
        step: step.step,
        estimate: times::median_of_step(history, step.step),
        no_return: step.point_of_no_return,
    };
    Preview {
        to: preview.to.clone(),
        plan_hash: preview.hash.clone(),
        steps: preview.steps.iter().map(step).collect(),
        estimate: times::median(history, |times| times.total),
        unavailable: times::median(history, |times| times.unavailable),
        blocking: first(&preview.blocking, MOST_FINDINGS),
    }
}

/// Whether `new` is worth a write over what the object holds, last written at `written`.
pub fn worth_writing(
    old: Option<&TradingRegionStatus>,
    new: &TradingRegionStatus,
    written: Option<Timestamp>,
    now: Timestamp,
) -> bool {
    let Some(old) = old else { return true };
    if steady_part(old) != steady_part(new) {
        return true;
    }
    let period = if new.current_run.is_some() { PERIOD_IN_RUN } else { PERIOD };
    old != new && written.is_none_or(|written| now.duration_since(written) >= period)
}

/// The status without what changes in every pass: ages, remaining times, counts that move, numbers of attempts; and without
/// the other side's steps, which its own copy tells: two copies that answer each other would write without end.
fn steady_part(status: &TradingRegionStatus) -> TradingRegionStatus {
    let mut part = status.clone();
    part.lag = None;
    part.lease = None;
    part.reason = part.reason.as_deref().map(without_digits);
    for check in &mut part.drain {
        check.at = None;
        check.value = check.value.map(|_| 0);
    }
    for wait in &mut part.waits {
        wait.on = without_digits(&wait.on);
    }
    for finding in &mut part.findings {
        finding.message = without_digits(&finding.message);
    }
    for condition in &mut part.conditions {
        condition.message = without_digits(&condition.message);
    }
    if let Some(run) = &mut part.current_run {
        let me = part.side.as_ref().map(|side| &side.region);
        run.steps.retain(|step| Some(&step.region) == me);
        run.times = RunTimes::default();
    }
    let own_run = part.side.iter_mut().filter_map(|side| side.run.as_mut()).flat_map(|run| &mut run.steps);
    own_run.for_each(|record| record.attempts = 0);
    let shown = part.current_run.iter_mut().chain(&mut part.history).flat_map(|run| &mut run.steps);
    shown.for_each(|step| step.record.attempts = 0);
    part
}

fn without_digits(text: &str) -> String {
    text.chars().filter(|c| !c.is_ascii_digit()).collect()
}

/// Whether the own side holds a lease that has been opened for traffic.
pub(crate) fn holds_open(inputs: &Inputs<'_>) -> bool {
    inputs
        .world
        .lease
        .get()
        .and_then(Option::as_ref)
        .is_some_and(|row| row.holder.is_some() && row.opened == Opened::Intake)
}

#[cfg(test)]
mod tests;
