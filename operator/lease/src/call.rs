//! The calls, each with a deadline. All may be repeated.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::types::{Timestamp as Extended, ToSql};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use crate::error::{LeaseError, Result};
use crate::guard::{Guard, database_epoch};
use crate::row::{self, Clock, Opened, Reading, ValidUntil};

/// Reading and renewing touch one row and wait for nobody but a fence that is just committing.
const QUICK: Duration = Duration::from_secs(4);
/// Fence and grant wait for writers: up to three rounds of the longest transaction, and ending those that hang.
const WAITS_FOR_WRITERS: Duration = Duration::from_secs(20);

/// What a fence names.
#[derive(Clone, Copy, Debug)]
pub struct Fence<'a> {
    /// The application.
    pub app: &'a str,
    /// The grant to end.
    pub epoch: u64,
    /// Its identity.
    pub grant_id: Uuid,
    /// The run that ends it.
    pub run: Uuid,
    /// The region that is to follow.
    pub to_region: &'a str,
}

/// What a grant names.
#[derive(Clone, Copy, Debug)]
pub struct NewGrant<'a> {
    /// The application.
    pub app: &'a str,
    /// The epoch that the row shows now; 0 for the first grant, which makes the row.
    pub from_epoch: u64,
    /// The new epoch, above it.
    pub epoch: u64,
    /// A fresh random identity.
    pub grant_id: Uuid,
    /// The region that is to hold the lease.
    pub region: &'a str,
    /// The run that grants.
    pub run: Uuid,
}

/// Reads the row of `app`, on a writer or on a standby.
///
/// # Errors
/// `Connection`, `Deadline`, `Denied`, or `Other` when the migrations are missing.
pub async fn read_lease(client: &Client, app: &str) -> Result<Reading> {
    let found = one("read", app, QUICK, client, row::READ_SQL, &[&app]).await?;
    row::reading(&found).map_err(|error| LeaseError::from_postgres("read", &error).about(app))
}

/// The server's clock and start: read it before asking for permission to renew.
///
/// # Errors
/// `Connection`, `Deadline`, `Denied`.
pub async fn clock(client: &Client) -> Result<Clock> {
    let sql = "SELECT now, server_start FROM region.clock()";
    let found = one("clock", "server", QUICK, client, sql, &[]).await?;
    let read =
        || Ok::<_, tokio_postgres::Error>(Clock { now: found.try_get(0)?, server_start: found.try_get(1)? });
    read().map_err(|error| LeaseError::from_postgres("clock", &error))
}

/// Extends the lease to the observation plus the lease's duration; never shortens it. `observed` was read
/// with [`clock`] from the same server *before* permission was asked for. Gives the lease's end.
///
/// # Errors
/// `Fenced` when the claim is not the present grant, `ServerRestarted` when the observation is from before a
/// restart, `Busy`, `ReadOnly`, and those of every call.
pub async fn renew(client: &Client, claim: &Guard, observed: Clock) -> Result<ValidUntil> {
    let [app, region, epoch, grant_id] = claim.parameters();
    let parameters = [app, region, epoch, grant_id, &observed.now, &observed.server_start];
    let sql = "SELECT region.renew($1, $2, $3, $4, $5, $6)";
    let found = one("renew", &claim.app, QUICK, client, sql, &parameters).await?;
    found
        .try_get::<_, Extended<Timestamp>>(0)
        .map(ValidUntil::from)
        .map_err(|error| LeaseError::from_postgres("renew", &error).about(&claim.app))
}

/// Ends a grant. After it returned, no write by that grant is accepted, and all accepted ones precede the
/// row's change in the log. Ends sessions of writers that outlive the longest transaction.
///
/// # Errors
/// `RunAborted`, `Refused` when the row is not as believed, `PreparedTransaction`, `Busy`, `ReadOnly`.
pub async fn fence(client: &Client, wanted: Fence<'_>) -> Result<()> {
    let parameters: [&(dyn ToSql + Sync); 5] =
        [&wanted.app, &database_epoch(wanted.epoch), &wanted.grant_id, &wanted.run, &wanted.to_region];
    let sql = "SELECT region.fence($1, $2, $3, $4, $5)";
    one("fence", wanted.app, WAITS_FOR_WRITERS, client, sql, &parameters).await.map(drop)
}

