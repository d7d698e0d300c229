//! Which steps of the open run have been seen to hold: their time ends at this observation.

use crate::context::Context;
use crate::intent::HookPoint;
use crate::report::{Mark, RunReport};
use crate::step::StepKind;
use crate::world::{ControlRole, HookResult, Opened, Switch, Validity};
use crate::{holder, target};

/// Kinds of started and unfinished steps of my open run whose proof this world shows; and of those that tell where a run's
/// time went also the ones that were made while the report could not be written.
pub(crate) fn proved(ctx: &Context<'_>) -> Vec<StepKind> {
    let Some(run) = ctx.world.mine.run.as_ref() else { return Vec::new() };
    let started = run.steps.iter().filter(|record| record.finished_at.is_none()).map(|record| record.step);
    let lost = [StepKind::Fence, StepKind::Grant, StepKind::FlipIngressOn];
    let lost = lost.into_iter().filter(|kind| {
        run.steps.iter().all(|record| record.step != *kind) && !run.mark.ended() && is_mine(ctx, run, *kind)
    });
    started.chain(lost).filter(|kind| holds(ctx, run, *kind)).collect()
}

/// Whether my side of the run makes such a step, and has come as far.
fn is_mine(ctx: &Context<'_>, run: &RunReport, kind: StepKind) -> bool {
    match kind {
        StepKind::Fence => run.from == *ctx.me,
        _ => run.to == *ctx.me && run.mark == Mark::Begun,
    }
}

fn holds(ctx: &Context<'_>, run: &RunReport, kind: StepKind) -> bool {
    let row = ctx.lease();
    let mine = row.filter(|row| row.holder.as_ref() == Some(ctx.me));
    let hook = |point: HookPoint| {
        run.hooks_done.contains(&point) || ctx.world.hook_results.get(&point) == Some(&HookResult::Succeeded)
    };
    let broker = ctx.fresh(&ctx.world.broker);
    match kind {
        // A record is proved by being there: the report that carries it was read back.
        StepKind::RecordProposed
        | StepKind::RecordAccepted
        | StepKind::RecordWarm
        | StepKind::RecordClosing
        | StepKind::RecordDrained
        | StepKind::RecordFenced
        | StepKind::RecordBegun
        | StepKind::RecordEpoch
        | StepKind::RecordDeclined
        | StepKind::RecordAborted
        | StepKind::RecordFinished => true,
        StepKind::ScaleActive => {
            ctx.fresh(&ctx.world.workloads).is_some_and(|workloads| holder::unready(workloads).is_empty())
        }
        StepKind::ScaleStandby => ctx.fresh(&ctx.world.workloads).is_some_and(|workloads| {
            workloads.items.iter().all(|item| item.replicas == item.standby_replicas)
        }),
        StepKind::FlipIngressOff => ctx.is(ControlRole::Ingress, ctx.me, Switch::Off),
        StepKind::FlipAppOver => ctx.flipped(&target::app_over(ctx)),
        StepKind::FlipAppOn => ctx.is(ControlRole::App, ctx.me, Switch::On),
        StepKind::FlipOwnOff => ctx.is(ControlRole::App, ctx.me, Switch::Off),
        StepKind::FlipIntakeOn => ctx.is(ControlRole::Intake, ctx.me, Switch::On),
        StepKind::FlipIngressOn => ctx.is(ControlRole::Ingress, ctx.me, Switch::On),
        StepKind::CloseBroker => {
            broker.is_some_and(|broker| !broker.customers_may_write && broker.old_customer_connections == 0)
        }
        StepKind::CloseAnswers => broker.is_some_and(|broker| broker.answer_connections == 0),
        StepKind::OpenBroker => broker.is_some_and(|broker| broker.all_customers_may_write),
        StepKind::AbortRun => row.is_some_and(|row| row.aborted_run == Some(run.id)),
        StepKind::Fence => {
            row.and_then(|row| row.released.as_ref()).is_some_and(|released| released.run == run.id)
        }
        StepKind::SwitchDatabase => ctx.fresh(&ctx.world.writable) == Some(&true),
        StepKind::Grant => mine.is_some_and(|row| run.grant.is_some_and(|grant| grant.epoch == row.epoch)),
        StepKind::OpenIntake => mine.is_some_and(|row| row.opened >= Opened::Intake),
        StepKind::HookPreWarm => hook(HookPoint::PreWarm),
        StepKind::HookDrained => hook(HookPoint::Drained),
        StepKind::HookAfterGrant => hook(HookPoint::AfterGrant),
        StepKind::HookProbe => hook(HookPoint::Probe),
        StepKind::HookAfterOpen => hook(HookPoint::AfterOpen),
        StepKind::ReleaseUnlimited => mine.is_some_and(|row| row.validity == Validity::HandedBack),
        StepKind::LimitAgain => mine.is_some_and(|row| row.validity == Validity::LimitAsked),
        StepKind::RemoveFinalizer => false,
    }
}
