//! What `cargo xtask bench switch` measures on a lab that is up: the customer's longest wait in switches under load, and the
//! time of switches whose providers are slow by script beside the chain of those waits. Prints every setting used and whether
//! each goal was met. A missed goal is a figure; a lost or doubled message is a failure.

use std::fmt;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Parser;
use e2e::customer::{Customer, CustomerOptions, Verdict};
use e2e::object::Choices;
use e2e::{Clusters, deploy, run, timeline};
use lab::{Application, AwsNames, Facts, Lab, Region, control};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use region_plan::{RunReport, StepKind};
use serde_json::{Value, json};

/// Planned switches on two regions.
#[derive(Debug, Parser)]
struct Arguments {
    /// Messages a second while the customer's wait is measured.
    #[arg(long, default_value_t = 500)]
    rate: u32,
    /// Switches for the customer's wait, one after the other, there and back.
    #[arg(long, default_value_t = 4)]
    rounds: u32,
    /// Switches with slow providers, each by a random script.
    #[arg(long, default_value_t = 3)]
    slow: u32,
    /// Seed of the scripts.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the steps of each switch.
    #[arg(long)]
    timeline: bool,
    /// The lab's name.
    #[arg(long, default_value = "tr")]
    lab: String,
}

/// `drain.holdFor` of the object and the TTL of the lab's names, in seconds.
const HOLD: f64 = 1.0;
const TTL: f64 = 1.0;
/// Goal for the longest wait of a customer in a switch at `GOAL_RATE` messages a second, in seconds.
const GOAL_WAIT: f64 = 5.0;
const GOAL_RATE: u32 = 500;
/// Messages a second while providers are slow: the machine shall not be what is waited for.
const QUIET_RATE: u32 = 20;

#[tokio::main]
async fn main() -> ExitCode {
    match measure(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!(
                "error: messages were lost, doubled or never taken; the lines above tell in which switch"
            );
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every customer's verdict was good.
async fn measure(arguments: &Arguments) -> Result<bool> {
    let facts = Facts::read(&arguments.lab)?;
    deploy::install(&facts, &[Application::TradeMatching], deploy::SETTLE_SECONDS).await?;
    let mut bench =
        Bench { clusters: Clusters::connect(&facts).await?, active: Region::ALL[0], harmed: false };
    run::start(&bench.clusters, &Choices::active(bench.active)).await?;
    println!(
        "measured on {} cores, which also carry both regions and the customer",
        std::thread::available_parallelism()?
    );
    println!(
        "customer's wait: hold {HOLD} s, TTL {TTL} s, provider delays 0, lease 20 s, new pods ready for {} s, {} messages/s",
        deploy::SETTLE_SECONDS,
        arguments.rate
    );
    let mut waits = Vec::new();
    for _ in 0..arguments.rounds {
        let (parts, verdict) = bench.switch(arguments.rate).await?;
        println!("  {}: {:.2} s in all; {}", bench.active, total(&parts), words(&verdict));
        if arguments.timeline {
            print!("{}", timeline::text(&parts));
        }
        waits.push(verdict.unavailable_seconds);
    }
    waits.sort_by(f64::total_cmp);
    if let (Some(least), Some(longest)) = (waits.first(), waits.last()) {
        println!(
            "  longest waits {least:.2} to {longest:.2} s; goal at {GOAL_RATE} messages/s, at most {GOAL_WAIT} s: {}",
            met(*longest <= GOAL_WAIT)
        );
    }
    println!(
        "slow providers: hold {HOLD} s, TTL {TTL} s, {QUIET_RATE} messages/s, {} scripts, seed {}",
        arguments.slow, arguments.seed
    );
    let mut random = StdRng::seed_from_u64(arguments.seed);
    for _ in 0..arguments.slow {
        bench.with_slow_providers(&Script::random(&mut random)).await?;
    }
    Ok(!bench.harmed)
}

struct Bench {
    clusters: Clusters,
    active: Region,
    /// Whether a customer lost something, got it twice, or could not send it.
    harmed: bool,
}

impl Bench {
    /// Moves the application to the other region while a customer sends.
    async fn switch(&mut self, rate: u32) -> Result<([RunReport; 2], Verdict)> {
        let customer =
            Customer::start(&self.clusters.facts, &CustomerOptions { rate, ..CustomerOptions::default() })?;
        customer.answered(u64::from(rate)).await?;
        self.active = self.active.peer();
        let choices = Choices { reason: "benchmark".into(), ..Choices::active(self.active) };
        let parts = run::switch(&self.clusters, &choices).await?;
        customer.answered_more(u64::from(rate)).await?;
        let verdict = customer.finish().await?;
        self.harmed |= !verdict.good();
        Ok((parts, verdict))
    }

    async fn with_slow_providers(&mut self, script: &Script) -> Result<()> {
        let lab = self.clusters.facts.lab();
        control::request(&lab, "PATCH", "/faults", &script.faults().to_string())?;
        let measured = self.switch(QUIET_RATE).await;
        control::request(&lab, "PUT", "/faults", "{}")?;
        let (parts, verdict) = measured?;
        let (total, chain) = (total(&parts), script.chain(&parts, moving_the_servers(&lab)?));
        println!(
            "  {script}: {total:.2} s in all, chain {chain:.2} s, ratio {:.3} (+{:.2} s); goal {:.2} s: {}; {}",
            total / chain,
            total - chain,
            goal(chain),
            met(total <= goal(chain)),
            words(&verdict)
        );
        Ok(())
    }
}

/// How slow the providers are, in seconds.
struct Script {
    /// A routing control's change on its way to the endpoints that did not take it.
    propagation: f64,
    /// From the acceptance of a switchover to its beginning.
    switchover: f64,
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "controls {:.1} s, switchover {:.1} s", self.propagation, self.switchover)
    }
}