/// Gives a run up for good: a fence for it is refused from now on, however late its request arrives.
///
/// # Errors
/// `Refused` when the run has fenced or granted already.
pub async fn abort(client: &Client, app: &str, run: Uuid) -> Result<()> {
    one("abort", app, WAITS_FOR_WRITERS, client, "SELECT region.abort($1, $2)", &[&app, &run]).await.map(drop)
}

/// Makes a region the holder under a new epoch. The lease stays closed until [`renew`] opens it.
///
/// # Errors
/// `Refused` when the row is at another epoch, or its holder's lease has not run out; `Busy`, `ReadOnly`.
pub async fn grant(client: &Client, new: NewGrant<'_>) -> Result<()> {
    let parameters: [&(dyn ToSql + Sync); 6] = [
        &new.app,
        &database_epoch(new.from_epoch),
        &database_epoch(new.epoch),
        &new.grant_id,
        &new.region,
        &new.run,
    ];
    let sql = "SELECT region.grant($1, $2, $3, $4, $5, $6)";
    one("grant", new.app, WAITS_FOR_WRITERS, client, sql, &parameters).await.map(drop)
}

/// Lets the next stages run: none, then core, then intake.
///
/// # Errors
/// `Fenced`, `Expired`, `ServerRestarted`, or `Refused` for a step that is out of order.
pub async fn open(client: &Client, app: &str, epoch: u64, grant_id: Uuid, opened: Opened) -> Result<()> {
    let parameters: [&(dyn ToSql + Sync); 4] = [&app, &database_epoch(epoch), &grant_id, &opened.as_str()];
    let sql = "SELECT region.open($1, $2, $3, $4::text::region.opened)";
    one("open", app, WAITS_FOR_WRITERS, client, sql, &parameters).await.map(drop)
}

/// Leaves the lease with its present holder without an end, so that trading goes on with nobody to renew it. For people:
/// it is not undone by itself.
///
/// # Errors
/// `Fenced`, `ServerRestarted`, or `Expired`: somebody else may have been given the right meanwhile.
pub async fn release_unlimited(client: &Client, app: &str, epoch: u64, grant_id: Uuid) -> Result<()> {
    let parameters: [&(dyn ToSql + Sync); 3] = [&app, &database_epoch(epoch), &grant_id];
    let sql = "SELECT region.release_unlimited($1, $2, $3)";
    one("release_unlimited", app, WAITS_FOR_WRITERS, client, sql, &parameters).await.map(drop)
}

/// Leaves the lease with its present holder without an end, until [`limit_again`].
///
/// # Errors
/// As of [`release_unlimited`].
pub async fn hand_back(client: &Client, app: &str, epoch: u64, grant_id: Uuid) -> Result<()> {
    let parameters: [&(dyn ToSql + Sync); 3] = [&app, &database_epoch(epoch), &grant_id];
    let sql = "SELECT region.hand_back($1, $2, $3)";
    one("hand_back", app, WAITS_FOR_WRITERS, client, sql, &parameters).await.map(drop)
}

/// Asks for an end where the lease was handed back without one. The next [`renew`] with permission sets it; until then
/// nothing changes.
///
/// # Errors
/// `Refused` when a person took the end away; `Fenced`, `Expired`, `ServerRestarted`.
pub async fn limit_again(client: &Client, app: &str, epoch: u64, grant_id: Uuid) -> Result<()> {
    let parameters: [&(dyn ToSql + Sync); 3] = [&app, &database_epoch(epoch), &grant_id];
    let sql = "SELECT region.limit_again($1, $2, $3)";
    one("limit_again", app, WAITS_FOR_WRITERS, client, sql, &parameters).await.map(drop)
}

/// Adds an application that nobody holds yet, or changes how far its renewals reach (1 s to 60 s). Needs a
/// member of `region_owner`.
///
/// # Errors
/// `Denied`, `Other` for a duration out of bounds.
pub async fn enroll(client: &Client, app: &str, lease_duration: Duration) -> Result<()> {
    let seconds = lease_duration.as_secs_f64();
    let sql = "SELECT region.enroll($1, make_interval(secs => $2))";
    one("enroll", app, WAITS_FOR_WRITERS, client, sql, &[&app, &seconds]).await.map(drop)
}

async fn one(
    operation: &'static str,
    app: &str,
    limit: Duration,
    client: &Client,
    sql: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Row> {
    match tokio::time::timeout(limit, client.query_one(sql, parameters)).await {
        Ok(answer) => answer.map_err(|error| LeaseError::from_postgres(operation, &error).about(app)),
        Err(_elapsed) => Err(LeaseError::deadline(operation, limit).about(app)),
    }
}
