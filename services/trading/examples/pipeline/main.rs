//! What the trade pipeline carries from end to end, beside what its parts carry alone. `cargo xtask bench pipeline` runs it;
//! docs/benchmarks.md says what each line means.

#![allow(clippy::unwrap_used, reason = "a benchmark: it ends at the first surprise, and says where")]

mod ceiling;
mod chain;
mod cpu;
mod load;
mod material;
mod profile;
mod reconcile;
mod report;
mod servers;
mod stores;
mod texts;

use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;

use ceiling::Batches;
use clap::{Parser, Subcommand};
use jiff::Span;
use jiff::civil::date;
use load::{Load, Seen, Workload};
use servers::{Form, Pipeline, Servers};
use services_common::{shutdown, telemetry};
use trading::run::{self, StageArgs, StageName, TradingArgs};

/// Measures the pipeline.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Command {
    #[command(flatten)]
    settings: Settings,
    #[command(subcommand)]
    stage: Option<Stage>,
}

#[derive(Clone, Debug, clap::Args)]
struct Settings {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// What is sent: a, pairs that match; b, the generator's mix with settlements.
    #[arg(long, value_enum, default_value = "a")]
    workload: Workload,
    /// Sides a second on an open schedule; 0 sends as fast as answers come.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Sides on their way when it sends as fast as answers come.
    #[arg(long, default_value_t = 6_000)]
    window: u32,
    /// Times that pipeline and ceiling are measured, in turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// Also say what holds it there.
    #[arg(long)]
    profile: bool,
    /// Compare the stores that the pipeline has filled by then, instead of a ceiling.
    #[arg(long)]
    reconcile: bool,
    /// Rows in each of the last two stores, where they are compared.
    #[arg(long, default_value_t = 1_000_000)]
    rows: u32,
    /// Seed of the messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// This program as one process of the pipeline.
#[derive(Debug, Subcommand)]
enum Stage {
    #[command(hide = true)]
    StageOfTrading {
        stage: String,
        #[command(flatten)]
        args: Box<TradingArgs>,
    },
    #[command(hide = true)]
    StageOfSettlement {
        stage: String,
        #[command(flatten)]
        args: Box<StageArgs>,
    },
}

/// Sent before measuring begins.
const WARM: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let Command { settings, stage } = Command::parse();
    telemetry::start("warn").unwrap();
    let named = |word: &str| StageName::ALL.into_iter().find(|stage| stage.word() == word).unwrap();
    let ended = match stage {
        None => {
            measure(settings).await;
            return report::exit_code();
        }
        Some(Stage::StageOfTrading { stage, args }) => {
            run::from_args(named(&stage), *args, shutdown::on_signal().unwrap()).await
        }
        Some(Stage::StageOfSettlement { stage, args }) => {
            run::settlement_from_args(named(&stage), *args, shutdown::on_signal().unwrap()).await
        }
    };
    ended.unwrap();
    ExitCode::SUCCESS
}

/// Sides on their way in the form without batches: enough that no stage waits for the customer.
const WINDOW_ONE_BY_ONE: f64 = 200.0;
/// One trade a second.
const SLOW: f64 = 2.0;
const GOAL_OF_CEILING: f64 = 0.8;
const GOAL_OF_CHAIN: f64 = 0.6;
const GOAL_OVER_ONE_BY_ONE: f64 = 8.0;
const GOAL_SLOW_LATENCY: f64 = 1.5;

async fn measure(settings: Settings) {
    let servers = Servers::start().await;
    report::machine(&servers).await;
    println!("settings: {settings:?}");
    let form = Form { name: "batched", settlements: settings.workload == Workload::B, one_by_one: false };
    let pipeline = Pipeline::start(&servers, form).await;
    let bench = Bench { servers, form, settings, days: Cell::new(0) };
    if bench.settings.reconcile {
        let seen = bench.load().run(&bench.servers, &pipeline).await;
        report::end_to_end("filling the stores", &seen);
        reconcile::run(&bench.servers, &pipeline, bench.settings.rows, seen.rate()).await;
    } else if bench.settings.rate > 0 {
        let load = Load { rate: Some(f64::from(bench.settings.rate)), ..bench.load() };
        let seen = load.run(&bench.servers, &pipeline).await;
        report::end_to_end("at that rate", &seen);
        report::latency("at that rate", &seen);
        bench.profile(&seen);
    } else {
        bench.all(&pipeline).await;
    }
    pipeline.end(&bench.servers).await;
}

