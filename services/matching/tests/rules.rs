//! The rules of matching, one by one.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use jiff::civil::date;
use matching::{
    Action, Book, Decision, Difference, Digester, Identity, Indicator, Known, Outcome, Reason, Refusal,
    Report, ReportError, SettlementTerms, Status, Taken, TradeTerms, why_settlement_is_open,
    why_trade_is_open,
};
use rust_decimal::Decimal;
use support::{BROKER, Message, Sided, USUAL};

/// The usual report by the broker.
const OTHER: Message = Message { sender: BROKER, ..USUAL };

fn take<T: Sided>(book: &mut Book<T>, message: &Message) -> Decision {
    book.take(T::side(&mut Digester::new(7), message))
}

fn identity<T: Sided>(message: &Message) -> Identity {
    T::side(&mut Digester::new(7), message).identity()
}

fn outcome(decision: Decision) -> Outcome {
    match decision {
        Decision::Paired { outcome, .. } => outcome,
        other => panic!("not paired: {other:?}"),
    }
}

fn differences(decision: Decision) -> Vec<Difference> {
    match outcome(decision) {
        Outcome::Mismatched(differences) => differences.iter().collect(),
        Outcome::Agreed(status) => panic!("{status:?}"),
    }
}

#[test]
fn two_reports_with_equal_terms_match() {
    let mut book = Book::<TradeTerms>::default();
    assert_eq!(take(&mut book, &USUAL), Decision::Open(Taken::First));
    let expected = Decision::Paired {
        taken: Taken::First,
        counterpart: identity::<TradeTerms>(&USUAL),
        outcome: Outcome::Agreed(Status::Matched),
    };
    assert_eq!(take(&mut book, &OTHER), expected);
    assert_eq!(book.status(identity::<TradeTerms>(&USUAL)), Some(Status::Matched));
    assert_eq!(book.status(identity::<TradeTerms>(&OTHER)), Some(Status::Matched));
}

#[test]
fn two_settlements_with_equal_terms_are_settled() {
    let mut book = Book::<SettlementTerms>::default();
    take(&mut book, &USUAL);
    assert_eq!(outcome(take(&mut book, &OTHER)), Outcome::Agreed(Status::Settled));
}

#[test]
fn prices_are_compared_by_value_not_by_digits() {
    let mut digester = Digester::new(7);
    let priced = |price: &str| Report { price: price.parse().unwrap(), ..USUAL.report() };
    let side = digester.trade(&priced("18.5")).unwrap();
    assert_eq!(digester.trade(&priced("18.500")), Ok(side));
    assert_eq!(digester.trade(&priced("18.501")), Err(ReportError::Price));
    let too_large = Report { price: Decimal::from(i64::MAX), ..USUAL.report() };
    assert_eq!(digester.trade(&too_large), Err(ReportError::Price));
}

#[test]
fn a_mismatch_names_every_term_that_differs() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    let decision = take(&mut book, &Message { security: "MSFT", quantity: 1, ..OTHER });
    assert_eq!(differences(decision), [Difference::Security, Difference::Quantity]);
    assert_eq!(decision.reason().unwrap().codes(), ["SECURITY_DIFFERS", "QUANTITY_DIFFERS"]);
}

#[test]
fn settlements_also_compare_indicator_date_and_account() {
    let mut book = Book::<SettlementTerms>::default();
    take(&mut book, &USUAL);
    let all = Message {
        security: "MSFT",
        cents: 1,
        quantity: 1,
        indicator: Indicator::Sell,
        settlement_date: date(2026, 2, 12),
        account: "9876543210",
        ..OTHER
    };
    let expected = [
        Difference::Security,
        Difference::Price,
        Difference::Quantity,
        Difference::Indicator,
        Difference::SettlementDate,
        Difference::Account,
    ];
    assert_eq!(differences(take(&mut book, &all)), expected);
}

#[test]
fn what_is_not_compared_may_differ() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    let decision = take(&mut book, &Message { rest: "other instructions", version: 4, ..OTHER });
    assert_eq!(outcome(decision), Outcome::Agreed(Status::Matched));
}

#[test]
fn another_settlement_date_or_indicator_is_another_trade() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    let later = Message { settlement_date: date(2026, 2, 12), ..OTHER };
    assert_eq!(take(&mut book, &later), Decision::Open(Taken::First));
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    let sale = Message { indicator: Indicator::Sell, ..OTHER };
    assert_eq!(take(&mut book, &sale), Decision::Open(Taken::First));
}

#[test]
fn an_id_may_return_on_another_day() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    let tomorrow = Message { trade_date: date(2026, 2, 10), ..USUAL };
    assert_eq!(take(&mut book, &tomorrow), Decision::Open(Taken::First));
    assert_eq!(book.len(), 2);
}

