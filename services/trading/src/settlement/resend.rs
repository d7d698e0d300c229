//! Sends settlements again that have not come back.
//!
//! A broker that was lost may have held a settlement on its way there, or its answer on the way back. Only who waits for
//! the answer can tell; the settlement application answers a repeat as it did before.

use std::time::Duration;

use services_common::gate::Needs;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, admitted};
use services_common::telemetry::chain;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Settlements in one round at most.
const ROUND_LIMIT: i64 = 500;
/// A party may report an allocation that the other one does not have: its settlement never comes back. Twelve attempts at
/// doubling distances, of ten minutes at first, end after four weeks.
pub(crate) const ATTEMPTS_MAX: i32 = 12;
/// Longest pause between two looks.
pub(crate) const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(30);

const AGAIN: &str = "with old as ( \
        select message_id from trading.unreturned \
        where since < clock_timestamp() - make_interval(secs => $1) \
          and since < clock_timestamp() - make_interval(secs => $1 * power(2, attempts)) and attempts < $2 \
        order by since limit $3 for update skip locked), \
     again as ( \
        update trading.unreturned set since = clock_timestamp(), attempts = attempts + 1 from old \
        where unreturned.message_id = old.message_id returning unreturned.message_id) \
     update trading.outgoing_settlements as sent set sent_at = null from again \
     where sent.message_id = again.message_id and sent.sent_at is not null";

/// Marks what has waited for `after`, then twice as long, and so on, as unsent, until shutdown.
pub(crate) async fn run(deps: StageDeps, after: Duration, shutdown: CancellationToken) {
    let mut gate = deps.gate.watch();
    while let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await {
        match round(&deps, &grant, after).await {
            Ok(0) => {}
            Ok(settlements) => tracing::warn!(settlements, "not come back: sent again"),
            Err(error) => {
                deps.database.note(&error);
                if matches!(error, DbError::Fenced { .. }) {
                    deps.gate.fenced(&grant);
                }
                tracing::warn!(error = chain(&error), "settlements that have not come back are not known");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep((after / 4).min(LOOK_INTERVAL_MAX)) => {}
        }
    }
}

async fn round(deps: &StageDeps, grant: &Grant, after: Duration) -> Result<u64, DbError> {
    let mut connection = deps.database.connection().await?;
    let unit = Guarded::begin(&mut connection, grant).await?;
    let statement = unit.transaction().prepare_cached(AGAIN).await?;
    let seconds = after.as_secs_f64();
    let again = unit.transaction().execute(&statement, &[&seconds, &ATTEMPTS_MAX, &ROUND_LIMIT]).await?;
    unit.commit().await?;
    Ok(again)
}
