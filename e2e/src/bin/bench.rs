//! What `cargo xtask bench switch` measures on a lab that is up: planned switches under load, the customer's longest
//! wait, and the total beside the waits that others cause. Prints every setting used.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use e2e::customer::{Customer, CustomerOptions};
use e2e::object::Choices;
use e2e::{Clusters, deploy, run, timeline};
use lab::{Facts, Region};
use region_plan::{RunReport, StepKind};

/// Planned switches under load.
#[derive(Debug, Parser)]
struct Arguments {
    /// Messages a second.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Switches, one after the other, there and back.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// The lab's name.
    #[arg(long, default_value = "tr")]
    lab: String,
}

/// Steps in which somebody else is waited for; those of one line run side by side.
const CHAIN: [&[StepKind]; 6] = [
    &[StepKind::ScaleActive],
    &[StepKind::HookPreWarm],
    &[StepKind::SwitchDatabase, StepKind::FlipAppOver],
    &[StepKind::HookAfterGrant],
    &[StepKind::HookProbe],
    &[StepKind::HookAfterOpen],
];
/// `drain.holdFor` of the object and the TTL of the lab's names, in seconds.
const HOLD_AND_TTL: f64 = 1.0 + 1.0;

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn measure(arguments: &Arguments) -> Result<()> {
    let facts = Facts::read(&arguments.lab)?;
    deploy::install(&facts).await?;
    let clusters = Clusters::connect(&facts).await?;
    let mut active = Region::ALL[0];
    run::start(&clusters, &Choices::active(active)).await?;
    println!("settings: hold 1 s, TTL 1 s, provider delays 0, lease 20 s, {} messages/s", arguments.rate);
    println!("measured on {} cores", std::thread::available_parallelism()?);
    for round in 1..=arguments.rounds {
        let options = CustomerOptions { rate: arguments.rate, ..CustomerOptions::default() };
        let customer = Customer::start(&facts, &options)?;
        customer.answered(u64::from(arguments.rate)).await?;
        active = active.peer();
        let choices = Choices { reason: format!("bench {round}"), ..Choices::active(active) };
        let parts = run::switch(&clusters, &choices).await?;
        customer.answered_more(u64::from(arguments.rate)).await?;
        let verdict = customer.finish().await?;
        let (total, chain) = (total(&parts), chain(&parts));
        println!(
            "to {active}: {total:.2} s in all, waits of others {chain:.2} s, ratio {:.3}; customers waited {:.2} s; \
             sent {}, lost {}, doubled {}",
            total / chain,
            verdict.unavailable_seconds,
            verdict.sent,
            verdict.lost,
            verdict.doubled,
        );
    }
    Ok(())
}

fn total(parts: &[RunReport; 2]) -> f64 {
    let start = parts.iter().map(|part| part.opened_at).min();
    let end = parts.iter().filter_map(|part| part.ended_at).max();
    start.zip(end).map_or(0.0, |(start, end)| timeline::seconds(start, end))
}

fn chain(parts: &[RunReport; 2]) -> f64 {
    let length = |kind: &StepKind| -> f64 {
        let steps = parts.iter().flat_map(|part| &part.steps);
        let ended = steps
            .filter(|step| step.step == *kind)
            .filter_map(|step| Some((step.started_at, step.finished_at?)));
        ended.map(|(start, end)| timeline::seconds(start, end)).fold(0.0, f64::max)
    };
    let links = CHAIN.iter().map(|side_by_side| side_by_side.iter().map(length).fold(0.0, f64::max));
    links.sum::<f64>() + HOLD_AND_TTL
}
