//! The customer: sends both sides of trades, keeps a ledger of its own, and says at the end whether anything was
//! lost or doubled. It knows nothing of regions; it only follows the name of the broker.

mod answers;
mod bad;
mod choice;
mod dns;
mod ending;
mod expected;
mod ledger;
mod options;
mod pace;
mod pools;
mod records;
mod report;
mod scenario;
mod session;
mod settled;
mod submit;
mod tally;
mod times;

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use services_common::config::ConfigError;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use ending::Ending;

pub use bad::Bad;
pub use choice::{Named, Spread, Weights};
pub use expected::Expected;
pub use ledger::{Answer, Ledger, Verdict};
pub use options::{GenerateArgs, Output};
pub use pace::Pace;
pub use pools::{Pools, Prices};
pub use records::{RecordError, Records};
pub use scenario::{Message, Mix, Pairing, Scenario, run_of_day};
pub use session::Target;
pub use settled::Settled;
pub use tally::{CustomerCounts, Details, Note};
pub use times::Percentiles;

/// Messages of one customer that wait to be sent, at most. When it is full the customer falls behind its rate and
/// says so.
const QUEUE: usize = 10_000;

/// The customer could not begin, or could not write a file.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Wrong configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file of messages and answers.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The ledger's file.
    #[error("cannot write the ledger to {path}")]
    Ledger {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What the parts of the customer share. The lock is never held across a wait.
pub type SharedLedger = Arc<Mutex<Ledger>>;

/// What to send, and how long to wait for the rest.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Messages per second.
    pub rate: f64,
    /// How long to generate.
    pub duration: Duration,
    /// Longest wait at the end for the next confirm or answer that is due; all of them together ten times as long.
    pub wait: Duration,
    /// Source of the messages.
    pub scenario: Scenario,
}

/// One of several customers.
#[derive(Clone, Debug)]
pub struct Customer {
    /// What it sends.
    pub plan: Plan,
    /// When.
    pub pace: Pace,
    /// Where it submits trades.
    pub submit: Target,
    /// Where it reads answers.
    pub answers: Target,
}

/// What all customers of a run share.
#[derive(Clone, Debug)]
pub struct Desk {
    /// The books.
    pub ledger: SharedLedger,
    /// Files of messages and answers.
    pub records: Option<Arc<Mutex<Records>>>,
    /// True while messages may be sent. One whose sender is gone stays as it is.
    pub control: watch::Receiver<bool>,
}

impl Desk {
    /// Books without files, and nobody who holds the customers back.
    pub fn new(ledger: SharedLedger) -> Self {
        Self { ledger, records: None, control: watch::channel(true).1 }
    }

    fn record(&self, act: impl FnOnce(&mut Records)) {
        if let Some(records) = &self.records {
            act(&mut records.lock().unwrap_or_else(std::sync::PoisonError::into_inner));
        }
    }
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// With a verdict.
    Judged(Box<Verdict>),
    /// So many messages were written, and none was sent.
    Written(u64),
}

impl Outcome {
    /// Nothing was lost, doubled or wrong.
    pub fn good(&self) -> bool {
        match self {
            Self::Judged(verdict) => verdict.good(),
            Self::Written(_) => true,
        }
    }
}

