//! Writes that all stages share.

use services_common::postgres::{DbError, Guarded};
use uuid::Uuid;

use crate::ids;

/// Bytes of a message that are kept in quarantine.
const KEPT_BYTES: usize = 64 * 1024;

/// Sets a message apart, with the reason. Seeing it again raises its count.
///
/// # Errors
/// The database.
pub(crate) async fn quarantine(
    unit: &Guarded<'_>,
    stage: &str,
    body: &[u8],
    reason: &str,
) -> Result<(), DbError> {
    let statement = unit
        .transaction()
        .prepare_cached(
            "insert into trading.quarantine (digest, stage, reason, bytes, body) values ($1, $2, $3, $4, $5) \
             on conflict (digest) do update set seen = quarantine.seen + 1, last_seen = clock_timestamp()",
        )
        .await?;
    let digest = ids::quarantined(stage, body);
    let bytes = i64::try_from(body.len()).unwrap_or(i64::MAX);
    let kept = &body[..body.len().min(KEPT_BYTES)];
    let reason = reason.replace('\0', "");
    unit.transaction().execute(&statement, &[&digest, &stage, &reason, &bytes, &kept]).await?;
    tracing::warn!(stage, reason, bytes, "message in quarantine");
    Ok(())
}

/// Notes that probes have passed a stage under the present epoch.
///
/// # Errors
/// The database.
pub(crate) async fn probes_passed(unit: &Guarded<'_>, stage: &str, probes: &[Uuid]) -> Result<(), DbError> {
    if probes.is_empty() {
        return Ok(());
    }
    let statement = unit
        .transaction()
        .prepare_cached(
            "insert into trading.probes (probe, stage, epoch) select probe, $2, $3 from unnest($1::uuid[]) as probe \
             on conflict do nothing",
        )
        .await?;
    unit.transaction().execute(&statement, &[&probes, &stage, &unit.epoch()]).await?;
    Ok(())
}
