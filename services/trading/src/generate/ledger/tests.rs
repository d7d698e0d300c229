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

/// Books that demand SETTLED, with a confirmed message of each of these.
fn demanding(messages: &[(&str, Expected)]) -> Ledger {
    let mut ledger = Ledger::demanding_settled();
    for (id, expected) in messages {
        ledger.sent_as(id, Note { settles: true, ..note(*expected) }, at(2));
        ledger.confirmed(id);
    }
    ledger
}

fn with_status<'a>(id: &'a str, status: &'a str) -> Answer<'a> {
    Answer { id, status, message_id: status, body: status.as_bytes(), epoch: None }
}

fn settlement(ledger: &mut Ledger) -> Settled {
    ledger.verdict(at(90)).settlement.unwrap()
}

#[test]
fn a_side_that_must_match_and_is_never_told_as_settled_is_unsettled_and_spoils_the_verdict() {
    let mut ledger = demanding(&[("a", Expected::Matched), ("b", Expected::Matched)]);
    for id in ["a", "b"] {
        ledger.answered(with_status(id, "MATCHED"), at(3));
    }
    ledger.answered(with_status("a", "SETTLED"), at(4));
    let verdict = ledger.verdict(at(5));
    assert_eq!((verdict.lost, verdict.good()), (0, false), "{verdict:?}");
    let told = verdict.settlement.unwrap();
    assert_eq!((told.settled, told.unsettled, told.unsettled_ids), (1, 1, vec!["b".to_owned()]));
    ledger.answered(with_status("b", "SETTLED"), at(6));
    assert!(ledger.verdict(at(7)).good());
}

#[test]
fn of_what_nobody_confirmed_nothing_is_demanded() {
    let mut ledger = Ledger::demanding_settled();
    ledger.sent_as("a", Note { settles: true, ..note(Expected::Matched) }, at(2));
    assert_eq!(settlement(&mut ledger).unsettled, 0);
}

#[test]
fn a_report_that_may_match_is_owed_settled_only_once_it_did() {
    let mut ledger =
        demanding(&[("a", Expected::Amended), ("b", Expected::Amendable), ("c", Expected::Amended)]);
    ledger.answered(with_status("a", "NACK"), at(3));
    ledger.answered(with_status("b", "MISMATCHED"), at(3));
    ledger.answered(with_status("c", "MATCHED"), at(3));
    let verdict = ledger.verdict(at(4));
    assert_eq!(verdict.settlement.unwrap().unsettled_ids, ["c"]);
    ledger.answered(with_status("c", "SETTLED"), at(5));
    assert!(ledger.complete() && ledger.verdict(at(6)).good());
}

#[test]
fn settled_twice_with_other_content_or_another_id_is_doubled_and_the_same_again_is_a_repeat() {
    let mut ledger =
        demanding(&[("a", Expected::Matched), ("b", Expected::Matched), ("c", Expected::Matched)]);
    for id in ["a", "b", "c"] {
        ledger.answered(with_status(id, "MATCHED"), at(3));
        ledger.answered(with_status(id, "SETTLED"), at(3));
    }
    ledger.answered(with_status("a", "SETTLED"), at(4));
    assert!(ledger.verdict(at(4)).good());
    ledger.answered(Answer { message_id: "other", ..with_status("b", "SETTLED") }, at(5));
    ledger.answered(Answer { body: b"other", ..with_status("c", "SETTLED") }, at(5));
    let verdict = ledger.verdict(at(6));
    assert_eq!((verdict.repeats, verdict.doubled_ids), (1, vec!["b".to_owned(), "c".to_owned()]));
    assert_eq!(verdict.settlement.unwrap().settled, 3);
}

#[test]
fn settled_is_wrong_for_a_side_that_was_not_matched_in_whatever_order_the_answers_come() {
    let messages = [
        ("mismatched", Expected::Mismatched, "MISMATCHED"),
        ("cancelled", Expected::Cancelled, "CANCELLED"),
        ("bad", Expected::Nack, "NACK"),
        ("late", Expected::Amendable, "MISMATCHED"),
    ];
    for settled_first in [false, true] {
        for (id, expected, status) in messages {
            let mut ledger = demanding(&[(id, expected)]);
            let mut statuses = [status, "SETTLED"];
            if settled_first {
                statuses.reverse();
            }
            for status in statuses {
                ledger.answered(with_status(id, status), at(3));
            }
            let verdict = ledger.verdict(at(4));
            assert_eq!(verdict.details.unexpected_answers, [format!("{id} SETTLED")]);
            assert!(!verdict.good());
        }
    }
}

