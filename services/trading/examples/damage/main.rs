//! The damage maker: deletes or changes a random sample of rows at a named boundary, and prints its seed and what it did. For
//! labs and tests, to see reconciliation find it; no image has it.
//!
//! `cargo run -p trading --example damage -- --job CoreEgress --kind missing …`

#![allow(dead_code, unreachable_pub, reason = "tests have these modules too, and use more of them")]

mod maker;
mod places;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use maker::{Damage, Stores};
use places::Kind;
use rand::SeedableRng;
use rand::rngs::StdRng;
use services_common::config::DatabaseArgs;
use services_common::postgres;
use services_common::telemetry::chain;

/// Damages stores on purpose. Never where anything matters.
#[derive(Parser)]
struct Options {
    /// Trade matching's database, as a role that owns its tables
    #[command(flatten)]
    database: DatabaseArgs,
    /// Host of the settlement application's database; the same user there
    #[arg(long)]
    settlement_host: Option<String>,
    /// Its port
    #[arg(long, default_value_t = 5432)]
    settlement_port: u16,
    /// Its name
    #[arg(long, default_value = "settlement")]
    settlement_name: String,
    /// File with the user's password there
    #[arg(long, requires = "settlement_host")]
    settlement_password_file: Option<PathBuf>,
    /// Boundary, as services reconcile names it
    #[arg(long)]
    job: String,
    /// missing, content, status or ahead
    #[arg(long)]
    kind: String,
    /// Rows at most
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    most: u16,
    /// The same seed chooses the same rows of the same store; a random one if not given
    #[arg(long)]
    seed: Option<u64>,
}

#[tokio::main]
async fn main() -> ExitCode {
    match damage(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("damage: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn damage(options: Options) -> Result<(), Box<dyn Error>> {
    let Options { database, job, kind, most, seed, .. } = options;
    let place = places::all()
        .find(|place| place.job.word() == job && place.kind.word() == kind)
        .ok_or_else(|| format!("no boundary {job} that can be damaged by {kind}; there are {}", known()))?;
    let there = DatabaseArgs {
        database_host: options.settlement_host.unwrap_or_else(|| database.database_host.clone()),
        database_port: options.settlement_port,
        database_name: options.settlement_name,
        database_password_file: options
            .settlement_password_file
            .unwrap_or_else(|| database.database_password_file.clone()),
        ..database.clone()
    };
    // Only what is needed is reached: the other one may not be there.
    let needed = [place.whose, place.chosen_in];
    let mut clients = Vec::new();
    for (application, args) in [
        (trading::names::Application::TradeMatching, database),
        (trading::names::Application::Settlement, there),
    ] {
        if needed.contains(&application) {
            let options = postgres::options(&args, "damage").await?;
            clients.push(region_lease::connect(&options).await?);
        }
    }
    let (Some(first), Some(last)) = (clients.first(), clients.last()) else { return Ok(()) };
    let stores = Stores { trade_matching: first, settlement: last };
    let seed = seed.unwrap_or_else(rand::random);
    let mut random = StdRng::seed_from_u64(seed);
    let mut damage = Damage::choose(stores, place, most.into(), &mut random).await?;
    damage.apply(stores).await?;
    println!("seed {seed}");
    for key in &damage.keys {
        println!("{kind} {} trading.{} {key}", damage.place.whose_word(), damage.place.table);
    }
    for told in &damage.told {
        println!("to be told by {job}: {told}");
    }
    Ok(())
}

fn known() -> String {
    let words: Vec<&str> = Kind::ALL.map(Kind::word).to_vec();
    let mut jobs: Vec<&str> = places::all().map(|place| place.job.word()).collect();
    jobs.dedup();
    format!("{} with {}", jobs.join(", "), words.join(", "))
}
