//! `cargo xtask bench`: figures, each beside what it is measured against. Never part of a test.

use std::process::Command;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::cargo::{cargo, shown};
use crate::soak::Soak;
use crate::two_regions::{Assets, ENDS, on_two_regions};

const PIPELINE: &str = "\
Examples:
  cargo xtask bench pipeline                                 workload a: rate, ceiling, latencies, form without batches
  cargo xtask bench pipeline --workload b --profile          the generator's mix with settlements, and what holds it
  cargo xtask bench pipeline --rate 500 --seconds 30         only latencies, 500 sides a second on an open schedule
  cargo xtask bench pipeline --seconds 10 --rounds 1 --development    a first look, without a release build

A side is one party's report of a trade: one message, one answer. Servers, database and stages are started for the
measurement and ended with it; it needs root, and no lab. Without --rate it takes about six times --seconds, and for each
round once more and a minute for the parts. docs/benchmarks.md says what each line means.";

const RECONCILE: &str = "\
Examples:
  cargo xtask bench reconcile                                a million rows in each of the last two stores
  cargo xtask bench reconcile --rows 10000000                ten million: about 25 GB of disk and half an hour
  cargo xtask bench reconcile --seconds 10 --rows 100000 --development    a first look, without a release build

docs/benchmarks.md says what each line means.";

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Planned switches: in virtual time over random delays, then on two real regions under load.
    Switch(Switch),
    /// Trade matching on one core: sides a second beside maps with texts as keys, bytes of an open side, random histories
    /// compared with an oracle.
    Matching(Matching),
    /// The trade pipeline from end to end on real servers, beside what its parts carry alone and beside its own form of one
    /// message, one commit.
    Pipeline(Pipeline),
    /// Reconciliation over stores that the pipeline has filled: time beside reading them once, rows that are gone by id, and
    /// how fast they are replayed.
    #[command(after_help = RECONCILE)]
    Reconcile {
        /// Seconds for which the pipeline fills the stores.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Rows in each of the two stores of the last boundary, which are filled up by copies. Ten million need about 25 GB.
        #[arg(long, default_value_t = 1_000_000)]
        rows: u32,
        /// Use the build for development, which tests and lab use, instead of a release build.
        #[arg(long)]
        development: bool,
    },
    /// Either operator killed before and after each step, and the other one beside it: all cases.
    #[command(after_help = ENDS)]
    Kills {
        /// Leave the two regions up afterwards.
        #[arg(long)]
        keep: bool,
        #[command(flatten)]
        assets: Assets,
    },
    /// Both applications under a fault each two seconds, every service, broker and database in turn, messages twice and out of order:
    /// whether anything is lost, doubled or not conserved.
    Soak(Soak),
}

#[derive(Debug, Args)]
#[command(after_help = ENDS)]
struct Switch {
    /// Scripts of random delays in virtual time.
    #[arg(long, default_value_t = 200)]
    scripts: u32,
    /// Seed of the scripts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Messages a second on the real regions.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Switches under that load on the real regions.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Switches on the real regions with providers slow by a random script.
    #[arg(long, default_value_t = 3)]
    slow: u32,
    /// Print the steps of each switch on the real regions.
    #[arg(long)]
    timeline: bool,
    /// Leave the two regions up afterwards.
    #[arg(long)]
    keep: bool,
    #[command(flatten)]
    assets: Assets,
}

#[derive(Debug, Args)]
struct Matching {
    /// Random histories that are compared with the oracle.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Sides in the stream that is decided for speed, and open sides in the book that is weighed.
    #[arg(long, default_value_t = 1_000_000)]
    sides: u32,
    /// Seed of the stream and of the histories.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
#[command(after_help = PIPELINE)]
struct Pipeline {
    /// Seconds of each measurement.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// What is sent: a, pairs that match, one allocation each; b, the generator's mix with settlements.
    #[arg(long, value_parser = ["a", "b"], default_value = "a")]
    workload: String,
    /// Sides a second on an open schedule, and nothing but that; 0 sends as fast as answers come.
    #[arg(long, default_value_t = 0)]
    rate: u32,
    /// Times that pipeline and ceiling are measured, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Seed of the messages.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also print what holds the pipeline where it is.
    #[arg(long)]
    profile: bool,
    /// Use the build for development, which tests and lab use, instead of a release build.
    #[arg(long)]
    development: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Switch(settings) => switch(settings),
        What::Matching(settings) => matching(settings),
        What::Pipeline(settings) => pipeline(settings),
        What::Reconcile { seconds, rows, development } => {
            let (seconds, rows) = (seconds.to_string(), rows.to_string());
            pipeline_example(*development, &["--reconcile", "--seconds", &seconds, "--rows", &rows])
        }
        What::Kills { keep, assets } => kills(*keep, assets),
        What::Soak(settings) => crate::soak::run(settings),
    }
}

fn switch(settings: &Switch) -> Result<()> {
    let (scripts, seed) = (settings.scripts.to_string(), settings.seed.to_string());
    let simulation = ["run", "--quiet", "--package", "region-plan", "--example", "switch_delays", "--"];
    cargo(&[&simulation[..], &[&scripts, &seed]].concat())?;
    if settings.rounds == 0 && settings.slow == 0 {
        return Ok(());
    }
    on_two_regions(settings.keep, &settings.assets, |regions| {
        let mut command = Command::new(regions.program("bench"));
        command.args(["--seed", &seed]);
        for (name, value) in
            [("--rate", settings.rate), ("--rounds", settings.rounds), ("--slow", settings.slow)]
        {
            command.args([name, &value.to_string()]);
        }
        if settings.timeline {
            command.arg("--timeline");
        }
        shown(&mut command)
    })
}

fn matching(settings: &Matching) -> Result<()> {
    let benchmark = ["run", "--quiet", "--release", "--package", "matching", "--example", "matching", "--"];
    let (cases, sides, seed) =
        (settings.cases.to_string(), settings.sides.to_string(), settings.seed.to_string());
    cargo(&[&benchmark[..], &["--cases", &cases, "--sides", &sides, "--seed", &seed]].concat())
}

fn pipeline(settings: &Pipeline) -> Result<()> {
    let Pipeline { seconds, rate, rounds, seed, .. } = settings;
    let [seconds, rate, rounds, seed] =
        [*seconds, u64::from(*rate), u64::from(*rounds), *seed].map(|number| number.to_string());
    let mut arguments = vec!["--seconds", &seconds, "--workload", &settings.workload, "--rate", &rate];
    arguments.extend(["--rounds", &rounds, "--seed", &seed]);
    if settings.profile {
        arguments.push("--profile");
    }
    pipeline_example(settings.development, &arguments)
}

fn pipeline_example(development: bool, arguments: &[&str]) -> Result<()> {
    let mut command = vec!["run", "--quiet", "--package", "trading", "--example", "pipeline"];
    if !development {
        command.push("--release");
    }
    cargo(&[&command[..], &["--"], arguments].concat())
}

fn kills(keep: bool, assets: &Assets) -> Result<()> {
    on_two_regions(keep, assets, |_| {
        let mut command = Command::new(env!("CARGO"));
        command.env("KILL_CASES", "all");
        command.args(["test", "--workspace", "--test", "regions", "--", "--nocapture", "kills"]);
        shown(&mut command)
    })
}
