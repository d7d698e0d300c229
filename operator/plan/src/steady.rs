//! No run is open: keep the holder open, keep the other side closed, take a lease that nobody holds.

use crate::context::{Context, Draft};
use crate::holder::{self, Opening};
use crate::intent::Mode;
use crate::plan::Phase;
use crate::report::{Grant, Mark, RunReport};
use crate::step::{Flipped, Recorded, Step};
use crate::world::{ControlKey, ControlRole, LeaseView, Opened, Switch, Validity};

/// What a side does while no run is open.
pub(crate) fn keep(ctx: &Context<'_>) -> Draft {
    let Some(row) = ctx.lease() else {
        let mut draft = Draft::new(Phase::Starting, "the lease row is not known, so nothing is decided");
        draft.wait("the lease row of this application in this region's database");
        return draft;
    };
    match row.holder.as_ref() {
        Some(holder) if holder == ctx.me => active(ctx, row),
        Some(_) => standby(ctx),
        None => vacant(ctx, row),
    }
}

fn active(ctx: &Context<'_>, row: &LeaseView) -> Draft {
    let mut draft = Draft::new(Phase::Steady, format!("active in {}, epoch {}", ctx.me, row.epoch));
    holder::note_unready(ctx, &mut draft);
    let underway = holder::open(ctx, row, None, &mut draft) == Opening::Underway;
    limit_again(row, &mut draft);
    let open = row.opened == Opened::Intake && row.validity.is_open();
    if underway && open {
        draft.phase(
            Phase::Steady,
            format!("active in {}, epoch {}; putting right what differs", ctx.me, row.epoch),
        );
    } else if underway {
        draft.phase(Phase::Starting, format!("{} holds epoch {} and opens", ctx.me, row.epoch));
    }
    if ctx.intent.agreed() == Some(ctx.other) && ctx.intent.mine.mode == Mode::Planned {
        draft.wait(format!("{} to open a run", ctx.other));
    }
    draft
}

/// An object that manages the application again after another one was deleted takes the lease back under renewal. The limit
/// itself comes with a renewal, so without a keeper that has permission nothing changes and trading goes on.
fn limit_again(row: &LeaseView, draft: &mut Draft) {
    match row.validity {
        Validity::HandedBack => {
            draft.step(Step::LimitAgain { grant: Grant { epoch: row.epoch, id: row.grant_id } });
        }
        Validity::LimitAsked => draft.wait("the keeper to give the lease a limit again by a renewal"),
        _ => {}
    }
}

/// The other side holds the lease: this side is closed, its controls Off, its workloads at standby size.
fn standby(ctx: &Context<'_>) -> Draft {
    let mut draft = Draft::new(Phase::Steady, format!("on standby; {} is active", ctx.other));
    let roles = [ControlRole::App, ControlRole::Intake, ControlRole::Ingress];
    let off: Vec<(ControlKey, Switch)> = roles
        .into_iter()
        .filter(|role| ctx.is(*role, ctx.me, Switch::On))
        .map(|role| (holder::key(role, ctx.me), Switch::Off))
        .collect();
    if !off.is_empty() {
        draft.step(Step::Flip { what: Flipped::OwnOff, batch: off });
    }
    if ctx.fresh(&ctx.world.broker).is_some_and(|broker| broker.customers_may_write) {
        draft.step(Step::CloseBroker);
    }
    if let Some(workloads) = ctx.fresh(&ctx.world.workloads) {
        holder::scale_standby(workloads, &mut draft);
    }
    draft
}

/// Nobody holds the lease: the first start, or a switch of the database that was left without a grant. A region
/// takes it only when both copies name it, its own database is the writer, and the other side has no run open.
fn vacant(ctx: &Context<'_>, row: &LeaseView) -> Draft {
    let mut draft = Draft::new(Phase::Starting, "nobody holds the lease");
    let Some(peer) = ctx.peer_or_absent() else {
        draft.wait(format!("the object in {} to be readable", ctx.other));
        return draft;
    };
    if ctx.intent.agreed() != Some(ctx.me) {
        draft.wait(format!("{} to take the lease, or both copies to name one region", ctx.other));
        return draft;
    }
    if peer.is_some_and(|report| report.open_run().is_some()) {
        draft.wait(format!("the run that {} has open", ctx.other));
        return draft;
    }
    if row.released.as_ref().is_some_and(|released| released.to != *ctx.me && released.epoch == row.epoch) {
        draft.phase(Phase::WaitForUser, "the lease was released to the other region; nobody can write now");
        return draft;
    }
    if ctx.fresh(&ctx.world.writable) != Some(&true) || ctx.writer_region() != Some(ctx.me) {
        draft.wait(format!("the database's writer to be in {}", ctx.me));
        return draft;
    }
    let mut run = RunReport::open(ctx.world.fresh.run, ctx.me, ctx.me, row.epoch, Mark::Begun, ctx.now);
    run.generation = ctx.intent.mine.generation;
    run.grant = Some(ctx.next_grant(row));
    Draft::record(ctx, Phase::Starting, Recorded::Epoch, run)
}

/// The next steps of a start: a run of one region that takes a lease that nobody holds.
pub(crate) fn start(ctx: &Context<'_>, run: &RunReport) -> Draft {
    let mut draft = Draft::new(Phase::Starting, format!("{} takes the lease that nobody holds", ctx.me));
    let Some(row) = ctx.lease() else {
        draft.wait("the database of this region to answer");
        return draft;
    };
    let Some(grant) = run.grant else {
        return end_start(ctx, run, Mark::Declined, "the start carried no grant");
    };
    match row.holder.as_ref() {
        Some(holder) if holder == ctx.me && row.epoch == grant.epoch && row.grant_id == grant.id => {
            if holder::open(ctx, row, Some(run), &mut draft) == Opening::Open {
                return end_start(ctx, run, Mark::Finished, "active");
            }
        }
        Some(_) => return end_start(ctx, run, Mark::Declined, "somebody else took the lease first"),
        None if row.epoch >= grant.epoch => {
            return end_start(ctx, run, Mark::Declined, "the epoch was used meanwhile");
        }
        None => {
            let app = [(holder::key(ControlRole::App, ctx.me), Switch::On)];
            if ctx.flipped(&app) {
                draft.step(Step::Grant { from_epoch: row.epoch, grant, run: run.id });
            } else if ctx.is(ControlRole::App, ctx.other, Switch::Off) {
                holder::flip(ctx, Flipped::AppOn, &app, &mut draft);
            } else {
                draft.wait(format!("{}'s application control to be Off", ctx.other));
            }
        }
    }
    draft
}

fn end_start(ctx: &Context<'_>, run: &RunReport, mark: Mark, why: &str) -> Draft {
    let mut ended = run.clone();
    ended.mark = mark;
    ended.ended_at = Some(ctx.now);
    ended.reason = Some(why.to_owned());
    let what = if mark == Mark::Finished { Recorded::Finished } else { Recorded::Declined };
    Draft::record(ctx, Phase::Starting, what, ended)
}
