//! Probes in the settlement application's outbound, the last stage that they pass.
//!
//! Outbound sends rows, and a probe leaves none. What it takes instead is the trace that the probe left in egress. It needs the
//! region's own database and no broker: the other application's may be away for as long as it takes to move it.

use std::time::Duration;

use services_common::gate::Needs;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, admitted};
use services_common::telemetry::chain;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{egress, outbound, store};

/// Pause between two looks: a switch waits for as long.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Pause after a look that failed.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Probes in one transaction at most.
const LIMIT: i64 = 100;

/// Of the present epoch alone: an older one's is asked for by nobody any more.
const WAITING: &str = "select probe from trading.probes as passed where stage = $1 and epoch = $2 and not exists ( \
        select from trading.probes as ended where ended.probe = passed.probe and ended.stage = $3) \
     order by at limit $4";

/// Lets probes pass until shutdown, while the gate admits core.
pub(crate) async fn run(deps: StageDeps, shutdown: CancellationToken) {
    let mut gate = deps.gate.watch();
    while let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await {
        let passed = pass(&deps, &grant).await;
        if let Err(error) = &passed {
            deps.note(error, &grant);
            tracing::warn!(error = chain(error), "probes do not pass this stage yet");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(if passed.is_ok() { LOOK_INTERVAL } else { RETRY_INTERVAL }) => {}
        }
    }
}

/// Looks, and writes only where there is something: that is once in a switch.
async fn pass(deps: &StageDeps, grant: &Grant) -> Result<(), DbError> {
    let mut connection = deps.database.connection().await?;
    let statement = connection.prepare_cached(WAITING).await?;
    let epoch = i64::try_from(grant.epoch()).unwrap_or(i64::MAX);
    let rows = connection.query(&statement, &[&egress::STAGE, &epoch, &outbound::STAGE, &LIMIT]).await?;
    let probes: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    if probes.is_empty() {
        return Ok(());
    }
    let unit = Guarded::begin(&mut connection, grant).await?;
    store::probes_passed(&unit, outbound::STAGE, &probes).await?;
    unit.commit().await
}
