//! The side that takes, and leads the run: propose, warm up, begin, move controls and database, grant, open.

use crate::context::{Context, Draft};
use crate::holder::{self, Opening};
use crate::intent::{HookPoint, Mode};
use crate::plan::{Code, Phase};
use crate::report::{Mark, RunReport};
use crate::step::{Flipped, Recorded, Step};
use crate::world::{ControlKey, ControlRole, HookResult, LeaseView, Switch};

/// Whether to open a run: both copies name me, the other side holds the lease, and nothing stands in the way.
pub(crate) fn propose(ctx: &Context<'_>, blocked: bool) -> Option<Draft> {
    let row = ctx.lease()?;
    let peer = ctx.peer()?;
    let wanted = ctx.intent.agreed() == Some(ctx.me) && ctx.intent.mine.mode == Mode::Planned;
    let held_there = row.holder.as_ref() == Some(ctx.other);
    if !wanted || !held_there || blocked || ctx.intent.deleting || peer.open_run().is_some() {
        return None;
    }
    if let Some(ended) = given_up(ctx) {
        let why = ended.reason.as_deref().unwrap_or("no reason recorded");
        let mut draft = Draft::new(
            Phase::WaitForUser,
            format!("the last run was given up ({why}); {}. Change the spec to try again", ctx.writes()),
        );
        draft.finding(Code::RunAborted, format!("run {}: {why}", ended.id));
        return Some(draft);
    }
    let mut run = RunReport::open(ctx.world.fresh.run, ctx.other, ctx.me, row.epoch, Mark::Proposed, ctx.now);
    run.generation = ctx.intent.mine.generation;
    Some(Draft::record(ctx, Phase::Preparing, Recorded::Proposed, run))
}

/// My last run, if it was given up and the spec has not changed since: it is not repeated by itself.
fn given_up<'a>(ctx: &Context<'a>) -> Option<&'a RunReport> {
    ctx.world.mine.run.as_ref().filter(|run| {
        run.mark == Mark::Declined && run.to == *ctx.me && run.generation == ctx.intent.mine.generation
    })
}

/// The next steps of the new side in its open run.
pub(crate) fn advance(ctx: &Context<'_>, run: &RunReport) -> Draft {
    match run.mark {
        Mark::Proposed => before_begin(ctx, run),
        _ => after_begin(ctx, run),
    }
}

fn decline(ctx: &Context<'_>, run: &RunReport, why: &str) -> Draft {
    let mut declined = run.clone();
    declined.mark = Mark::Declined;
    declined.ended_at = Some(ctx.now);
    declined.reason = Some(why.to_owned());
    Draft::record(ctx, Phase::Aborting, Recorded::Declined, declined)
}

fn before_begin(ctx: &Context<'_>, run: &RunReport) -> Draft {
    if ctx.intent.mine.active != *ctx.me || ctx.intent.mine.mode != Mode::Planned {
        return decline(ctx, run, &format!("the spec no longer asks for a planned move to {}", ctx.me));
    }
    if ctx.intent.deleting {
        return decline(ctx, run, "the object is being deleted");
    }
    let Some(peer) = ctx.peer_or_absent() else {
        // The fence may have arrived here before the word of it: then nobody writes, and customers wait.
        let (phase, where_it_stands) = if fence_arrived(ctx, run) {
            (Phase::Promoting, "the old side is fenced for this run, so nobody can write")
        } else {
            (Phase::Preparing, "nothing is decided")
        };
        let mut draft = Draft::new(phase, format!("{} cannot be read; {where_it_stands}", ctx.other));
        draft.wait(format!("the object in {} to be readable", ctx.other));
        return draft;
    };
    let Some(peer) = peer else {
        return decline(ctx, run, &format!("{} has no object any more, or no report in it", ctx.other));
    };
    let theirs = peer.run.as_ref().filter(|part| part.id == run.id);
    match theirs.map(|part| (part.mark, part)) {
        None if ctx.past(run.opened_at, ctx.intent.limits.accept) => {
            decline(ctx, run, &format!("{} did not accept in time; its findings tell why", ctx.other))
        }
        None => {
            let mut draft = Draft::new(Phase::Preparing, format!("asking {} to take part", ctx.other));
            draft.wait_until(format!("{} to accept", ctx.other), run.opened_at, ctx.intent.limits.accept);
            draft
        }
        Some((Mark::Aborted, part)) => {
            decline(ctx, run, part.reason.as_deref().unwrap_or("the old side gave it up"))
        }
        Some((Mark::Fenced, _)) => begin(ctx, run),
        Some(_) => warm_up(ctx, run),
    }
}

/// My own database shows the fence of this run.
fn fence_arrived(ctx: &Context<'_>, run: &RunReport) -> bool {
    ctx.lease().and_then(|row| row.released.as_ref()).is_some_and(|released| {
        released.run == run.id && released.epoch == run.from_epoch && released.to == *ctx.me
    })
}

/// The proof of zero loss: the fence is published, and my own standby shows it, so everything before it has arrived.
fn begin(ctx: &Context<'_>, run: &RunReport) -> Draft {
    if fence_arrived(ctx, run) {
        let mut begun = run.clone();
        begun.mark = Mark::Begun;
        return Draft::record(ctx, Phase::Promoting, Recorded::Begun, begun);
    }
    if ctx.past(run.opened_at, ctx.intent.limits.attention) {
        return decline(
            ctx,
            run,
            "this region's standby did not show the fence in time: is replication broken?",
        );
    }
    let mut draft = Draft::new(Phase::Promoting, "the old side is fenced; its last writes are on their way");
    draft.wait_until("this region's standby to show the fence", run.opened_at, ctx.intent.limits.attention);
    draft
}

