//! From intent and world to a plan: which role this side has, and what is next in it.

use jiff::Timestamp;

use crate::context::{Context, Draft};
use crate::findings;
use crate::ids::Region;
use crate::intent::{HookPoint, Intent, Management, Mode};
use crate::plan::{Phase, Plan};
use crate::proofs;
use crate::report::RunReport;
use crate::world::{HookResult, World};
use crate::{release, source, start, steady, target};

/// Decides what region `me` does next.
///
/// Pure: the same inputs give the same plan. `now` is the caller's clock; facts carry the time at which they were
/// read by the same clock. Nothing is decided on a fact that is unknown or older than `intent.limits.fact_age`.
pub fn decide(now: Timestamp, me: &Region, intent: &Intent, world: &World) -> Plan {
    let Some(other) = intent.other(me) else {
        return Draft::new(Phase::WaitForUser, format!("the object does not name a region besides {me}")).0;
    };
    let ctx = Context { now, me, other, intent, world };
    let findings = findings::collect(&ctx);
    let blocked = findings.iter().any(|finding| finding.code.blocks());
    let mut plan = role(&ctx, blocked).0;
    plan.findings.extend(findings);
    plan.findings.sort();
    plan.findings.dedup();
    plan.proved = proofs::proved(&ctx);
    match intent.management {
        Management::Manage => plan,
        Management::Observe => observed_only(plan, world.mine.open_run()),
    }
}

fn role(ctx: &Context<'_>, blocked: bool) -> Draft {
    let run = ctx.world.mine.open_run();
    // An object that only observes owes nobody anything, not even in mid-run.
    if ctx.intent.deleting && (run.is_none() || ctx.intent.management == Management::Observe) {
        return release::release(ctx);
    }
    if let Some(draft) = steady::restored(ctx) {
        return draft;
    }
    if let Some(run) = run {
        return in_run(ctx, run);
    }
    let failover = ctx.intent.mine.mode != Mode::Planned;
    if !failover && let Some(draft) = source::accept(ctx, blocked).or_else(|| target::propose(ctx, blocked)) {
        return draft;
    }
    steady::keep(ctx, blocked)
}

fn in_run(ctx: &Context<'_>, run: &RunReport) -> Draft {
    let answered = answered_hooks(ctx, run);
    let mut run = run.clone();
    run.hooks_done.extend(&answered);
    let mut draft = if run.is_start() {
        start::advance(ctx, &run)
    } else if run.to == *ctx.me {
        target::advance(ctx, &run)
    } else {
        source::advance(ctx, &run)
    };
    if !draft.is_record() {
        ctx.attention(&run, &mut draft);
    }
    draft.0.hooks_done = answered;
    draft
}

/// Hooks that answered success since the report was written: what follows rests on their answer.
fn answered_hooks(ctx: &Context<'_>, run: &RunReport) -> Vec<HookPoint> {
    let succeeded = |point: &HookPoint| {
        ctx.hook_due(*point, run) && ctx.world.hook_results.get(point) == Some(&HookResult::Succeeded)
    };
    HookPoint::ALL.into_iter().filter(succeeded).collect()
}

/// `managed: Observe`: the same decision, told and not made. Only a leaving object is let go: it owes nobody anything.
/// A run that is open meanwhile stands still, which a person must know of.
fn observed_only(mut plan: Plan, run: Option<&RunReport>) -> Plan {
    if plan.phase == Phase::Releasing {
        return plan;
    }
    let would: Vec<&str> = plan.steps.iter().map(|step| step.kind().name()).collect();
    plan.reason = match would.as_slice() {
        [] => format!("observing only; {}", plan.reason),
        steps => format!("observing only; would now do {}; {}", steps.join(", "), plan.reason),
    };
    plan.steps.clear();
    plan.phase = Phase::Observing;
    if let Some(run) = run {
        plan.phase = Phase::WaitForUser;
        plan.reason = format!(
            "managed is Observe while run {} is open: it stands still until managed is Manage again; {}",
            run.id, plan.reason
        );
    }
    plan
}
