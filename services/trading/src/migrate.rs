//! Brings a region's database and broker to what this version needs. Safe to run again, and on both sides.

use std::error::Error as _;
use std::time::{Duration, Instant};

use clap::Args;
use lapin::ExchangeKind;
use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use region_lease::{
    ConnectOptions, LeaseError, LeaseErrorKind, MigrateError as LeaseMigrateError, Retry, connect,
};
use services_common::amqp::{AmqpError, Broker, BrokerConfig};
use services_common::config::{BrokerArgs, ConfigError, DatabaseArgs};
use services_common::postgres;
use services_common::telemetry::chain;
use tokio::time::sleep;
use tokio_postgres::Client;

use crate::names::Application;

mod shared {
    refinery::embed_migrations!("migrations/shared");
}
mod trade_matching {
    refinery::embed_migrations!("migrations/trade_matching");
}
mod settlement {
    refinery::embed_migrations!("migrations/settlement");
}

/// The stores that both applications have, then the application's own tables.
fn runner(application: Application) -> Result<refinery::Runner, refinery::Error> {
    let own = match application {
        Application::TradeMatching => trade_matching::migrations::runner(),
        Application::Settlement => settlement::migrations::runner(),
    };
    let mut all = shared::migrations::runner().get_migrations().clone();
    all.extend_from_slice(own.get_migrations());
    all.push(stores_by_day(application)?);
    Ok(refinery::Runner::new(&all))
}

/// A migration that is mostly the same in both applications, under the next number of each.
fn stores_by_day(application: Application) -> Result<refinery::Migration, refinery::Error> {
    let (version, locks, own) = match application {
        Application::TradeMatching => (
            9,
            include_str!("../migrations/by_day/locks_trade_matching.sql"),
            include_str!("../migrations/by_day/trade_matching.sql"),
        ),
        Application::Settlement => (
            5,
            include_str!("../migrations/by_day/locks_settlement.sql"),
            include_str!("../migrations/by_day/settlement.sql"),
        ),
    };
    let parts = [
        locks,
        include_str!("../migrations/by_day/functions.sql"),
        include_str!("../migrations/by_day/lists.sql"),
        include_str!("../migrations/by_day/begin.sql"),
        own,
        include_str!("../migrations/by_day/end.sql"),
    ];
    refinery::Migration::unapplied(&format!("V{version}__stores_by_day"), &parts.concat())
}

const BOOTSTRAP: &str = include_str!("../bootstrap.sql");
const HISTORY: &str = "trading.schema_history";
/// Migrators of this schema wait for each other, on a lock of their own class.
const LOCK: &str = "SET lock_timeout = '60s'; SELECT pg_advisory_lock(29812, 0)";
const UNLOCK: &str = "RESET ROLE; RESET lock_timeout; SELECT pg_advisory_unlock(29812, 0)";
/// Pause between two looks at a server that is not ready.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Messages in one queue at most; the broker refuses more, and the sender keeps them.
const QUEUE_LENGTH_MAX: i32 = 1_000_000;

/// Options of the migrator.
#[derive(Args, Clone, Debug)]
pub struct MigrateArgs {
    /// Application whose lease row is made
    #[arg(long, env = "APP", default_value = "trade-matching")]
    app: String,
    /// Seconds that one renewal of its lease lasts, 10 to 60
    #[arg(long, env = "LEASE_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u64).range(10..=60))]
    lease_seconds: u64,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Seconds to wait for the database, the broker, and, on a standby, for the migrations to arrive
    #[arg(long, env = "WAIT_SECONDS", default_value_t = 120)]
    wait_seconds: u64,
}

