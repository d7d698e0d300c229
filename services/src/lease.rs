//! `services lease`: the lease in the database of an application that is not one of this program's own.

use std::error::Error;
use std::time::Duration;

use clap::Args;
use region_lease::connect;
use services_common::config::DatabaseArgs;
use services_common::postgres;

/// Options of the migrator.
#[derive(Args)]
pub(crate) struct LeaseArgs {
    /// Application whose lease row is made: the name of its TradingRegion
    #[arg(long, env = "APP")]
    app: String,
    /// Seconds that one renewal of its lease lasts, 10 to 60
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=60))]
    lease_seconds: u64,
    #[command(flatten)]
    database: DatabaseArgs,
}

/// Brings schema `region` up to date and makes the application's row, held by nobody, or sets how long its renewals
/// last. What was done, one line each; nothing is done on a standby.
pub(crate) async fn migrate(args: LeaseArgs) -> Result<Vec<String>, Box<dyn Error>> {
    let options = postgres::options(&args.database, "lease-migrator").await?;
    let mut client = connect(&options).await?;
    let standby = client.query_one("select pg_is_in_recovery()", &[]).await?.try_get(0)?;
    if standby {
        return Ok(vec!["this database is a standby: the lease arrives with replication".to_owned()]);
    }
    let mut done = region_lease::migrate(&mut client).await?;
    region_lease::enroll(&client, &args.app, Duration::from_secs(args.lease_seconds)).await?;
    done.push(format!("enrolled {} with a lease of {} s", args.app, args.lease_seconds));
    Ok(done)
}
