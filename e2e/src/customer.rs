//! The customer of the tests: the generator of `services generate`, run here, outside of both clusters.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, Result};
use lab::{Application, Facts, Region};
use services_common::amqp::BrokerConfig;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Ledger, Plan, Scenario, SharedLedger, Target};

pub use trading::generate::Verdict;

use crate::timeouts::{NOTICE, stretched};
use crate::wait::{Look, until};

/// What the customer sends.
#[derive(Clone, Debug)]
pub struct CustomerOptions {
    /// Messages a second.
    pub rate: u32,
    /// Share of malformed messages, 0 to 1.
    pub bad_share: f64,
    /// Seed of all random choices; random if absent. Printed.
    pub seed: Option<u64>,
    /// Demand that each matched side is told that it is settled: only where settlements flow.
    pub settled: bool,
    /// Sends to this region's broker wherever the name leads, as the operator's user: what is left there once that region
    /// is not active.
    pub submit_at: Option<Region>,
}

impl Default for CustomerOptions {
    fn default() -> Self {
        Self { rate: 100, bad_share: 0.02, seed: None, settled: false, submit_at: None }
    }
}

/// A customer at work.
pub struct Customer {
    ledger: SharedLedger,
    stop: CancellationToken,
    task: JoinHandle<Verdict>,
}

/// Longer than any test; the customer is stopped by its token.
const DURATION: Duration = Duration::from_secs(3_600);
/// Bound of the wait for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(60);

impl Customer {
    /// Starts a customer that follows the application's DNS name.
    ///
    /// # Errors
    /// When the lab's facts or the CA cannot be read.
    pub fn start(facts: &Facts, options: &CustomerOptions) -> Result<Self> {
        let seed = options.seed.unwrap_or_else(|| u64::from(uuid::Uuid::new_v4().as_fields().0));
        let submit = match options.submit_at {
            Some(region) => target(facts, &facts.regions[&region].broker_url, "region-operator", None)?,
            None => by_name(facts, "customer-submit")?,
        };
        let answers = by_name(facts, "customer-answers")?;
        let now = services_common::clock::now();
        // The same seed again on one day must not send ids that were answered before.
        let run = generate::run_of_day(now);
        eprintln!("   customer: seed {seed}, run {run}, {} messages/s", options.rate);
        let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
        let plan = Plan {
            rate: f64::from(options.rate),
            duration: DURATION,
            wait: stretched(LAST_ANSWERS),
            scenario: Scenario::new(seed, options.bad_share, today).in_run(run),
        };
        let ledger = if options.settled { Ledger::demanding_settled() } else { Ledger::default() };
        let ledger = SharedLedger::new(Mutex::new(ledger));
        let stop = CancellationToken::new();
        let task = tokio::spawn(generate::run(plan, submit, answers, ledger.clone(), stop.clone()));
        Ok(Self { ledger, stop, task })
    }

    /// Messages that have an answer so far.
    pub fn answers(&self) -> u64 {
        self.ledger.lock().map(|ledger| ledger.answered_count()).unwrap_or_default()
    }

    /// Waits until that many messages have an answer.
    ///
    /// # Errors
    /// At the bound.
    pub async fn answered(&self, wanted: u64) -> Result<()> {
        until(&format!("{wanted} answers to the customer"), NOTICE, async || {
            let seen = self.answers();
            Ok(if seen >= wanted { Look::Seen(()) } else { Look::NotYet(seen.to_string()) })
        })
        .await
    }

    /// Waits until that many more messages have an answer.
    ///
    /// # Errors
    /// At the bound.
    pub async fn answered_more(&self, more: u64) -> Result<()> {
        self.answered(self.answers() + more).await
    }

    /// Sends each open side's counterpart, waits for what is due, and judges.
    ///
    /// # Errors
    /// When the customer itself failed.
    pub async fn finish(self) -> Result<Verdict> {
        self.stop.cancel();
        self.task.await.context("the customer failed")
    }
}

/// Trade matching's broker by the name that moves with its region.
fn by_name(facts: &Facts, user: &str) -> Result<Target> {
    let name = &facts.aws.applications[&Application::TradeMatching].broker_name;
    target(facts, &format!("amqps://{name}:5671"), user, Some(facts.aws.dns))
}

fn target(facts: &Facts, url: &str, user: &str, dns: Option<SocketAddr>) -> Result<Target> {
    let password = facts.credentials.broker(user)?;
    let name = format!("customer {user}");
    let broker = BrokerConfig::new(url, user, password, Some(&facts.ca_file), &name)?;
    Ok(Target { broker, dns })
}
