//! What a comparison gives: exact numbers, and the first few ids of each kind.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use uuid::Uuid;

use super::Job;

/// Ids of one kind that are kept to be shown.
const SHOWN: usize = 20;
/// Records that a replay takes from one comparison: their ids are in memory. The next comparison finds further ones.
const REPLAY_LIMIT: usize = 500_000;

/// Findings of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Findings {
    /// How many, exactly.
    pub count: u64,
    /// Those with the lowest ids: which record, and what is wrong with it.
    pub first: Vec<Finding>,
}

/// One record that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Record, or message id of the answer.
    pub id: Uuid,
    /// What is wrong.
    pub what: String,
}

impl Findings {
    pub(super) fn add(&mut self, id: Uuid, what: impl FnOnce() -> String) {
        self.count += 1;
        let place = self.first.partition_point(|kept| kept.id <= id);
        if place < SHOWN {
            self.first.truncate(SHOWN - 1);
            self.first.insert(place, Finding { id, what: what() });
        }
    }
}

/// A record that replay may send again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Replayable {
    /// The same of all that must be decided in one round.
    key: u64,
    pub(super) record: Uuid,
}

impl Replayable {
    fn of(key: impl Hash, record: Uuid) -> Self {
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        Self { key: hasher.finish(), record }
    }

    pub(super) fn is_with(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

/// Two stores, compared in one snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Comparison {
    /// The boundary.
    pub job: Job,
    /// Upstream records that were looked at.
    pub compared: u64,
    /// Not downstream, and younger than the grace: may be on their way.
    pub under_way: u64,
    /// Not in a store because the database refused them: in quarantine, and answered.
    pub set_apart: u64,
    /// Downstream again: the same in other words, or made anew at another time. Harmless.
    pub repeated: u64,
    /// Upstream and not downstream.
    pub missing: Findings,
    /// Downstream and not upstream.
    pub ahead: Findings,
    /// In both with different content or status.
    pub differs: Findings,
    /// Missing ones that replay may send again, up to a limit.
    #[serde(skip)]
    pub(super) replayable: Vec<Replayable>,
}

impl Comparison {
    /// Nothing looked at, nothing found.
    pub fn new(job: Job) -> Self {
        Self {
            job,
            compared: 0,
            under_way: 0,
            set_apart: 0,
            repeated: 0,
            missing: Findings::default(),
            ahead: Findings::default(),
            differs: Findings::default(),
            replayable: Vec::new(),
        }
    }

    /// Notes a missing record that replay can bring downstream.
    pub(super) fn missing(&mut self, id: Uuid, what: impl FnOnce() -> String) {
        self.missing.add(id, what);
        self.replay(Replayable::of(id, id));
    }

    /// Notes a missing record that replay can bring downstream in one round with all others of this key.
    pub(super) fn missing_with(&mut self, key: impl Hash, id: Uuid, what: impl FnOnce() -> String) {
        self.missing.add(id, what);
        self.replay(Replayable::of(key, id));
    }

    /// Notes a missing record that a replay of another one, which it follows from, can bring downstream.
    pub(super) fn missing_of(&mut self, id: Uuid, cause: Uuid, what: impl FnOnce() -> String) {
        self.missing.add(id, what);
        self.replay(Replayable::of(cause, cause));
    }

    fn replay(&mut self, one: Replayable) {
        if self.replayable.len() < REPLAY_LIMIT && self.replayable.last() != Some(&one) {
            self.replayable.push(one);
        }
    }

    /// Whether both stores agree.
    pub fn clean(&self) -> bool {
        self.missing.count == 0 && self.ahead.count == 0 && self.differs.count == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_and_what_is_kept_is_bounded() {
        let mut comparison = Comparison::new(Job::CoreEgress);
        for _ in 0..REPLAY_LIMIT + 5 {
            comparison.missing(Uuid::new_v4(), || "gone".to_owned());
        }
        let kept = (comparison.missing.first.len(), comparison.replayable.len());
        assert_eq!(comparison.missing.count, REPLAY_LIMIT as u64 + 5);
        assert_eq!(kept, (SHOWN, REPLAY_LIMIT));
    }

    #[test]
    fn those_with_the_lowest_ids_are_named_whatever_the_order_in_which_they_come() {
        let mut findings = Findings::default();
        let numbers = (0..SHOWN as u128 * 3).map(|number| number * 37 % (SHOWN as u128 * 3));
        numbers.for_each(|number| findings.add(Uuid::from_u128(number), || "gone".to_owned()));
        let named: Vec<u128> = findings.first.iter().map(|finding| finding.id.as_u128()).collect();
        assert_eq!(named, (0..SHOWN as u128).collect::<Vec<_>>());
    }
}
