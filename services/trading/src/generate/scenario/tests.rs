use std::collections::HashSet;

use super::super::choice::Spread;
use super::*;

const DAY: Date = jiff::civil::date(2026, 2, 9);

fn messages(mut scenario: Scenario, count: usize) -> Vec<Message> {
    let mut messages: Vec<_> = (0..count).map(|_| scenario.next_message()).collect();
    messages.extend(scenario.close());
    messages
}

fn all(seed: u64, bad_share: f64) -> Vec<Message> {
    messages(Scenario::new(seed, bad_share, DAY), 3001)
}

fn with_odds(odds: &str) -> Scenario {
    Scenario::new(11, 0.0, DAY).with(Mix { odds: odds.parse().unwrap(), ..Mix::default() })
}

fn text(message: &Message) -> &str {
    std::str::from_utf8(&message.body).unwrap()
}

fn read(message: &Message) -> Trade {
    crate::parse::trade(text(message), message.correlation_id.as_deref().unwrap()).unwrap()
}

fn ids(messages: &[Message]) -> HashSet<&str> {
    messages.iter().map(|message| message.id.as_str()).collect()
}

#[test]
fn the_same_seed_sends_the_same_messages() {
    assert_eq!(all(7, 0.1), all(7, 0.1));
    assert_ne!(all(7, 0.1), all(8, 0.1));
}

/// Each message without the number of its trade.
fn content(messages: &[Message]) -> Vec<String> {
    let number = |message: &Message| message.id.rsplit('-').next().unwrap_or_default().to_owned();
    let body = |message: &Message| String::from_utf8_lossy(&message.body).into_owned();
    messages.iter().map(|message| body(message).replace(&number(message), "")).collect()
}

#[test]
fn the_same_seed_in_another_run_sends_the_same_content_under_other_ids() {
    let messages = |run| messages(Scenario::new(7, 0.1, DAY).in_run(run), 3001);
    let (one, other) = (messages(0), messages(1000));
    assert_eq!(content(&one), content(&other));
    assert_eq!(one, messages(0));
    assert!(ids(&one).is_disjoint(&ids(&other)));
}

#[test]
fn runs_of_a_day_that_follow_each_other_share_no_id() {
    let begin = |second: i64| run_of_day(Timestamp::from_second(1_770_000_000 + second).unwrap());
    let mut seen = HashSet::new();
    // Ten seconds at 1000 messages a second, three times.
    for run in 0..3 {
        let messages = messages(Scenario::new(7, 0.1, DAY).in_run(begin(run * 10)), 10_000);
        let fresh: HashSet<String> = messages.into_iter().map(|message| message.id).collect();
        assert!(seen.is_disjoint(&fresh), "run {run}");
        seen.extend(fresh);
    }
    let last = Timestamp::from_second(86_399).unwrap();
    assert!(run_of_day(last) < TRADE_NUMBERS);
}

#[test]
fn customers_of_one_run_share_neither_ids_nor_content_and_stay_within_the_numbers_of_the_run() {
    let customers = 5;
    let of =
        |customer| messages(Scenario::new(7, 0.1, DAY).in_run(0).of_customer(customer, customers), 2_000);
    let mut seen: HashSet<String> = HashSet::new();
    for customer in 0..customers {
        let messages = of(customer);
        assert_eq!(messages, of(customer));
        assert!(ids(&messages).iter().all(|id| !seen.contains(*id)), "customer {customer}");
        assert_ne!(content(&messages), content(&of((customer + 1) % customers)));
        seen.extend(messages.into_iter().map(|message| message.id));
    }
    // Ten seconds at 1000 messages a second for all together: the next run begins behind them.
    let next = messages(Scenario::new(9, 0.1, DAY).in_run(10 * NUMBERS_PER_SECOND), 2_000);
    assert!(ids(&next).iter().all(|id| !seen.contains(*id)));
}

#[test]
fn after_closing_every_trade_has_exactly_two_sides() {
    let mut sides: HashMap<String, usize> = HashMap::new();
    for message in all(11, 0.0) {
        let trade = read(&message);
        *sides.entry(format!("{}-{}-{}", trade.im, trade.broker, trade.trade)).or_default() += 1;
    }
    assert!(sides.values().all(|count| *count == 2), "{sides:?}");
}

#[test]
fn every_bad_message_that_is_usual_is_refused_and_every_id_is_sent_once() {
    let messages = all(13, 1.0);
    assert_eq!(ids(&messages).len(), messages.len());
    let kinds: HashSet<_> = messages.iter().map(|message| message.kind).collect();
    assert_eq!(kinds.len(), Bad::USUAL.len());
    for message in &messages {
        assert_eq!(
            (message.expected, message.correlation_id.as_deref()),
            (Expected::Nack, Some(&*message.id))
        );
        let read =
            std::str::from_utf8(&message.body).map(|text| crate::parse::trade(text, &message.id).is_ok());
        assert_ne!(read, Ok(true), "{}", message.kind);
    }
}

