//! The options of `services generate`, and what they mean together. What cannot work is refused here, with the name
//! of the option.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use jiff::Timestamp;
use jiff::civil::Date;
use rust_decimal::Decimal;
use services_common::config::ConfigError;

use super::bad::Bad;
use super::choice::{Spread, Weights};
use super::pace::Pace;
use super::pools::{Pools, Prices};
use super::records::{RecordError, Records};
use super::scenario::{self, Mix, Pairing, Scenario, run_of_day};
use super::session::Target;
use super::{Customer, Plan};

/// Customers at most: each has two connections.
const CUSTOMERS_MAX: u32 = 64;
/// Messages of one run at most: the ledger keeps each in memory, about 300 bytes.
const MESSAGES_MAX: f64 = 50_000_000.0;
/// Messages per second at most: beyond it the clock is the limit, not the pipeline.
const RATE_MAX: f64 = 1_000_000.0;
/// A year.
const SECONDS_MAX: i64 = 31_536_000;

/// Options of the customer.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Address of the broker: amqps://name:5671. The name is what moves in a switch
    #[arg(long, env = "BROKER_URL", help_heading = "Broker", required_unless_present = "dry_run")]
    pub broker_url: Option<String>,
    /// File with the CA certificate (PEM) of the broker's certificate; needed for amqps
    #[arg(long, env = "BROKER_CA_FILE", help_heading = "Broker")]
    pub broker_ca_file: Option<PathBuf>,
    /// Broker user that submits trades; again for each of --customers, or one for all
    #[arg(long, env = "SUBMIT_USER", help_heading = "Broker", default_value = "customer-submit")]
    pub submit_user: Vec<String>,
    /// File with its password, as often as --submit-user
    #[arg(long, env = "SUBMIT_PASSWORD_FILE", help_heading = "Broker", required_unless_present = "dry_run")]
    pub submit_password_file: Vec<PathBuf>,
    /// Broker user that reads answers; again for each of --customers, or one for all
    #[arg(long, env = "ANSWERS_USER", help_heading = "Broker", default_value = "customer-answers")]
    pub answers_user: Vec<String>,
    /// File with its password, as often as --answers-user
    #[arg(long, env = "ANSWERS_PASSWORD_FILE", help_heading = "Broker", required_unless_present = "dry_run")]
    pub answers_password_file: Vec<PathBuf>,
    /// DNS server that knows the broker's name, like 10.99.3.2:53; without it the system resolves the name
    #[arg(long, env = "DNS", help_heading = "Broker")]
    pub dns: Option<SocketAddr>,

    /// Messages per second: both sides of trades, all customers together
    ///
    /// Each message is due at its own time, whatever became of those before. The verdict tells how late they were sent,
    /// and counts the time to an answer from when the message was due.
    #[arg(long, help_heading = "Schedule", default_value_t = 100.0)]
    pub rate: f64,
    /// Messages that each customer sends at once, at the same rate; the original sends --burst 20 at --rate 4
    #[arg(long, help_heading = "Schedule", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub burst: u32,
    /// Seconds to generate for, pauses included; the counterparts of open sides follow after that
    #[arg(
        long,
        help_heading = "Schedule",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(0..=SECONDS_MAX as u64)
    )]
    pub duration: u64,
    /// Messages of all customers together after which generating ends, without those counterparts
    #[arg(long, help_heading = "Schedule", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
    /// Seconds to wait at the end for the next confirm or answer that is still due; ten times as long for all of them
    #[arg(
        long,
        help_heading = "Schedule",
        default_value_t = 60,
        value_parser = clap::value_parser!(u64).range(0..=SECONDS_MAX as u64)
    )]
    pub wait: u64,
    /// Independent customers, each with connections of its own, under ids that no other one uses
    #[arg(
        long,
        help_heading = "Schedule",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=i64::from(CUSTOMERS_MAX))
    )]
    pub customers: u32,
    /// Seed of all random choices; the same seed sends the same content, under the ids of --run-id
    #[arg(long, help_heading = "Schedule")]
    pub seed: Option<u64>,
    /// Which run of the business date this is: where its trade numbers begin, 0 to 9999999; by the time of day if
    /// not given
    ///
    /// The application answers an id once a business date. A run that is repeated with the same number sends ids
    /// that were answered before, and looks lost. Runs at the same time, or above 2000 messages a second, need
    /// numbers that are chosen by hand: a run takes one for about every 18 messages, and with fewer --managers and
    /// --brokers one for every 1.5 messages of each pair of them.
    #[arg(
        long,
        help_heading = "Schedule",
        value_parser = clap::value_parser!(u32).range(..i64::from(scenario::TRADE_NUMBERS))
    )]
    pub run_id: Option<u32>,

    #[command(flatten)]
    pub(super) mix: MixArgs,

    /// File for one JSON line a message sent and a line an answer; must not exist yet
    #[arg(long, help_heading = "Files", value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Folder for each message as a file: trade_1.json, trade_2.json, …
    #[arg(long, help_heading = "Files", value_name = "DIR")]
    pub output_dir: Option<PathBuf>,
    /// Lines in --file, and files in --output-dir, at most; how many are left out is told at the end
    #[arg(long, help_heading = "Files", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub record_limit: u64,
    /// Send nothing: write --count messages and their counterparts to the files, or to standard output
    #[arg(
        long,
        help_heading = "Files",
        requires = "count",
        conflicts_with_all = ["ledger", "output", "duration", "wait", "settled"]
    )]
    pub dry_run: bool,

    /// Demand that each side that must match is told that it is settled too: the application settles matched trades
    ///
    /// --wait is for these answers too: a settlement that was lost on its way is sent again after ten minutes. Not demanded of trades without allocations, which stay matched.
    #[arg(
        long,
        env = "SETTLED",
        help_heading = "Verdict",
        action = ArgAction::SetTrue,
        value_parser = BoolishValueParser::new()
    )]
    pub settled: bool,
    /// File to write the ledger to, one JSON line a message
    #[arg(long, help_heading = "Verdict", value_name = "FILE")]
    pub ledger: Option<PathBuf>,
    /// How the verdict is printed
    #[arg(short, long, help_heading = "Verdict", value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Options about what is sent.
