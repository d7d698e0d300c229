//! `cargo xtask bench`: figures, each beside what it is measured against. Never part of a test.

use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use lab::{Lab, Options};

use crate::test::{LAB, build, cargo, stage};

/// What to measure.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Planned switches: in virtual time over random delays, then on two real regions under load.
    Switch {
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
    },
    /// Either operator killed before and after each step of a planned switch: all cases.
    Kills,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    match &arguments.what {
        What::Switch { scripts, seed, rate, rounds, slow } => switch(*scripts, *seed, *rate, *rounds, *slow),
        What::Kills => kills(),
    }
}

fn switch(scripts: u32, seed: u64, rate: u32, rounds: u32, slow: u32) -> Result<()> {
    let (scripts, seed) = (scripts.to_string(), seed.to_string());
    cargo(&[
        "run",
        "--quiet",
        "--package",
        "region-plan",
        "--example",
        "switch_delays",
        "--",
        &scripts,
        &seed,
    ])?;
    if rounds + slow == 0 {
        return Ok(());
    }
    on_two_regions(|| {
        let mut command = Command::new("target/debug/bench");
        let settings = [("--rate", rate), ("--rounds", rounds), ("--scripts", slow)];
        command.args(["--seed", &seed]);
        command.args(settings.iter().flat_map(|(name, value)| [(*name).to_owned(), value.to_string()]));
        let status = command.status().context("running the measurement")?;
        if status.success() { Ok(()) } else { bail!("the measurement did not end well") }
    })
}

fn kills() -> Result<()> {
    on_two_regions(|| {
        let mut command = Command::new(env!("CARGO"));
        command.env("KILL_CASES", "all");
        command.args(["test", "--workspace", "--test", "regions", "--", "--nocapture", "kills"]);
        let status = command.status().context("running the kill cases")?;
        if status.success() { Ok(()) } else { bail!("a kill case ended elsewhere") }
    })
}

fn on_two_regions(work: impl FnOnce() -> Result<()>) -> Result<()> {
    stage("packages", || Ok(lab::packages::ensure()?))?;
    stage("the project's programs", build)?;
    stage("two regions", || Ok(lab::up(&Options::new(LAB, 0)?).map(|_| ())?))?;
    let outcome = work();
    stage("ending the two regions", || Ok(lab::down(&Lab::open(LAB)?)?))?;
    outcome
}
