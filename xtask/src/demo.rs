//! `cargo xtask demo`: sets everything up, then runs the demonstration of `e2e/src/bin/demo.rs` on two regions.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use lab::{Facts, Lab, Options, Region};

use crate::test::{LAB, build, stage};

/// Options of the demo.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Leave everything up afterwards and tell how to look around.
    #[arg(long)]
    keep: bool,
    /// Trades a second that the customer sends.
    #[arg(long, default_value_t = 100)]
    rate: u32,
    /// Folder with ready-made Kubernetes binaries, used instead of building them.
    #[arg(long, env = "KUBEBUILDER_ASSETS")]
    assets: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    stage("packages", || Ok(lab::packages::ensure()?))?;
    stage("the project's programs", build)?;
    let facts = stage("two regions", || {
        let mut options = Options::new(LAB, 0)?;
        options.assets.clone_from(&arguments.assets);
        Ok(lab::up(&options)?)
    })?;
    let outcome = stage("there and back", || show(arguments.rate));
    if arguments.keep {
        look_around(&facts);
    } else {
        stage("ending the two regions", || Ok(lab::down(&Lab::open(LAB)?)?))?;
    }
    outcome
}

fn show(rate: u32) -> Result<()> {
    let status = Command::new("target/debug/demo")
        .args(["--rate", &rate.to_string()])
        .status()
        .context("running the demonstration")?;
    if !status.success() {
        bail!("the demonstration did not end well; what it printed tells why");
    }
    Ok(())
}

fn look_around(facts: &Facts) {
    let kubectl = facts.programs["kubectl"].display();
    let config = facts.kubeconfig.display();
    println!("\nEverything is up. To look around:");
    for region in Region::ALL {
        println!(
            "  {kubectl} --kubeconfig {config} --context {region} -n trading get tradingregions,deployments,pods"
        );
    }
    println!("  KUBECONFIG={config} target/debug/kubectl-region -n trading status trade-matching");
    println!("  cargo xtask lab status        what runs, and what is cut");
    println!("  cargo xtask lab down          ends it all");
}