#[test]
fn allocations_of_a_trade_settle_one_by_one() {
    let mut book = Book::<SettlementTerms>::default();
    take(&mut book, &USUAL);
    let second = Message { allocation: 2, ..OTHER };
    assert_eq!(take(&mut book, &second), Decision::Open(Taken::First));
}

#[test]
fn the_same_report_again_changes_nothing_and_another_content_is_a_conflict() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    assert_eq!(take(&mut book, &USUAL), Decision::Repeat);
    for other in [
        Message { cents: 1851, ..USUAL },
        Message { rest: "other instructions", ..USUAL },
        Message { settlement_date: date(2026, 2, 12), ..USUAL },
        Message { action: Action::Cancel, ..USUAL },
    ] {
        assert_eq!(take(&mut book, &other), Decision::Refused(Refusal::Conflict), "{other:?}");
    }
    assert_eq!(book.status(identity::<TradeTerms>(&USUAL)), Some(Status::Unmatched));
}

#[test]
fn only_the_two_parties_may_report() {
    let mut digester = Digester::new(7);
    let stranger = Report { sender: "MSAI0199", ..USUAL.report() };
    assert_eq!(digester.trade(&stranger), Err(ReportError::NotAParty));
    let alone = Report { broker: USUAL.sender, ..USUAL.report() };
    assert_eq!(digester.settlement(&alone, &USUAL.allocation()), Err(ReportError::OneParty));
}

#[test]
fn an_amendment_replaces_an_unmatched_side_and_may_pair_it() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &Message { settlement_date: date(2026, 2, 12), ..USUAL });
    take(&mut book, &OTHER);
    let amended = Message { version: 2, ..USUAL };
    let expected = Decision::Paired {
        taken: Taken::Replaces(1),
        counterpart: identity::<TradeTerms>(&OTHER),
        outcome: Outcome::Agreed(Status::Matched),
    };
    assert_eq!(take(&mut book, &amended), expected);
    assert_eq!(book.len(), 2);
}

#[test]
fn a_lower_version_has_no_effect() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &Message { version: 2, ..USUAL });
    assert_eq!(take(&mut book, &USUAL), Decision::Refused(Refusal::Superseded));
}

#[test]
fn a_cancelled_side_does_not_pair_even_if_the_cancel_came_first() {
    let cancel = Message { version: 2, action: Action::Cancel, ..USUAL };
    for first in [true, false] {
        let mut book = Book::<TradeTerms>::default();
        if first {
            assert_eq!(take(&mut book, &cancel), Decision::Cancelled(Taken::First));
            assert_eq!(take(&mut book, &USUAL), Decision::Refused(Refusal::Superseded));
        } else {
            take(&mut book, &USUAL);
            assert_eq!(take(&mut book, &cancel), Decision::Cancelled(Taken::Replaces(1)));
        }
        assert_eq!(take(&mut book, &OTHER), Decision::Open(Taken::First));
        assert_eq!(book.status(identity::<TradeTerms>(&USUAL)), Some(Status::Cancelled));
    }
}

#[test]
fn a_version_above_a_cancel_brings_the_side_back() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &Message { version: 2, action: Action::Cancel, ..USUAL });
    let back = Message { version: 3, ..USUAL };
    assert_eq!(take(&mut book, &back), Decision::Open(Taken::Replaces(2)));
}

#[test]
fn after_the_decision_every_higher_version_is_too_late() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    take(&mut book, &OTHER);
    let expired = Message { trade: "2", ..USUAL };
    take(&mut book, &expired);
    book.expire(date(2026, 2, 12));
    for action in [Action::State, Action::Cancel] {
        for known in [USUAL, OTHER, expired] {
            let late = Message { version: 2, action, ..known };
            assert_eq!(take(&mut book, &late), Decision::Refused(Refusal::TooLate));
        }
    }
    assert_eq!(Refusal::TooLate.code(), "TOO_LATE");
}

#[test]
fn an_unmatched_side_expires_after_its_last_day_and_pairs_no_more() {
    let mut book = Book::<TradeTerms>::default();
    take(&mut book, &USUAL);
    assert_eq!(book.expire(USUAL.last_day), []);
    assert_eq!(book.expire(date(2026, 2, 12)), [identity::<TradeTerms>(&USUAL)]);
    assert_eq!(book.expire(date(2026, 2, 12)), []);
    assert_eq!(book.status(identity::<TradeTerms>(&USUAL)), Some(Status::Expired));
    assert_eq!(take(&mut book, &OTHER), Decision::Open(Taken::First));
}

