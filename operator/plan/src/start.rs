//! A start: a run of one region that takes a lease that nobody holds, or that its holder cannot use any more.

use crate::context::{Context, Draft};
use crate::holder::{self, Opening};
use crate::plan::Phase;
use crate::report::{Grant, Mark, RunReport, SideReport};
use crate::step::{Flipped, Recorded, Step};
use crate::target;
use crate::world::{ControlRole, LeaseView, Switch, Validity};

/// The orphan rule: the writer moved here without a run, the row still names the other region, and its lease has run
/// out by this writer's own clock. The other region can neither renew nor write, so this one may take the lease.
pub(crate) fn orphaned(ctx: &Context<'_>, row: &LeaseView) -> bool {
    let settled = ctx.fresh(&ctx.world.global_database).is_some_and(|global| !global.switching);
    let unused = matches!(row.validity, Validity::Expired | Validity::NeverRenewed);
    let no_run = ctx.peer_or_absent().is_some_and(|peer| peer.and_then(SideReport::open_run).is_none());
    row.holder.as_ref() == Some(ctx.other)
        && unused
        && settled
        && no_run
        && ctx.writer_here()
        && ctx.writer_region() == Some(ctx.me)
}

/// Opens the start; the epoch is written down before it is granted.
pub(crate) fn take_over(ctx: &Context<'_>, row: &LeaseView) -> Draft {
    let mut run = RunReport::open(ctx.world.fresh.run, ctx.me, ctx.me, row.epoch, Mark::Begun, ctx.now);
    run.generation = ctx.intent.mine.generation;
    run.grant = Some(ctx.next_grant(row));
    Draft::record(ctx, Phase::Starting, Recorded::Epoch, run)
}

/// The next steps of a start.
pub(crate) fn advance(ctx: &Context<'_>, run: &RunReport) -> Draft {
    if ctx.intent.deleting {
        return end(ctx, run, Mark::Declined, "the object is being deleted");
    }
    let mut draft = Draft::new(Phase::Starting, format!("{} takes the lease; {}", ctx.me, ctx.writes()));
    let Some(row) = ctx.lease() else {
        draft.wait("the database of this region to answer");
        return draft;
    };
    let Some(grant) = run.grant else {
        return end(ctx, run, Mark::Declined, "the start carried no grant");
    };
    match row.holder.as_ref() {
        Some(holder) if holder == ctx.me && row.epoch == grant.epoch && row.grant_id == grant.id => {
            if holder::open(ctx, row, Some(run), &mut draft) == Opening::Open {
                return end(ctx, run, Mark::Finished, "active");
            }
        }
        Some(_) if row.epoch == run.from_epoch && !row.validity.is_open() => {
            if orphaned(ctx, row) {
                let batch = target::app_over(ctx);
                holder::flip(ctx, Flipped::AppOver, &batch, &mut draft);
                grant_once(ctx, run, row, grant, ctx.flipped(&batch), &mut draft);
            } else {
                draft.wait(format!("proof that {} can neither renew nor write", ctx.other));
            }
        }
        Some(_) => return end(ctx, run, Mark::Declined, "somebody else took the lease first"),
        None if row.epoch >= grant.epoch => {
            return end(ctx, run, Mark::Declined, "the epoch was used meanwhile");
        }
        None => {
            let app = [(holder::key(ControlRole::App, ctx.me), Switch::On)];
            if !ctx.flipped(&app) && ctx.is(ControlRole::App, ctx.other, Switch::Off) {
                holder::flip(ctx, Flipped::AppOn, &app, &mut draft);
            } else if !ctx.flipped(&app) {
                draft.wait(format!("{}'s application control to be Off", ctx.other));
            }
            grant_once(ctx, run, row, grant, ctx.flipped(&app), &mut draft);
        }
    }
    draft
}

fn grant_once(
    ctx: &Context<'_>,
    run: &RunReport,
    row: &LeaseView,
    grant: Grant,
    flipped: bool,
    draft: &mut Draft,
) {
    if !flipped {
        return;
    }
    if ctx.writer_here() {
        draft.step(Step::Grant { from_epoch: row.epoch, grant, run: run.id });
    } else {
        draft.wait(format!("the database's writer to be in {}", ctx.me));
    }
}

fn end(ctx: &Context<'_>, run: &RunReport, mark: Mark, why: &str) -> Draft {
    let mut ended = run.clone();
    ended.mark = mark;
    ended.ended_at = Some(ctx.now);
    ended.reason = Some(why.to_owned());
    let what = if mark == Mark::Finished { Recorded::Finished } else { Recorded::Declined };
    Draft::record(ctx, Phase::Starting, what, ended)
}
