//! The object goes; trading stays. The lease is handed to its present holder without a limit.

use crate::context::{Context, Draft};
use crate::intent::Management;
use crate::plan::Phase;
use crate::report::Grant;
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
        Some(Some(row)) if row.holder.as_ref() == Some(ctx.me) && row.validity != Validity::Unlimited => {
            draft.step(Step::ReleaseUnlimited { grant: Grant { epoch: row.epoch, id: row.grant_id } });
        }
        Some(_) => draft.step(Step::RemoveFinalizer),
    }
    draft
}
