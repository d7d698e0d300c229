//! The one way in to everything that is not the product itself: `cargo xtask COMMAND`. A library only so that a test can
//! hold the command lines of the documents against [`command`].

mod aws_simulator;
mod bench;
mod cargo;
mod demo;
mod lab;
mod soak;
mod test;
mod two_regions;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, Subcommand};

const EXAMPLES: &str = "\
Examples:
  cargo xtask demo --keep            the demonstration; the two regions stay up to look around
  cargo xtask test --no-lab          what needs no lab: formatting, lints, tests of each part
  cargo xtask test --only abort      the end-to-end tests with that in their name
  cargo xtask bench matching         trade matching on one core; needs neither root nor lab
  cargo xtask bench pipeline         the pipeline end to end beside its ceiling; needs root, no lab that is up
  cargo xtask lab status             what runs, and what is cut

demo, test and bench end the two regions that they bring up; two regions that were up before stay up.
demo, test, bench and lab need root on Debian 12 or newer and Go 1.26; they install and build the rest themselves.";

/// Tasks of this repository: demonstrate, test, measure, and the lab that all three run on.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two regions from nothing, trades flowing, a switch there and back, and the customer's verdict.
    Demo(demo::Arguments),
    /// Every test, end to end included.
    Test(test::Arguments),
    /// Measures switches, kills, matching, the pipeline and reconciliation: figures, each beside what it is measured against.
    Bench(bench::Arguments),
    /// Two regions on this machine: start, look at, break, end.
    Lab(lab::Arguments),
    /// Plays AWS; started by the lab.
    #[command(hide = true)]
    AwsSimulator(aws_simulator::Arguments),
}

/// What may be typed.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what was typed.
pub fn run() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::Test(arguments) => test::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Lab(arguments) => lab::run(arguments),
        Command::AwsSimulator(arguments) => aws_simulator::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
