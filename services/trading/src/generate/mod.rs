//! The customer: sends both sides of trades, keeps a ledger of its own, and says at the end whether anything was
//! lost or doubled. It knows nothing of regions; it only follows the name of the broker.

mod answers;
mod dns;
mod ledger;
mod report;
mod scenario;
mod session;
mod submit;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use services_common::config::ConfigError;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use ledger::{Answer, Ledger, Verdict};
pub use scenario::{Message, Scenario, run_of_day};
pub use session::Target;

/// Messages that wait to be sent, at most. When it is full the customer falls behind its rate and says so.
const QUEUE: usize = 10_000;

/// Options of the customer.
#[derive(Args, Clone, Debug)]
pub struct GenerateArgs {
    /// Address of the broker: amqps://name:5671. The name is what moves in a switch
    #[arg(long, env = "BROKER_URL")]
    pub broker_url: String,
    /// File with the CA certificate (PEM) of the broker's certificate; needed for amqps
    #[arg(long, env = "BROKER_CA_FILE")]
    pub broker_ca_file: Option<PathBuf>,
    /// Broker user that submits trades
    #[arg(long, env = "SUBMIT_USER", default_value = "customer-submit")]
    pub submit_user: String,
    /// File with its password
    #[arg(long, env = "SUBMIT_PASSWORD_FILE")]
    pub submit_password_file: PathBuf,
    /// Broker user that reads answers
    #[arg(long, env = "ANSWERS_USER", default_value = "customer-answers")]
    pub answers_user: String,
    /// File with its password
    #[arg(long, env = "ANSWERS_PASSWORD_FILE")]
    pub answers_password_file: PathBuf,
    /// DNS server that knows the broker's name, like 10.99.3.2:53; without it the system resolves the name
    #[arg(long, env = "DNS")]
    pub dns: Option<SocketAddr>,
    /// Messages per second, both sides of trades together
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// Seconds to generate for; the counterparts of open sides follow after that
    #[arg(long, default_value_t = 60)]
    pub duration: u64,
    /// Seed of all random choices; the same seed sends the same content, under the ids of --run-id
    #[arg(long)]
    pub seed: Option<u64>,
    /// Which run of the business date this is: where its trade numbers begin, 0 to 9999999; by the time of day if
    /// not given
    ///
    /// The application answers an id once a business date. A run that is repeated with the same number sends ids
    /// that were answered before, and looks lost. Runs at the same time, or above 2000 messages a second, need
    /// numbers that are chosen by hand: a run takes one for about every 18 messages.
    #[arg(long, value_parser = clap::value_parser!(u32).range(..i64::from(scenario::TRADE_NUMBERS)))]
    pub run_id: Option<u32>,
    /// Share of malformed messages, 0 to 1; each must be answered with a NACK
    #[arg(long, default_value_t = 0.0)]
    pub bad_share: f64,
    /// Business date of the trades, like 2026-02-09; today if not given
    #[arg(long)]
    pub trade_date: Option<jiff::civil::Date>,
    /// Seconds to wait at the end for confirms and answers that are still due
    #[arg(long, default_value_t = 60)]
    pub wait: u64,
    /// File to write the ledger to, one JSON line a message
    #[arg(long)]
    pub ledger: Option<PathBuf>,
    /// How the verdict is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    pub output: Output,
}

/// Formats of the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object on standard output.
    Json,
}

/// The customer could not begin, or could not write its ledger.
#[derive(Debug, thiserror::Error)]
pub enum GenerateError {
    /// Wrong configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
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
    /// Longest wait at the end.
    pub wait: Duration,
    /// Source of the messages.
    pub scenario: Scenario,
}