struct Bench {
    servers: Servers,
    form: Form,
    settings: Settings,
    /// Business days used up: ids are of a day.
    days: Cell<i64>,
}

impl Bench {
    /// As fast as answers come.
    fn load(&self) -> Load {
        self.days.set(self.days.get() + 1);
        Load {
            workload: self.settings.workload,
            rate: None,
            window: f64::from(self.settings.window),
            warm: WARM,
            span: Duration::from_secs(self.settings.seconds),
            date: date(2026, 2, 9).saturating_add(Span::new().days(self.days.get())),
            seed: self.settings.seed,
        }
    }

    async fn all(&self, pipeline: &Pipeline) {
        let (mut rates, mut of_clock, mut of_cpu, mut of_chain) = (vec![], vec![], vec![], vec![]);
        for round in 1..=self.settings.rounds {
            println!("\nround {round}");
            let load = self.load();
            let seen = load.run(&self.servers, pipeline).await;
            report::end_to_end("end to end", &seen);
            self.profile(&seen);
            rates.push(seen.rate());
            if self.form.settlements {
                continue;
            }
            let batches = Batches::of(&seen);
            println!("  {batches:?}");
            let ceiling = ceiling::measure(&self.servers, pipeline, &load, &batches).await;
            ceiling.print();
            of_clock.push(seen.rate() / ceiling.by_clock());
            of_cpu.push(ceiling.cpu() * 1000.0 / seen.cpu_per_1000());
            of_chain.push(seen.rate() / ceiling.chain());
        }
        let half = report::median(&rates) / 2.0;
        println!("\nall rounds");
        report::figure("sides/s end to end", &rates, None);
        if !self.form.settlements {
            report::figure("of the sum of parts, by processor time", &of_cpu, Some(GOAL_OF_CEILING));
            report::figure("of the sum of parts, by the clock", &of_clock, Some(GOAL_OF_CEILING));
            report::figure("of the bare chain of relays, by the clock", &of_chain, Some(GOAL_OF_CHAIN));
        }
        let seen = Load { rate: Some(half), ..self.load() }.run(&self.servers, pipeline).await;
        report::latency("at half load", &seen);
        let slow = Load { rate: Some(SLOW), ..self.load() };
        let batched = slow.run(&self.servers, pipeline).await;
        report::latency("at 1 trade/s", &batched);
        // With settlements that form does not end in any useful time: some twenty transactions for each allocation.
        if !self.form.settlements {
            self.one_by_one(&rates, &slow, &batched).await;
        }
    }

    /// The same stages with one message in a transaction.
    async fn one_by_one(&self, rates: &[f64], slow: &Load, batched: &Seen) {
        let form = Form { name: "single", one_by_one: true, ..self.form };
        let pipeline = Pipeline::start(&self.servers, form).await;
        let load = Load { window: WINDOW_ONE_BY_ONE, ..self.load() };
        let seen = load.run(&self.servers, &pipeline).await;
        report::end_to_end("one message, one commit", &seen);
        let ratios: Vec<f64> = rates.iter().map(|rate| rate / seen.rate()).collect();
        report::figure("times its form of one message, one commit", &ratios, Some(GOAL_OVER_ONE_BY_ONE));
        let single = Load { date: self.load().date, ..*slow }.run(&self.servers, &pipeline).await;
        report::latency("at 1 trade/s, one message, one commit", &single);
        let ratio = batched.verdict.details.latency.p50 / single.verdict.details.latency.p50;
        report::at_most("latency at 1 trade/s, times that without batches", ratio, GOAL_SLOW_LATENCY);
        pipeline.end(&self.servers).await;
    }

    fn profile(&self, seen: &Seen) {
        if self.settings.profile {
            profile::print(seen);
        }
    }
}
