//! What the customer sends: pairs of trade reports with the odds and pools of the original generator, or with others.
//! Pure: the same seed gives the same content, the same seed and run the same messages.

use std::collections::{HashMap, VecDeque};

use jiff::Timestamp;
use jiff::civil::Date;
use matching::Status;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::bad::Bad;
use super::choice::{Named, Weights};
use super::expected::{Expected, key};
use super::pools::Pools;
use crate::message::{FIRST_VERSION, Trade};

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
    /// Its name in the customer's books: the correlation id, except where that is wrong on purpose or used before.
    pub id: String,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// The bytes.
    pub body: Vec<u8>,
    /// What it is, in a word.
    pub kind: &'static str,
    /// What must come of it.
    pub expected: Expected,
    /// Whether its answer waits for no other message after it: the time to the answer is the application's.
    pub last: bool,
    /// Whether it is settled once it is matched: the two parties report the same allocations, and at least one.
    pub settles: bool,
}

/// How the reports of two parties go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pairing {
    /// Both say the same.
    Matched,
    /// Security, price and quantity are drawn again: equal once in a while.
    Mismatched,
    /// Two lone reports of different trades. Their counterparts follow at the end.
    Unmatched,
    /// One party changes its report; the other's, which fits the change, follows at the end.
    Amended,
    /// One party withdraws its report; the other never reports.
    Cancelled,
}

impl Named for Pairing {
    const ALL: &'static [Self] =
        &[Self::Matched, Self::Mismatched, Self::Unmatched, Self::Amended, Self::Cancelled];

    fn name(self) -> &'static str {
        match self {
            Self::Matched => "matched",
            Self::Mismatched => "mismatched",
            Self::Unmatched => "unmatched",
            Self::Amended => "amended",
            Self::Cancelled => "cancelled",
        }
    }
}

/// What is sent how often, and what it is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Mix {
    /// What trades are made of.
    pub pools: Pools,
    /// How reports go together.
    pub odds: Weights<Pairing>,
    /// Kinds of bad messages, among each other.
    pub bad: Weights<Bad>,
}

impl Default for Mix {
    fn default() -> Self {
        let odds = Weights::equal(&[Pairing::Matched, Pairing::Mismatched, Pairing::Unmatched]);
        Self { pools: Pools::default(), odds, bad: Weights::equal(Bad::USUAL) }
    }
}

/// The source of messages.
#[derive(Clone, Debug)]
pub struct Scenario {
    random: StdRng,
    seed: u64,
    mix: Mix,
    bad_share: f64,
    date: Date,
    /// Where the numbers of trades begin.
    run: u32,
    /// Which of how many customers this is.
    customer: (u32, u32),
    /// How many numbers each pair of manager and broker has used.
    used: HashMap<(String, String), u32>,
    /// The rest of a pair.
    queued: VecDeque<Message>,
    /// Counterparts that are sent at the end.
    open: Vec<Message>,
}