#[derive(Args, Clone, Debug)]
pub(super) struct MixArgs {
    /// How reports go together, by weight: matched, mismatched, unmatched, amended, cancelled
    ///
    /// What is not named is never sent. mismatched draws security, price and quantity again, so with the usual pools
    /// one of 36 comes out equal. unmatched is two lone reports, whose counterparts follow at the end; so does the
    /// counterpart of an amended one.
    #[arg(
        long,
        help_heading = "Trades",
        value_name = "NAME[=WEIGHT],…",
        default_value = "matched,mismatched,unmatched"
    )]
    odds: Weights<Pairing>,
    /// Investment managers
    #[arg(long, help_heading = "Trades", value_delimiter = ',', default_values_t = Pools::default().managers)]
    managers: Vec<String>,
    /// Brokers
    #[arg(long, help_heading = "Trades", value_delimiter = ',', default_values_t = Pools::default().brokers)]
    brokers: Vec<String>,
    /// Security symbols
    #[arg(long, help_heading = "Trades", value_delimiter = ',', default_values_t = Pools::default().securities)]
    securities: Vec<String>,
    /// Prices of one unit [default: 5.0,7.8,12.0,18.5,41.2,26.8]
    #[arg(long, help_heading = "Trades", value_delimiter = ',')]
    prices: Option<Vec<Decimal>>,
    /// Any price to the cent, like 5.00..41.20, in place of --prices
    #[arg(long, help_heading = "Trades", value_name = "MIN..MAX", conflicts_with = "prices")]
    price_range: Option<Prices>,
    /// Units of a trade: 5, 1..10 or by weight 1=8,10=2
    #[arg(long, help_heading = "Trades", value_name = "NUMBERS", default_value = "1..2")]
    quantity: Spread,
    /// Share of trades that are bought, 0 to 1
    #[arg(long, help_heading = "Trades", default_value_t = 0.5)]
    buy_share: f64,
    /// Allocations of a trade: 0 to 100, written like --quantity
    #[arg(long, help_heading = "Trades", value_name = "NUMBERS", default_value = "1..10")]
    allocations: Spread,
    /// What the quantities of a trade's allocations add up to; the original has percent
    #[arg(long, help_heading = "Trades", default_value_t = 100)]
    block_size: i32,
    /// Business date of the trades, like 2026-02-09; today if not given
    #[arg(long, help_heading = "Trades")]
    trade_date: Option<Date>,
    /// Days from trade to settlement
    #[arg(long, help_heading = "Trades", default_value_t = 0)]
    settlement_days: u16,
    /// Share of messages that are bad, 0 to 1
    ///
    /// Each must be answered with a NACK, or be set apart where it names nobody to answer to.
    #[arg(long, help_heading = "Bad messages", default_value_t = 0.0)]
    bad_share: f64,
    /// Kinds of bad messages by weight, or all; if not given, those that are small and answered with a NACK
    ///
    /// Answered with a NACK: truncated, not-json, not-object, not-text, missing-field, null-field, wrong-type, too-long,
    /// invalid-value, invalid-date, bad-allocation, repeated-allocation, other-id, oversized (64 KiB and more).
    /// Set apart, and counted as quarantined: no-correlation-id, long-correlation-id.
    /// Unusual and allowed, so matched with a counterpart: no-allocations, null-instructions.
    #[arg(long, help_heading = "Bad messages", value_name = "NAME[=WEIGHT],…", requires = "bad_share")]
    bad_kinds: Option<Weights<Bad>>,
}

