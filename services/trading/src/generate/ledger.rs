//! The customer's own books: what was sent, confirmed and answered. Pure: time comes in as a parameter.

use std::collections::HashMap;

use jiff::Timestamp;
use matching::Status;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use super::expected::{Expected, SETTLED};
use super::settled::{Demand, Settled};
use super::tally::{Details, Fact, Note, Tally};
use crate::ids;

/// One answer, as far as it must never change.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    status: String,
    message_id: String,
    content: Uuid,
}

/// What the customer knows of one message.
#[derive(Clone, Debug, Default)]
struct Entry {
    note: Note,
    confirmed: bool,
    answer: Option<Seen>,
    /// A matched trade is told of once more when it is settled.
    settled: Option<Seen>,
    doubled: bool,
}

impl Entry {
    fn fact(&self) -> Fact {
        let Self { note, confirmed, answer, doubled, .. } = self;
        Fact { note: *note, confirmed: *confirmed, answered: answer.is_some(), doubled: *doubled }
    }

    fn told(&self, status: Status) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.status == status.word())
    }

    /// Whether it must be told that it is settled: it must match, or may and did.
    fn owes_settled(&self) -> bool {
        self.note.settles
            && self.note.may_settle()
            && (self.note.expected == Expected::Matched || self.told(Status::Matched))
    }

    fn awaits_settled(&self) -> bool {
        self.owes_settled() && self.settled.is_none()
    }

    /// Whether it was told that it is matched, and that is the end of it.
    fn stays_matched(&self) -> bool {
        self.told(Status::Matched) && !self.owes_settled() && self.settled.is_none()
    }

    /// Whether it was told that it is settled and was not matched, or has nothing that could be settled.
    fn wrongly_settled(&self) -> bool {
        self.settled.is_some() && (!self.note.may_settle() || self.contradicts_itself())
    }

    /// Whether it was told that it is settled, and something else than that it is matched.
    fn contradicts_itself(&self) -> bool {
        self.answer.is_some() && !self.told(Status::Matched) && self.settled.is_some()
    }
}

/// A time without answers while some were due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The last answer before, or when the first trade was sent.
    pub from: Timestamp,
    /// The next answer, or the end.
    pub to: Timestamp,
}

impl Gap {
    fn milliseconds(self) -> i64 {
        self.to.as_millisecond() - self.from.as_millisecond()
    }
}

/// The books.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: HashMap<String, Entry>,
    generated: u64,
    sent: u64,
    resent: u64,
    confirmed: u64,
    answered: u64,
    repeats: u64,
    unknown: u64,
    statuses: HashMap<String, u64>,
    epochs: Vec<u64>,
    /// Since when an answer has been due.
    waiting_since: Option<Timestamp>,
    longest: Option<Gap>,
    last_problem: Option<String>,
    tally: Tally,
    /// Where matched trades must be settled.
    demand: Option<Demand>,
}

/// An answer as it came.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Id of the message that it answers.
    pub id: &'a str,
    /// MATCHED, MISMATCHED, CANCELLED, SETTLED or NACK.
    pub status: &'a str,
    /// Id of the answer.
    pub message_id: &'a str,
    /// Its bytes.
    pub body: &'a [u8],
    /// Epoch from its headers.
    pub epoch: Option<u64>,
}

/// What it all came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verdict {
    /// Messages handed to a broker for the first time.
    pub sent: u64,
    /// Messages that were due and never handed to a broker.
    pub unsent: u64,
    /// Sent again because no confirm had come.
    pub resent: u64,
    /// Messages that a broker confirmed.
    pub confirmed: u64,
    /// Messages with an answer.
    pub answered: u64,
    /// Confirmed and never answered.
    pub lost: u64,
    /// Answered twice with different content or message id.
    pub doubled: u64,
    /// The same answer again.
    pub repeats: u64,
    /// Never confirmed; nobody promised anything about them.
    pub unconfirmed: u64,
    /// Answers to messages that this customer did not send.
    pub unknown: u64,
    /// Answers by status.
    pub statuses: std::collections::BTreeMap<String, u64>,
    /// Epochs of the answers, in the order in which they were first seen.
    pub epochs: Vec<u64>,
    /// Longest time without an answer while some were due, in seconds.
    pub unavailable_seconds: f64,
    /// When that was.
    pub unavailable: Option<Gap>,
    /// Ids of up to twenty lost messages.
    pub lost_ids: Vec<String>,
    /// Ids of up to twenty doubled ones.
    pub doubled_ids: Vec<String>,
    /// What became of matched trades, where they must be settled.
    #[serde(flatten)]
    pub settlement: Option<Settled>,
    /// What else there is to say.
    #[serde(flatten)]
    pub details: Details,
}

