//! `cargo xtask demo`: sets everything up, then runs the demonstration of `e2e/src/bin/demo.rs` on two regions.

use std::process::Command;

use anyhow::Result;
use clap::Args;
use lab::Region;

use crate::cargo::{shown, stage};
use crate::two_regions::{Assets, ENDS, TwoRegions, on_two_regions};

/// Options of the demo.
#[derive(Debug, Args)]
#[command(after_help = ENDS)]
pub(crate) struct Arguments {
    /// Leave everything up afterwards and tell how to look around.
    #[arg(long)]
    keep: bool,
    /// Messages a second that the customer sends. Each makes about four settlements.
    #[arg(long, default_value_t = 20)]
    rate: u32,
    #[command(flatten)]
    assets: Assets,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    on_two_regions(arguments.keep, &arguments.assets, |regions| {
        let rate = arguments.rate.to_string();
        let outcome =
            stage("there and back", || shown(Command::new(regions.program("demo")).args(["--rate", &rate])));
        if arguments.keep {
            look_around(regions);
        }
        outcome
    })
}

fn look_around(regions: &TwoRegions) {
    let facts = &regions.facts;
    let kubectl = facts.programs["kubectl"].display();
    let config = facts.kubeconfig.display();
    println!("\nEverything is up. To look around:");
    for region in Region::ALL {
        println!(
            "  {kubectl} --kubeconfig {config} --context {region} -n trading get tradingregions,deployments,pods"
        );
    }
    let plugin = regions.program("kubectl-region");
    println!("  KUBECONFIG={config} {} -n trading status trade-matching", plugin.display());
    println!("  cargo xtask lab status        what runs, and what is cut");
    println!("  cargo xtask lab down          ends it all");
}
