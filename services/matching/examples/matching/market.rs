//! A day's reports, as a parser would hand them on: owned texts, both parties, in random order.

use jiff::civil::{Date, date};
use matching::{Action, Allocation, Indicator, Report};
use rust_decimal::Decimal;

const DAY: Date = date(2026, 2, 9);
const SETTLEMENT: Date = date(2026, 2, 11);
const MANAGERS: u64 = 40;
const BROKERS: u64 = 20;
const SECURITIES: u64 = 500;

/// SplitMix64: printed seeds replay on every machine.
#[derive(Clone, Debug)]
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, choices: u64) -> u64 {
        self.number() % choices
    }
}

/// A report after parsing.
#[derive(Clone, Debug)]
pub(crate) struct Parsed {
    pub(crate) sender: String,
    pub(crate) im: String,
    pub(crate) broker: String,
    pub(crate) trade: String,
    pub(crate) indicator: Indicator,
    pub(crate) trade_date: Date,
    pub(crate) settlement_date: Date,
    pub(crate) security: String,
    pub(crate) price: Decimal,
    pub(crate) quantity: i32,
    pub(crate) account: String,
    pub(crate) rest: String,
}

impl Parsed {
    pub(crate) fn report(&self) -> Report<'_> {
        Report {
            sender: &self.sender,
            im: &self.im,
            broker: &self.broker,
            trade: &self.trade,
            indicator: self.indicator,
            trade_date: self.trade_date,
            settlement_date: self.settlement_date,
            security: &self.security,
            price: self.price,
            quantity: self.quantity,
            version: 1,
            action: Action::State,
            last_day: self.settlement_date,
            rest: self.rest.as_bytes(),
        }
    }

    pub(crate) fn allocation(&self) -> Allocation<'_> {
        Allocation { number: 1, account: &self.account }
    }
}

/// A source of reports: each is a function of the seed, its trade and its party, so that none has to be kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Market {
    pub(crate) seed: u64,
    /// Bytes of what a report says beside the fields that matching knows.
    pub(crate) rest: usize,
}

impl Market {
    /// One party's report of a trade. Of a hundred trades the broker reports five with another price and five with
    /// another settlement date.
    pub(crate) fn report(&self, trade: u64, by_broker: bool) -> Parsed {
        let mut random = Random(self.seed ^ trade.wrapping_mul(0xd6e8_feb8_6659_fd93));
        let im = format!("QAINS{:03}", random.below(MANAGERS));
        let broker = format!("FIDE{:04}", random.below(BROKERS));
        let security = format!("S{:04}", random.below(SECURITIES));
        let indicator = if random.below(2) == 0 { Indicator::Buy } else { Indicator::Sell };
        let cents = i64::try_from(random.below(100_000)).unwrap_or_default() + 1;
        let quantity = i32::try_from(random.below(10_000)).unwrap_or_default() + 1;
        let kind = if by_broker { random.below(100) } else { 99 };
        Parsed {
            sender: if by_broker { broker.clone() } else { im.clone() },
            im,
            broker,
            trade: format!("{trade:07}"),
            indicator,
            trade_date: DAY,
            settlement_date: if (5..10).contains(&kind) { date(2026, 2, 12) } else { SETTLEMENT },
            security,
            price: Decimal::new(if kind < 5 { cents + 1 } else { cents }, 2),
            quantity,
            account: format!("{:010}", random.below(10_000_000_000)),
            rest: "x".repeat(self.rest),
        }
    }

    /// Both reports of each trade, all in random order: the trade's number and, in the lowest bit, the party.
    pub(crate) fn arrivals(&self, trades: u32) -> Vec<u32> {
        let mut random = Random(self.seed);
        let mut arrivals: Vec<u32> = (0..trades * 2).collect();
        for last in (1..arrivals.len()).rev() {
            let other = random.below(last as u64 + 1) as usize;
            arrivals.swap(last, other);
        }
        arrivals
    }
}
