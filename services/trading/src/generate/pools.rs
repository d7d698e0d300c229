//! What trades are made of. The defaults are those of the original generator.

use std::str::FromStr;

use jiff::civil::Date;
use matching::{Indicator, Status};
use rand::Rng;
use rand::seq::IndexedRandom;
use rust_decimal::Decimal;
use services_common::config::ConfigError;

use super::choice::Spread;
use crate::message::{Allocation, FIRST_VERSION, Trade};

/// Names in one pool at most.
const POOL_MAX: usize = 1_000;
/// Allocations of one trade at most, as the message format has it.
const ALLOCATIONS_MAX: i32 = 100;
/// Prices have two digits after the point at most.
const CENTS: u32 = 2;

/// Where prices come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prices {
    /// One of these.
    List(Vec<Decimal>),
    /// Any number of cents from the first to the last.
    Cents(i64, i64),
}

impl Prices {
    fn draw(&self, random: &mut impl Rng) -> Decimal {
        match self {
            // Checked not to be empty.
            Self::List(prices) => prices.choose(random).copied().unwrap_or_default(),
            Self::Cents(first, last) => Decimal::new(random.random_range(*first..=*last), CENTS),
        }
    }

    /// The prices that stand for all: what is right for these is right for the others.
    fn samples(&self) -> Vec<Decimal> {
        match self {
            Self::List(prices) => prices.clone(),
            Self::Cents(first, last) => vec![Decimal::new(*first, CENTS), Decimal::new(*last, CENTS)],
        }
    }
}

/// `5.00..41.20`
impl FromStr for Prices {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no range of prices; write two numbers like 5.00..41.20");
        let (first, last) = text.split_once("..").ok_or_else(wrong)?;
        let cents = |text: &str| {
            let mut price: Decimal = text.parse().ok()?;
            let exact = price;
            price.rescale(CENTS);
            (price == exact).then(|| i64::try_from(price.mantissa()).ok())?
        };
        let (first, last) = cents(first).zip(cents(last)).ok_or_else(wrong)?;
        if first > last { Err(wrong()) } else { Ok(Self::Cents(first, last)) }
    }
}

/// What trades are made of.
#[derive(Clone, Debug, PartialEq)]
pub struct Pools {
    /// Investment managers.
    pub managers: Vec<String>,
    /// Brokers.
    pub brokers: Vec<String>,
    /// Security symbols.
    pub securities: Vec<String>,
    /// Prices of one unit.
    pub prices: Prices,
    /// Units of a trade.
    pub quantities: Spread,
    /// How many trades are bought, 0 to 1; the others are sold.
    pub buy_share: f64,
    /// Allocations of a trade.
    pub allocations: Spread,
    /// What the allocations of a trade add up to.
    pub block: i32,
    /// Days from trade to settlement.
    pub settlement_days: u16,
}

impl Default for Pools {
    fn default() -> Self {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            managers: names(&["QAINS012", "ZAHI723", "BKSH7613", "DEJO8113"]),
            brokers: names(&["QABRO010", "FIDE0226", "MSAI0199"]),
            securities: names(&["AMZN", "AAPL", "MSFT"]),
            prices: Prices::List([50, 78, 120, 185, 412, 268].map(|tenths| Decimal::new(tenths, 1)).to_vec()),
            quantities: Spread::Even(1..=2),
            buy_share: 0.5,
            allocations: Spread::Even(1..=10),
            block: 100,
            settlement_days: 0,
        }
    }
}

impl Pools {
    /// One of a pool that was checked.
    pub(super) fn security(&self, random: &mut impl Rng) -> String {
        pick(&self.securities, random)
    }

    pub(super) fn price(&self, random: &mut impl Rng) -> Decimal {
        self.prices.draw(random)
    }

    pub(super) fn quantity(&self, random: &mut impl Rng) -> i32 {
        self.quantities.draw(random)
    }