#[test]
fn a_matched_trade_is_settled_with_its_last_allocation() {
    use Status::{Matched, Mismatched, Settled, Unmatched};
    assert_eq!(Matched.after_settlements([Settled, Settled]), Settled);
    assert_eq!(Matched.after_settlements([Settled, Unmatched]), Matched);
    assert_eq!(Matched.after_settlements([Mismatched, Settled]), Matched);
    assert_eq!(Matched.after_settlements([]), Matched);
    assert_eq!(Unmatched.after_settlements([Settled]), Unmatched);
}

#[test]
fn an_open_trade_is_told_what_keeps_it_from_the_other_report() {
    let report = USUAL.report();
    let lone = Reason::NoCounterpart;
    assert_eq!(lone.codes(), ["NO_COUNTERPART"]);
    let strangers = [
        Message { trade: "2", ..OTHER },
        Message { sender: "FIDE0226", broker: "FIDE0226", ..OTHER },
        Message { trade_date: date(2026, 2, 10), ..USUAL },
    ];
    assert_eq!(why_trade_is_open(&report, &strangers.each_ref().map(Message::report)), lone);
    for (other, code) in [
        (Message { trade_date: date(2026, 2, 10), ..OTHER }, "TRADE_DATE_DIFFERS"),
        (Message { settlement_date: date(2026, 2, 12), ..OTHER }, "SETTLEMENT_DATE_DIFFERS"),
        (Message { indicator: Indicator::Sell, ..OTHER }, "INDICATOR_DIFFERS"),
    ] {
        assert_eq!(why_trade_is_open(&report, &[other.report()]).codes(), [code]);
    }
}

#[test]
fn of_several_near_misses_the_closest_counts_in_any_order() {
    let near = Message { settlement_date: date(2026, 2, 12), ..OTHER };
    let far = Message { trade_date: date(2026, 2, 10), indicator: Indicator::Sell, ..near };
    for others in [[near.report(), far.report()], [far.report(), near.report()]] {
        assert_eq!(why_trade_is_open(&USUAL.report(), &others).codes(), ["SETTLEMENT_DATE_DIFFERS"]);
    }
}

#[test]
fn an_open_settlement_is_told_when_the_trade_dates_differ() {
    let other = Message { trade_date: date(2026, 2, 10), ..OTHER };
    let (report, part) = (USUAL.report(), USUAL.allocation());
    let (others, same, second) = (other.report(), other.allocation(), Message { allocation: 2, ..other });
    let reason = why_settlement_is_open((&report, &part), [(&others, &same)]);
    assert_eq!(reason.codes(), ["TRADE_DATE_DIFFERS"]);
    let reason = why_settlement_is_open((&report, &part), [(&others, &second.allocation())]);
    assert_eq!(reason, Reason::NoCounterpart);
}

#[test]
fn every_word_of_a_status_is_read_back() {
    for word in ["UNMATCHED", "MATCHED", "MISMATCHED", "SETTLED", "CANCELLED", "EXPIRED"] {
        assert_eq!(Status::from_word(word).unwrap().word(), word);
    }
    assert_eq!(Status::from_word("Settled"), None);
}

#[test]
fn of_several_stored_versions_the_highest_holds_in_any_order() {
    let mut digester = Digester::new(7);
    let stored = [(1, Status::Unmatched), (3, Status::Matched), (2, Status::Cancelled)];
    let mut known = stored.map(|(version, status)| {
        let side = digester.trade(&Message { version, ..USUAL }.report()).unwrap();
        Known { side, status }
    });
    for _ in 0..3 {
        known.rotate_left(1);
        let mut book = Book::new(known);
        assert_eq!(book.len(), 1);
        assert_eq!(book.status(identity::<TradeTerms>(&USUAL)), Some(Status::Matched));
        assert_eq!(take(&mut book, &USUAL), Decision::Refused(Refusal::Superseded));
    }
}

#[test]
fn sides_that_are_taken_together_pair_within_a_large_book_too() {
    let mut digester = Digester::new(7);
    let names: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let mut sides = |sender| -> Vec<_> {
        let side = |name| digester.trade(&Report { trade: name, sender, ..USUAL.report() }).unwrap();
        names.iter().map(String::as_str).map(side).collect()
    };
    let (managers, brokers) = (sides(USUAL.sender), sides(BROKER));
    let mut book = Book::<TradeTerms>::default();
    assert_eq!(book.take_all(&managers), vec![Decision::Open(Taken::First); 10_000]);
    for decision in book.take_all(&brokers) {
        assert_eq!(outcome(decision), Outcome::Agreed(Status::Matched));
    }
    assert_eq!(book.take_all(&managers), vec![Decision::Repeat; 10_000]);
    assert_eq!(book.len(), 20_000);
}
