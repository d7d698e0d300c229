//! No run is open: keep the holder open, keep the other side closed, take a lease that nobody holds.

use crate::context::{Context, Draft};
use crate::holder::{self, Opening};
use crate::ids::Region;
use crate::intent::Mode;
use crate::plan::Phase;
use crate::report::{Grant, Mark, RunReport};
use crate::start;
use crate::step::{Flipped, Step};
use crate::world::{ControlKey, ControlRole, LeaseView, Opened, Switch, Validity};

/// What a side does while no run is open; `blocked`: a finding would keep a planned run from starting.
pub(crate) fn keep(ctx: &Context<'_>, blocked: bool) -> Draft {
    let row = match ctx.fresh(&ctx.world.lease) {
        None => return unknown(ctx),
        Some(None) => {
            let mut draft = Draft::new(Phase::Starting, "the database has no lease of this application yet");
            draft.wait("the application's migrations, which write its lease row");
            return draft;
        }
        Some(Some(row)) => row,
    };
    match row.holder.as_ref() {
        Some(holder) if holder == ctx.me => active(ctx, row),
        Some(_) if start::orphaned(ctx, row) => start::take_over(ctx, row),
        Some(_) => standby(ctx, blocked),
        None if handed_over(ctx, row) => standby(ctx, blocked),
        None => vacant(ctx, row),
    }
}

/// The own database does not answer: who holds the lease, and whether anyone trades, only the other side may know.
fn unknown(ctx: &Context<'_>) -> Draft {
    let why = ctx.world.lease.why_unknown().unwrap_or("its last answer is too old");
    let mut reason = format!("not known here who holds the lease, so nothing is decided here: {why}");
    if ctx.peer_or_absent().is_none() {
        reason = format!("{reason}; {} cannot be read either", ctx.other);
    }
    let mut draft = Draft::new(Phase::Unknown, reason);
    draft.wait(format!("the database of {} to answer", ctx.me));
    draft
}

/// The writer shows an older epoch than either side saw in the row before: the database was restored from an old copy.
/// What that copy holds, and who writes, only a person can tell.
pub(crate) fn restored(ctx: &Context<'_>) -> Option<Draft> {
    let fact = ctx.epoch_behind()?;
    let reason =
        format!("{fact}: it was restored from an old copy, so nothing is opened or moved; {}", ctx.writes());
    Some(Draft::new(Phase::WaitForUser, reason))
}

fn active(ctx: &Context<'_>, row: &LeaseView) -> Draft {
    if !ctx.writer_here() {
        let writer = ctx.writer_region().map_or("nowhere known", Region::as_str);
        let reason = format!(
            "{} holds epoch {} by its own database's copy of the lease, but the writer is {writer}; nobody can write in {}",
            ctx.me, row.epoch, ctx.me
        );
        let mut draft = Draft::new(Phase::WaitForUser, reason);
        draft.wait(format!("the writer to be in {}, or the region that has it to take the lease", ctx.me));
        return draft;
    }
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
        draft.wait(not_begun(ctx));
    }
    draft
}

/// Why the other side, which both copies name, has no run open, as far as its object tells.
fn not_begun(ctx: &Context<'_>) -> String {
    let last = ctx.peer().and_then(|report| report.run.as_ref());
    match last.filter(|run| run.mark == Mark::Declined && run.to == *ctx.other) {
        Some(run) => {
            let why = run.reason.as_deref().unwrap_or("its findings tell why");
            format!("{} to open a run; it gave up its last one: {why}", ctx.other)
        }
        None => format!("{} to open a run; its findings tell what stands in the way", ctx.other),
    }
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
fn standby(ctx: &Context<'_>, blocked: bool) -> Draft {
    let mut draft = Draft::new(Phase::Steady, format!("on standby; {} is active", ctx.other));
    if blocked && ctx.intent.agreed() == Some(ctx.me) && ctx.intent.mine.mode == Mode::Planned {
        draft.wait(format!(
            "the findings that block the switch to {}: it starts as soon as none does; to withdraw it, change the spec back",
            ctx.me
        ));
    }
    own_off(ctx, &mut draft);
    send_away(ctx, &mut draft);
    if let Some(workloads) = ctx.fresh(&ctx.world.workloads)
        && !holder::scale_standby(workloads, &mut draft)
    {
        let reason = format!(
            "on standby; {} is active; Deployments here are not at their standby size yet",
            ctx.other
        );
        draft.phase(Phase::Steady, reason);
    }
    draft
}

/// My last run, if it moved the application away from here.
fn left<'a>(ctx: &Context<'a>) -> Option<&'a RunReport> {
    let run = ctx.world.mine.run.as_ref()?;
    (run.mark == Mark::Finished && !run.is_start() && run.from == *ctx.me).then_some(run)
}

