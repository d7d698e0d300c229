//! Installs the schema `region` and brings it up to date.

use refinery::{Report, Runner};
use tokio_postgres::Client;

use crate::error::LeaseError;

mod embedded {
    refinery::embed_migrations!("migrations");
}

const BOOTSTRAP: &str = include_str!("../bootstrap.sql");
const HISTORY: &str = "region.schema_history";
/// Migrators wait for each other, on a lock of their own class.
const LOCK: &str = "SET lock_timeout = '60s'; SELECT pg_advisory_lock(29811, 0)";
const UNLOCK: &str = "RESET ROLE; RESET lock_timeout; SELECT pg_advisory_unlock(29811, 0)";

/// The schema could not be brought up to date. Nothing of the migration that failed is left.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// Roles or schema could not be made; the text names the missing right.
    #[error(transparent)]
    Prepare(#[from] LeaseError),
    /// A migration failed, or one that was applied before differs from the shipped one.
    #[error("lease: migrate")]
    Apply(#[from] refinery::Error),
}

/// Makes the roles and the schema where they are missing and applies what was not applied yet, one migrator
/// at a time. Stops at the first failure. The role needs to be a member of `region_owner`; roles that are
/// missing need the right to create them. The session's `statement_timeout` applies to each statement.
///
/// # Errors
/// See [`MigrateError`].
pub async fn migrate(client: &mut Client) -> Result<Vec<String>, MigrateError> {
    let sorted = |error: tokio_postgres::Error| LeaseError::from_postgres("migrate", &error);
    client.batch_execute(LOCK).await.map_err(sorted)?;
    let result = apply(client).await;
    // A broken session has lost the lock anyway.
    let unlocked = client.batch_execute(UNLOCK).await;
    let report = result?;
    unlocked.map_err(sorted)?;
    Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
}

async fn apply(client: &mut Client) -> Result<Report, MigrateError> {
    let sorted = |error: tokio_postgres::Error| LeaseError::from_postgres("make roles and schema", &error);
    client.batch_execute(BOOTSTRAP).await.map_err(sorted)?;
    // Everything made from here on belongs to the owner, whoever migrates.
    client.batch_execute("SET ROLE region_owner").await.map_err(sorted)?;
    let runner: Runner = embedded::migrations::runner();
    let mut runner = runner.set_abort_divergent(true).set_abort_missing(true);
    runner.set_migration_table_name(HISTORY);
    Ok(runner.run_async(client).await?)
}
