//! The rules of matching, and that they hold for every order of arrival, repetition and restart.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

use std::collections::HashMap;

use jiff::civil::{Date, date};
use matching::{
    Book, Decision, Difference, Identity, Indicator, Known, MatchKey, Outcome, Side, Status, Terms,
};
use proptest::prelude::*;
use rust_decimal::Decimal;

const DAY: Date = date(2026, 2, 9);

fn key(trade: &str, trade_date: Date) -> MatchKey {
    MatchKey {
        im: "QAINS012".into(),
        broker: "QABRO010".into(),
        trade: trade.into(),
        indicator: Indicator::Buy,
        trade_date,
        settlement_date: date(2026, 2, 11),
    }
}

fn terms(security: &str, cents: i64, quantity: i32) -> Terms {
    Terms { security: security.into(), price: Decimal::new(cents, 2), quantity }
}

fn side(sender: &str, key: MatchKey, terms: Terms) -> Side {
    let content =
        format!("{sender} {key:?} {} {} {}", terms.security, terms.price.normalize(), terms.quantity);
    Side::new(sender.into(), key, terms, content).unwrap()
}

#[test]
fn two_reports_with_equal_terms_match() {
    let mut book = Book::default();
    let first = side("QAINS012", key("1", DAY), terms("AMZN", 1850, 2));
    assert_eq!(book.take(first.clone()), Decision::Open);
    let decision = book.take(side("QABRO010", key("1", DAY), terms("AMZN", 1850, 2)));
    assert_eq!(
        decision,
        Decision::Paired { counterpart: Box::new(first.clone()), outcome: Outcome::Matched }
    );
    assert_eq!(book.status(first.identity()), Some(Status::Matched));
}

#[test]
fn prices_are_compared_by_value_not_by_digits() {
    let mut book = Book::default();
    book.take(side("QAINS012", key("1", DAY), terms("AMZN", 1850, 2)));
    let same_price = Terms { price: Decimal::new(185, 1), ..terms("AMZN", 0, 2) };
    let decision = book.take(side("QABRO010", key("1", DAY), same_price));
    assert!(matches!(decision, Decision::Paired { outcome: Outcome::Matched, .. }), "{decision:?}");
}

#[test]
fn a_mismatch_names_every_term_that_differs() {
    let outcome = Outcome::of(&terms("AMZN", 1850, 2), &terms("MSFT", 1850, 1));
    assert_eq!(outcome, Outcome::Mismatched(vec![Difference::Security, Difference::Quantity]));
}

#[test]
fn another_settlement_date_is_another_trade() {
    let mut book = Book::default();
    book.take(side("QAINS012", key("1", DAY), terms("AMZN", 1850, 2)));
    let later = MatchKey { settlement_date: date(2026, 2, 12), ..key("1", DAY) };
    assert_eq!(book.take(side("QABRO010", later, terms("AMZN", 1850, 2))), Decision::Open);
}

#[test]
fn an_id_may_return_on_another_day() {
    let mut book = Book::default();
    book.take(side("QAINS012", key("1", DAY), terms("AMZN", 1850, 2)));
    let tomorrow = side("QAINS012", key("1", date(2026, 2, 10)), terms("AMZN", 1850, 2));
    assert_eq!(book.take(tomorrow), Decision::Open);
}

#[test]
fn the_same_report_again_changes_nothing_and_another_content_is_a_conflict() {
    let mut book = Book::default();
    let report = side("QAINS012", key("1", DAY), terms("AMZN", 1850, 2));
    book.take(report.clone());
    assert_eq!(book.take(report), Decision::Repeat);
    assert_eq!(book.take(side("QAINS012", key("1", DAY), terms("AMZN", 1851, 2))), Decision::Conflict);
}

#[test]
fn a_third_party_cannot_report() {
    let refused = Side::new("MSAI0199".into(), key("1", DAY), terms("AMZN", 1850, 2), String::new());
    assert_eq!(refused, Err(matching::NotAParty));
}

/// The rules again, written as plainly as possible: all reports of a key are looked at together.
fn oracle(sides: &[Side]) -> HashMap<Identity, Status> {
    sides
        .iter()
        .map(|side| {
            let other =
                sides.iter().find(|other| other.key() == side.key() && other.sender() != side.sender());
            let status = match other {
                None => Status::Unmatched,
                Some(other) if other.terms() == side.terms() => Status::Matched,
                Some(_) => Status::Mismatched,
            };
            (side.identity().clone(), status)
        })
        .collect()
}

/// Distinct reports: few trades, both senders, few terms, so that every situation is common.
fn reports() -> impl Strategy<Value = Vec<Side>> {
    let report = (0..6u8, 0..2u8, any::<bool>(), 0..2i64, 1..3i32, any::<bool>(), any::<bool>());
    prop::collection::vec(report, 0..24).prop_map(|drawn| {
        let mut sides: HashMap<Identity, Side> = HashMap::new();
        for (trade, day, from_im, cents, quantity, sell, late) in drawn {
            let mut key = key(&trade.to_string(), date(2026, 2, 9 + i8::try_from(day).unwrap()));
            if sell {
                key.indicator = Indicator::Sell;
            }
            if late {
                key.settlement_date = date(2026, 2, 13);
            }
            let sender = if from_im { "QAINS012" } else { "QABRO010" };
            let side = side(sender, key, terms("AMZN", 1850 + cents, quantity));
            sides.entry(side.identity().clone()).or_insert(side);
        }
        let mut sides: Vec<_> = sides.into_values().collect();
        sides.sort_by(|left, right| left.identity().cmp(right.identity()));
        sides
    })
}

proptest! {
    /// Any order, with repeats, cut into batches between which only the stored state survives.
    #[test]
    fn every_order_repetition_and_restart_ends_as_the_oracle_says(
        (sides, arrivals) in reports().prop_flat_map(|sides| {
            let twice: Vec<_> = sides.iter().chain(&sides).cloned().collect();
            (Just(sides), Just(twice).prop_shuffle())
        }),
        batch in 1..7usize,
    ) {
        let mut stored: HashMap<Identity, Known> = HashMap::new();
        for arrivals in arrivals.chunks(batch) {
            let mut book = Book::new(stored.values().cloned());
            for side in arrivals {
                let repeat = stored.contains_key(side.identity());
                match book.take(side.clone()) {
                    Decision::Open => {
                        prop_assert!(!repeat);
                        stored.insert(side.identity().clone(), Known { side: side.clone(), status: Status::Unmatched });
                    }
                    Decision::Paired { counterpart, outcome } => {
                        prop_assert!(!repeat);
                        let status = outcome.status();
                        prop_assert_eq!(stored[counterpart.identity()].status, Status::Unmatched);
                        stored.insert(counterpart.identity().clone(), Known { side: *counterpart, status });
                        stored.insert(side.identity().clone(), Known { side: side.clone(), status });
                    }
                    Decision::Repeat => prop_assert!(repeat),
                    Decision::Conflict => prop_assert!(false, "distinct reports never conflict"),
                }
            }
        }
        let result: HashMap<_, _> = stored.into_iter().map(|(identity, known)| (identity, known.status)).collect();
        prop_assert_eq!(result, oracle(&sides));
    }

    #[test]
    fn comparing_is_symmetric(a in (0..3i64, 1..3i32), b in (0..3i64, 1..3i32)) {
        let (left, right) = (terms("AMZN", a.0, a.1), terms("AMZN", b.0, b.1));
        prop_assert_eq!(Outcome::of(&left, &right), Outcome::of(&right, &left));
    }
}