fn left_lately(ctx: &Context<'_>) -> bool {
    let at = left(ctx).and_then(|run| run.ended_at);
    at.is_some_and(|at| !ctx.past(at, ctx.intent.limits.stand_down))
}

/// This region's copy of the row still shows the fence of a run of which the other side said that it is active.
fn handed_over(ctx: &Context<'_>, row: &LeaseView) -> bool {
    let released = row.released.as_ref().map(|released| released.run);
    !ctx.writer_here() && left(ctx).is_some_and(|run| released == Some(run.id))
}

/// What this side still has to put away right after a run that moved the application from here: connections and pods.
/// Answers whether nothing is left.
pub(crate) fn put_away(ctx: &Context<'_>, draft: &mut Draft) -> bool {
    if !left_lately(ctx) {
        return true;
    }
    let before = draft.0.steps.len();
    send_away(ctx, draft);
    if let Some(workloads) = ctx.fresh(&ctx.world.workloads) {
        holder::scale_standby(workloads, draft);
    }
    draft.0.steps.len() == before
}

/// Nobody may publish here. Who is still connected right after a run looks for the new side; a connection that is kept
/// open beside the other one for later harms nobody.
fn send_away(ctx: &Context<'_>, draft: &mut Draft) {
    let Some(broker) = ctx.fresh(&ctx.world.broker) else { return };
    let lately = left_lately(ctx);
    if broker.customers_may_write || (lately && broker.customer_connections > 0) {
        draft.step(Step::CloseBroker);
    }
    if lately && broker.answer_connections > 0 {
        draft.step(Step::CloseAnswers);
    }
}

/// A side that neither holds the lease nor is about to take it turns its own controls Off.
fn own_off(ctx: &Context<'_>, draft: &mut Draft) {
    let off: Vec<(ControlKey, Switch)> = [ControlRole::App, ControlRole::Intake, ControlRole::Ingress]
        .into_iter()
        .filter(|role| ctx.is(*role, ctx.me, Switch::On))
        .map(|role| (holder::key(role, ctx.me), Switch::Off))
        .collect();
    if !off.is_empty() {
        draft.step(Step::Flip { what: Flipped::OwnOff, batch: off });
    }
}

/// Nobody holds the lease: the first start, or a switch of the database that was left without a grant. A region
/// takes it only when both copies name it, its own database is the writer, and the other side has no run open.
fn vacant(ctx: &Context<'_>, row: &LeaseView) -> Draft {
    let mut draft = Draft::new(Phase::Starting, format!("nobody holds the lease; {}", ctx.writes()));
    let Some(peer) = ctx.peer_or_absent() else {
        draft.wait(format!("the object in {} to be readable", ctx.other));
        return draft;
    };
    if ctx.intent.agreed() != Some(ctx.me) {
        if ctx.intent.agreed() == Some(ctx.other) {
            own_off(ctx, &mut draft);
        }
        draft.wait(format!("{} to take the lease, or both copies to name one region", ctx.other));
        return draft;
    }
    if peer.is_some_and(|report| report.open_run().is_some()) {
        draft.wait(format!("the run that {} has open", ctx.other));
        return draft;
    }
    if !ctx.writer_here() || ctx.writer_region() != Some(ctx.me) {
        draft.wait(format!("the database's writer to be in {}", ctx.me));
        return draft;
    }
    if row.released.as_ref().is_some_and(|released| released.to != *ctx.me && released.epoch == row.epoch) {
        draft.phase(Phase::WaitForUser, "the lease was released to the other region; nobody can write now");
        return draft;
    }
    start::take_over(ctx, row)
}