    pub(super) fn parties(&self, random: &mut impl Rng) -> (String, String) {
        (pick(&self.managers, random), pick(&self.brokers, random))
    }

    pub(super) fn indicator(&self, random: &mut impl Rng) -> Indicator {
        if random.random_bool(self.buy_share) { Indicator::Buy } else { Indicator::Sell }
    }

    /// Equal shares of the block; the last one takes the rest.
    pub(super) fn allocations(&self, random: &mut impl Rng) -> Vec<Allocation> {
        let count = self.allocations.draw(random);
        let share = self.block / count.max(1);
        (1..=count)
            .map(|number| Allocation {
                allocation_id: i64::from(number),
                quantity: if number == count { self.block - share * (count - 1) } else { share },
                account: format!("{:010}", random.random_range(0..10_000_000_000_u64)),
                status: "Unmatched".to_owned(),
            })
            .collect()
    }

    /// When a trade of a day is settled.
    pub(super) fn settlement_date(&self, trade_date: Date) -> Date {
        trade_date.saturating_add(jiff::Span::new().days(i64::from(self.settlement_days)))
    }

    /// Refuses what the application would refuse of trades of a day, in words about options.
    ///
    /// # Errors
    /// The first option that cannot be used.
    pub fn check(&self, trade_date: Date) -> Result<(), ConfigError> {
        let wrong = |option, reason: String| Err(ConfigError::Value { option, reason });
        let pools = [
            ("--managers", &self.managers),
            ("--brokers", &self.brokers),
            ("--securities", &self.securities),
        ];
        for (option, pool) in pools {
            if pool.is_empty() || pool.len() > POOL_MAX {
                return wrong(option, format!("{} names; 1 to {POOL_MAX} are possible", pool.len()));
            }
        }
        if let Some(both) = self.managers.iter().find(|name| self.brokers.contains(name)) {
            return wrong(
                "--brokers",
                format!("{both} is one of --managers too; the parties of a trade differ"),
            );
        }
        if !(0.0..=1.0).contains(&self.buy_share) {
            return wrong("--buy-share", "must be between 0 and 1".to_owned());
        }
        let (fewest, most) = self.allocations.limits();
        if fewest < 0 || most > ALLOCATIONS_MAX {
            return wrong("--allocations", format!("must be between 0 and {ALLOCATIONS_MAX}"));
        }
        if self.block < most.max(1) {
            return wrong("--block-size", format!("{} cannot be shared by {most} allocations", self.block));
        }
        self.check_samples(trade_date)
    }

    /// Lets the application's own rules judge one trade for each value.
    fn check_samples(&self, trade_date: Date) -> Result<(), ConfigError> {
        let settlement_date = self.settlement_date(trade_date);
        let (fewest, most) = self.quantities.limits();
        let manager = |im: &String| ("--managers", Trade { im: im.clone(), ..sample() });
        let broker = |broker: &String| {
            ("--brokers", Trade { broker: broker.clone(), sender: MANAGER.to_owned(), ..sample() })
        };
        let security = |security: &String| ("--securities", Trade { security: security.clone(), ..sample() });
        let samples = (self.managers.iter().map(manager))
            .chain(self.brokers.iter().map(broker))
            .chain(self.securities.iter().map(security))
            .chain(self.prices.samples().into_iter().map(|price| ("--prices", Trade { price, ..sample() })))
            .chain([fewest, most].map(|quantity| ("--quantity", Trade { quantity, ..sample() })))
            .chain([("--trade-date", Trade { trade_date, ..sample() })])
            .chain([("--settlement-days", Trade { settlement_date, ..sample() })]);
        for (option, trade) in samples {
            if let Err(refusal) = crate::parse::trade(&trade.text(Status::Unmatched), &trade.id()) {
                let reason = format!("the application would refuse {}", refusal.description());
                return Err(ConfigError::Value { option, reason });
            }
        }
        Ok(())
    }
}

