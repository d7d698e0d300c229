//! `cargo xtask test`: every test, in the order of how soon it can fail.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lab::{Lab, Options};

/// What to leave out while working on one part. Without options: formatting, lints, the tests of each part, then end to
/// end on two regions, which are ended afterwards.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave out what needs the two regions: nothing runs end to end.
    #[arg(long)]
    no_lab: bool,
    /// Leave the two regions up afterwards.
    #[arg(long, conflicts_with = "no_lab")]
    keep: bool,
    /// Only end-to-end tests whose name contains this, and nothing before them.
    #[arg(long, conflicts_with = "no_lab", value_name = "TEXT")]
    only: Option<String>,
}

pub(crate) const LAB: &str = "tr";

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    stage("packages, programs and servers of the lab", || {
        lab::packages::ensure()?;
        lab::binaries::ensure(None)?;
        lab::rootfs::ensure()?;
        Ok(())
    })?;
    if arguments.only.is_none() {
        stage("formatting", || cargo(&["fmt", "--all", "--check"]))?;
        stage("lints", || {
            cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"])
        })?;
        stage("programs and tests", build)?;
        stage("tests of each part", || cargo(&["test", "--workspace"]))?;
    }
    if !arguments.no_lab {
        end_to_end(arguments)?;
    }
    println!("all tests passed in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn end_to_end(arguments: &Arguments) -> Result<()> {
    stage("programs of the images", build)?;
    let options = Options::new(LAB, 0)?;
    stage("two regions", || Ok(lab::up(&options).map(|_| ())?))?;
    let lab = Lab::open(LAB)?;
    let filter: Vec<&str> = arguments.only.iter().map(String::as_str).collect();
    let mut args =
        vec!["test", "--workspace", "--test", "regions", "--", "--test-threads", "1", "--nocapture"];
    args.extend(filter);
    let outcome = stage("end to end on two regions", || cargo(&args));
    if outcome.is_err() {
        let bundle = Path::new("target/lab-bundle");
        lab::bundle(&lab, bundle)?;
        eprintln!("logs, objects, events and the AWS call log are in {}", bundle.display());
    }
    if !arguments.keep {
        stage("ending the two regions", || Ok(lab::down(&lab)?))?;
        let left = lab::left(&lab)?;
        if !left.is_empty() {
            bail!("the lab left behind: {}", left.join(", "));
        }
    }
    outcome
}

/// Runs one stage and prints its time.
pub(crate) fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = work().with_context(|| format!("stage “{name}” failed"));
    eprintln!(
        "== {name}: {} after {:.0} s",
        if result.is_ok() { "ok" } else { "FAILED" },
        start.elapsed().as_secs_f64()
    );
    result
}

/// Builds everything in one selection of packages and features: another selection compiles the dependencies anew.
pub(crate) fn build() -> Result<()> {
    cargo(&["build", "--workspace", "--all-targets"])
}

/// Runs cargo with its output shown.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    let status = Command::new(env!("CARGO")).args(args).status().context("running cargo")?;
    if !status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(())
}
