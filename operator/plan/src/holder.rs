//! Opening the region that holds the lease, stage by stage, and keeping it open.

use crate::context::{Context, Draft};
use crate::ids::Region;
use crate::intent::HookPoint;
use crate::plan::Code;
use crate::report::{Grant, RunReport};
use crate::step::{Flipped, ScaleTarget, ScaleTo, Step};
use crate::world::{ControlKey, ControlRole, LeaseView, Opened, Switch, Validity, Workload, Workloads};

/// How far the opening is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// Everything that this decision can see is open.
    Open,
    /// Steps or waits are in the draft.
    Underway,
}

/// Adds what is next to open the holder. With a run, the application's hooks are part of it.
///
/// Order: lease valid, so that core stages work → AfterGrant → intake → Probe → broker and traffic. Traffic is set On only
/// behind a valid lease that has been opened for the intake in this epoch.
pub(crate) fn open(
    ctx: &Context<'_>,
    row: &LeaseView,
    run: Option<&RunReport>,
    draft: &mut Draft,
) -> Opening {
    let before = (draft.0.steps.len(), draft.0.waits.len());
    scale_active(ctx, draft);
    if own_app_control_on(ctx, draft) && lease_valid(row, draft) {
        stages(ctx, row, run, draft);
    }
    if (draft.0.steps.len(), draft.0.waits.len()) == before { Opening::Open } else { Opening::Underway }
}

fn stages(ctx: &Context<'_>, row: &LeaseView, run: Option<&RunReport>, draft: &mut Draft) {
    if hook(ctx, HookPoint::AfterGrant, row, run, draft) == Hook::Due {
        return;
    }
    let intake = [(key(ControlRole::Intake, ctx.me), Switch::On)];
    flip(ctx, Flipped::IntakeOn, &intake, draft);
    if row.opened < Opened::Intake {
        draft.step(Step::OpenIntake { grant: Grant { epoch: row.epoch, id: row.grant_id } });
        return;
    }
    if hook(ctx, HookPoint::Probe, row, run, draft) == Hook::Due || !ctx.flipped(&intake) {
        return;
    }
    traffic(ctx, row, run, draft);
}

fn traffic(ctx: &Context<'_>, row: &LeaseView, run: Option<&RunReport>, draft: &mut Draft) {
    let mut ingress = vec![(key(ControlRole::Ingress, ctx.me), Switch::On)];
    if !ctx.is(ControlRole::Ingress, ctx.other, Switch::Off) {
        ingress.insert(0, (key(ControlRole::Ingress, ctx.other), Switch::Off));
    }
    flip(ctx, Flipped::IngressOn, &ingress, draft);
    match ctx.fresh(&ctx.world.broker) {
        Some(broker) if broker.all_customers_may_write => {}
        Some(_) => draft.step(Step::OpenBroker),
        None => draft.wait("the broker to answer, to let customers publish"),
    }
    if !draft.0.steps.is_empty() || !ctx.flipped(&ingress) || run.is_none_or(RunReport::is_start) {
        return;
    }
    match ctx.fresh(&ctx.world.dns) {
        Some(Some(region)) if region == ctx.me => {
            hook(ctx, HookPoint::AfterOpen, row, run, draft);
        }
        Some(_) => draft.wait(format!("the application's DNS name to answer {}", ctx.me)),
        None => draft.wait("the application's DNS name to answer at all"),
    }
}

/// Whether a hook still stands between now and the next stage.
#[derive(PartialEq, Eq)]
enum Hook {
    Due,
    Done,
}

fn hook(
    ctx: &Context<'_>,
    point: HookPoint,
    row: &LeaseView,
    run: Option<&RunReport>,
    draft: &mut Draft,
) -> Hook {
    match run {
        Some(run) if ctx.hook_due(point, run) => {
            draft.step(Step::Hook { point, run: run.id, epoch: row.epoch });
            Hook::Due
        }
        _ => Hook::Done,
    }
}

/// A holder whose row is on the writer, and whose application control and the other's are both Off, turns its own On
/// again; while the other's is On, or the endpoints do not agree, nothing is widened.
fn own_app_control_on(ctx: &Context<'_>, draft: &mut Draft) -> bool {
    if ctx.is(ControlRole::App, ctx.me, Switch::On) {
        return true;
    }
    let own_off = ctx.is(ControlRole::App, ctx.me, Switch::Off);
    if own_off && ctx.is(ControlRole::App, ctx.other, Switch::Off) && ctx.writer_here() {
        flip(ctx, Flipped::AppOn, &[(key(ControlRole::App, ctx.me), Switch::On)], draft);
    } else {
        draft.wait(format!("three ARC endpoints to agree that {}'s application control may be On", ctx.me));
    }
    false
}

