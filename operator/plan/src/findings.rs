//! What people should know of, whether or not a run is open. Each finding names the fact and where it was read.

use jiff::SignedDuration;

use crate::context::Context;
use crate::fact::Fact;
use crate::intent::Mode;
use crate::plan::{Code, Finding};
use crate::world::{ControlRole, Opened, Switch, Validity};

/// All findings of this side.
pub(crate) fn collect(ctx: &Context<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    spec(ctx, &mut found);
    database(ctx, &mut found);
    controls(ctx, &mut found);
    safety_rules(ctx, &mut found);
    name(ctx, &mut found);
    workloads(ctx, &mut found);
    broker(ctx, &mut found);
    found
}

fn add(found: &mut Vec<Finding>, code: Code, message: impl Into<String>) {
    found.push(Finding { code, message: message.into() });
}

fn unknown<T>(ctx: &Context<'_>, fact: &Fact<T>) -> Option<String> {
    unknown_for(ctx, fact, ctx.intent.limits.fact_age)
}

/// Why a fact is not known, or is older than `limit`.
fn unknown_for<T>(ctx: &Context<'_>, fact: &Fact<T>, limit: SignedDuration) -> Option<String> {
    match (fact, fact.fresh(ctx.now, limit)) {
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
    if ctx.intent.approval_required {
        add(
            found,
            Code::ApprovalUnavailable,
            "approval.required: Always cannot be fulfilled in this version",
        );
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
            Some(row) if row.holder.is_none() && ctx.writer_here() && !moving(ctx) => {
                let message = format!("nobody holds the lease, last epoch {}; nobody can write", row.epoch);
                add(found, Code::NobodyHolds, message);
            }
            Some(_) => {}
        }
    }
    if let Some(fact) = ctx.epoch_behind() {
        add(found, Code::EpochBehind, fact);
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

/// A run between two regions is open here: that nobody holds the lease for a while is a part of it.
fn moving(ctx: &Context<'_>) -> bool {
    ctx.world.mine.open_run().is_some_and(|run| !run.is_start())
}

fn controls(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    let why = ctx.world.controls_unanswered.as_ref().map(|why| format!("; {why}")).unwrap_or_default();
    for role in [ControlRole::App, ControlRole::Intake, ControlRole::Ingress] {
        for region in [ctx.me, ctx.other] {
            let state = ctx.control(role, region);
            if state.agreed().is_none() {
                let message = format!(
                    "{role:?} of {region}: {} endpoints say On, {} say Off{why}",
                    state.on, state.off
                );
                add(found, Code::ControlsUnknown, message);
            }
        }
    }
}

/// A rule that is known to be missing blocks. Rules that cannot be read do not: that API is a control plane in one
/// region and must not stand in the way of leaving another.
fn safety_rules(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    if let Some(why) = unknown_for(ctx, &ctx.world.guarded, ctx.intent.limits.rules_age) {
        add(found, Code::SafetyRulesUnknown, format!("safety rules of ARC: {why}"));
        return;
    }
    let Some(guarded) = ctx.world.guarded.get() else { return };
    for role in [ControlRole::App, ControlRole::Ingress].iter().filter(|role| !guarded.contains(role)) {
        let message = format!(
            "ARC lets {role:?} be On in {} and {} at one time: no deployed rule forbids it",
            ctx.me, ctx.other
        );
        add(found, Code::SafetyRuleMissing, message);
    }
}

/// Where the customers' name points while this side is open and nothing has moved for longer than caches keep.
fn name(ctx: &Context<'_>, found: &mut Vec<Finding>) {
    let (Some(name), Some(answered)) = (&ctx.intent.dns_name, ctx.fresh(&ctx.world.dns)) else { return };
    let serves = ctx.lease().is_some_and(|row| {
        row.holder.as_ref() == Some(ctx.me) && row.opened == Opened::Intake && row.validity.is_open()
    });
    let settled =
        ctx.world.mine.run.as_ref().is_none_or(|run| {
            run.ended_at.is_some_and(|ended| ctx.past(ended, ctx.intent.limits.name_settles))
        });
    let sent_here = ctx.is(ControlRole::Ingress, ctx.me, Switch::On);
    if serves && settled && sent_here && answered.as_ref() != Some(ctx.me) {
        let answers = answered.as_ref().map_or("another address", |region| region.as_str());
        add(found, Code::DnsElsewhere, format!("{name} answers {answers}, {} is active", ctx.me));
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
    // Only the side that would have to empty counts: pods of a region on standby may be none, and then answer nothing.
    let elsewhere = ctx.lease().and_then(|row| row.holder.as_ref()) == Some(ctx.other);
    for (name, fact) in ctx.world.drain.iter().filter(|_| !elsewhere) {
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
