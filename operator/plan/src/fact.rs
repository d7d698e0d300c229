//! What was observed, when, or why it is not known. Unknown is a value of its own: never zero, never "off".

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// How far in the future a fact may lie: clocks are corrected in small steps all the time.
const CLOCK_STEP: SignedDuration = SignedDuration::from_secs(1);

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

    /// The value, if it was observed and is not older than `limit` at `now`. One from the future, after a clock was set
    /// back, has no known age.
    pub fn fresh(&self, now: Timestamp, limit: SignedDuration) -> Option<&T> {
        match self {
            Fact::Known { value, at } if (-CLOCK_STEP..=limit).contains(&now.duration_since(*at)) => {
                Some(value)
            }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fact_counts_while_it_is_young_and_not_when_it_is_from_a_clock_that_was_set_back() {
        let at = Timestamp::UNIX_EPOCH;
        let fact = Fact::known((), at);
        let limit = SignedDuration::from_secs(5);
        let fresh = |age: i64| fact.fresh(at + SignedDuration::from_millis(age), limit).is_some();
        assert!(fresh(0) && fresh(5_000) && fresh(-1_000));
        assert!(!fresh(5_001) && !fresh(-1_001) && !fresh(-3_600_000));
    }
}
