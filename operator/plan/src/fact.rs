//! What was observed, when, or why it is not known. Unknown is a value of its own: never zero, never "off".

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// One observed value with its age, or the reason why it could not be observed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fact<T> {
    /// Observed.
    Known {
        /// What was seen.
        value: T,
        /// When the source answered, by the observer's clock.
        at: Timestamp,
    },
    /// Not observed; nothing may be concluded from it.
    Unknown {
        /// Who failed, on what.
        why: String,
    },
}

impl<T> Fact<T> {
    /// A value seen at `at`.
    pub fn known(value: T, at: Timestamp) -> Self {
        Fact::Known { value, at }
    }

    /// A value that could not be observed.
    pub fn unknown(why: impl Into<String>) -> Self {
        Fact::Unknown { why: why.into() }
    }

    /// The value, if it was observed.
    pub fn get(&self) -> Option<&T> {
        match self {
            Fact::Known { value, .. } => Some(value),
            Fact::Unknown { .. } => None,
        }
    }

    /// The value, if it was observed and is not older than `limit` at `now`.
    pub fn fresh(&self, now: Timestamp, limit: SignedDuration) -> Option<&T> {
        match self {
            Fact::Known { value, at } if now.duration_since(*at) <= limit => Some(value),
            Fact::Known { .. } | Fact::Unknown { .. } => None,
        }
    }

    /// Why nothing is known, if so.
    pub fn why_unknown(&self) -> Option<&str> {
        match self {
            Fact::Known { .. } => None,
            Fact::Unknown { why } => Some(why),
        }
    }

    /// The same fact with its value changed.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Fact<U> {
        match self {
            Fact::Known { value, at } => Fact::Known { value: change(value), at },
            Fact::Unknown { why } => Fact::Unknown { why },
        }
    }
}
