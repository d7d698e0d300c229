//! That the rules hold for every order of arrival, repetition, version, crash and restart.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use matching::{Action, Book, Digester, SettlementTerms, Status, TradeTerms, last_day};
use proptest::prelude::*;
use support::oracle::{Application, Oracle};
use support::{Batch, Message, Sided, Store, USUAL, compare, compare_sides};

/// Cases of each property. `cargo xtask bench matching` runs a million against the same oracle.
const CASES: u32 = 10_000;

fn messages(most: usize) -> impl Strategy<Value = Vec<Message>> {
    prop::collection::vec(any::<u64>().prop_map(Message::drawn), 0..most)
}

fn histories() -> impl Strategy<Value = Vec<Batch>> {
    let batch = (any::<u64>(), prop::collection::vec(any::<u64>(), 0..7));
    prop::collection::vec(batch.prop_map(|(number, messages)| Batch::drawn(number, &messages)), 0..6)
}

/// First reports only, each side once, in an order that says nothing, and then all of them twice in any order.
fn arrivals(application: Application) -> impl Strategy<Value = (Vec<Message>, Vec<Message>)> {
    messages(20).prop_flat_map(move |drawn| {
        let oracle = Oracle::new(application);
        let mut sides: Vec<Message> = Vec::new();
        for message in drawn {
            let message = Message { version: 1, action: Action::State, ..message };
            if !sides.iter().any(|known| oracle.same_side(known, &message)) {
                sides.push(message);
            }
        }
        let twice: Vec<Message> = sides.iter().chain(&sides).copied().collect();
        (Just(sides), Just(twice).prop_shuffle())
    })
}

/// Where each side stands once everything has arrived: all sides of a key are looked at together, in no order at all.
fn once_all_arrived(application: Application, sides: &[Message]) -> Vec<Status> {
    let oracle = Oracle::new(application);
    let status = |message: &Message| {
        let other =
            sides.iter().find(|other| other.sender != message.sender && oracle.same_key(other, message));
        match other.map(|other| oracle.disagreements(other, message).is_empty()) {
            None => Status::Unmatched,
            Some(false) => Status::Mismatched,
            Some(true) if application == Application::Trades => Status::Matched,
            Some(true) => Status::Settled,
        }
    };
    sides.iter().map(status).collect()
}

/// Where the sides stand after the arrivals, decided in batches between which only what was stored survives.
fn decided<T: Sided>(sides: &[Message], arrivals: &[Message], batch: usize) -> Vec<Status> {
    let mut digester = Digester::new(1);
    let mut store = Store::<T>(Vec::new());
    for arrivals in arrivals.chunks(batch) {
        let mut book = Book::new(store.0.iter().copied());
        let sides: Vec<_> = arrivals.iter().map(|message| T::side(&mut digester, message)).collect();
        for (side, decision) in sides.iter().zip(book.take_all(&sides)) {
            store.write(*side, &decision);
        }
    }
    let book = Book::new(store.0);
    sides.iter().map(|message| book.status(T::side(&mut digester, message).identity()).unwrap()).collect()
}

/// A reordering, by random numbers to sort by.
fn reordered(messages: &[Message], order: &[u64]) -> Vec<Message> {
    let mut numbered: Vec<_> = order.iter().cycle().zip(messages).collect();
    numbered.sort_by_key(|(number, _)| **number);
    numbered.into_iter().map(|(_, message)| *message).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    #[test]
    fn every_history_of_trades_is_decided_as_the_oracle_says(history in histories(), key in any::<u128>()) {
        prop_assert_eq!(compare::<TradeTerms>(&history, key), Ok(()));
    }

    #[test]
    fn every_history_of_settlements_is_decided_as_the_oracle_says(history in histories(), key in any::<u128>()) {
        prop_assert_eq!(compare::<SettlementTerms>(&history, key), Ok(()));
    }

    #[test]
    fn every_history_in_which_sides_wait_some_days_after_the_trade_date_is_decided_as_the_oracle_says(
        history in histories(),
        days in 0..5_u16,
        key in any::<u128>(),
    ) {
        let history: Vec<Batch> = history.into_iter().map(|batch| batch.waiting(days)).collect();
        let side = |digester: &mut Digester, message: &Message| {
            // The report says nothing of it.
            let report = Message { last_day: USUAL.last_day, ..*message };
            let side = TradeTerms::side(digester, &report);
            side.waiting_until(last_day(message.trade_date, days))
        };
        prop_assert_eq!(compare_sides(&history, key, side), Ok(()));
    }

    #[test]
    fn trades_end_the_same_for_every_order_repetition_and_restart(
        (sides, arrivals) in arrivals(Application::Trades),
        batch in 1..9_usize,
    ) {
        let expected = once_all_arrived(Application::Trades, &sides);
        prop_assert_eq!(decided::<TradeTerms>(&sides, &arrivals, batch), expected);
    }

    #[test]
    fn settlements_end_the_same_for_every_order_repetition_and_restart(
        (sides, arrivals) in arrivals(Application::Settlements),
        batch in 1..9_usize,
    ) {
        let expected = once_all_arrived(Application::Settlements, &sides);
        prop_assert_eq!(decided::<SettlementTerms>(&sides, &arrivals, batch), expected);
    }

    #[test]
    fn until_the_other_party_reports_the_highest_version_holds_in_every_order(
        drawn in messages(8),
        order in prop::collection::vec(any::<u64>(), 8),
    ) {
        let versions: Vec<Message> = (1..)
            .zip(drawn)
            .map(|(version, drawn)| Message {
                version,
                trade_date: USUAL.trade_date,
                sender: USUAL.sender,
                broker: USUAL.broker,
                trade: USUAL.trade,
                ..drawn
            })
            .collect();
        if let Some(highest) = versions.last() {
            let expected = match highest.action {
                Action::State => Status::Unmatched,
                Action::Cancel => Status::Cancelled,
            };
            let statuses = decided::<TradeTerms>(&[*highest], &reordered(&versions, &order), 3);
            prop_assert_eq!(statuses, vec![expected]);
        }
    }

    #[test]
    fn reports_that_come_again_change_nothing(
        messages in messages(24),
        again in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
    ) {
        let mut repeated = messages.clone();
        if !messages.is_empty() {
            repeated.extend(again.iter().map(|index| *index.get(&messages)));
        }
        let once = decided::<SettlementTerms>(&messages, &messages, 5);
        prop_assert_eq!(decided::<SettlementTerms>(&messages, &repeated, 5), once);
    }
}
