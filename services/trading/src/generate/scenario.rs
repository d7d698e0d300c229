//! What the customer sends: pairs of trade reports with the odds and pools of the original generator. Pure: the
//! same seed gives the same messages.

use std::collections::VecDeque;

use jiff::civil::Date;
use matching::{Indicator, Status};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rust_decimal::Decimal;

use crate::message::{Allocation, Trade};

const BROKERS: [&str; 3] = ["QABRO010", "FIDE0226", "MSAI0199"];
const MANAGERS: [&str; 4] = ["QAINS012", "ZAHI723", "BKSH7613", "DEJO8113"];
const SECURITIES: [&str; 3] = ["AMZN", "AAPL", "MSFT"];
/// In tenths.
const PRICES: [i64; 6] = [50, 78, 120, 185, 412, 268];
const WORDS: &str = "lorem ipsum dolor sit amet consectetur";
/// Characters of delivery instructions.
const INSTRUCTIONS: usize = 15;
/// Trade numbers have seven digits.
const TRADE_NUMBERS: u32 = 10_000_000;

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
    /// Distinct numbers of trades: a random start and a step that visits all seven-digit numbers once.
    next_number: u32,
    /// The second message of a pair.
    queued: VecDeque<Message>,
    /// Lone trades, whose counterparts are sent at the end.
    open: Vec<Trade>,
}

impl Scenario {
    /// A source with a share of bad messages, for trades of one business date.
    pub fn new(seed: u64, bad_share: f64, date: Date) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let next_number = random.random_range(0..TRADE_NUMBERS);
        Self { random, bad_share, date, next_number, queued: VecDeque::new(), open: Vec::new() }
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
                copy.trade = self.number();
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
        Trade {
            sender,
            im,
            broker,
            trade: self.number(),
            security: self.pick(&SECURITIES).to_owned(),
            indicator: if self.random.random() { Indicator::Buy } else { Indicator::Sell },
            price: Decimal::new(self.pick(&PRICES), 1),
            quantity: self.random.random_range(1..3),
            trade_date: self.date,
            settlement_date: self.date,
            delivery_instructions: Some(WORDS[instructions..instructions + INSTRUCTIONS].to_owned()),
            allocations: self.allocations(),
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

    fn number(&mut self) -> String {
        // A step without common divisors with the range reaches every number before one returns.
        const STEP: u32 = 7_368_787;
        let number = self.next_number;
        self.next_number = (number + STEP) % TRADE_NUMBERS;
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
    use std::collections::HashMap;

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
        let ids: std::collections::HashSet<_> = messages.iter().map(|message| &message.id).collect();
        assert_eq!(ids.len(), messages.len());
        for message in &messages {
            assert!(crate::parse::trade(&message.body, &message.id).is_err(), "{}", message.body);
        }
    }
}
