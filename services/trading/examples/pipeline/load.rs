//! The customer at work: as fast as answers come, or at a rate, whatever becomes of the answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use trading::generate::{
    self, Customer, Desk, Mix, Pace, Plan, Pools, Scenario, SharedLedger, Spread, Verdict,
};

use crate::cpu::Cpu;
use crate::profile::{Statement, statements};
use crate::servers::{PATIENCE, Pipeline, Servers};

/// A second's messages where the window is what holds the customer: more than the pipeline takes.
const UNHELD: f64 = 20_000.0;
/// How often the window is looked at.
const LOOK: Duration = Duration::from_millis(10);
/// How often the database is asked for settlements that have not come back.
const LOOK_AT_SETTLEMENTS: Duration = Duration::from_millis(500);

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Pairs that match, one allocation each, no settlements.
    A,
    /// The generator's own mix, with settlements.
    B,
}

impl Workload {
    pub(crate) fn mix(self) -> Mix {
        match self {
            Self::A => Mix {
                odds: "matched".parse().unwrap(),
                pools: Pools { allocations: Spread::Even(1..=1), ..Pools::default() },
                ..Mix::default()
            },
            Self::B => Mix::default(),
        }
    }

    /// The share of sides whose counterpart comes only at the end: the unmatched ones, a third of the generator's mix.
    fn waiting_share(self) -> f64 {
        match self {
            Self::A => 0.0,
            Self::B => 1.0 / 3.0,
        }
    }
}

/// How it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) workload: Workload,
    /// Sides a second on an open schedule; none keeps `window` sides on their way.
    pub(crate) rate: Option<f64>,
    pub(crate) window: f64,
    /// Sent before measuring begins.
    pub(crate) warm: Duration,
    /// Measured.
    pub(crate) span: Duration,
    /// Makes ids that no other load on the same pipeline uses.
    pub(crate) date: Date,
    pub(crate) seed: u64,
}

/// What was seen between two moments while the load was on.
pub(crate) struct Seen {
    pub(crate) seconds: f64,
    /// Sides answered.
    pub(crate) sides: f64,
    pub(crate) cpu: Cpu,
    /// The counters of each stage, by its name.
    pub(crate) metrics: BTreeMap<String, Counters>,
    /// Settlements that came back.
    pub(crate) returned: f64,
    /// From the last answer until all settlements were back; none if they were not in time.
    pub(crate) settled_after: Option<Duration>,
    /// Bytes of log that the database wrote.
    pub(crate) wal: f64,
    /// What the database did meanwhile.
    pub(crate) statements: Vec<Statement>,
    pub(crate) verdict: Verdict,
}

impl Seen {
    pub(crate) fn rate(&self) -> f64 {
        self.sides / self.seconds
    }

    pub(crate) fn cpu_per_1000(&self) -> f64 {
        self.cpu.total() / self.sides * 1000.0
    }

    /// How much a counter of a stage grew.
    pub(crate) fn counter(&self, stage: &str, name: &str) -> f64 {
        self.metrics.get(stage).and_then(|counters| counters.get(name)).copied().unwrap_or_default()
    }
}

/// Counters by name with their labels, without the label that all have.
pub(crate) type Counters = BTreeMap<String, f64>;

