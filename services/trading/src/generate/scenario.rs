//! What the customer sends: pairs of trade reports with the odds and pools of the original generator. Pure: the
//! same seed gives the same content, the same seed and run the same messages.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use jiff::civil::Date;
use matching::{Indicator, Status};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rust_decimal::Decimal;

use crate::message::{Allocation, FIRST_VERSION, Trade};

const BROKERS: [&str; 3] = ["QABRO010", "FIDE0226", "MSAI0199"];
const MANAGERS: [&str; 4] = ["QAINS012", "ZAHI723", "BKSH7613", "DEJO8113"];
const SECURITIES: [&str; 3] = ["AMZN", "AAPL", "MSFT"];
/// In tenths.
const PRICES: [i64; 6] = [50, 78, 120, 185, 412, 268];
const WORDS: &str = "lorem ipsum dolor sit amet consectetur";
/// Characters of delivery instructions.
const INSTRUCTIONS: usize = 15;
/// Trade numbers have seven digits.
pub(super) const TRADE_NUMBERS: u32 = 10_000_000;
/// Numbers between two runs that begin one second apart: those of a day last for one day.
const NUMBERS_PER_SECOND: u32 = TRADE_NUMBERS / 86_400;

/// The run that begins now. The application answers an id once a business date, so runs must not share ids. Two
/// parties use up a number every eighteen messages on average: runs that do not overlap in time stay apart up to
/// 2000 messages a second.
pub fn run_of_day(now: Timestamp) -> u32 {
    let second = now.as_second().rem_euclid(86_400);
    u32::try_from(second).unwrap_or_default() * NUMBERS_PER_SECOND
}

/// A message of the customer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Correlation id.
    pub id: String,
    /// The text.
    pub body: String,
}

/// The source of messages.
#[derive(Clone, Debug)]
pub struct Scenario {
    random: StdRng,
    bad_share: f64,
    date: Date,
    /// Where the numbers of trades begin.
    run: u32,
    /// How many numbers each pair of manager and broker has used.
    used: HashMap<(String, String), u32>,
    /// The second message of a pair.
    queued: VecDeque<Message>,
    /// Lone trades, whose counterparts are sent at the end.
    open: Vec<Trade>,
}

impl Scenario {
    /// A source with a share of bad messages, for trades of one business date, in a run that the seed chooses.
    pub fn new(seed: u64, bad_share: f64, date: Date) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let run = random.random_range(0..TRADE_NUMBERS);
        Self { random, bad_share, date, run, used: HashMap::new(), queued: VecDeque::new(), open: Vec::new() }
    }

    /// The same content under the ids of a run.
    #[must_use]
    pub fn in_run(self, run: u32) -> Self {
        Self { run, ..self }
    }

    /// The next message.
    pub fn next_message(&mut self) -> Message {
        if let Some(message) = self.queued.pop_front() {
            return message;
        }
        if self.random.random_bool(self.bad_share) {
            return self.bad();
        }
        self.pair()
    }

    /// The counterparts of all sides that are still open; afterwards every trade has two sides.
    pub fn close(&mut self) -> Vec<Message> {
        let mut last: Vec<Message> = self.queued.drain(..).collect();
        last.extend(self.open.drain(..).map(|trade| message(&other_side(&trade))));
        last
    }

    /// Matched, mismatched and unmatched pairs with equal odds; the copy goes first.
    fn pair(&mut self) -> Message {
        let original = self.trade();
        let mut copy = other_side(&original);
        match self.random.random_range(0..3) {
            0 => {}
            1 => {
                copy.security = self.pick(&SECURITIES).to_owned();
                copy.price = Decimal::new(self.pick(&PRICES), 1);
                copy.quantity = self.random.random_range(1..3);
            }
            _ => {
                copy.trade = self.number(&copy.im, &copy.broker);
                self.open.push(original.clone());
                self.open.push(copy.clone());
            }
        }
        self.queued.push_back(message(&original));
        message(&copy)
    }

    fn trade(&mut self) -> Trade {
        let (im, broker) = (self.pick(&MANAGERS).to_owned(), self.pick(&BROKERS).to_owned());
        let sender = if self.random.random() { im.clone() } else { broker.clone() };
        let instructions = self.random.random_range(0..=WORDS.len() - INSTRUCTIONS);
        let trade = self.number(&im, &broker);
        Trade {
            sender,
            im,
            broker,
            trade,
            security: self.pick(&SECURITIES).to_owned(),
            indicator: if self.random.random() { Indicator::Buy } else { Indicator::Sell },
            price: Decimal::new(self.pick(&PRICES), 1),
            quantity: self.random.random_range(1..3),
            trade_date: self.date,
            settlement_date: self.date,
            delivery_instructions: Some(WORDS[instructions..instructions + INSTRUCTIONS].to_owned()),
            allocations: self.allocations(),
            version: FIRST_VERSION,
            cancels: false,
        }
    }

    /// One to ten accounts; equal shares in percent, the last one takes the rest.
    fn allocations(&mut self) -> Vec<Allocation> {
        let count: i32 = self.random.random_range(1..=10);
        let share = 100 / count;
        (1..=count)
            .map(|number| Allocation {
                allocation_id: i64::from(number),
                quantity: if number == count { 100 - share * (count - 1) } else { share },
                account: format!("{:010}", self.random.random_range(0..10_000_000_000_u64)),
                status: "Unmatched".to_owned(),
            })
            .collect()
    }

    /// The next number of a pair of parties; it makes an id together with their names.
    fn number(&mut self, im: &str, broker: &str) -> String {
        // A step without common divisors with the range reaches every number before one returns.
        const STEP: u64 = 7_368_787;
        let used = self.used.entry((im.to_owned(), broker.to_owned())).or_default();
        let number = (u64::from(self.run) + u64::from(*used)) * STEP % u64::from(TRADE_NUMBERS);
        *used += 1;
        format!("{number:07}")
    }

    /// A trade that is wrong in one of several ways, under an id of its own.
    fn bad(&mut self) -> Message {
        let trade = self.trade();
        let good = message(&trade);
        let body = match self.random.random_range(0..5) {
            0 => good.body[..good.body.len() / 2].to_owned(),
            1 => good.body.replacen("\"security\":", "\"secrity\":", 1),
            2 => good.body.replacen("\"quantity\":", "\"quantity\":\"two\",\"was\":", 1),
            3 => good.body.replacen("\"tradeID\":\"", "\"tradeID\":\"0000000", 1),
            _ => "not a trade".to_owned(),
        };
        Message { id: good.id, body }
    }

    fn pick<T: Copy>(&mut self, pool: &[T]) -> T {
        // The pools are constants and not empty.
        pool.choose(&mut self.random).copied().unwrap_or(pool[0])
    }
}

