//! The side that gives: accept, close ingress, drain, fence; or give the run up before the fence.

use jiff::Timestamp;

use crate::context::{Context, Draft};
use crate::holder::{self, Opening};
use crate::ids::Epoch;
use crate::intent::{HookPoint, Mode, OnDeadline};
use crate::plan::Phase;
use crate::report::{Grant, Mark, RunReport};
use crate::step::{Flipped, Recorded, Step};
use crate::world::{ControlRole, HookResult, LeaseView, Switch};

/// Whether to take part in the run that the other side proposes. `None`: there is none for me.
pub(crate) fn accept(ctx: &Context<'_>, blocked: bool) -> Option<Draft> {
    let proposed = ctx.peer()?.open_run()?;
    let seen = ctx.world.mine.run.as_ref().is_some_and(|mine| mine.id == proposed.id);
    if proposed.is_start() || proposed.from != *ctx.me || proposed.mark != Mark::Proposed || seen {
        return None;
    }
    let row = ctx.lease()?;
    let mine = row.holder.as_ref() == Some(ctx.me) && row.epoch == proposed.from_epoch;
    let wanted = ctx.intent.agreed() == Some(ctx.other) && ctx.intent.mine.mode == Mode::Planned;
    if !mine || !wanted || blocked || ctx.intent.deleting {
        return None;
    }
    let mut run = RunReport::open(proposed.id, ctx.me, ctx.other, row.epoch, Mark::Accepted, ctx.now);
    run.generation = ctx.intent.mine.generation;
    Some(Draft::record(ctx, Phase::Preparing, Recorded::Accepted, run))
}

/// The next steps of the old side in its open run.
pub(crate) fn advance(ctx: &Context<'_>, run: &RunReport) -> Draft {
    let Some(row) = ctx.lease() else {
        let mut draft = Draft::new(waiting_phase(run), "the lease row cannot be read, so nothing is decided");
        draft.wait("the database of this region to answer");
        if run.mark == Mark::Accepted
            && run.closing_since.is_some_and(|since| ctx.past(since, ctx.intent.drain.deadline))
        {
            let reason =
                format!("ingress of {} is closed and its database does not answer; {}", ctx.me, ctx.writes());
            draft.phase(Phase::WaitForUser, reason);
        }
        return draft;
    };
    let released = row.released.as_ref().is_some_and(|released| released.run == run.id);
    match run.mark {
        Mark::Fenced => after_fence(ctx, run, row),
        _ if released => {
            let mut fenced = run.clone();
            fenced.mark = Mark::Fenced;
            Draft::record(ctx, Phase::Promoting, Recorded::Fenced, fenced)
        }
        _ if row.holder.as_ref() != Some(ctx.me) => {
            end(ctx, run, Mark::Aborted, "the lease left this region outside of the run")
        }
        _ => before_fence(ctx, run, row),
    }
}

fn waiting_phase(run: &RunReport) -> Phase {
    match (run.mark, run.closing_since) {
        (Mark::Fenced, _) => Phase::Promoting,
        (_, Some(_)) => Phase::Draining,
        (_, None) => Phase::Preparing,
    }
}

fn before_fence(ctx: &Context<'_>, run: &RunReport, row: &LeaseView) -> Draft {
    if row.aborted_run == Some(run.id) {
        // The row will refuse this run's fence for ever, whatever is wished for now.
        let why = abort_wish(ctx, run).unwrap_or_else(|| "it was given up in the lease row".to_owned());
        return end(ctx, run, Mark::Aborted, &why);
    }
    if let Some(why) = abort_wish(ctx, run) {
        let mut draft = Draft::new(Phase::Aborting, format!("giving the run up: {why}"));
        draft.step(Step::AbortRun { run: run.id });
        return draft;
    }
    match run.closing_since {
        None => prepare(ctx, run),
        Some(closing_since) => drain(ctx, run, row, closing_since),
    }
}