fn lease_valid(row: &LeaseView, draft: &mut Draft) -> bool {
    match row.validity {
        Validity::Valid | Validity::Unlimited | Validity::HandedBack | Validity::LimitAsked => true,
        Validity::NeverRenewed => {
            draft.wait(format!("the keeper to open epoch {} by its first renewal", row.epoch));
            false
        }
        Validity::Expired | Validity::Unconfirmed => {
            draft.wait(format!("the keeper to renew the lease of epoch {}", row.epoch));
            false
        }
    }
}

/// Adds the batch, whole, while three endpoints do not agree on all of it. A change takes up to 15 s to reach all
/// endpoints; the executor pauses between two sendings. What one endpoint says proves nothing: it may be the state of
/// an earlier switch. A kind of batch that a safety rule refused lately goes out in two parts.
pub(crate) fn flip(ctx: &Context<'_>, what: Flipped, batch: &[(ControlKey, Switch)], draft: &mut Draft) {
    if ctx.flipped(batch) {
        return;
    }
    let batch = if ctx.refused_lately(what) { part(ctx, batch) } else { batch.to_vec() };
    draft.step(Step::Flip { what, batch });
}

/// Off first; On only when three endpoints agree on every Off. Only what is not yet agreed.
fn part(ctx: &Context<'_>, batch: &[(ControlKey, Switch)]) -> Vec<(ControlKey, Switch)> {
    let missing = |switch: Switch| -> Vec<_> {
        let missing =
            batch.iter().filter(|(key, wanted)| *wanted == switch && !ctx.is(key.role, &key.region, switch));
        missing.cloned().collect()
    };
    let off = missing(Switch::Off);
    if off.is_empty() { missing(Switch::On) } else { off }
}

/// The key of one control.
pub(crate) fn key(role: ControlRole, region: &Region) -> ControlKey {
    ControlKey { role, region: region.clone() }
}

/// Scales up what an active region needs: the lowest tier that is not ready, and all below it.
/// Answers whether all is ready.
pub(crate) fn scale_active(ctx: &Context<'_>, draft: &mut Draft) -> bool {
    let Some(workloads) = ctx.fresh(&ctx.world.workloads) else {
        draft.wait("the list of Deployments");
        return false;
    };
    let unready_tier = workloads.items.iter().filter(|item| !ready(item)).map(|item| item.tier).min();
    let Some(tier) = unready_tier else { return !workloads.items.is_empty() };
    let targets: Vec<ScaleTarget> = workloads
        .items
        .iter()
        .filter(|item| item.tier <= tier && wants_more(item))
        .map(|item| target(item, item.active_replicas))
        .collect();
    if targets.is_empty() {
        draft.wait(format!("Deployments of tier {tier} to be ready"));
    } else {
        draft.step(Step::Scale { to: ScaleTo::Active, targets });
    }
    false
}

/// Scales down to the standby size. Answers whether nothing is left to do.
pub(crate) fn scale_standby(workloads: &Workloads, draft: &mut Draft) -> bool {
    let targets: Vec<ScaleTarget> = workloads
        .items
        .iter()
        .filter(|item| item.replicas != item.standby_replicas)
        .map(|item| target(item, item.standby_replicas))
        .collect();
    let done = targets.is_empty();
    if !done {
        draft.step(Step::Scale { to: ScaleTo::Standby, targets });
    }
    done
}

fn wants_more(item: &Workload) -> bool {
    if item.autoscaled { item.replicas == 0 } else { item.replicas != item.active_replicas }
}

fn ready(item: &Workload) -> bool {
    let wanted = if item.autoscaled { item.replicas.max(1) } else { item.active_replicas };
    item.current && item.ready >= wanted && !wants_more(item)
}

fn target(item: &Workload, replicas: i32) -> ScaleTarget {
    ScaleTarget { name: item.name.clone(), uid: item.uid.clone(), replicas }
}

/// Names of workloads that are not ready, for a finding.
pub(crate) fn unready(workloads: &Workloads) -> Vec<&str> {
    workloads.items.iter().filter(|item| !ready(item)).map(|item| item.name.as_str()).collect()
}

/// The finding that goes with a holder whose workloads are not ready.
pub(crate) fn note_unready(ctx: &Context<'_>, draft: &mut Draft) {
    if let Some(workloads) = ctx.fresh(&ctx.world.workloads) {
        let names = unready(workloads);
        if !names.is_empty() {
            draft.finding(Code::WorkloadsNotReady, format!("not ready in {}: {}", ctx.me, names.join(", ")));
        }
    }
}