/// Runs the customers as configured and prints progress and verdict. They send while `control` is true.
///
/// # Errors
/// Wrong configuration, or a file cannot be written.
pub async fn from_args(
    args: GenerateArgs,
    control: Option<watch::Receiver<bool>>,
    shutdown: CancellationToken,
) -> Result<Outcome, GenerateError> {
    let order = args.order(services_common::clock::now(), rand::random())?;
    let started = format!("customer: seed {}, run {}", order.seed, order.run_id);
    if args.dry_run {
        let mut records = args.records()?.unwrap_or_else(|| Records::to_standard_output(args.record_limit));
        let written = order.write(&mut records);
        records.finish()?;
        eprintln!("{started}, {written} messages written");
        tell_left_out(&records);
        return Ok(Outcome::Written(written));
    }
    let customers = args.customers(order).await?;
    let records = args.records()?.map(|records| Arc::new(Mutex::new(records)));
    let ledger = if args.settled { Ledger::demanding_settled() } else { Ledger::default() };
    let ledger = SharedLedger::new(Mutex::new(ledger));
    let desk = Desk { records, control: control.unwrap_or(watch::channel(true).1), ledger: ledger.clone() };
    let of = if args.customers == 1 { String::new() } else { format!(" of {} customers", args.customers) };
    eprintln!("{started}, {} messages/s{of} for {} s", args.rate, args.duration);
    let progress = tokio::spawn(report::progress(desk.clone()));
    let verdict = run_all(customers, desk.clone(), shutdown).await;
    progress.abort();
    report::print(&verdict, args.output);
    let mut recorded = Ok(());
    desk.record(|records| {
        recorded = records.finish();
        tell_left_out(records);
    });
    if let Some(path) = &args.ledger {
        write_ledger(path, &ledger)?;
    }
    recorded?;
    Ok(Outcome::Judged(Box::new(verdict)))
}

fn tell_left_out(records: &Records) {
    let left_out = records.left_out();
    if left_out > 0 {
        eprintln!("customer: {left_out} records beyond --record-limit are in no file");
    }
}

fn write_ledger(path: &Path, ledger: &SharedLedger) -> Result<(), GenerateError> {
    let text = with(ledger, |ledger| ledger.lines());
    std::fs::write(path, text)
        .map_err(|source| GenerateError::Ledger { path: path.display().to_string(), source })
}

/// One customer that sends one message at a time: see [`run_all`].
pub async fn run(
    plan: Plan,
    submit: Target,
    answers: Target,
    ledger: SharedLedger,
    shutdown: CancellationToken,
) -> Verdict {
    let pace = Pace::steady(plan.rate);
    run_all(vec![Customer { plan, pace, submit, answers }], Desk::new(ledger), shutdown).await
}

/// Generates, sends, collects answers, waits for what is due, and judges. Ends early at `shutdown`: what was sent
/// by then is still waited for.
pub async fn run_all(customers: Vec<Customer>, desk: Desk, shutdown: CancellationToken) -> Verdict {
    let stop = CancellationToken::new();
    let wait = customers.iter().map(|customer| customer.plan.wait).max().unwrap_or_default();
    let (mut sources, mut sending, mut reading) = (JoinSet::new(), JoinSet::new(), JoinSet::new());
    for (number, customer) in customers.into_iter().enumerate() {
        let Customer { plan, pace, submit, answers } = customer;
        let (queue, messages) = mpsc::channel(QUEUE);
        sending.spawn(submit::run(submit, number, messages, desk.clone(), stop.clone()));
        reading.spawn(answers::run(answers, desk.clone(), stop.clone()));
        let source = pace::Source {
            scenario: plan.scenario,
            pace,
            duration: plan.duration,
            wait: plan.wait,
            queue,
            control: desk.control.clone(),
            ledger: desk.ledger.clone(),
            shutdown: shutdown.clone(),
        };
        sources.spawn(source.run());
    }
    let mut ended = Instant::now();
    while let Some(source) = sources.join_next().await {
        ended = source.map_or(ended, |source| ended.max(source.into_std()));
    }
    let mut ending = Ending::new(wait, ended, with(&desk.ledger, |ledger| ledger.progress()));
    loop {
        while sending.try_join_next().is_some() {}
        let (complete, seen) = with(&desk.ledger, |ledger| (ledger.complete(), ledger.progress()));
        if (complete && sending.is_empty()) || ending.over(seen, Instant::now()) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    // All end within the deadline of their present step; their errors are in the ledger as what is missing.
    while sending.join_next().await.is_some() {}
    while reading.join_next().await.is_some() {}
    with(&desk.ledger, |ledger| ledger.verdict(services_common::clock::now()))
}

/// Reads or changes the ledger.
pub(crate) fn with<T>(ledger: &SharedLedger, act: impl FnOnce(&mut Ledger) -> T) -> T {
    // A panic while holding it would be a fault of the ledger itself; its counts are still the best there is.
    act(&mut ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}
