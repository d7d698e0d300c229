//! Both applications under faults of every kind, each at a random moment: nothing is lost, nothing doubled, and what each
//! stage has is what the one before gave it. Stages are processes of the real program; brokers and databases are real.
//!
//! About forty seconds of faults in each test run, under a random seed that is printed. `SOAK_SEED` takes the same faults
//! again; `cargo xtask bench soak` runs for as long as it is told: docs/soak.md.

#![expect(clippy::panic, reason = "helpers of tests: failing is how they report")]

#[allow(unreachable_pub, reason = "shared with the tests of the stages")]
#[path = "../../trading/tests/support/conserved.rs"]
mod conserved;
mod copies;
mod customer;
mod database;
mod fault;
mod gateway;
mod lease;
mod plan;
mod rig;
mod side;
mod stage;
mod verdict;
mod wait;

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use copies::Copies;
use customer::{Customer, Progress};
use fault::Coverage;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use rig::Rig;
use tokio::time::{interval, sleep_until};
use wait::until;

/// Progress is told this often.
const PROGRESS: Duration = Duration::from_secs(10);
/// The customer has judged within this time after the last fault.
const END_LIMIT: Duration = Duration::from_secs(customer::WAIT_SECONDS + 60);
/// All copies have gone out within this time after that.
const COPIES_LIMIT: Duration = Duration::from_secs(60);

/// Whether a fault struck, or why it could not.
pub(crate) type Struck = Result<(), &'static str>;

/// What a run is asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) seed: u64,
    /// How long faults and messages come.
    pub(crate) seconds: Duration,
    /// One fault in each.
    pub(crate) every: Duration,
    /// Messages a second.
    pub(crate) rate: u32,
}

impl Settings {
    fn read() -> Self {
        let seconds: u64 = variable("SOAK_SECONDS").unwrap_or(40);
        let every: u64 = variable("SOAK_EVERY_MILLISECONDS").unwrap_or(2_000);
        Self {
            seed: variable("SOAK_SEED").unwrap_or_else(rand::random),
            seconds: Duration::from_secs(seconds),
            every: Duration::from_millis(every),
            rate: variable("SOAK_RATE").unwrap_or(20),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "switches for the benchmark and for people")]
fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_fails_nothing_is_lost_nothing_doubled_and_each_stage_has_what_the_one_before_gave() {
    let settings = Settings::read();
    eprintln!(
        "soak: SOAK_SEED={} for {:?}, a fault each {:?}, {} messages/s",
        settings.seed, settings.seconds, settings.every, settings.rate
    );
    let folder = tempfile::tempdir().unwrap();
    let mut coverage = Coverage::default();
    let outcome = run(&settings, folder.path(), &mut coverage).await;
    eprint!("{}", coverage.table());
    let broken = outcome.unwrap_or_else(|error| vec![format!("the run broke off: {error:#}")]);
    if !broken.is_empty() {
        let logs = folder.keep();
        std::fs::write(logs.join("faults.log"), coverage.story()).unwrap();
        panic!(
            "SOAK_SEED={}: {} things must not be; last fault {}; logs in {}\n  {}",
            settings.seed,
            broken.len(),
            coverage.last(),
            logs.display(),
            broken.join("\n  ")
        );
    }
    eprintln!("soak: nothing lost, nothing doubled, everything conserved; {} faults", coverage.struck());
}

/// Gives what must not be.
async fn run(settings: &Settings, folder: &Path, coverage: &mut Coverage) -> Result<Vec<String>> {
    let rig = Arc::new(Rig::start(folder).await?);
    let judged = run_on(&rig, settings, coverage).await;
    if !judged.as_ref().is_ok_and(Vec::is_empty) {
        rig.keep_logs().await;
    }
    judged
}

async fn run_on(rig: &Arc<Rig>, settings: &Settings, coverage: &mut Coverage) -> Result<Vec<String>> {
    let began = Instant::now();
    let end = began + settings.seconds;
    let mut copies = Vec::new();
    for side in rig.sides() {
        eprintln!("soak: {} broker, guest/guest: {}", plan::short(side.application), side.broker.management);
        copies.push(Copies::start(side, settings.seed, end).await?);
    }
    let supervising = rig.start_stages()?;
    let mut customer = Customer::start(&rig.trading, settings)?;
    faults(rig, settings, began, &customer.progress(), coverage).await?;
    let (judged, mut broken) = judged(&mut customer, began).await?;
    eprintln!("soak: the customer: {judged}");
    let sent = until(COPIES_LIMIT, "all copies are sent", async || {
        copies.iter().all(|copies| copies.waiting() == 0).then_some(())
    });
    // What was lost never comes to rest: the stores are asked all the same, and tell what it is.
    for settled in [sent.await, verdict::rest(rig).await] {
        broken.extend(settled.err().map(|error| format!("{error:#}")));
    }
    let sent: u64 = copies.iter().map(|copies| copies.sent()).sum();
    eprintln!("soak: {}; {sent} copies", verdict::counts(rig).await?);
    broken.extend(verdict::conserved(rig).await?);
    for (side, peer) in [(&rig.trading, &rig.settlement), (&rig.settlement, &rig.trading)] {
        if let Err(difference) = side.reconcile(peer).await {
            broken.push(format!("{difference:#}"));
        }
    }
    broken.extend(customer.later_answers(&rig.trading).await?);
    broken.extend(rig.end_stages(supervising).await?);
    Ok(broken)
}

/// Waits for the customer's verdict.
async fn judged(customer: &mut Customer, began: Instant) -> Result<(serde_json::Value, Vec<String>)> {
    let told = customer.progress();
    let ended = customer.ended(END_LIMIT);
    tokio::pin!(ended);
    let mut progress = interval(PROGRESS);
    loop {
        tokio::select! {
            judged = &mut ended => return judged,
            _ = progress.tick() => {
                eprintln!("soak: {:>4} s  no more faults  |  {}", began.elapsed().as_secs(), told.line());
            }
        }
    }
}

/// Makes the faults of the plan at their times, and waits until all that they struck is back.
async fn faults(
    rig: &Arc<Rig>,
    settings: &Settings,
    began: Instant,
    told: &Progress,
    coverage: &mut Coverage,
) -> Result<()> {
    let plan = plan::schedule(settings.seed, settings.every, settings.seconds);
    let mut plan = plan.into_iter().peekable();
    let mut striking = FuturesUnordered::new();
    let mut progress = interval(PROGRESS);
    progress.tick().await;
    while plan.peek().is_some() || !striking.is_empty() {
        let next = plan.peek().map_or(began + settings.seconds + fault::LIMIT, |event| began + event.at);
        tokio::select! {
            () = sleep_until(next.into()) => {
                let Some(event) = plan.next() else { bail!("faults are not over") };
                coverage.began(&event);
                let rig = rig.clone();
                striking.push(async move {
                    let struck = fault::strike(rig, event).await.with_context(|| event.to_string())?;
                    anyhow::Ok((event, struck))
                });
            }
            Some(struck) = striking.next() => {
                let (event, struck) = struck?;
                coverage.note(&event, &struck);
            }
            _ = progress.tick() => {
                eprintln!(
                    "soak: {:>4} s  {} faults, last {}  |  {}",
                    began.elapsed().as_secs(), coverage.struck(), coverage.last(), told.line()
                );
            }
        }
    }
    Ok(())
}