fn warm_up(ctx: &Context<'_>, run: &RunReport) -> Draft {
    let mut draft = Draft::new(Phase::Preparing, format!("warming up {}; customers notice nothing", ctx.me));
    if run.warm {
        let cold =
            ctx.fresh(&ctx.world.workloads).is_none_or(|workloads| !holder::unready(workloads).is_empty());
        if cold {
            let mut again = run.clone();
            again.warm = false;
            return Draft::record(ctx, Phase::Preparing, Recorded::Warm, again);
        }
        draft.phase(Phase::Draining, format!("{} empties", ctx.other));
        draft.wait(format!("{} to be fenced", ctx.other));
        return draft;
    }
    let scaled = holder::scale_active(ctx, &mut draft);
    if ctx.past(run.opened_at, ctx.intent.limits.warm) {
        return decline(ctx, run, &not_warm(ctx, scaled));
    }
    if !scaled {
        draft.wait_until(format!("{} to be warm", ctx.me), run.opened_at, ctx.intent.limits.warm);
    } else if ctx.hook_due(HookPoint::PreWarm, run) {
        draft.step(Step::Hook { point: HookPoint::PreWarm, run: run.id, epoch: run.from_epoch });
    } else {
        let mut warm = run.clone();
        warm.warm = true;
        return Draft::record(ctx, Phase::Preparing, Recorded::Warm, warm);
    }
    draft
}

/// Why this region was not warm in time.
fn not_warm(ctx: &Context<'_>, scaled: bool) -> String {
    if !scaled {
        return "the Deployments of this region were not ready in time".to_owned();
    }
    let last = match ctx.world.hook_results.get(&HookPoint::PreWarm) {
        Some(HookResult::Failed { why, .. }) => why.as_str(),
        _ => "no answer yet",
    };
    format!("the Deployments are ready, but a PreWarm hook did not succeed in time ({last})")
}

/// Forward only from here.
fn after_begin(ctx: &Context<'_>, run: &RunReport) -> Draft {
    let mut draft =
        Draft::new(Phase::Promoting, format!("moving routing controls and the database to {}", ctx.me));
    match ctx.lease() {
        // Whoever granted it, this run or a person: the database names this region, and it has to be opened.
        Some(row) if row.holder.as_ref() == Some(ctx.me) && row.epoch > run.from_epoch => {
            if !granted_in(run, row) {
                holder::flip(ctx, Flipped::AppOver, &app_over(ctx), &mut draft);
            }
            if let Some(finished) = open_or_finish(ctx, run, row, &mut draft) {
                return finished;
            }
        }
        Some(row) if row.holder.is_some() && row.epoch > run.from_epoch => {
            let why = format!("{} was granted epoch {} outside of this run", ctx.other, row.epoch);
            return decline(ctx, run, &why);
        }
        row => {
            if let Some(record) = promote(ctx, run, row, &mut draft) {
                return record;
            }
        }
    }
    draft
}

fn granted_in(run: &RunReport, row: &LeaseView) -> bool {
    run.grant.is_some_and(|grant| grant.epoch == row.epoch && grant.id == row.grant_id)
}

/// Controls and database move side by side; the grant follows when both are proved.
fn promote(ctx: &Context<'_>, run: &RunReport, row: Option<&LeaseView>, draft: &mut Draft) -> Option<Draft> {
    let batch = app_over(ctx);
    holder::flip(ctx, Flipped::AppOver, &batch, draft);
    let writable = ctx.writer_here();
    if !writable {
        switch_database(ctx, run, draft);
    }
    let (Some(row), true, true) = (row, writable, ctx.flipped(&batch)) else { return None };
    match run.grant.filter(|grant| grant.epoch > row.epoch) {
        Some(grant) => {
            draft.step(Step::Grant { from_epoch: row.epoch, grant, run: run.id });
            None
        }
        None => {
            let mut granting = run.clone();
            granting.grant = Some(ctx.next_grant(row));
            Some(Draft::record(ctx, Phase::Promoting, Recorded::Epoch, granting))
        }
    }
}

/// The batch that takes the application's control over in one decision.
pub(crate) fn app_over(ctx: &Context<'_>) -> [(ControlKey, Switch); 3] {
    [
        (holder::key(ControlRole::App, ctx.other), Switch::Off),
        (holder::key(ControlRole::Intake, ctx.other), Switch::Off),
        (holder::key(ControlRole::App, ctx.me), Switch::On),
    ]
}

/// RDS calls know no token: the call is made only while the API still shows the old writer and nothing running.
fn switch_database(ctx: &Context<'_>, run: &RunReport, draft: &mut Draft) {
    match ctx.fresh(&ctx.world.global_database) {
        Some(global) if global.writer.as_ref() == Some(&run.from) && !global.switching => {
            draft.step(Step::SwitchDatabase { from: run.from.clone() });
        }
        Some(global) => {
            draft.wait(format!("this region's database to take writes (global cluster: {})", global.status))
        }
        None => draft.wait("the RDS API to describe the global cluster"),
    }
}

fn open_or_finish(ctx: &Context<'_>, run: &RunReport, row: &LeaseView, draft: &mut Draft) -> Option<Draft> {
    draft.phase(Phase::Opening, format!("{} holds epoch {} and opens stage by stage", ctx.me, row.epoch));
    if holder::open(ctx, row, Some(run), draft) == Opening::Underway {
        return None;
    }
    let mut finished = run.clone();
    finished.mark = Mark::Finished;
    finished.ended_at = Some(ctx.now);
    if !granted_in(run, row) {
        finished.reason = Some(format!("epoch {} was granted outside of this run", row.epoch));
    }
    Some(Draft::record(ctx, Phase::Steady, Recorded::Finished, finished))
}