/// Runs the customer as configured and prints progress and verdict.
///
/// # Errors
/// Wrong configuration, or the ledger cannot be written.
pub async fn from_args(args: GenerateArgs, shutdown: CancellationToken) -> Result<Verdict, GenerateError> {
    let seed = args.seed.unwrap_or_else(rand::random);
    let value = |option, reason: &str| ConfigError::Value { option, reason: reason.to_owned() };
    if !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(value("--rate", "must be a number above 0").into());
    }
    if !(0.0..=1.0).contains(&args.bad_share) {
        return Err(value("--bad-share", "must be between 0 and 1").into());
    }
    let now = services_common::clock::now();
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let run_id = args.run_id.unwrap_or_else(|| run_of_day(now));
    let password = ("--submit-password-file", args.submit_password_file.as_path());
    let submit = Target::from_args(&args, &args.submit_user, password, "customer submit").await?;
    let password = ("--answers-password-file", args.answers_password_file.as_path());
    let answers = Target::from_args(&args, &args.answers_user, password, "customer answers").await?;
    eprintln!("customer: seed {seed}, run {run_id}, {} messages/s for {} s", args.rate, args.duration);
    let plan = Plan {
        rate: args.rate,
        duration: Duration::from_secs(args.duration),
        wait: Duration::from_secs(args.wait),
        scenario: Scenario::new(seed, args.bad_share, args.trade_date.unwrap_or(today)).in_run(run_id),
    };
    let ledger = SharedLedger::default();
    let progress = tokio::spawn(report::progress(ledger.clone()));
    let verdict = run(plan, submit, answers, ledger.clone(), shutdown).await;
    progress.abort();
    report::print(&verdict, args.output);
    if let Some(path) = &args.ledger {
        let text = with(&ledger, |ledger| ledger.lines());
        std::fs::write(path, text)
            .map_err(|source| GenerateError::Ledger { path: path.display().to_string(), source })?;
    }
    Ok(verdict)
}

/// Generates, sends, collects answers, waits for what is due, and judges. Ends early at `shutdown`: what was sent
/// by then is still waited for.
pub async fn run(
    mut plan: Plan,
    submit: Target,
    answers: Target,
    ledger: SharedLedger,
    shutdown: CancellationToken,
) -> Verdict {
    let stop = CancellationToken::new();
    let (queue, messages) = mpsc::channel(QUEUE);
    let sending = tokio::spawn(submit::run(submit, messages, ledger.clone(), stop.clone()));
    let reading = tokio::spawn(answers::run(answers, ledger.clone(), stop.clone()));
    generate(&mut plan, &queue, &shutdown).await;
    let last = plan.scenario.close();
    let until = Instant::now() + plan.wait;
    let closing = async {
        for message in last {
            if queue.send(message).await.is_err() {
                return;
            }
        }
    };
    // With a broker that takes nothing the queue stays full: what did not fit was not sent.
    let _ = tokio::time::timeout(plan.wait, closing).await;
    drop(queue);
    while Instant::now() < until
        && (!sending.is_finished() || with(&ledger, |ledger| ledger.outstanding() > 0))
    {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.cancel();
    // Both end within the deadline of their present step; their errors are in the ledger as what is missing.
    let _ = tokio::join!(sending, reading);
    with(&ledger, |ledger| ledger.verdict(services_common::clock::now()))
}

/// Open loop: the n-th message is due at n/rate, whatever became of the others.
async fn generate(plan: &mut Plan, queue: &mpsc::Sender<Message>, shutdown: &CancellationToken) {
    let began = Instant::now();
    for number in 0_u32.. {
        let due = Duration::from_secs_f64(f64::from(number) / plan.rate);
        if due >= plan.duration {
            return;
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep_until((began + due).into()) => {}
        }
        if queue.send(plan.scenario.next_message()).await.is_err() {
            return;
        }
    }
}

/// Reads or changes the ledger.
pub(crate) fn with<T>(ledger: &SharedLedger, act: impl FnOnce(&mut Ledger) -> T) -> T {
    // A panic while holding it would be a fault of the ledger itself; its counts are still the best there is.
    act(&mut ledger.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
}