#[test]
fn a_trade_without_allocations_stays_matched_and_settled_is_wrong_for_it() {
    let mut ledger = Ledger::demanding_settled();
    ledger.sent_as("a", note(Expected::Matched), at(2));
    ledger.confirmed("a");
    ledger.answered(with_status("a", "MATCHED"), at(3));
    assert!(ledger.complete() && ledger.verdict(at(4)).good());
    assert_eq!(settlement(&mut ledger).stay_matched, 1);
    ledger.answered(with_status("a", "SETTLED"), at(5));
    assert_eq!(ledger.verdict(at(6)).details.unexpected_answers, ["a SETTLED"]);
}

#[test]
fn the_end_is_waited_for_until_all_are_settled_too() {
    let mut ledger = demanding(&[("a", Expected::Matched), ("b", Expected::Nack)]);
    ledger.answered(with_status("a", "MATCHED"), at(3));
    ledger.answered(with_status("b", "NACK"), at(3));
    assert!(ledger.outstanding() == 0 && !ledger.complete());
    assert!(ledger.counts().contains("due 0  settled 0  due 1"), "{}", ledger.counts());
    ledger.answered(with_status("a", "SETTLED"), at(4));
    assert!(ledger.complete());
}

#[test]
fn the_time_to_settled_is_apart_from_the_time_to_the_first_answer() {
    let mut ledger = demanding(&[("a", Expected::Matched)]);
    ledger.answered(with_status("a", "MATCHED"), at(3));
    ledger.answered(with_status("a", "SETTLED"), at(8));
    ledger.answered(with_status("a", "SETTLED"), at(80));
    let verdict = ledger.verdict(at(81));
    let (matched, settled) = (verdict.details.latency, verdict.settlement.unwrap().settled_latency);
    assert_eq!((matched.count, matched.max, settled.count, settled.max), (1, 2_000.0, 1, 7_000.0));
}

#[test]
fn without_the_demand_settled_is_counted_and_nobody_owes_it() {
    let mut ledger = Ledger::default();
    for (id, expected) in [("a", Expected::Matched), ("b", Expected::Matched)] {
        ledger.sent_as(id, Note { settles: true, ..note(expected) }, at(2));
        ledger.confirmed(id);
        ledger.answered(with_status(id, "MATCHED"), at(3));
    }
    ledger.answered(with_status("a", "SETTLED"), at(4));
    let verdict = ledger.verdict(at(5));
    assert!(verdict.good() && ledger.complete() && verdict.settlement.is_none(), "{verdict:?}");
    assert_eq!((verdict.statuses["SETTLED"], verdict.answered), (1, 2));
}

#[test]
fn what_was_sent_is_what_was_answered_lost_owed_nothing_or_taken_by_nobody() {
    let mut ledger = demanding(&[
        ("a", Expected::Matched),
        ("b", Expected::Matched),
        ("c", Expected::Mismatched),
        ("d", Expected::Replaced),
        ("e", Expected::Quarantined),
        ("f", Expected::Nack),
    ]);
    ledger.sent_as("g", note(Expected::Matched), at(3));
    for (id, status) in [("a", "MATCHED"), ("a", "SETTLED"), ("b", "MATCHED"), ("c", "MISMATCHED")] {
        ledger.answered(with_status(id, status), at(4));
    }
    let verdict = ledger.verdict(at(5));
    let first_answers: u64 = ["MATCHED", "MISMATCHED"].map(|status| verdict.statuses[status]).iter().sum();
    let Details { not_owed, untold, .. } = verdict.details;
    assert_eq!((first_answers, not_owed, verdict.lost, untold), (3, 2, 1, 1));
    assert_eq!(verdict.sent, first_answers + not_owed + verdict.lost + untold);
    let told = verdict.settlement.as_ref().unwrap();
    assert_eq!(verdict.statuses["MATCHED"], told.settled + told.unsettled + told.stay_matched);
    let text = verdict.to_string();
    let balance =
        "7 sent = 2 MATCHED + 1 MISMATCHED + 2 owed no answer + 1 lost + 1 not confirmed, no answer";
    for part in [balance, "settled              1 ", "unsettled            1   b", "SETTLED took 3000.0 ms"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}
