//! The object goes; trading stays. The lease is handed to its present holder without a limit.

use crate::context::{Context, Draft};
use crate::intent::Management;
use crate::plan::Phase;
use crate::report::{Grant, Mark, SideReport};
use crate::steady;
use crate::step::Step;
use crate::world::Validity;

/// What is left to do before the API server may delete the object.
pub(crate) fn release(ctx: &Context<'_>) -> Draft {
    let mut draft = Draft::new(Phase::Releasing, "the object is being deleted; trading goes on without it");
    if ctx.intent.management == Management::Observe {
        draft.step(Step::RemoveFinalizer);
        return draft;
    }
    match ctx.fresh(&ctx.world.lease) {
        None => draft.wait("the database to answer, to hand the lease back before the object goes"),
        Some(Some(row))
            if row.holder.as_ref() == Some(ctx.me) && row.validity.is_open() && !stays(row.validity) =>
        {
            draft.step(Step::ReleaseUnlimited { grant: Grant { epoch: row.epoch, id: row.grant_id } });
        }
        Some(_) if still_read(ctx) => {
            draft.wait(format!("{} to read how this side left the run", ctx.other));
        }
        Some(_) if !steady::put_away(ctx, &mut draft) => {
            draft.wait("connections and pods of this side to go: its last run moved the application away");
        }
        Some(row) => {
            // There is nothing to hand back: the keeper, which needs no object, may renew it later.
            if row.as_ref().is_some_and(|row| !row.validity.is_open()) {
                draft.phase(Phase::Releasing, format!("the object is being deleted; {}", ctx.writes()));
            }
            draft.step(Step::RemoveFinalizer);
        }
    }
    draft
}

/// The lease goes on by itself, with nobody to renew it.
fn stays(validity: Validity) -> bool {
    matches!(validity, Validity::Unlimited | Validity::HandedBack)
}

/// A side that declined must stay readable until the other side has drawn its conclusion: after a fence only that
/// word lets the lease be taken again. Not for ever: the other side may be lost.
fn still_read(ctx: &Context<'_>) -> bool {
    let Some(left) = ctx.world.mine.run.as_ref().filter(|run| run.mark == Mark::Declined && !run.is_start())
    else {
        return false;
    };
    match ctx.peer_or_absent() {
        None => left.ended_at.is_some_and(|ended| !ctx.past(ended, ctx.intent.limits.attention)),
        Some(peer) => peer.and_then(SideReport::open_run).is_some_and(|run| run.id == left.id),
    }
}
