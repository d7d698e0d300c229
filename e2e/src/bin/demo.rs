//! The demonstration that `cargo xtask demo` runs on a lab that is up: Helm installs, trades flow, the application
//! moves there and back, the customer gives its verdict. Exits non-zero unless nothing was lost or doubled.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use e2e::customer::{Customer, CustomerOptions, Verdict};
use e2e::object::{Choices, trading_region};
use e2e::{Clusters, deploy, kubectl, run, timeline};
use lab::{Application, Facts, Region};

/// Moves trade-matching there and back on a lab that is up.
#[derive(Debug, Parser)]
struct Arguments {
    /// Messages a second that the customer sends.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// The lab's name.
    #[arg(long, default_value = "tr")]
    lab: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match show(&Arguments::parse()).await {
        Ok(verdict) => {
            println!("\n{verdict}");
            if verdict.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn show(arguments: &Arguments) -> Result<Verdict> {
    let begin = Instant::now();
    let step = |text: &str| eprintln!("{:>7.1} s  {text}", begin.elapsed().as_secs_f64());
    let facts = &Facts::read(&arguments.lab)?;
    let [east, west] = Region::ALL;
    step("Helm installs the operator and the application in both clusters");
    deploy::install(facts, &[Application::TradeMatching], deploy::SETTLE_SECONDS).await?;
    let clusters = Clusters::connect(facts).await?;
    step("kubectl apply: trade-matching starts in us-east-1");
    run::start(&clusters, &Choices::active(east)).await?;
    step(&format!("a customer sends {} messages a second", arguments.rate));
    let customer =
        Customer::start(facts, &CustomerOptions { rate: arguments.rate, ..CustomerOptions::default() })?;
    customer.answered(200).await?;
    for (to, reason) in [(west, "demonstration: there"), (east, "demonstration: and back")] {
        step(&format!("kubectl apply: activeRegion: {to}, while trades flow"));
        let choices = Choices { reason: reason.to_owned(), ..Choices::active(to) };
        kubectl_apply(facts, &choices).await?;
        let parts = run::switched(&clusters, to).await?;
        println!("{}", timeline::text(&parts));
        customer.answered_more(200).await?;
    }
    step("the customer sends what is still open, waits for its last answers, and gives its verdict");
    customer.finish().await
}

/// Applies the changed object with kubectl, as a person would, in both clusters.
async fn kubectl_apply(facts: &Facts, choices: &Choices) -> Result<()> {
    let file = facts.lab().folder().join("trade-matching.json");
    tokio::fs::write(&file, serde_json::to_vec_pretty(&trading_region(facts, choices)?)?).await?;
    for region in Region::ALL {
        kubectl::apply(facts, region, &file).await?;
    }
    Ok(())
}
