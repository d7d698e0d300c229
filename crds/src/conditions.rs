//! Condition types and reasons of TradingRegion, and the one way to set them. `docs/conditions.md` explains each.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The application is served as the spec wants it, in the region that the spec wants.
pub const READY: &str = "Ready";
/// The other cluster's copy of the object can be read.
pub const PEER_REACHABLE: &str = "PeerReachable";
/// Both copies ask for the same.
pub const SPEC_AGREED: &str = "SpecAgreed";
/// A switch to the other region could start now.
pub const STANDBY_READY: &str = "StandbyReady";
/// The region that is active holds a valid lease.
pub const LEASE_HELD: &str = "LeaseHeld";
/// The object could be understood and everything that it names exists.
pub const VALID: &str = "Valid";

/// All types, in the order in which they are shown.
pub const ALL: [&str; 6] = [READY, STANDBY_READY, LEASE_HELD, PEER_REACHABLE, SPEC_AGREED, VALID];

/// Reasons: one word each, stable.
pub mod reason {
    macro_rules! reasons {
        ($($(#[$doc:meta])* $name:ident = $text:literal;)*) => {
            $($(#[$doc])* pub const $name: &str = $text;)*

            /// All reasons.
            pub const ALL: &[&str] = &[$($name),*];
        };
    }

    reasons! {
        /// All is as it should be.
        AS_WANTED = "AsWanted";
        /// Nothing is known; the message says why.
        UNKNOWN = "Unknown";
        /// A run is open.
        RUN_OPEN = "RunOpen";
        /// A finding stands in the way; the message starts with its code.
        FINDING = "Finding";
        /// A person is needed.
        WAIT_FOR_USER = "WaitForUser";
        /// The two copies differ.
        COPIES_DIFFER = "CopiesDiffer";
        /// The other cluster does not answer.
        UNREACHABLE = "Unreachable";
        /// The other cluster has no such object.
        NOT_FOUND = "NotFound";
        /// The lease has run out.
        EXPIRED = "Expired";
        /// Nobody holds the lease.
        NO_HOLDER = "NoHolder";
        /// The object names something that is missing or unusable.
        BAD_REFERENCE = "BadReference";
        /// Only watching: `managed: Observe`.
        OBSERVING = "Observing";
        /// The object is being deleted.
        RELEASING = "Releasing";
        /// The object as it stands is not understood by this version of the operator.
        UNDECODABLE = "Undecodable";
    }
}

/// A condition's status: true, false, or honestly not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It is not known whether it holds.
    Unknown,
}

impl State {
    /// As it stands in the object.
    pub fn text(self) -> &'static str {
        match self {
            State::True => "True",
            State::False => "False",
            State::Unknown => "Unknown",
        }
    }
}

impl From<bool> for State {
    fn from(holds: bool) -> Self {
        if holds { State::True } else { State::False }
    }
}

/// What a condition is to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set<'a> {
    /// One of the types above.
    pub type_: &'a str,
    /// Whether it holds.
    pub state: State,
    /// One of [`reason`].
    pub reason: &'a str,
    /// One sentence.
    pub message: &'a str,
    /// The `metadata.generation` that it was judged on.
    pub generation: Option<i64>,
}

/// Sets a condition. The time of its last transition moves only when its status does; it has whole seconds, as it has when
/// it is read back.
pub fn set(conditions: &mut Vec<Condition>, wanted: &Set<'_>, now: Timestamp) {
    let status = wanted.state.text();
    let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
    let found = conditions.iter().position(|condition| condition.type_ == wanted.type_);
    let since = found
        .map(|at| &conditions[at])
        .filter(|condition| condition.status == status)
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    let next = Condition {
        type_: wanted.type_.to_owned(),
        status: status.to_owned(),
        reason: wanted.reason.to_owned(),
        message: wanted.message.to_owned(),
        observed_generation: wanted.generation,
        last_transition_time: since,
    };
    match found {
        Some(at) => conditions[at] = next,
        None => conditions.push(next),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(state: State, message: &str) -> Set<'_> {
        Set { type_: READY, state, reason: reason::AS_WANTED, message, generation: Some(3) }
    }

    #[test]
    fn the_transition_time_moves_only_with_the_status() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut conditions = Vec::new();
        set(&mut conditions, &ready(State::True, "first"), at(1));
        set(&mut conditions, &ready(State::True, "second"), at(2));
        assert_eq!(conditions[0].last_transition_time, Time(at(1)));
        assert_eq!(conditions[0].message, "second");
        set(&mut conditions, &ready(State::Unknown, "third"), at(3));
        assert_eq!(conditions[0].last_transition_time, Time(at(3)));
        assert_eq!(conditions.len(), 1);
    }
}