fn counters(text: &str) -> Counters {
    let line = |line: &str| {
        let (name, value) = line.rsplit_once(' ')?;
        let (family, labels) = name.split_once('{')?;
        let labels: Vec<_> =
            labels.trim_end_matches('}').split(',').filter(|label| !label.starts_with("stage=")).collect();
        Some((format!("{family}{{{}}}", labels.join(",")), value.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

struct Look {
    at: Instant,
    answered: f64,
    returned: f64,
    cpu: Cpu,
    metrics: BTreeMap<String, Counters>,
    wal: f64,
}

async fn look(pipeline: &Pipeline, ledger: &SharedLedger) -> Look {
    let mut metrics = BTreeMap::new();
    for process in &pipeline.processes {
        metrics.insert(process.name.clone(), counters(&process.metrics().await.unwrap_or_default()));
    }
    let wal = pipeline.number("select (pg_current_wal_insert_lsn() - '0/0')::bigint").await;
    let answered = real(ledger.lock().unwrap().answered_count());
    let returned = pipeline.number("select count(*) from trading.returned").await as f64;
    Look {
        at: Instant::now(),
        answered,
        returned,
        cpu: Cpu::now(&pipeline.processes),
        metrics,
        wal: wal as f64,
    }
}

const UNRETURNED: &str = "select count(*) from trading.unreturned";

/// Waits until no settlement is on its way, so that the next measurement begins with none.
async fn all_returned(pipeline: &Pipeline) -> Option<Duration> {
    let began = Instant::now();
    while pipeline.number(UNRETURNED).await > 0 {
        if began.elapsed() > PATIENCE {
            return None;
        }
        tokio::time::sleep(LOOK_AT_SETTLEMENTS).await;
    }
    Some(began.elapsed())
}

/// A count as a figure to reckon with.
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

impl Load {
    /// Sends, measures, waits for the last answer, and judges.
    pub(crate) async fn run(self, servers: &Servers, pipeline: &Pipeline) -> Seen {
        let ledger = SharedLedger::default();
        let (control, positions) = watch::channel(true);
        let rate = self.rate.unwrap_or(UNHELD);
        let plan = Plan {
            rate,
            duration: self.warm + self.span,
            wait: PATIENCE,
            scenario: Scenario::new(self.seed, 0.0, self.date).with(self.workload.mix()),
        };
        let customer = Customer {
            plan,
            pace: Pace::steady(rate),
            submit: pipeline.target(servers, "customer submits"),
            answers: pipeline.target(servers, "customer reads answers"),
        };
        let desk = Desk { control: positions, ..Desk::new(ledger.clone()) };
        let running = tokio::spawn(generate::run_all(vec![customer], desk, CancellationToken::new()));
        let measuring = async {
            tokio::time::sleep(self.warm).await;
            pipeline.sql().batch_execute("select pg_stat_statements_reset()").await.unwrap();
            let before = look(pipeline, &ledger).await;
            tokio::time::sleep(self.span).await;
            let after = look(pipeline, &ledger).await;
            (before, after, statements(pipeline.sql()).await)
        };
        let (before, after, statements) = if self.rate.is_some() {
            measuring.await
        } else {
            tokio::select! {
                looks = measuring => looks,
                () = self.hold(pipeline, &ledger, &control) => unreachable!("it holds the customer until it is dropped"),
            }
        };
        let metrics = after.metrics.iter().map(|(stage, now)| {
            let then = before.metrics.get(stage);
            let grown = |(name, now): (&String, &f64)| {
                (name.clone(), now - then.and_then(|then| then.get(name)).copied().unwrap_or_default())
            };
            (stage.clone(), now.iter().map(grown).collect())
        });
        let metrics = metrics.collect();
        control.send_replace(true);
        let verdict = running.await.unwrap();
        Seen {
            seconds: (after.at - before.at).as_secs_f64(),
            sides: after.answered - before.answered,
            cpu: after.cpu.since(&before.cpu),
            metrics,
            returned: after.returned - before.returned,
            settled_after: all_returned(pipeline).await,
            wal: after.wal - before.wal,
            statements,
            verdict,
        }
    }

    /// Keeps about `window` sides on their way, and as many settlements at most.
    async fn hold(&self, pipeline: &Pipeline, ledger: &SharedLedger, control: &watch::Sender<bool>) {
        let (mut settlements, mut asked) = (0.0, Instant::now());
        loop {
            let (owed, answered) = {
                let ledger = ledger.lock().unwrap();
                (real(ledger.outstanding()), real(ledger.answered_count()))
            };
            if self.workload == Workload::B && asked.elapsed() > LOOK_AT_SETTLEMENTS {
                settlements = pipeline.number(UNRETURNED).await as f64;
                asked = Instant::now();
            }
            let on_their_way = owed - self.workload.waiting_share() * (owed + answered);
            let go = on_their_way < self.window && settlements < self.window;
            control.send_if_modified(|present| std::mem::replace(present, go) != go);
            tokio::time::sleep(LOOK).await;
        }
    }
}
