//! What the books demand and say of matched trades, where those must be settled. Pure.

use jiff::Timestamp;
use serde::Serialize;

use super::tally::Note;
use super::times::{Percentiles, Times};

/// What became of matched trades, where they must be settled. Where nothing is lost or wrong, and all is confirmed, the sides
/// that were answered with MATCHED are the settled ones, the unsettled ones, and those that stay matched.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Settled {
    /// Sides that were told that they are settled.
    pub settled: u64,
    /// Confirmed sides that must be told so, and were not.
    pub unsettled: u64,
    /// Ids of up to twenty of these.
    pub unsettled_ids: Vec<String>,
    /// Sides that were told that they match and have nothing to settle.
    pub stay_matched: u64,
    /// From when the schedule wanted a message sent to SETTLED, in milliseconds, where nothing else was waited for.
    pub settled_latency: Percentiles,
}

/// What is counted while messages and answers come by.
#[derive(Debug, Default)]
pub(super) struct Demand {
    awaited: u64,
    settled: u64,
    latency: Times,
}

impl Demand {
    /// Whether one side must still be told that it is settled, before something was learnt of it and after.
    pub(super) fn changed(&mut self, before: bool, after: bool) {
        self.awaited = self.awaited + u64::from(after) - u64::from(before);
    }

    /// A side was told that it is settled, for the first time.
    pub(super) fn settled(&mut self, note: Note, now: Timestamp) {
        self.settled += 1;
        if let Some(due) = note.due.filter(|_| note.timed) {
            self.latency.note(due, now);
        }
    }

    /// Sides that must be told that they are settled and were not yet.
    pub(super) fn awaited(&self) -> u64 {
        self.awaited
    }

    /// Sides that were told that they are settled.
    pub(super) fn settlements(&self) -> u64 {
        self.settled
    }

    /// What was told so far.
    pub(super) fn told(&self) -> Settled {
        Settled { settled: self.settled, settled_latency: self.latency.percentiles(), ..Settled::default() }
    }

    /// For the line of numbers.
    pub(super) fn counts(&self) -> String {
        let Self { settled, awaited, .. } = self;
        format!("  settled {settled}  due {awaited}")
    }
}