/// Why a migration did not end well.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Wrong configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database cannot be reached or refuses.
    #[error(transparent)]
    Database(#[from] LeaseError),
    /// The schema of the lease.
    #[error(transparent)]
    Lease(#[from] LeaseMigrateError),
    /// The migrator lacks a right.
    #[error("the migrator needs to be a member of region_owner and trading_owner")]
    Rights(#[source] LeaseError),
    /// A migration failed, or one that was applied before differs from the shipped one.
    #[error("migrating the trading schema failed")]
    Apply(#[from] refinery::Error),
    /// The standby did not show the migrations in time.
    #[error(
        "this database is a standby and shows migration {shown} of {wanted} after {seconds} s: run migrate in the active region, then here again"
    )]
    Standby {
        /// Highest version shown.
        shown: i32,
        /// Highest version of this program.
        wanted: i32,
        /// How long it was waited for.
        seconds: u64,
    },
    /// The broker.
    #[error(transparent)]
    Broker(#[from] AmqpError),
    /// A declaration was refused.
    #[error("declaring {queue} failed: if it exists with other properties, drain and delete it first")]
    Declare {
        /// The queue.
        queue: &'static str,
        /// What the broker said.
        source: lapin::Error,
    },
}

impl MigrateError {
    /// Whether the same may go well a moment later: the server is not there yet, a lock is held, a session broke.
    fn passes(&self) -> bool {
        let passes = |error: &LeaseError| matches!(error.retry(), Retry::Later | Retry::AfterReconnecting);
        match self {
            Self::Standby { .. } | Self::Broker(_) => true,
            Self::Database(error) | Self::Lease(LeaseMigrateError::Prepare(error)) => passes(error),
            Self::Apply(error) | Self::Lease(LeaseMigrateError::Apply(error)) => error
                .source()
                .and_then(|cause| cause.downcast_ref())
                .is_some_and(|cause| passes(&LeaseError::from_postgres("migrate", cause))),
            Self::Config(_) | Self::Rights(_) | Self::Declare { .. } => false,
        }
    }
}

/// Sorts what the server said to `operation`.
fn sorted(operation: &'static str) -> impl FnOnce(tokio_postgres::Error) -> MigrateError {
    move |error| {
        let error = LeaseError::from_postgres(operation, &error);
        match error.kind {
            LeaseErrorKind::Denied => MigrateError::Rights(error),
            _ => MigrateError::Database(error),
        }
    }
}

/// What was done, one line each.
pub type Done = Vec<String>;

/// Migrates the database (or, on a standby, waits until the migrations have arrived) and declares the queues.
///
/// # Errors
/// See [`MigrateError`]; running it again continues.
pub async fn from_args(application: Application, args: MigrateArgs) -> Result<Done, MigrateError> {
    let options = postgres::options(&args.database, "trading-migrator").await?;
    let broker = Broker::new(BrokerConfig::from_args(&args.broker, "trading-migrator").await?);
    let until = Instant::now() + Duration::from_secs(args.wait_seconds);
    let mut done = database(application, &options, until).await?;
    let lease = Duration::from_secs(args.lease_seconds);
    done.extend(patiently(until, async || enroll(&options, &args.app, lease).await).await?);
    done.extend(patiently(until, async || declare(application, &broker).await).await?);
    broker.close().await;
    Ok(done)
}

/// Migrates the database, or verifies a standby. What may pass by itself is tried again until the deadline.
///
/// # Errors
/// See [`MigrateError`].
pub async fn database(
    application: Application,
    options: &ConnectOptions,
    until: Instant,
) -> Result<Done, MigrateError> {
    let began = Instant::now();
    patiently(until, async || attempt(application, options, began).await).await
}

async fn patiently(
    until: Instant,
    attempt: impl AsyncFn() -> Result<Done, MigrateError>,
) -> Result<Done, MigrateError> {
    loop {
        match attempt().await {
            Err(error) if error.passes() && Instant::now() < until => {
                tracing::info!(reason = chain(&error), "trying again");
                sleep(LOOK_INTERVAL).await;
            }
            outcome => return outcome,
        }
    }
}

/// Makes the application's lease row, held by nobody, or sets how long its renewals last. Nothing on a standby:
/// the row arrives with the rest.
async fn enroll(options: &ConnectOptions, app: &str, lease: Duration) -> Result<Done, MigrateError> {
    let client = connect(options).await?;
    if in_recovery(&client).await? {
        return Ok(Done::new());
    }
    region_lease::enroll(&client, app, lease).await?;
    Ok(vec![format!("enrolled {app} with a lease of {} s", lease.as_secs())])
}

async fn in_recovery(client: &Client) -> Result<bool, MigrateError> {
    let row = client.query_one("select pg_is_in_recovery()", &[]).await;
    row.and_then(|row| row.try_get(0)).map_err(sorted("ask whether this is a standby"))
}

async fn attempt(
    application: Application,
    options: &ConnectOptions,
    began: Instant,
) -> Result<Done, MigrateError> {
    let mut client = connect(options).await?;
    if in_recovery(&client).await? {
        return verify_standby(application, &client, began).await;
    }
    let mut done: Done = region_lease::migrate(&mut client).await?;
    client.batch_execute(LOCK).await.map_err(sorted("wait for other migrators"))?;
    let applied = apply(application, &mut client).await;
    // A broken session has lost the lock anyway.
    let unlocked = client.batch_execute(UNLOCK).await;
    done.extend(applied?);
    unlocked.map_err(sorted("let other migrators go on"))?;
    Ok(done)
}

async fn apply(application: Application, client: &mut Client) -> Result<Done, MigrateError> {
    client.batch_execute(BOOTSTRAP).await.map_err(sorted("make roles and schema"))?;
    // Everything made from here on belongs to the owner, whoever migrates.
    client.batch_execute("SET ROLE trading_owner").await.map_err(sorted("become trading_owner"))?;
    let mut runner = runner(application)?.set_abort_divergent(true).set_abort_missing(true);
    runner.set_migration_table_name(HISTORY);
    let report = runner.run_async(client).await?;
    Ok(report.applied_migrations().iter().map(|migration| format!("applied {migration}")).collect())
}

async fn verify_standby(
    application: Application,
    client: &Client,
    began: Instant,
) -> Result<Done, MigrateError> {
    let wanted = runner(application)?
        .get_migrations()
        .iter()
        .map(refinery::Migration::version)
        .max()
        .unwrap_or_default();
    // The table itself may not have arrived: then nothing has.
    let shown = client
        .query_one("select coalesce(max(version), 0)::integer from trading.schema_history", &[])
        .await
        .and_then(|row| row.try_get::<_, i32>(0))
        .unwrap_or_default();
    if shown < wanted {
        return Err(MigrateError::Standby { shown, wanted, seconds: began.elapsed().as_secs() });
    }
    Ok(vec![format!("standby: all {wanted} migrations have arrived")])
}

/// Declares every queue with its exchange. A quorum queue returns a message as often as it must: the broker's
/// usual limit would throw it away after twenty times, and a region that closes gives back all it holds.
///
/// # Errors
/// The broker cannot be reached, or a queue exists with other properties.
pub async fn declare(application: Application, broker: &Broker) -> Result<Done, MigrateError> {
    let channel = broker.channel().await?;
    let queues = application.queues();
    for queue in queues.iter().copied() {
        let failed = |source| MigrateError::Declare { queue, source };
        let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        channel
            .exchange_declare(queue.into(), ExchangeKind::Fanout, durable, FieldTable::default())
            .await
            .map_err(failed)?;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(-1));
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(QUEUE_LENGTH_MAX));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, arguments).await.map_err(failed)?;
        channel
            .queue_bind(
                queue.into(),
                queue.into(),
                "".into(),
                QueueBindOptions::default(),
                FieldTable::default(),
            )
            .await
            .map_err(failed)?;
    }
    Ok(vec![format!("declared {} queues", queues.len())])
}