#[test]
fn what_looks_wrong_and_is_allowed_gets_a_counterpart() {
    let bad = "no-allocations,null-instructions,no-correlation-id".parse().unwrap();
    let messages = messages(Scenario::new(13, 1.0, DAY).with(Mix { bad, ..Mix::default() }), 300);
    let of = |kind| messages.iter().filter(|message| message.kind == kind).count();
    assert!(of("no-allocations") > 50 && of("null-instructions") > 50 && of("no-correlation-id") > 50);
    assert_eq!(of("counterpart"), of("no-allocations") + of("null-instructions"));
    let owed = messages.iter().filter(|message| message.expected.owed()).count();
    assert_eq!(owed, messages.len() - of("no-correlation-id"));
}

#[test]
fn only_where_both_parties_report_allocations_is_anything_settled() {
    let mix = Mix {
        bad: "no-allocations,null-instructions".parse().unwrap(),
        odds: "matched,amended".parse().unwrap(),
        pools: Pools { allocations: Spread::Even(0..=2), ..Pools::default() },
    };
    let messages = messages(Scenario::new(13, 0.5, DAY).with(mix), 600);
    let mut sides: HashMap<String, Vec<(bool, bool)>> = HashMap::new();
    for message in &messages {
        let trade = read(message);
        let parties = format!("{}-{}-{}", trade.im, trade.broker, trade.trade);
        sides.entry(parties).or_default().push((!trade.allocations.is_empty(), message.settles));
    }
    for sides in sides.values() {
        let all_have_some = sides.iter().all(|(allocated, _)| *allocated);
        assert!(sides.iter().all(|(_, settles)| *settles == all_have_some), "{sides:?}");
    }
    assert!(
        messages.iter().any(|message| message.settles) && messages.iter().any(|message| !message.settles)
    );
}

/// Pairs whose parts were drawn, by what must come of them.
fn shares(scenario: Scenario) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for message in messages(scenario, 60_000) {
        match message.kind {
            "matched" => counts[0] += 0.5,
            "mismatched" => counts[1] += 0.5,
            "unmatched" => counts[2] += 0.5,
            _ => {}
        }
    }
    let total: f64 = counts.iter().sum();
    counts.map(|count| count / total)
}

#[test]
fn the_odds_are_those_of_the_original_unless_others_are_given() {
    let near = |shares: [f64; 3], odds: [f64; 3]| {
        let far = shares.iter().zip(odds).any(|(share, odd)| (share - odd).abs() > 0.015);
        assert!(!far, "{shares:?}, expected about {odds:?}");
    };
    // A thirty-sixth of the mismatched ones comes out equal.
    let third = 1.0 / 3.0;
    near(shares(Scenario::new(17, 0.0, DAY)), [third * 37.0 / 36.0, third * 35.0 / 36.0, third]);
    near(shares(with_odds("unmatched=3,matched=1")), [0.25, 0.0, 0.75]);
}

#[test]
fn what_must_come_of_a_pair_follows_from_its_two_reports() {
    let mut sides: HashMap<String, Vec<(Trade, Expected)>> = HashMap::new();
    for message in all(19, 0.0) {
        let trade = read(&message);
        let parties = format!("{}-{}-{}", trade.im, trade.broker, trade.trade);
        sides.entry(parties).or_default().push((trade, message.expected));
    }
    for pair in sides.values() {
        let [(one, first), (other, second)] = pair.as_slice() else { panic!("{pair:?}") };
        let terms = |trade: &Trade| (trade.security.clone(), trade.price, trade.quantity);
        let matched = terms(one) == terms(other);
        let expected = if matched { Expected::Matched } else { Expected::Mismatched };
        assert_eq!((*first, *second), (expected, expected), "{pair:?}");
        assert_eq!((one.indicator, one.trade_date), (other.indicator, other.trade_date));
        assert_ne!(one.sender, other.sender);
    }
}

#[test]
fn an_amended_report_differs_from_the_one_before_and_agrees_with_its_counterpart() {
    let messages = messages(with_odds("amended"), 500);
    assert_eq!(ids(&messages).len(), messages.len(), "versions have names of their own");
    for pair in messages[..500].chunks(2) {
        let (first, second) = (read(&pair[0]), read(&pair[1]));
        assert_eq!((first.id(), first.version + 1), (second.id(), second.version));
        assert_ne!(first.quantity, second.quantity);
        assert_eq!((pair[0].expected, pair[1].expected), (Expected::Replaced, Expected::Amended));
        let others = messages[500..].iter().map(read);
        let counterpart = others.filter(|trade| trade.trade == second.trade && trade.im == second.im);
        let agreeing = counterpart.filter(|trade| {
            (trade.broker == second.broker)
                && trade.sender != second.sender
                && trade.quantity == second.quantity
        });
        assert_eq!(agreeing.count(), 1);
    }
}

#[test]
fn a_withdrawn_report_is_told_as_such_and_has_no_counterpart() {
    let messages = messages(with_odds("cancelled"), 500);
    assert_eq!(messages.len(), 500);
    for pair in messages.chunks(2) {
        assert!(!read(&pair[0]).cancels && read(&pair[1]).cancels);
        assert_eq!(pair[1].expected, Expected::Cancelled);
    }
}