/// Why the run is to be given up now, if it is.
fn abort_wish(ctx: &Context<'_>, run: &RunReport) -> Option<String> {
    if ctx.intent.mine.active == *ctx.me {
        return Some(format!("the spec names {} again", ctx.me));
    }
    if ctx.intent.mine.mode != Mode::Planned {
        return Some("the spec no longer asks for a planned move".to_owned());
    }
    if ctx.intent.deleting {
        return Some("the object is being deleted".to_owned());
    }
    if let Some(report) = ctx.peer_or_absent() {
        match report.and_then(|report| report.run.as_ref()).filter(|part| part.id == run.id) {
            Some(part) if part.mark == Mark::Declined => {
                return Some(format!(
                    "{} declined: {}",
                    ctx.other,
                    part.reason.as_deref().unwrap_or("no reason given")
                ));
            }
            Some(_) => {}
            None => return Some(format!("{} no longer knows of the run", ctx.other)),
        }
    }
    if run.closing_since.is_none() && ctx.past(run.opened_at, ctx.intent.limits.warm) {
        return Some(format!("{} was not warm in time", ctx.other));
    }
    let overdue = run.closing_since.is_some_and(|since| ctx.past(since, ctx.intent.drain.deadline));
    (overdue && ctx.intent.drain.on_deadline == OnDeadline::Abort)
        .then(|| format!("the drain did not end in time: {}", standing(ctx, run).join(", ")))
}

fn end(ctx: &Context<'_>, run: &RunReport, mark: Mark, why: &str) -> Draft {
    let mut ended = run.clone();
    ended.mark = mark;
    ended.ended_at = Some(ctx.now);
    // Policy Proceed has noted what was left.
    ended.reason =
        Some(run.reason.as_ref().map_or_else(|| why.to_owned(), |noted| format!("{why}; {noted}")));
    let (phase, what) = match mark {
        Mark::Finished => (Phase::Steady, Recorded::Finished),
        _ => (Phase::Aborting, Recorded::Aborted),
    };
    Draft::record(ctx, phase, what, ended)
}

fn prepare(ctx: &Context<'_>, run: &RunReport) -> Draft {
    if ctx.peer_part(run).is_some_and(|part| part.warm && part.mark == Mark::Proposed) {
        let mut closing = run.clone();
        closing.closing_since = Some(ctx.now);
        return Draft::record(ctx, Phase::Draining, Recorded::Closing, closing);
    }
    let mut draft =
        Draft::new(Phase::Preparing, format!("{} warms up; customers are served here", ctx.other));
    draft.wait_until(format!("{} to be warm", ctx.other), run.opened_at, ctx.intent.limits.warm);
    draft
}

fn drain(ctx: &Context<'_>, run: &RunReport, row: &LeaseView, closing_since: Timestamp) -> Draft {
    let mut draft =
        Draft::new(Phase::Draining, format!("ingress of {} is closed and its queues empty", ctx.me));
    let closed = close(ctx, run, &mut draft);
    let left = undrained(ctx);
    let empty = closed && left.is_empty();
    match (empty, run.drained_since) {
        (true, None) => return record_drained(ctx, run, Some(ctx.now)),
        (false, Some(_)) => return record_drained(ctx, run, None),
        _ => {}
    }
    let held = run.drained_since.is_some_and(|since| ctx.past(since, ctx.intent.drain.hold));
    let overdue = ctx.past(closing_since, ctx.intent.drain.deadline);
    if held {
        fence(ctx, run, row, &mut draft);
    } else if overdue && ctx.intent.drain.on_deadline == OnDeadline::Proceed {
        return proceed(ctx, run, row, draft);
    } else if overdue {
        let left = standing(ctx, run).join(", ");
        draft.phase(Phase::WaitForUser, format!("the drain did not end; {} holds the lease: {left}", ctx.me));
    } else if let Some(since) = run.drained_since {
        draft.wait_until("the drain checks to stay at zero", since, ctx.intent.drain.hold);
    } else {
        draft.wait_until(
            format!("the drain: {}", standing(ctx, run).join(", ")),
            closing_since,
            ctx.intent.drain.deadline,
        );
    }
    draft
}

/// Policy Proceed: what is left is written down first, then the lease is given up over it.
fn proceed(ctx: &Context<'_>, run: &RunReport, row: &LeaseView, mut draft: Draft) -> Draft {
    if run.reason.is_none() {
        let mut noted = run.clone();
        noted.reason = Some(format!("gone on at the deadline with: {}", standing(ctx, run).join(", ")));
        return Draft::record(ctx, Phase::Draining, Recorded::Drained, noted);
    }
    fence(ctx, run, row, &mut draft);
    draft
}

fn record_drained(ctx: &Context<'_>, run: &RunReport, since: Option<Timestamp>) -> Draft {
    let mut changed = run.clone();
    changed.drained_since = since;
    Draft::record(ctx, Phase::Draining, Recorded::Drained, changed)
}