/// Formats of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object on standard output.
    Json,
}

fn wrong<T>(option: &'static str, reason: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError::Value { option, reason: reason.into() })
}

impl MixArgs {
    fn mix(&self) -> Mix {
        let usual = Mix::default();
        let prices = match (&self.price_range, &self.prices) {
            (Some(range), _) => range.clone(),
            (None, Some(list)) => Prices::List(list.clone()),
            (None, None) => usual.pools.prices,
        };
        let pools = Pools {
            managers: self.managers.clone(),
            brokers: self.brokers.clone(),
            securities: self.securities.clone(),
            prices,
            quantities: self.quantity.clone(),
            buy_share: self.buy_share,
            allocations: self.allocations.clone(),
            block: self.block_size,
            settlement_days: self.settlement_days,
        };
        Mix { pools, odds: self.odds.clone(), bad: self.bad_kinds.clone().unwrap_or(usual.bad) }
    }
}

/// What the options ask for, checked.
#[derive(Debug)]
pub(super) struct Order {
    pub(super) seed: u64,
    pub(super) run_id: u32,
    sources: Vec<(Scenario, Pace)>,
}

impl GenerateArgs {
    /// What is to be sent by whom and when; `random` where no seed is given.
    pub(super) fn order(&self, now: Timestamp, random: u64) -> Result<Order, ConfigError> {
        if !(self.rate > 0.0 && self.rate <= RATE_MAX) {
            return wrong("--rate", format!("must be a number above 0, at most {RATE_MAX}"));
        }
        if !(0.0..=1.0).contains(&self.mix.bad_share) {
            return wrong("--bad-share", "must be between 0 and 1");
        }
        self.check_size()?;
        if let Some(count) = self.count.filter(|count| *count < self.customers) {
            return wrong(
                "--count",
                format!("{count} messages are not enough for {} customers", self.customers),
            );
        }
        let (seed, run_id) = (self.seed.unwrap_or(random), self.run_id.unwrap_or_else(|| run_of_day(now)));
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        let date = self.mix.trade_date.unwrap_or(today);
        let mix = self.mix.mix();
        mix.pools.check(date)?;
        let source = Scenario::new(seed, self.mix.bad_share, date).in_run(run_id).with(mix);
        let sources = (0..self.customers)
            .map(|number| (source.clone().of_customer(number, self.customers), self.pace(number)))
            .collect();
        Ok(Order { seed, run_id, sources })
    }

    /// Every message stays in memory until the end, or in a dry run is at least made.
    fn check_size(&self) -> Result<(), ConfigError> {
        #[expect(clippy::cast_precision_loss, reason = "seconds of a year at most")]
        let scheduled = self.rate * self.duration as f64;
        let counted = self.count.map_or(f64::INFINITY, f64::from);
        let messages = if self.dry_run { counted } else { counted.min(scheduled) };
        if messages <= MESSAGES_MAX {
            return Ok(());
        }
        let option = if messages < scheduled || self.dry_run { "--count" } else { "--duration" };
        wrong(option, format!("asks for {messages} messages; 50 million are possible in one run"))
    }