fn other_side(trade: &Trade) -> Trade {
    let sender = if trade.sender == trade.im { trade.broker.clone() } else { trade.im.clone() };
    Trade { sender, ..trade.clone() }
}

fn message(trade: &Trade) -> Message {
    // Customers write the status in their own way; it is not read.
    Message { id: trade.id(), body: trade.text(Status::Unmatched) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn all(seed: u64, bad_share: f64) -> Vec<Message> {
        let mut scenario = Scenario::new(seed, bad_share, jiff::civil::date(2026, 2, 9));
        let mut messages: Vec<_> = (0..3001).map(|_| scenario.next_message()).collect();
        messages.extend(scenario.close());
        messages
    }

    #[test]
    fn the_same_seed_sends_the_same_messages() {
        assert_eq!(all(7, 0.1), all(7, 0.1));
        assert_ne!(all(7, 0.1), all(8, 0.1));
    }

    /// Each message without the number of its trade.
    fn content(messages: &[Message]) -> Vec<String> {
        let number = |message: &Message| message.id.rsplit('-').next().unwrap_or_default().to_owned();
        messages.iter().map(|message| message.body.replace(&number(message), "")).collect()
    }

    #[test]
    fn the_same_seed_in_another_run_sends_the_same_content_under_other_ids() {
        let messages = |run| {
            let mut scenario = Scenario::new(7, 0.1, jiff::civil::date(2026, 2, 9)).in_run(run);
            (0..3001).map(|_| scenario.next_message()).collect::<Vec<_>>()
        };
        let (one, other) = (messages(0), messages(1000));
        assert_eq!(content(&one), content(&other));
        assert_eq!(one, messages(0));
        let ids: HashSet<_> = one.iter().map(|message| &message.id).collect();
        assert!(other.iter().all(|message| !ids.contains(&message.id)));
    }

    #[test]
    fn runs_of_a_day_that_follow_each_other_share_no_id() {
        let begin = |second: i64| run_of_day(Timestamp::from_second(1_770_000_000 + second).unwrap());
        let mut ids = HashSet::new();
        // Ten seconds at 1000 messages a second, three times.
        for run in 0..3 {
            let mut scenario = Scenario::new(7, 0.1, jiff::civil::date(2026, 2, 9)).in_run(begin(run * 10));
            let mut messages: Vec<_> = (0..10_000).map(|_| scenario.next_message()).collect();
            messages.extend(scenario.close());
            let fresh: HashSet<String> = messages.into_iter().map(|message| message.id).collect();
            assert!(ids.is_disjoint(&fresh), "run {run}");
            ids.extend(fresh);
        }
        let last = Timestamp::from_second(86_399).unwrap();
        assert!(run_of_day(last) < TRADE_NUMBERS);
    }

    #[test]
    fn after_closing_every_trade_has_exactly_two_sides() {
        let mut sides: HashMap<String, usize> = HashMap::new();
        for message in all(11, 0.0) {
            let trade = crate::parse::trade(&message.body, &message.id).unwrap();
            *sides.entry(format!("{}-{}-{}", trade.im, trade.broker, trade.trade)).or_default() += 1;
        }
        assert!(sides.values().all(|count| *count == 2), "{sides:?}");
    }

    #[test]
    fn every_bad_message_is_refused_and_every_id_is_sent_once() {
        let messages = all(13, 1.0);
        let ids: HashSet<_> = messages.iter().map(|message| &message.id).collect();
        assert_eq!(ids.len(), messages.len());
        for message in &messages {
            assert!(crate::parse::trade(&message.body, &message.id).is_err(), "{}", message.body);
        }
    }
}
