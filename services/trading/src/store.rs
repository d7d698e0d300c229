//! Writes that all stages share.

use serde::Serialize;
use services_common::postgres::{DbError, Guarded};
use services_common::trace::TraceId;
use uuid::Uuid;

use crate::envelope::{Emitted, Record};
use crate::ids;
use crate::message::json;

/// Bytes of a message that are kept in quarantine.
const KEPT_BYTES: usize = 64 * 1024;

/// Sets a message apart that nobody can be named for, with the reason. Seeing it again raises its count.
///
/// # Errors
/// The database.
pub(crate) async fn quarantine(
    unit: &Guarded<'_>,
    stage: &str,
    body: &[u8],
    reason: &str,
) -> Result<(), DbError> {
    keep_apart(unit, stage, body, reason).await?;
    tracing::warn!(stage, reason, bytes = body.len(), "message in quarantine");
    Ok(())
}

/// Sets a message apart, and says whose it is: by its sender's id, and by its trace.
///
/// # Errors
/// The database.
pub(crate) async fn quarantine_of(
    unit: &Guarded<'_>,
    stage: &str,
    body: &[u8],
    reason: &str,
    (id, trace_id): (&str, TraceId),
) -> Result<(), DbError> {
    keep_apart(unit, stage, body, reason).await?;
    tracing::warn!(stage, reason, bytes = body.len(), %trace_id, id, "message in quarantine");
    Ok(())
}

/// Sets a record apart.
///
/// # Errors
/// The database.
pub(crate) async fn set_apart<C: Serialize>(
    unit: &Guarded<'_>,
    stage: &str,
    record: &Record<C>,
    reason: &str,
) -> Result<(), DbError> {
    quarantine_of(unit, stage, record.apart().as_bytes(), reason, (&record.id, record.trace_id())).await
}

async fn keep_apart(unit: &Guarded<'_>, stage: &str, body: &[u8], reason: &str) -> Result<(), DbError> {
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
    Ok(())
}

/// Where egress keeps its answers.
pub(crate) const EGRESSED: &str = "insert into trading.egressed (message_id, id, status, body, caused_ms) \
     select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[]) order by 1 on conflict do nothing";
/// Where outbound keeps its answers.
pub(crate) const SENT: &str = "insert into trading.sent (message_id, id, status, body, caused_ms) \
     select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::bigint[]) order by 1 on conflict do nothing";

/// Keeps answers in the store of a stage; those that are there already stay as they are.
///
/// # Errors
/// The database.
pub(crate) async fn answers(
    unit: &Guarded<'_>,
    insert: &str,
    records: impl IntoIterator<Item = &Record<Emitted>>,
) -> Result<(), DbError> {
    let (mut messages, mut ids, mut statuses, mut bodies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut caused = Vec::new();
    for record in records {
        if let Emitted::Answer(response) = &record.content {
            messages.push(record.record);
            ids.push(record.id.as_str());
            statuses.push(response.status.as_str());
            bodies.push(json(response));
            caused.push(record.caused_ms());
        }
    }
    if messages.is_empty() {
        return Ok(());
    }
    let statement = unit.transaction().prepare_cached(insert).await?;
    unit.transaction().execute(&statement, &[&messages, &ids, &statuses, &bodies, &caused]).await?;
    Ok(())
}

/// The records of which a predicate on the content holds; of probes, it is the number that a person asks for.
pub(crate) fn records_where<'a, C: 'a>(
    records: impl IntoIterator<Item = &'a Record<C>>,
    is: impl Fn(&C) -> bool,
) -> Vec<Uuid> {
    records.into_iter().filter(|record| is(&record.content)).map(|record| record.record).collect()
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
