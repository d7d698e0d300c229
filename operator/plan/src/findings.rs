//! What people should know of, whether or not a run is open. Each finding names the fact and where it was read.

use crate::context::Context;
use crate::fact::Fact;
use crate::intent::Mode;
use crate::plan::{Code, Finding};
use crate::world::{ControlRole, Validity};

/// All findings of this side.
pub(crate) fn collect(ctx: &Context<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    spec(ctx, &mut found);
    database(ctx, &mut found);
    controls(ctx, &mut found);
    workloads(ctx, &mut found);
    broker(ctx, &mut found);
    found
}

fn add(found: &mut Vec<Finding>, code: Code, message: impl Into<String>) {
    found.push(Finding { code, message: message.into() });
}

fn unknown<T>(ctx: &Context<'_>, fact: &Fact<T>) -> Option<String> {
    match (fact, ctx.fresh(fact)) {
        (_, Some(_)) => None,
        (Fact::Unknown { why }, None) => Some(why.clone()),
        (Fact::Known { at, .. }, None) => Some(format!("last answer at {at}")),
    }
}

fn spec(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    let mine = &ctx.intent.mine;
    if mine.mode != Mode::Planned {
        add(found, Code::FailoverUnavailable, "mode: Failover moves nothing in this version");
    }
    if let Some(why) = unknown(ctx, &ctx.intent.peer) {
        add(found, Code::PeerUnknown, format!("the object in {}: {why}", ctx.other));
        return;
    }
    let Some(peer) = ctx.intent.peer.get() else { return };
    if peer.active != mine.active {
        let message =
            format!("{} says activeRegion {}, {} says {}", ctx.me, mine.active, ctx.other, peer.active);
        add(found, Code::SpecDisagreed, message);
    } else if peer.fingerprint != mine.fingerprint || peer.mode != mine.mode {
        add(
            found,
            Code::SpecDisagreed,
            format!("the specs of {} and {} differ beyond activeRegion", ctx.me, ctx.other),
        );
    }
}

fn database(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    if let Some(why) = unknown(ctx, &ctx.world.lease) {
        add(found, Code::DatabaseUnknown, format!("database of {}: {why}", ctx.me));
    } else {
        match ctx.lease() {
            None => add(
                found,
                Code::LeaseMissing,
                format!("database of {}: no lease row for {}", ctx.me, ctx.intent.app),
            ),
            Some(row) if row.holder.as_ref() == Some(ctx.me) && row.validity == Validity::Expired => {
                add(
                    found,
                    Code::LeaseExpired,
                    format!("the lease of epoch {} has run out; nobody can write", row.epoch),
                );
            }
            Some(_) => {}
        }
    }
    if let Some(why) = unknown(ctx, &ctx.world.global_database) {
        add(found, Code::GlobalDatabaseUnknown, format!("RDS API of {}: {why}", ctx.me));
    } else if ctx.world.mine.open_run().is_none()
        && let Some(holder) = ctx.lease().and_then(|row| row.holder.as_ref())
        && ctx.writer_region() != Some(holder)
    {
        let writer = ctx.writer_region().map_or("nowhere", |region| region.as_str());
        add(
            found,
            Code::WriterElsewhere,
            format!("RDS shows the writer in {writer}, the lease is held by {holder}"),
        );
    }
}

fn controls(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    for role in [ControlRole::App, ControlRole::Intake, ControlRole::Ingress] {
        for region in [ctx.me, ctx.other] {
            let state = ctx.control(role, region);
            if state.agreed().is_none() {
                let message =
                    format!("{role:?} of {region}: {} endpoints say On, {} say Off", state.on, state.off);
                add(found, Code::ControlsUnknown, message);
            }
        }
    }
}

fn workloads(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    if let Some(why) = unknown(ctx, &ctx.world.workloads) {
        add(found, Code::WorkloadsUnknown, format!("Deployments of {}: {why}", ctx.me));
        return;
    }
    let Some(workloads) = ctx.fresh(&ctx.world.workloads) else { return };
    if workloads.items.is_empty() {
        add(found, Code::NothingSelected, format!("the selector matches no Deployment in {}", ctx.me));
    }
    for name in &workloads.conflicts {
        add(found, Code::SelectedByOlder, format!("Deployment {name} belongs to an older TradingRegion"));
    }
}

fn broker(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    if let Some(why) = unknown(ctx, &ctx.world.broker) {
        add(found, Code::BrokerUnknown, format!("broker of {}: {why}", ctx.me));
    }
    for (name, fact) in &ctx.world.drain {
        if let Fact::Unknown { why } = fact {
            add(found, Code::DrainUnknown, format!("{name} of {}: {why}", ctx.me));
        }
    }
    for (point, result) in &ctx.world.hook_results {
        if let crate::world::HookResult::Failed { why, .. } = result {
            add(found, Code::HookFailed, format!("hook {point:?} of {}: {why}", ctx.me));
        }
    }
}
