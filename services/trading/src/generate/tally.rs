//! What the books say beside lost and doubled: whether each answer was the right one, how long it took, and how the
//! messages spread over customers and kinds. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;

use super::expected::{Expected, SETTLED};
use super::times::{Percentiles, Times};

/// Ids that are named.
const NAMED_IDS: usize = 20;

/// What is known of a message when it is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct Note {
    /// Whose it is, from 0.
    pub customer: usize,
    /// What it is.
    pub kind: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// When the schedule wanted it sent.
    pub due: Option<Timestamp>,
    /// Whether the time to its answer is the application's.
    pub timed: bool,
    /// Whether it is settled once it is matched.
    pub settles: bool,
}

impl Note {
    /// Whether it is right to tell that it is settled, as long as no other answer speaks against it. Anything is, where
    /// nothing is known of the message.
    pub(super) fn may_settle(&self) -> bool {
        self.expected == Expected::Any || (self.settles && self.expected.allows(SETTLED))
    }
}

/// One customer's part.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CustomerCounts {
    /// Messages handed to a broker.
    pub sent: u64,
    /// Of these, confirmed by one.
    pub confirmed: u64,
    /// Of these, answered.
    pub answered: u64,
    /// Confirmed, and the answer that is owed never came.
    pub lost: u64,
    /// Answered twice, differently.
    pub doubled: u64,
}

/// What a verdict says beside lost and doubled.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details {
    /// Answers with a status that is not right for the message.
    pub unexpected: u64,
    /// Up to twenty of them, with what came.
    pub unexpected_answers: Vec<String>,
    /// Confirmed messages without anybody to answer to: so many must have been set apart.
    pub quarantined: u64,
    /// Confirmed messages without an answer that are owed none: set apart, or replaced by a later version.
    pub not_owed: u64,
    /// Messages without an answer that no broker confirmed.
    pub untold: u64,
    /// From when the schedule wanted a message sent to its answer, in milliseconds, where nothing else was waited for.
    pub latency: Percentiles,
    /// From when the schedule wanted a message sent to when it was, in milliseconds.
    pub lateness: Percentiles,
    /// Seconds for which the routing control kept the customers from sending.
    pub paused_seconds: f64,
    /// Messages by what they are.
    pub kinds: BTreeMap<&'static str, u64>,
    /// Each customer's part.
    pub customers: Vec<CustomerCounts>,
}

/// One entry of the books, as far as this is concerned.
pub(super) struct Fact {
    pub(super) note: Note,
    pub(super) confirmed: bool,
    pub(super) answered: bool,
    pub(super) doubled: bool,
}

impl Fact {
    pub(super) fn lost(&self) -> bool {
        self.confirmed && !self.answered && self.note.expected.owed()
    }
}

/// What is counted while messages and answers come by.
#[derive(Debug, Default)]
pub(super) struct Tally {
    owed: u64,
    owed_answered: u64,
    unexpected: u64,
    unexpected_answers: Vec<String>,
    latency: Times,
    lateness: Times,
    paused_seconds: f64,
    kinds: BTreeMap<&'static str, u64>,
}

impl Tally {
    /// A message was handed to a broker for the first time.
    pub(super) fn sent(&mut self, note: Note, now: Timestamp) {
        self.owed += u64::from(note.expected.owed());
        *self.kinds.entry(note.kind).or_default() += 1;
        if let Some(due) = note.due {
            self.lateness.note(due, now);
        }
    }

    /// The first answer to a message came.
    pub(super) fn answered(&mut self, id: &str, note: Note, status: &str, now: Timestamp) {
        self.owed_answered += u64::from(note.expected.owed());
        if let Some(due) = note.due.filter(|_| note.timed) {
            self.latency.note(due, now);
        }
        if !note.expected.allows(status) {
            self.unexpected(id, status);
        }
    }

    /// An answer came that is not right for the message.
    pub(super) fn unexpected(&mut self, id: &str, status: &str) {
        self.unexpected += 1;
        if self.unexpected_answers.len() < NAMED_IDS {
            self.unexpected_answers.push(format!("{id} {status}"));
        }
    }

    /// The routing control kept a customer from sending.
    pub(super) fn paused(&mut self, seconds: f64) {
        // Customers pause together.
        self.paused_seconds = self.paused_seconds.max(seconds);
    }

    /// Answers that are owed and did not come yet.
    pub(super) fn outstanding(&self) -> u64 {
        self.owed - self.owed_answered
    }

    pub(super) fn details(&self, facts: impl Iterator<Item = Fact>) -> Details {
        let mut customers: Vec<CustomerCounts> = Vec::new();
        let (mut quarantined, mut not_owed, mut untold) = (0, 0, 0);
        for fact in facts {
            let customer = fact.note.customer;
            if customers.len() <= customer {
                customers.resize_with(customer + 1, CustomerCounts::default);
            }
            let counts = &mut customers[customer];
            counts.sent += 1;
            counts.confirmed += u64::from(fact.confirmed);
            counts.answered += u64::from(fact.answered);
            counts.lost += u64::from(fact.lost());
            counts.doubled += u64::from(fact.doubled);
            quarantined += u64::from(fact.confirmed && fact.note.expected == Expected::Quarantined);
            not_owed += u64::from(fact.confirmed && !fact.answered && !fact.note.expected.owed());
            untold += u64::from(!fact.confirmed && !fact.answered);
        }
        Details {
            unexpected: self.unexpected,
            unexpected_answers: self.unexpected_answers.clone(),
            quarantined,
            not_owed,
            untold,
            latency: self.latency.percentiles(),
            lateness: self.lateness.percentiles(),
            paused_seconds: self.paused_seconds,
            kinds: self.kinds.clone(),
            customers,
        }
    }
}