/// Closes the ingress. Answers whether it is proved closed: three endpoints say Off, no customer may publish, and no
/// connection is left that may be older than that. Later connections are not waited for: they never had the permission.
/// While something is left to drain they are closed all the same, should one of them have been overlooked.
fn close(ctx: &Context<'_>, run: &RunReport, draft: &mut Draft) -> bool {
    let off = [(holder::key(ControlRole::Ingress, ctx.me), Switch::Off)];
    holder::flip(ctx, Flipped::IngressOff, &off, draft);
    let cut = match ctx.fresh(&ctx.world.broker) {
        Some(broker) => {
            let cut = !broker.customers_may_write
                && (broker.old_customer_connections == 0 || run.drained_since.is_some());
            if !cut || (broker.customer_connections > 0 && !undrained(ctx).is_empty()) {
                draft.step(Step::CloseBroker);
            }
            cut
        }
        None => {
            draft.wait("the broker to answer, to show that no customer is connected");
            false
        }
    };
    cut && ctx.flipped(&off)
}

/// Drain checks that are not known to be zero, in words.
fn undrained(ctx: &Context<'_>) -> Vec<String> {
    ctx.world
        .drain
        .iter()
        .filter_map(|(name, fact)| match ctx.fresh(fact) {
            Some(0) => None,
            Some(left) => Some(format!("{name} is {left}")),
            None => Some(format!("{name} is not known")),
        })
        .collect()
}

/// What stands between a closing side and its fence, in words.
fn standing(ctx: &Context<'_>, run: &RunReport) -> Vec<String> {
    let mut left = undrained(ctx);
    if !ctx.is(ControlRole::Ingress, ctx.me, Switch::Off) {
        left.push("ingress is not read Off by three endpoints".to_owned());
    }
    match ctx.fresh(&ctx.world.broker) {
        Some(broker) if broker.customer_connections > 0 || broker.customers_may_write => {
            left.push(format!("{} customer connections", broker.customer_connections));
        }
        Some(_) => {}
        None => left.push("the broker does not answer".to_owned()),
    }
    if !ctx.peer_part(run).is_some_and(|part| part.warm) {
        left.push(format!("{} does not confirm that it takes over", ctx.other));
    }
    if left.is_empty() { vec!["zero, not yet for long enough".to_owned()] } else { left }
}

/// The fence needs the other side's word, read live: it still wants this run and is warm.
fn fence(ctx: &Context<'_>, run: &RunReport, row: &LeaseView, draft: &mut Draft) {
    match ctx.peer_part(run) {
        Some(part) if part.mark == Mark::Proposed && part.warm => {
            let grant = Grant { epoch: row.epoch, id: row.grant_id };
            draft.0.steps.clear();
            draft.step(Step::Fence { grant, run: run.id, to: ctx.other.clone() });
            let reason = run.reason.clone().unwrap_or_else(|| "empty".to_owned());
            draft.phase(Phase::Draining, format!("{reason}; giving the lease up"));
        }
        Some(_) | None => {
            draft.wait(format!("{} to confirm that it takes over", ctx.other));
        }
    }
}

fn after_fence(ctx: &Context<'_>, run: &RunReport, row: &LeaseView) -> Draft {
    let theirs = ctx.peer_part(run);
    let taken = row.holder.as_ref() == Some(ctx.other) && row.epoch > run.from_epoch;
    if row.holder.as_ref() == Some(ctx.me) && row.epoch > run.from_epoch {
        return take_back(ctx, run, row);
    }
    match theirs.map(|part| part.mark) {
        Some(Mark::Finished) if drained_hook_due(ctx, run) => return last_hook(ctx, run),
        Some(Mark::Finished) => return end(ctx, run, Mark::Finished, "the new side is active"),
        // It declined and was granted the lease all the same: by a person.
        Some(Mark::Declined) if taken => return left_with_lease(ctx, run),
        Some(Mark::Declined) => return take_back(ctx, run, row),
        None if taken
            && (ctx.peer_or_absent().is_some() || ctx.past(run.opened_at, ctx.intent.limits.attention)) =>
        {
            return left_with_lease(ctx, run);
        }
        None if ctx.peer_or_absent().is_some() => return forgotten(ctx, run, row),
        _ => {}
    }
    let mut draft = Draft::new(Phase::Promoting, format!("fenced; {} takes over", ctx.other));
    // Pods stay until the run has ended: the application answers its own hook, this side may have to take the lease
    // back, and nothing that customers wait for shall have to share a machine or an API server with pods that end. A new
    // side that holds the lease and never finishes does not keep them for ever.
    let overdue = ctx.past(run.opened_at, ctx.intent.limits.attention);
    if drained_hook_due(ctx, run) {
        draft.step(Step::Hook { point: HookPoint::Drained, run: run.id, epoch: run.from_epoch });
    } else if let Some(workloads) = ctx.fresh(&ctx.world.workloads).filter(|_| taken && overdue) {
        holder::scale_standby(workloads, &mut draft);
    }
    close_answers(ctx, &mut draft);
    draft.wait_until(format!("{} to be active", ctx.other), run.opened_at, ctx.intent.limits.attention);
    draft
}