impl Verdict {
    /// Nothing lost, nothing left unsettled that must be settled, nothing doubled, no wrong answer, and everything that was
    /// sent was taken: without that, too little was tried.
    pub fn good(&self) -> bool {
        let Self { lost, doubled, unconfirmed, unsent, settlement, details, .. } = self;
        let unsettled = settlement.as_ref().map_or(0, |settlement| settlement.unsettled);
        [*lost, unsettled, *doubled, *unconfirmed, *unsent, details.unexpected]
            .iter()
            .all(|count| *count == 0)
    }
}

/// Ids that a verdict names.
const NAMED_IDS: usize = 20;

impl Ledger {
    /// Books that demand of each side that must match that it is told that it is settled.
    pub fn demanding_settled() -> Self {
        Self { demand: Some(Demand::default()), ..Self::default() }
    }

    /// So many more messages are due, or follow at the end.
    pub fn generated(&mut self, messages: u64) {
        self.generated += messages;
    }

    /// A message was handed to a broker, of which nothing is known but its id.
    pub fn sent(&mut self, id: &str, now: Timestamp) {
        self.sent_as(id, Note::default(), now);
    }

    /// A message was handed to a broker; says whether for the first time.
    pub fn sent_as(&mut self, id: &str, note: Note, now: Timestamp) -> bool {
        if self.entries.contains_key(id) {
            self.resent += 1;
            return false;
        }
        let entry = Entry { note, ..Entry::default() };
        if let Some(demand) = &mut self.demand {
            demand.changed(false, entry.awaits_settled());
        }
        self.entries.insert(id.to_owned(), entry);
        self.sent += 1;
        self.tally.sent(note, now);
        if self.waiting_since.is_none() && note.expected.owed() {
            self.waiting_since = Some(now);
        }
        true
    }

    /// Customers were kept from sending by their routing control, for so many seconds so far.
    pub fn paused(&mut self, seconds: f64) {
        self.tally.paused(seconds);
    }

    /// A broker confirmed a message.
    pub fn confirmed(&mut self, id: &str) {
        let Some(entry) = self.entries.get_mut(id) else { return };
        if !entry.confirmed {
            entry.confirmed = true;
            self.confirmed += 1;
        }
    }

    /// An answer came.
    pub fn answered(&mut self, answer: Answer<'_>, now: Timestamp) {
        let Some(entry) = self.entries.get_mut(answer.id) else {
            self.unknown += 1;
            return;
        };
        if let Some(epoch) = answer.epoch.filter(|epoch| !self.epochs.contains(epoch)) {
            self.epochs.push(epoch);
        }
        let seen = Seen {
            status: answer.status.to_owned(),
            message_id: answer.message_id.to_owned(),
            content: ids::content(answer.body),
        };
        let (settled, note) = (answer.status == SETTLED, entry.note);
        let (awaited, wrong) = (entry.awaits_settled(), entry.wrongly_settled());
        let known = if settled { &mut entry.settled } else { &mut entry.answer };
        match known {
            None => {
                *known = Some(seen);
                if !settled {
                    self.answered += 1;
                    self.tally.answered(answer.id, note, answer.status, now);
                } else if let Some(demand) = &mut self.demand {
                    demand.settled(note, now);
                }
                *self.statuses.entry(answer.status.to_owned()).or_default() += 1;
            }
            Some(first) if *first == seen => self.repeats += 1,
            Some(_) => entry.doubled = true,
        }
        entry.doubled |= entry.contradicts_itself();
        if let Some(demand) = &mut self.demand {
            demand.changed(awaited, entry.awaits_settled());
            if entry.wrongly_settled() && !wrong {
                self.tally.unexpected(answer.id, SETTLED);
            }
        }
        if settled {
            // Nobody waits for it as for the answer: it says nothing about how soon those come.
            return;
        }
        self.close_gap(now);
        self.waiting_since = (self.outstanding() > 0).then_some(now);
    }