impl Script {
    fn random(random: &mut StdRng) -> Self {
        Self { propagation: random.random_range(0.0..10.0), switchover: random.random_range(0.0..30.0) }
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousand milliseconds")]
    fn faults(&self) -> Value {
        let milliseconds = (self.propagation * 1_000.0) as u64;
        json!({
            "propagation": {"min_ms": milliseconds, "mean_ms": milliseconds, "max_ms": milliseconds},
            "switchover": {"before_effect_seconds": self.switchover},
        })
    }

    /// The longest chain of waits for others: routing controls and switchover as scripted, with the time that moving
    /// the real servers took (`moving`); pods and hooks as the run shows them.
    fn chain(&self, parts: &[RunReport; 2], moving: f64) -> f64 {
        let step = |kind| length(parts, kind);
        let warm = step(StepKind::ScaleActive) + step(StepKind::HookPreWarm);
        let empty = self.propagation + HOLD;
        let moved = self.propagation.max(self.switchover + moving);
        let open = step(StepKind::HookAfterGrant) + self.propagation + step(StepKind::HookProbe);
        warm + empty + moved + open + self.propagation + TTL + step(StepKind::HookAfterOpen)
    }
}

/// How long the real servers took to stop and to promote in the last switchover, by the simulator's own record.
fn moving_the_servers(lab: &Lab) -> Result<f64> {
    let state: Value = serde_json::from_str(&control::request(lab, "GET", "/state", "")?)?;
    let id = AwsNames::new(lab, Application::TradeMatching).global_cluster;
    let commands = state["global_clusters"]
        .as_array()
        .and_then(|all| all.iter().find(|cluster| cluster["id"] == *id))
        .and_then(|cluster| cluster["last_switchover"]["commands"].as_array())
        .context("the simulator's state shows no switchover")?;
    let moving = commands.iter().filter(|command| command["role"] != "follow");
    Ok(moving.filter_map(|command| command["milliseconds"].as_f64()).sum::<f64>() / 1_000.0)
}

/// At most this long, in seconds, where others make a switch wait that long.
fn goal(chain: f64) -> f64 {
    chain + (chain * 0.02).max(1.0)
}

fn met(met: bool) -> &'static str {
    if met { "met" } else { "MISSED" }
}

fn words(verdict: &Verdict) -> String {
    format!(
        "customers waited {:.2} s; sent {}, lost {}, doubled {}, never taken {}",
        verdict.unavailable_seconds, verdict.sent, verdict.lost, verdict.doubled, verdict.unconfirmed
    )
}

fn total(parts: &[RunReport; 2]) -> f64 {
    let start = parts.iter().map(|part| part.opened_at).min();
    let end = parts.iter().filter_map(|part| part.ended_at).max();
    start.zip(end).map_or(0.0, |(start, end)| timeline::seconds(start, end))
}

/// The longest time that a step of this kind took on either side.
fn length(parts: &[RunReport; 2], kind: StepKind) -> f64 {
    let steps = parts.iter().flat_map(|part| &part.steps).filter(|step| step.step == kind);
    let ended = steps.filter_map(|step| Some((step.started_at, step.finished_at?)));
    ended.map(|(start, end)| timeline::seconds(start, end)).fold(0.0, f64::max)
}