/// The Drained hooks are part of the run, but not for ever: nothing rests on them, so one that failed past its
/// deadline does not keep the run open.
fn drained_hook_due(ctx: &Context<'_>, run: &RunReport) -> bool {
    let late = matches!(
        ctx.world.hook_results.get(&HookPoint::Drained),
        Some(HookResult::Failed { late: true, .. })
    );
    ctx.hook_due(HookPoint::Drained, run) && !late && !ctx.past(run.opened_at, ctx.intent.limits.attention)
}

/// The new side is active and only this side's own hooks are left.
fn last_hook(ctx: &Context<'_>, run: &RunReport) -> Draft {
    let mut draft = Draft::new(Phase::Promoting, format!("{} is active; hooks of this side end", ctx.other));
    draft.step(Step::Hook { point: HookPoint::Drained, run: run.id, epoch: run.from_epoch });
    draft.wait_until("the Drained hooks of this side", run.opened_at, ctx.intent.limits.attention);
    draft
}

/// Nothing more will be answered here: who reads answers looks for the new side.
fn close_answers(ctx: &Context<'_>, draft: &mut Draft) {
    if ctx.fresh(&ctx.world.broker).is_some_and(|broker| broker.answer_connections > 0) {
        draft.step(Step::CloseAnswers);
    }
}

fn left_with_lease(ctx: &Context<'_>, run: &RunReport) -> Draft {
    end(ctx, run, Mark::Finished, "the new side holds the lease and has left the run")
}

/// The other side's object can be read and does not know the run: its report was lost. Only a person can tell which
/// side shall write; naming this one is the word that lets it take the lease again.
fn forgotten(ctx: &Context<'_>, run: &RunReport, row: &LeaseView) -> Draft {
    if ctx.intent.agreed() == Some(ctx.me) {
        return take_back(ctx, run, row);
    }
    let way_out = if ctx.writer_here() {
        format!(
            "name {} as activeRegion in both copies to let it take the lease again, then switch anew",
            ctx.me
        )
    } else {
        format!("the database's writer is not in {}: move it back first, or see the break-glass page", ctx.me)
    };
    let reason = format!("fenced, and {} no longer knows of the run; {}; {way_out}", ctx.other, ctx.writes());
    Draft::new(Phase::WaitForUser, reason)
}

/// The other side declined after the fence: nobody holds the lease, and only this side may take it again.
fn take_back(ctx: &Context<'_>, run: &RunReport, row: &LeaseView) -> Draft {
    if row.holder.as_ref() == Some(ctx.me) && row.epoch > run.from_epoch {
        let mut draft = Draft::new(Phase::Aborting, format!("{} holds the lease again and opens", ctx.me));
        // The run stays open until its hooks have shown that a write goes through in the new epoch.
        return match holder::open(ctx, row, Some(run), &mut draft) {
            Opening::Underway => draft,
            Opening::Open => {
                end(ctx, run, Mark::Aborted, "declined after the fence; the lease was taken again")
            }
        };
    }
    if !ctx.writer_here() {
        let mut draft = Draft::new(Phase::Aborting, "nobody writes: the lease is to be taken again");
        draft.wait("this region's database to take writes");
        return draft;
    }
    match run.grant.filter(|grant| grant.epoch > row.epoch.max(Epoch(0))) {
        None => {
            let mut granting = run.clone();
            granting.grant = Some(ctx.next_grant(row));
            Draft::record(ctx, Phase::Aborting, Recorded::Epoch, granting)
        }
        Some(grant) => {
            let mut draft = Draft::new(Phase::Aborting, "nobody writes: taking the lease again");
            draft.step(Step::Grant { from_epoch: row.epoch, grant, run: run.id });
            draft
        }
    }
}