    fn close_gap(&mut self, now: Timestamp) {
        let Some(from) = self.waiting_since else { return };
        let gap = Gap { from, to: now };
        if self.longest.is_none_or(|longest| gap.milliseconds() > longest.milliseconds()) {
            self.longest = Some(gap);
        }
    }

    /// Something that keeps the customer from sending or reading, for the progress line.
    pub fn problem(&mut self, problem: String) {
        self.last_problem = Some(problem);
    }

    /// The last problem, once.
    pub fn take_problem(&mut self) -> Option<String> {
        self.last_problem.take()
    }

    /// One line of numbers.
    pub fn counts(&self) -> String {
        let Self { sent, confirmed, answered, repeats, .. } = self;
        let outstanding = self.outstanding();
        let settling = self.demand.as_ref().map(Demand::counts).unwrap_or_default();
        format!(
            "sent {sent}  confirmed {confirmed}  answered {answered}  due {outstanding}{settling}  repeats {repeats}"
        )
    }

    /// Messages that have an answer.
    pub fn answered_count(&self) -> u64 {
        self.answered
    }

    /// Answers that are owed and did not come yet.
    pub fn outstanding(&self) -> u64 {
        self.tally.outstanding()
    }

    /// Confirms and answers that came, each once.
    pub fn progress(&self) -> u64 {
        self.confirmed + self.answered + self.demand.as_ref().map_or(0, Demand::settlements)
    }

    /// Whether nothing more is waited for.
    pub fn complete(&self) -> bool {
        self.outstanding() == 0 && self.demand.as_ref().is_none_or(|demand| demand.awaited() == 0)
    }

    /// What it comes to if the books are closed now.
    pub fn verdict(&mut self, now: Timestamp) -> Verdict {
        self.close_gap(now);
        let lost = self.ids(|entry| entry.fact().lost());
        let doubled = self.ids(|entry| entry.doubled);
        let unavailable_ms = self.longest.map_or(0, Gap::milliseconds);
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a run, far below 2^52")]
        let unavailable_seconds = unavailable_ms as f64 / 1000.0;
        Verdict {
            sent: self.sent,
            unsent: self.generated.saturating_sub(self.sent),
            resent: self.resent,
            confirmed: self.confirmed,
            answered: self.answered,
            lost: lost.len() as u64,
            doubled: doubled.len() as u64,
            repeats: self.repeats,
            unconfirmed: self.sent - self.confirmed,
            unknown: self.unknown,
            statuses: self.statuses.iter().map(|(status, count)| (status.clone(), *count)).collect(),
            epochs: self.epochs.clone(),
            unavailable_seconds,
            unavailable: self.longest,
            lost_ids: lost.into_iter().take(NAMED_IDS).collect(),
            doubled_ids: doubled.into_iter().take(NAMED_IDS).collect(),
            settlement: self.demand.as_ref().map(|demand| self.settlement(demand)),
            details: self.tally.details(self.entries.values().map(Entry::fact)),
        }
    }

    /// Ids of some messages, in order.
    fn ids(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<String> {
        let mut ids: Vec<String> =
            self.entries.iter().filter(|(_, entry)| wanted(entry)).map(|(id, _)| id.clone()).collect();
        ids.sort_unstable();
        ids
    }

    fn settlement(&self, demand: &Demand) -> Settled {
        let unsettled = self.ids(|entry| entry.confirmed && entry.awaits_settled());
        let stay_matched = self.entries.values().map(|entry| u64::from(entry.stays_matched())).sum();
        Settled {
            unsettled: unsettled.len() as u64,
            unsettled_ids: unsettled.into_iter().take(NAMED_IDS).collect(),
            stay_matched,
            ..demand.told()
        }
    }

    /// The books, one JSON line a message, in the order of ids.
    pub fn lines(&self) -> String {
        let mut entries: Vec<_> = self.entries.iter().collect();
        entries.sort_unstable_by_key(|(id, _)| id.as_str());
        let mut text = String::new();
        for (id, entry) in entries {
            let answer = entry.answer.as_ref();
            let line = json!({
                "id": id,
                "customer": entry.note.customer,
                "kind": entry.note.kind,
                "expected": entry.note.expected,
                "confirmed": entry.confirmed,
                "status": answer.map(|answer| &answer.status),
                "messageId": answer.map(|answer| &answer.message_id),
                "settled": entry.settled.as_ref().map(|answer| &answer.message_id),
                "doubled": entry.doubled,
            });
            text.push_str(&line.to_string());
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests;
