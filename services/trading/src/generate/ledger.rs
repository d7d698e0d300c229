//! The customer's own books: what was sent, confirmed and answered. Pure: time comes in as a parameter.

use std::collections::HashMap;

use jiff::Timestamp;
use matching::Status;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

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

    /// Whether it was told that it is settled, and something else than that it is matched.
    fn contradicts_itself(&self) -> bool {
        let told = self.answer.as_ref().is_some_and(|answer| answer.status != Status::Matched.word());
        told && self.settled.is_some()
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
    /// What else there is to say.
    #[serde(flatten)]
    pub details: Details,
}

impl Verdict {
    /// Nothing lost, nothing doubled, no wrong answer, and everything that was sent was taken: without that, too little
    /// was tried.
    pub fn good(&self) -> bool {
        let Self { lost, doubled, unconfirmed, unsent, details, .. } = self;
        [*lost, *doubled, *unconfirmed, *unsent, details.unexpected].iter().all(|count| *count == 0)
    }
}

/// Ids that a verdict names.
const NAMED_IDS: usize = 20;

impl Ledger {
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
        self.entries.insert(id.to_owned(), Entry { note, ..Entry::default() });
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
        let (settled, note) = (answer.status == Status::Settled.word(), entry.note);
        let known = if settled { &mut entry.settled } else { &mut entry.answer };
        match known {
            None => {
                *known = Some(seen);
                if !settled {
                    self.answered += 1;
                    self.tally.answered(answer.id, note, answer.status, now);
                }
                *self.statuses.entry(answer.status.to_owned()).or_default() += 1;
            }
            Some(first) if *first == seen => self.repeats += 1,
            Some(_) => entry.doubled = true,
        }
        entry.doubled |= entry.contradicts_itself();
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
        format!(
            "sent {sent}  confirmed {confirmed}  answered {answered}  due {outstanding}  repeats {repeats}"
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

    /// What it comes to if the books are closed now.
    pub fn verdict(&mut self, now: Timestamp) -> Verdict {
        self.close_gap(now);
        let ids = |wanted: &dyn Fn(&Entry) -> bool| {
            let mut ids: Vec<String> =
                self.entries.iter().filter(|(_, entry)| wanted(entry)).map(|(id, _)| id.clone()).collect();
            ids.sort_unstable();
            ids
        };
        let lost = ids(&|entry| entry.fact().lost());
        let doubled = ids(&|entry| entry.doubled);
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
            details: self.tally.details(self.entries.values().map(Entry::fact)),
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
mod tests {
    use super::super::expected::Expected;
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn answer<'a>(id: &'a str, message_id: &'a str, body: &'a str) -> Answer<'a> {
        Answer { id, status: "MATCHED", message_id, body: body.as_bytes(), epoch: Some(2) }
    }

    #[test]
    fn a_confirmed_message_without_an_answer_is_lost_and_an_unconfirmed_one_is_not() {
        let mut ledger = Ledger::default();
        for id in ["a", "b", "c"] {
            ledger.sent(id, at(1));
        }
        ledger.confirmed("a");
        ledger.confirmed("b");
        ledger.answered(answer("a", "1", "x"), at(2));
        let verdict = ledger.verdict(at(3));
        assert_eq!((verdict.lost, verdict.unconfirmed, verdict.lost_ids), (1, 1, vec!["b".to_owned()]));
    }

    #[test]
    fn the_same_answer_again_is_a_repeat_and_another_one_is_a_double() {
        let mut ledger = Ledger::default();
        for id in ["a", "b"] {
            ledger.sent(id, at(1));
            ledger.confirmed(id);
        }
        ledger.answered(answer("a", "1", "x"), at(2));
        ledger.answered(answer("a", "1", "x"), at(3));
        ledger.answered(answer("b", "2", "x"), at(3));
        assert!(ledger.verdict(at(3)).good());
        ledger.answered(answer("a", "1", "y"), at(4));
        ledger.answered(answer("b", "3", "x"), at(4));
        let verdict = ledger.verdict(at(5));
        assert_eq!((verdict.repeats, verdict.doubled, verdict.good()), (1, 2, false));
    }

    #[test]
    fn a_verdict_is_not_good_while_a_message_was_never_taken() {
        let mut ledger = Ledger::default();
        ledger.sent("a", at(1));
        let verdict = ledger.verdict(at(2));
        assert_eq!((verdict.lost, verdict.doubled, verdict.good()), (0, 0, false));
    }

    #[test]
    fn a_verdict_is_not_good_while_a_message_that_was_due_was_never_handed_over() {
        let mut ledger = Ledger::default();
        ledger.generated(2);
        ledger.sent("a", at(1));
        ledger.confirmed("a");
        ledger.answered(answer("a", "1", "x"), at(2));
        let verdict = ledger.verdict(at(2));
        assert_eq!((verdict.unsent, verdict.lost, verdict.good()), (1, 0, false));
    }

    #[test]
    fn two_statuses_for_one_message_are_a_double() {
        let mut ledger = Ledger::default();
        ledger.sent("a", at(1));
        ledger.answered(answer("a", "1", "x"), at(2));
        ledger.answered(Answer { status: "NACK", ..answer("a", "2", "z") }, at(3));
        assert_eq!(ledger.verdict(at(4)).doubled, 1);
    }

    fn note(expected: Expected) -> Note {
        Note { kind: "some", expected, due: Some(at(1)), timed: true, ..Note::default() }
    }

    #[test]
    fn a_wrong_answer_spoils_the_verdict_and_what_is_owed_no_answer_is_not_lost() {
        let mut ledger = Ledger::default();
        for (id, expected) in [("a", Expected::Matched), ("b", Expected::Quarantined)] {
            assert!(ledger.sent_as(id, note(expected), at(3)));
            assert!(!ledger.sent_as(id, note(expected), at(4)));
            ledger.confirmed(id);
        }
        assert_eq!(ledger.outstanding(), 1);
        ledger.answered(answer("a", "1", "x"), at(5));
        let verdict = ledger.verdict(at(6));
        assert!(verdict.good() && ledger.outstanding() == 0, "{verdict:?}");
        assert_eq!((verdict.lost, verdict.resent, verdict.details.quarantined), (0, 2, 1));
        ledger.sent_as("c", note(Expected::Nack), at(6));
        ledger.confirmed("c");
        ledger.answered(answer("c", "2", "x"), at(7));
        let verdict = ledger.verdict(at(8));
        assert_eq!(
            (verdict.good(), &*verdict.details.unexpected_answers),
            (false, &["c MATCHED".to_owned()][..])
        );
    }

    #[test]
    fn times_begin_when_the_schedule_wanted_the_message_sent() {
        let mut ledger = Ledger::default();
        ledger.sent_as("a", note(Expected::Matched), at(3));
        ledger.sent_as("b", Note { timed: false, ..note(Expected::Matched) }, at(2));
        ledger.answered(answer("a", "1", "x"), at(6));
        ledger.answered(answer("b", "2", "x"), at(60));
        let Details { latency, lateness, .. } = ledger.verdict(at(61)).details;
        assert_eq!((latency.count, latency.max), (1, 5_000.0));
        assert_eq!((lateness.count, lateness.p50, lateness.max), (2, 1_000.0, 2_000.0));
    }

    #[test]
    fn each_customer_has_its_own_part_of_the_verdict() {
        let mut ledger = Ledger::default();
        for (id, customer) in [("a", 0), ("b", 2), ("c", 2)] {
            ledger.sent_as(id, Note { customer, ..Note::default() }, at(1));
            ledger.confirmed(id);
        }
        ledger.answered(answer("b", "1", "x"), at(2));
        ledger.answered(answer("b", "1", "y"), at(2));
        let customers = ledger.verdict(at(3)).details.customers;
        let parts: Vec<_> = customers.iter().map(|part| (part.sent, part.lost, part.doubled)).collect();
        assert_eq!(parts, [(1, 1, 0), (0, 0, 0), (2, 1, 1)]);
    }

    #[test]
    fn a_settled_trade_has_two_answers_in_any_order_and_only_a_matched_one_may() {
        let settled = |id, message_id| Answer { status: "SETTLED", ..answer(id, message_id, "s") };
        let mut ledger = Ledger::default();
        for id in ["a", "b"] {
            ledger.sent(id, at(1));
            ledger.confirmed(id);
        }
        ledger.answered(answer("a", "1", "x"), at(2));
        ledger.answered(settled("a", "2"), at(2));
        ledger.answered(settled("a", "2"), at(2));
        ledger.answered(settled("b", "4"), at(2));
        assert_eq!(ledger.outstanding(), 1, "that it is settled is not the answer");
        ledger.answered(answer("b", "3", "x"), at(3));
        let verdict = ledger.verdict(at(3));
        assert!(verdict.good(), "{verdict:?}");
        assert_eq!((verdict.answered, verdict.repeats, verdict.statuses["SETTLED"]), (2, 1, 2));
        ledger.answered(settled("a", "5"), at(4));
        ledger.sent("c", at(4));
        ledger.answered(Answer { status: "NACK", ..answer("c", "6", "x") }, at(4));
        ledger.answered(settled("c", "7"), at(4));
        assert_eq!(ledger.verdict(at(5)).doubled_ids, ["a", "c"]);
    }

    #[test]
    fn unavailable_time_is_the_longest_wait_while_an_answer_was_due() {
        let mut ledger = Ledger::default();
        ledger.sent("a", at(10));
        ledger.answered(answer("a", "1", "x"), at(12));
        // Nothing is due between 12 and 50.
        ledger.sent("b", at(50));
        ledger.sent("c", at(51));
        ledger.answered(answer("b", "2", "x"), at(57));
        ledger.answered(answer("c", "3", "x"), at(58));
        let verdict = ledger.verdict(at(90));
        assert_eq!(verdict.unavailable, Some(Gap { from: at(50), to: at(57) }));
        assert!((verdict.unavailable_seconds - 7.0).abs() < 1e-9);
    }
}
