//! The one way in to everything that is not the product itself: `cargo xtask COMMAND`.

mod aws_simulator;
mod bench;
mod demo;
mod lab;
mod test;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Two regions from nothing, trades flowing, there and back, and the customer's verdict.
    Demo(demo::Arguments),
    /// Every test, end to end included.
    Test(test::Arguments),
    /// Figures, each beside what it is measured against.
    Bench(bench::Arguments),
    /// Two regions on this machine: start, look at, break, end.
    Lab(lab::Arguments),
    /// Plays AWS; started by the lab.
    #[command(hide = true)]
    AwsSimulator(aws_simulator::Arguments),
}

fn main() -> ExitCode {
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
