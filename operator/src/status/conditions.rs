//! Conditions: each a pure function of world and plan.

use crds::conditions::{
    LEASE_HELD, PEER_REACHABLE, READY, SPEC_AGREED, STANDBY_READY, Set, State, VALID, reason, set,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use region_plan::{Code, Fact, Phase, Validity};

use super::{Inputs, holds_open};

struct Said {
    state: State,
    reason: &'static str,
    message: String,
}

fn said(state: State, reason: &'static str, message: impl Into<String>) -> Said {
    Said { state, reason, message: message.into() }
}

/// All conditions, over the ones that the object has: the time of a transition moves with the state only.
pub(super) fn all(inputs: &Inputs<'_>, mut conditions: Vec<Condition>) -> Vec<Condition> {
    let each = [
        (READY, ready(inputs)),
        (STANDBY_READY, standby_ready(inputs)),
        (LEASE_HELD, lease_held(inputs)),
        (PEER_REACHABLE, peer_reachable(inputs)),
        (SPEC_AGREED, spec_agreed(inputs)),
        (VALID, valid(inputs)),
    ];
    for (type_, said) in &each {
        let wanted = Set {
            type_,
            state: said.state,
            reason: said.reason,
            message: &said.message,
            generation: inputs.object.metadata.generation,
        };
        set(&mut conditions, &wanted, inputs.now);
    }
    conditions
}

/// The application is served as the spec wants it, where the spec wants it.
fn ready(inputs: &Inputs<'_>) -> Said {
    let plan = inputs.plan;
    match plan.phase {
        Phase::WaitForUser => return said(State::False, reason::WAIT_FOR_USER, &plan.reason),
        Phase::Releasing => return said(State::False, reason::RELEASING, &plan.reason),
        // Without a run it starts again because something about the lease is wrong: that is what has to be told.
        // A row that was read, and is too old to decide on, tells nobody that the application is served.
        Phase::Unknown => {
            let lease = lease_held(inputs);
            let known = matches!(lease.state, State::True);
            return if known { said(State::Unknown, reason::UNKNOWN, &plan.reason) } else { lease };
        }
        Phase::Starting if inputs.side.open_run().is_none() => {
            let lease = lease_held(inputs);
            let opens = || said(State::False, reason::RUN_OPEN, &plan.reason);
            return if matches!(lease.state, State::True) { opens() } else { lease };
        }
        Phase::Starting
        | Phase::Preparing
        | Phase::Draining
        | Phase::Promoting
        | Phase::Opening
        | Phase::Aborting => {
            return said(State::False, reason::RUN_OPEN, &plan.reason);
        }
        Phase::Observing | Phase::Steady => {}
    }
    let lease = lease_held(inputs);
    if !matches!(lease.state, State::True) {
        return lease;
    }
    let holder = inputs.world.lease.get().and_then(Option::as_ref).and_then(|row| row.holder.as_ref());
    if holder != Some(&inputs.intent.mine.active) {
        let active = holder.map_or("no region", |region| region.as_str());
        let message = format!("{active} is active, the spec asks for {}", inputs.intent.mine.active);
        return said(State::False, reason::FINDING, message);
    }
    let in_the_way =
        |code: &Code| matches!(code, Code::WorkloadsNotReady | Code::NothingSelected | Code::LeaseExpired);
    if let Some(finding) = plan.findings.iter().find(|finding| in_the_way(&finding.code)) {
        return said(State::False, reason::FINDING, format!("{}: {}", finding.code.text(), finding.message));
    }
    if !holds_open(inputs) {
        return said(
            State::False,
            reason::RUN_OPEN,
            "the region that holds the lease is not yet open for traffic",
        );
    }
    let reason = if plan.phase == Phase::Observing { reason::OBSERVING } else { reason::AS_WANTED };
    said(State::True, reason, &plan.reason)
}

/// A switch to the other region could start now, as far as this side sees.
fn standby_ready(inputs: &Inputs<'_>) -> Said {
    if inputs.side.open_run().is_some() {
        return said(State::False, reason::RUN_OPEN, "a run is open");
    }
    let Some(preview) = &inputs.preview else {
        return said(
            State::Unknown,
            reason::UNKNOWN,
            "who holds the lease is not known, so no switch can be told",
        );
    };
    match preview.blocking.first() {
        None => said(State::True, reason::AS_WANTED, format!("a switch to {} could start now", preview.to)),
        Some(first) => {
            let more = preview.blocking.len() - 1;
            let rest = if more == 0 { String::new() } else { format!(" (and {more} more)") };
            said(State::False, reason::FINDING, format!("{}: {}{rest}", first.code.text(), first.message))
        }
    }
}

/// Somebody holds a lease that guards accept.
fn lease_held(inputs: &Inputs<'_>) -> Said {
    let row = match &inputs.world.lease {
        Fact::Unknown { why } => {
            return said(State::Unknown, reason::UNKNOWN, format!("the lease is not known: {why}"));
        }
        Fact::Known { value: None, .. } => {
            return said(
                State::False,
                reason::NOT_FOUND,
                "the database has no lease of this application; run its migrations",
            );
        }
        Fact::Known { value: Some(row), .. } => row,
    };
    let writer_here = inputs.world.writable.get() == Some(&true);
    let Some(holder) = &row.holder else {
        if !writer_here {
            let message = "this standby last saw that nobody holds the lease; the writer knows";
            return said(State::Unknown, reason::UNKNOWN, message);
        }
        return said(State::False, reason::NO_HOLDER, "nobody holds the lease, so nobody can write");
    };
    match row.validity {
        Validity::Valid => {
            said(State::True, reason::AS_WANTED, format!("{holder} holds epoch {}", row.epoch))
        }
        Validity::Unlimited => said(
            State::True,
            reason::AS_WANTED,
            format!("{holder} holds epoch {} without a limit, as a person left it", row.epoch),
        ),
        Validity::HandedBack | Validity::LimitAsked => said(
            State::True,
            reason::AS_WANTED,
            format!("{holder} holds epoch {} without a limit until its keeper renews it", row.epoch),
        ),
        Validity::NeverRenewed => said(
            State::False,
            reason::EXPIRED,
            format!("epoch {} of {holder} waits for its keeper's first renewal", row.epoch),
        ),
        Validity::Unconfirmed => said(
            State::Unknown,
            reason::UNKNOWN,
            format!(
                "{holder} held epoch {} when this standby last heard of it; replication is behind",
                row.epoch
            ),
        ),
        Validity::Expired => said(
            State::False,
            reason::EXPIRED,
            format!("the lease of {holder} has run out; look at its keeper"),
        ),
    }
}

fn peer_reachable(inputs: &Inputs<'_>) -> Said {
    match (&inputs.intent.peer, &inputs.world.peer) {
        (Fact::Known { .. }, _) => {
            said(State::True, reason::AS_WANTED, "the other cluster's object was read")
        }
        // The cluster answered that there is no report, for there is no object.
        (Fact::Unknown { why }, Fact::Known { .. }) => said(State::False, reason::NOT_FOUND, why),
        (Fact::Unknown { why }, Fact::Unknown { .. }) => said(State::False, reason::UNREACHABLE, why),
    }
}

fn spec_agreed(inputs: &Inputs<'_>) -> Said {
    match inputs.intent.peer.get() {
        None => said(State::Unknown, reason::UNKNOWN, "the other copy is not known"),
        Some(_) if inputs.intent.agreed().is_some() => {
            said(State::True, reason::AS_WANTED, format!("both copies name {}", inputs.intent.mine.active))
        }
        Some(peer) if peer.active != inputs.intent.mine.active => {
            let message = format!(
                "this copy names {}, the other copy names {}",
                inputs.intent.mine.active, peer.active
            );
            said(State::False, reason::COPIES_DIFFER, message)
        }
        Some(_) => said(
            State::False,
            reason::COPIES_DIFFER,
            "the copies name the same region and differ elsewhere in the spec",
        ),
    }
}

fn valid(inputs: &Inputs<'_>) -> Said {
    let conflict = inputs.plan.findings.iter().find(|finding| finding.code == Code::SelectedByOlder);
    match (inputs.bad_references, conflict) {
        ([], None) => said(State::True, reason::AS_WANTED, "everything that the spec names exists"),
        ([], Some(finding)) => {
            said(State::False, reason::FINDING, format!("{}: {}", finding.code.text(), finding.message))
        }
        (bad, _) => said(State::False, reason::BAD_REFERENCE, bad.join("; ")),
    }
}
