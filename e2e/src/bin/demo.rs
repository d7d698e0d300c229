//! The demonstration that `cargo xtask demo` runs on a lab that is up: Helm installs, trades flow and settle, trade
//! matching moves there while settlement stays, then both move, the customer gives its verdict and the stores of both are
//! compared. Exits non-zero unless nothing was lost or doubled and the stores agree.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use e2e::customer::{Customer, CustomerOptions, Verdict};
use e2e::object::{Choices, trading_region};
use e2e::stores::Stores;
use e2e::{Clusters, deploy, kubectl, run, timeline};
use futures::future::try_join_all;
use lab::Application::{Settlement, TradeMatching};
use lab::{Application, Facts, Region};

/// Moves trade-matching there and back, the second time with settlement, on a lab that is up.
#[derive(Debug, Parser)]
struct Arguments {
    /// Messages a second that the customer sends. Each makes about four settlements.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    /// The lab's name.
    #[arg(long, default_value = "tr")]
    lab: String,
}

#[tokio::main]
async fn main() -> ExitCode {
    match show(&Arguments::parse()).await {
        Ok(verdict) => {
            if verdict.good() {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What moves to its other region, each time.
const MOVES: [(&str, &[Application]); 2] = [
    ("trade-matching moves, settlement stays", &[TradeMatching]),
    ("both move at once, past each other", &[TradeMatching, Settlement]),
];

async fn show(arguments: &Arguments) -> Result<Verdict> {
    let begin = Instant::now();
    let step = |text: &str| eprintln!("{:>7.1} s  {text}", begin.elapsed().as_secs_f64());
    let facts = &Facts::read(&arguments.lab)?;
    step("Helm installs the operator and both applications in both clusters");
    deploy::install(facts, &Application::ALL, deploy::SETTLE_SECONDS).await?;
    let clusters = Clusters::connect(facts).await?;
    step("kubectl apply: both applications start, or stay where an earlier demonstration has left them");
    let mut active = run::started(&clusters, "demonstration").await?;
    for (application, region) in &active {
        step(&format!("{application} is active in {region}"));
    }
    step(&format!("a customer sends {} messages a second", arguments.rate));
    let options = CustomerOptions { rate: arguments.rate, settled: true, ..CustomerOptions::default() };
    let customer = Customer::start(facts, &options)?;
    customer.answered(200).await?;
    for (what, which) in MOVES {
        step(&format!("kubectl apply: {what}, while trades flow"));
        for application in which {
            let to = active[application].peer();
            active.insert(*application, to);
            let reason = format!("demonstration: {what}");
            kubectl_apply(facts, &Choices { reason, ..Choices::of(*application, to) }).await?;
        }
        let of = which.iter().map(|one| (clusters.of(*one), active[one])).collect::<Vec<_>>();
        let runs = try_join_all(of.iter().map(|(clusters, to)| run::switched(clusters, *to))).await?;
        for (application, parts) in which.iter().zip(runs) {
            println!("{application}: {}", timeline::text(&parts));
        }
        customer.answered_more(200).await?;
    }
    step("the customer sends what is still open, waits for its last answers, and gives its verdict");
    let verdict = customer.finish().await?;
    println!("\n{verdict}");
    step("what both applications have stored of settlements is compared");
    println!("{}", Stores::agree(&clusters).await?);
    Ok(verdict)
}

/// Applies the changed object with kubectl, as a person would, in both clusters.
async fn kubectl_apply(facts: &Facts, choices: &Choices) -> Result<()> {
    let file = facts.lab().folder().join(format!("{}.json", choices.application));
    tokio::fs::write(&file, serde_json::to_vec_pretty(&trading_region(facts, choices)?)?).await?;
    for region in Region::ALL {
        kubectl::apply(facts, region, &file).await?;
    }
    Ok(())
}