/// Parties that no pool has.
const MANAGER: &str = "A SAMPLE MANAGER";
const BROKER: &str = "A SAMPLE BROKER";

/// A trade without a fault, which the broker reports.
fn sample() -> Trade {
    let date = jiff::civil::date(2026, 2, 9);
    Trade {
        sender: BROKER.to_owned(),
        im: MANAGER.to_owned(),
        broker: BROKER.to_owned(),
        trade: "1".to_owned(),
        security: "C".to_owned(),
        indicator: Indicator::Buy,
        price: Decimal::ONE,
        quantity: 1,
        trade_date: date,
        settlement_date: date,
        delivery_instructions: None,
        allocations: Vec::new(),
        version: FIRST_VERSION,
        cancels: false,
    }
}

fn pick(pool: &[String], random: &mut impl Rng) -> String {
    // Checked not to be empty.
    pool.choose(random).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand::rngs::StdRng;

    use super::*;

    const DAY: Date = jiff::civil::date(2026, 2, 9);

    fn refusal(change: impl FnOnce(&mut Pools)) -> String {
        let mut pools = Pools::default();
        change(&mut pools);
        pools.check(DAY).unwrap_err().to_string()
    }

    #[test]
    fn pools_that_the_application_would_refuse_are_refused_with_their_option() {
        Pools::default().check(DAY).unwrap();
        let old = Pools::default().check(jiff::civil::date(1899, 12, 31)).unwrap_err().to_string();
        assert!(old.starts_with("--trade-date") && old.contains("tradeDate"), "{old}");
        let text = |text: &str| vec![text.to_owned()];
        for (change, begins, says) in [
            (refusal(|pools| pools.managers = Vec::new()), "--managers", "0 names"),
            (refusal(|pools| pools.managers = text("A-B")), "--managers", "imID"),
            (refusal(|pools| pools.brokers = text("B".repeat(21).as_str())), "--brokers", "TOO_LONG"),
            (refusal(|pools| pools.brokers = text("ZAHI723")), "--brokers", "parties"),
            (refusal(|pools| pools.securities = text("ELEVENCHARS")), "--securities", "TOO_LONG security"),
            (refusal(|pools| pools.prices = Prices::List(vec![Decimal::ZERO])), "--prices", "INVALID price"),
            (refusal(|pools| pools.quantities = Spread::Even(0..=2)), "--quantity", "INVALID quantity"),
            (refusal(|pools| pools.buy_share = 1.5), "--buy-share", "between"),
            (refusal(|pools| pools.allocations = Spread::Even(1..=101)), "--allocations", "100"),
            (refusal(|pools| pools.block = 9), "--block-size", "10 allocations"),
        ] {
            assert!(change.starts_with(begins) && change.contains(says), "{change}");
        }
    }

    #[test]
    fn allocations_share_the_block_whatever_their_number() {
        let mut random = StdRng::seed_from_u64(5);
        for block in [100, 101, 2_147_483_647] {
            for count in 1..=100 {
                let pools = Pools { allocations: Spread::Even(count..=count), block, ..Pools::default() };
                let shares: Vec<_> = pools.allocations(&mut random).iter().map(|one| one.quantity).collect();
                assert_eq!(shares.iter().sum::<i32>(), block);
                assert!(shares.len() == usize::try_from(count).unwrap() && shares.iter().all(|one| *one > 0));
            }
        }
    }

    #[test]
    fn a_range_of_prices_is_drawn_to_the_cent_and_nonsense_is_refused() {
        let prices: Prices = "5.00..5.02".parse().unwrap();
        let mut random = StdRng::seed_from_u64(6);
        let mut drawn: Vec<_> = (0..100).map(|_| prices.draw(&mut random).to_string()).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, ["5.00", "5.01", "5.02"]);
        for wrong in ["5", "6..5", "5.001..6", "a..b", "..", "1..99999999999999999999999"] {
            assert!(wrong.parse::<Prices>().is_err(), "{wrong}");
        }
    }
}