impl Scenario {
    /// A source with a share of bad messages, for trades of one business date, in a run that the seed chooses.
    pub fn new(seed: u64, bad_share: f64, date: Date) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let run = random.random_range(0..TRADE_NUMBERS);
        Self {
            random,
            seed,
            mix: Mix::default(),
            bad_share,
            date,
            run,
            customer: (0, 1),
            used: HashMap::new(),
            queued: VecDeque::new(),
            open: Vec::new(),
        }
    }

    /// The same content under the ids of a run.
    #[must_use]
    pub fn in_run(self, run: u32) -> Self {
        Self { run, ..self }
    }

    /// Another mix.
    #[must_use]
    pub fn with(self, mix: Mix) -> Self {
        Self { mix, ..self }
    }

    /// The n-th of several customers, from 0: content of its own, under ids that none of the others uses.
    #[must_use]
    pub fn of_customer(self, number: u32, customers: u32) -> Self {
        // Far from the seeds that people choose.
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let random = match number {
            0 => self.random,
            _ => StdRng::seed_from_u64(self.seed.wrapping_add(u64::from(number).wrapping_mul(STEP))),
        };
        Self { random, customer: (number, customers.max(1)), ..self }
    }

    /// The next message.
    pub fn next_message(&mut self) -> Message {
        if let Some(message) = self.queued.pop_front() {
            return message;
        }
        if self.random.random_bool(self.bad_share)
            && let Some(kind) = self.mix.bad.draw(&mut self.random)
        {
            return self.bad(kind);
        }
        self.pair()
    }

    /// The counterparts of all sides that are still open; afterwards every trade has two sides.
    pub fn close(&mut self) -> Vec<Message> {
        let mut last: Vec<Message> = self.queued.drain(..).collect();
        last.append(&mut self.open);
        last
    }

    /// The first message of a pair; the copy goes first.
    fn pair(&mut self) -> Message {
        let original = self.trade();
        // Weights that are all 0 are refused where they are read.
        let pairing = self.mix.odds.draw(&mut self.random).unwrap_or(Pairing::Matched);
        match pairing {
            Pairing::Matched => self.two(&other_side(&original), &original, Expected::Matched),
            Pairing::Mismatched => {
                let copy = self.drawn_again(other_side(&original));
                let terms = |trade: &Trade| (trade.security.clone(), trade.price, trade.quantity);
                let equal = terms(&copy) == terms(&original);
                self.two(&copy, &original, if equal { Expected::Matched } else { Expected::Mismatched })
            }
            Pairing::Unmatched => {
                let mut copy = other_side(&original);
                copy.trade = self.number(&copy.im, &copy.broker);
                for trade in [&original, &copy] {
                    self.open.push(message(&other_side(trade), "counterpart", Expected::Matched, true));
                }
                let first = message(&copy, "unmatched", Expected::Matched, false);
                self.queued.push_back(message(&original, "unmatched", Expected::Matched, false));
                first
            }
            Pairing::Amended => {
                // Another quantity for certain, within the limits of the format.
                let step = if original.quantity == i32::MAX { -1 } else { 1 };
                let quantity = original.quantity + step;
                let amended = Trade { quantity, version: FIRST_VERSION + 1, ..original.clone() };
                let counterpart = Trade { version: FIRST_VERSION, ..other_side(&amended) };
                self.open.push(message(&counterpart, "counterpart", Expected::Amendable, true));
                self.queued.push_back(message(&amended, "amended", Expected::Amended, false));
                message(&original, "amended", Expected::Replaced, false)
            }
            Pairing::Cancelled => {
                let withdrawal = Trade { cancels: true, version: FIRST_VERSION + 1, ..original.clone() };
                self.queued.push_back(message(&withdrawal, "cancelled", Expected::Cancelled, true));
                message(&original, "cancelled", Expected::Replaced, false)
            }
        }
    }

    fn two(&mut self, first: &Trade, second: &Trade, expected: Expected) -> Message {
        let kind = if expected == Expected::Matched { "matched" } else { "mismatched" };
        self.queued.push_back(message(second, kind, expected, true));
        message(first, kind, expected, false)
    }

    fn drawn_again(&mut self, trade: Trade) -> Trade {
        let Self { mix: Mix { pools, .. }, random, .. } = self;
        let security = pools.security(random);
        let price = pools.price(random);
        let quantity = pools.quantity(random);
        Trade { security, price, quantity, ..trade }
    }

    pub(super) fn trade(&mut self) -> Trade {
        let (im, broker) = self.mix.pools.parties(&mut self.random);
        let trade = self.number(&im, &broker);
        let Self { mix: Mix { pools, .. }, random, date, .. } = self;
        let sender = if random.random() { im.clone() } else { broker.clone() };
        let instructions = random.random_range(0..=WORDS.len() - INSTRUCTIONS);
        Trade {
            sender,
            im,
            broker,
            trade,
            security: pools.security(random),
            indicator: pools.indicator(random),
            price: pools.price(random),
            quantity: pools.quantity(random),
            trade_date: *date,
            settlement_date: pools.settlement_date(*date),
            delivery_instructions: Some(WORDS[instructions..instructions + INSTRUCTIONS].to_owned()),
            allocations: pools.allocations(random),
            version: FIRST_VERSION,
            cancels: false,
        }
    }

    /// The next number of a pair of parties; it makes an id together with their names.
    fn number(&mut self, im: &str, broker: &str) -> String {
        // A step without common divisors with the range reaches every number before one returns.
        const STEP: u64 = 7_368_787;
        let used = self.used.entry((im.to_owned(), broker.to_owned())).or_default();
        let (customer, customers) = self.customer;
        // Customers take turns.
        let index = u64::from(self.run) + u64::from(*used) * u64::from(customers) + u64::from(customer);
        let number = index * STEP % u64::from(TRADE_NUMBERS);
        *used += 1;
        format!("{number:07}")
    }

    /// A message that is unusual in one way, under an id of its own. Where the format allows it, the other party's
    /// report follows at the end.
    fn bad(&mut self, kind: Bad) -> Message {
        let trade = self.trade();
        let expected = kind.expected();
        // The other party's allocations have no counterparts then.
        let settles = kind != Bad::NoAllocations && !trade.allocations.is_empty();
        if expected == Expected::Matched {
            let counterpart = message(&other_side(&trade), "counterpart", expected, true);
            self.open.push(Message { settles, ..counterpart });
        }
        Message {
            id: trade.id(),
            correlation_id: kind.correlation_id(&trade),
            body: kind.body(&trade),
            kind: kind.name(),
            expected,
            last: expected == Expected::Nack,
            settles,
        }
    }
}

fn other_side(trade: &Trade) -> Trade {
    let sender = if trade.sender == trade.im { trade.broker.clone() } else { trade.im.clone() };
    Trade { sender, ..trade.clone() }
}

fn message(trade: &Trade, kind: &'static str, expected: Expected, last: bool) -> Message {
    // The status means nothing, except where a report is withdrawn.
    let status = if trade.cancels { Status::Cancelled } else { Status::Unmatched };
    Message {
        id: key(&trade.id(), trade.version),
        correlation_id: Some(trade.id()),
        body: trade.text(status).into_bytes(),
        kind,
        expected,
        last,
        settles: !trade.allocations.is_empty(),
    }
}

#[cfg(test)]
mod tests;