    /// The part of one customer; they take turns.
    fn pace(&self, number: u32) -> Pace {
        let customers = self.customers;
        Pace {
            rate: self.rate / f64::from(customers),
            burst: self.burst,
            count: self.count.map(|count| count / customers + u32::from(number < count % customers)),
            offset: Duration::from_secs_f64(f64::from(number) / self.rate),
        }
    }

    /// The customers with what each needs.
    pub(super) async fn customers(&self, order: Order) -> Result<Vec<Customer>, ConfigError> {
        let submit = self.users(
            ("--submit-user", &self.submit_user),
            ("--submit-password-file", &self.submit_password_file),
        )?;
        let answers = self.users(
            ("--answers-user", &self.answers_user),
            ("--answers-password-file", &self.answers_password_file),
        )?;
        let mut customers = Vec::new();
        for (number, (scenario, pace)) in order.sources.into_iter().enumerate() {
            let plan = Plan {
                rate: pace.rate,
                duration: Duration::from_secs(self.duration),
                wait: Duration::from_secs(self.wait),
                scenario,
            };
            let target = async |users: &[(&str, &PathBuf)], option, name: &str| {
                let (user, file) = users[number % users.len()];
                Target::from_args(self, user, (option, file), &format!("customer {name} {number}")).await
            };
            let submit = target(&submit, "--submit-password-file", "submit").await?;
            let answers = target(&answers, "--answers-password-file", "answers").await?;
            customers.push(Customer { plan, pace, submit, answers });
        }
        Ok(customers)
    }

    /// Each user with its password file.
    fn users<'a>(
        &self,
        (user_option, users): (&'static str, &'a [String]),
        (file_option, files): (&'static str, &'a [PathBuf]),
    ) -> Result<Vec<(&'a str, &'a PathBuf)>, ConfigError> {
        let customers = self.customers as usize;
        if users.len() != 1 && users.len() != customers {
            let given = users.len();
            return wrong(
                user_option,
                format!("is given {given} times; give it once, or for each of {customers} --customers"),
            );
        }
        if files.len() != users.len() {
            let (given, wanted) = (files.len(), users.len());
            return wrong(file_option, format!("is given {given} times, {user_option} {wanted} times"));
        }
        Ok(users.iter().map(String::as_str).zip(files).collect())
    }

    /// The files that are asked for, or none.
    pub(super) fn records(&self) -> Result<Option<Records>, RecordError> {
        let (file, folder) = (self.file.as_deref(), self.output_dir.as_deref());
        match (file, folder) {
            (None, None) if self.dry_run => Ok(Some(Records::to_standard_output(self.record_limit))),
            (None, None) => Ok(None),
            _ => Records::create(file, folder, self.record_limit).map(Some),
        }
    }
}

impl Order {
    /// All messages, in the order of their due times, and the counterparts.
    pub(super) fn write(self, records: &mut Records) -> u64 {
        let mut written = 0;
        let mut numbers = vec![0; self.sources.len()];
        let mut sources = self.sources;
        let mut end = Duration::ZERO;
        loop {
            let next = sources.iter().enumerate().filter(|(customer, (_, pace))| {
                // A dry run has a count.
                numbers[*customer] < pace.count.unwrap_or_default()
            });
            let next = next.map(|(customer, (_, pace))| (pace.due(numbers[customer]), customer)).min();
            let Some((due, customer)) = next else { break };
            let message = sources[customer].0.next_message();
            records.sent(customer, &super::records::Scheduled { message, due, at: None }, None);
            numbers[customer] += 1;
            written += 1;
            end = due;
        }
        for (customer, (scenario, _)) in sources.iter_mut().enumerate() {
            for message in scenario.close() {
                records.sent(customer, &super::records::Scheduled { message, due: end, at: None }, None);
                written += 1;
            }
        }
        written
    }
}

#[cfg(test)]
mod tests;
