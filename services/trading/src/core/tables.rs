//! Core's tables: rows to reports and back, always for a whole batch at once.

use std::collections::HashSet;

use jiff::civil::Date;
use matching::Status;
use services_common::postgres::{DbError, Guarded};
use services_common::telemetry::chain;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Answer, Changes, Holding, Report, Subject};
use crate::message::json;
use crate::names::Line;
use crate::trace;

/// Namespace of the locks on match keys; any constant that no other lock of this database uses.
const LOCK_SPACE: i32 = 0x7472_6164;

/// Takes the locks, which must be sorted: everybody takes them in the same order, so nobody waits in a circle.
pub(crate) async fn lock(unit: &Guarded<'_>, locks: &[i32]) -> Result<(), DbError> {
    let statement = unit
        .transaction()
        .prepare_cached("select pg_advisory_xact_lock($1, key) from unnest($2::integer[]) as key")
        .await?;
    unit.transaction().query(&statement, &[&LOCK_SPACE, &locks]).await?;
    Ok(())
}

/// Stored reports of a table that has them as JSON in column `content`.
///
/// # Errors
/// The rows have not the columns that they should.
pub(crate) fn known_rows<C: Subject>(rows: &[Row]) -> Result<Vec<(Report<C>, Status)>, DbError> {
    let mut known = Vec::with_capacity(rows.len());
    for row in rows {
        let (text, word): (&str, &str) = (row.try_get("content")?, row.try_get("status")?);
        // The table's checks and its only writer keep both readable; a row that is not is left to people.
        let (Ok(content), Some(status)) = (serde_json::from_str(text), Status::from_word(word)) else {
            let record: Uuid = row.try_get("record")?;
            tracing::error!(%record, "a stored report is not readable: it takes no part in matching");
            continue;
        };
        let (record, received_ms) = (row.try_get("record")?, row.try_get("received_ms")?);
        let report = Report { record, received_ms, content, traceparent: trace::read(row)? };
        known.push((report, status));
    }
    Ok(known)
}

/// One column of reports that hold.
pub(crate) fn column<'a, C, T>(new: &'a [Holding<C>], of: impl Fn(&'a Holding<C>) -> T) -> Vec<T> {
    new.iter().map(of).collect()
}

/// Writes everything that a batch changes.
pub(super) async fn write<C: Subject>(unit: &Guarded<'_>, changes: &Changes<C>) -> Result<(), DbError> {
    if !changes.new.is_empty() {
        C::insert(unit, &changes.new).await?;
    }
    update_paired(unit, changes).await?;
    insert_refused(unit, changes).await?;
    insert_answers(unit, &changes.answers).await
}

/// Takes a record that cannot be decided off the list of pending ones, with the answer that says so. Should the
/// database refuse the answer too, the sender cannot be told: the record is in quarantine, and the queue moves on.
pub(super) async fn write_refused<C: Subject>(
    unit: &Guarded<'_>,
    record: Uuid,
    answer: Option<Answer<C>>,
) -> Result<(), DbError> {
    // One that was decided before was told before.
    let open = no_longer_pending(unit, &C::LINE, &[record]).await?;
    if let Some(answer) = answer.filter(|_| open.contains(&record)) {
        unit.transaction().batch_execute("savepoint answer").await?;
        match insert_answers(unit, std::slice::from_ref(&answer)).await {
            Err(error @ DbError::Data { .. }) => {
                unit.transaction().batch_execute("rollback to savepoint answer").await?;
                tracing::error!(%record, error = chain(&error), "a refusal cannot be sent to its sender");
            }
            outcome => outcome?,
        }
    }
    Ok(())
}

/// Takes records off the list of pending ones, in the order of their ids, so that two instances with the same ones do not
/// wait in a circle. Answers those that were on it.
pub(super) async fn no_longer_pending(
    unit: &Guarded<'_>,
    line: &Line,
    records: &[Uuid],
) -> Result<HashSet<Uuid>, DbError> {
    let take = format!(
        "with those as (select record from {0} where record = any($1) order by record for update) \
         delete from {0} as pending using those where pending.record = those.record returning pending.record",
        line.pending
    );
    let statement = unit.transaction().prepare_cached(&take).await?;
    let rows = unit.transaction().query(&statement, &[&records]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn update_paired<C: Subject>(unit: &Guarded<'_>, changes: &Changes<C>) -> Result<(), DbError> {
    if changes.updated.is_empty() {
        return Ok(());
    }
    let updated = || changes.updated.iter();
    let dates: Vec<Date> = updated().map(|update| update.trade_date).collect();
    let ids: Vec<&str> = updated().map(|update| update.id.as_str()).collect();
    let statuses: Vec<&str> = updated().map(|update| update.status).collect();
    let counterparts: Vec<Option<&str>> = updated().map(|update| update.counterpart.as_deref()).collect();
    let update = format!(
        "update {} as known set status = given.status, counterpart = given.counterpart, epoch = $5 \
         from unnest($1::date[], $2::text[], $3::text[], $4::text[]) \
            as given (trade_date, id, status, counterpart) \
         where known.trade_date = given.trade_date and known.id = given.id",
        C::TABLE
    );
    let statement = unit.transaction().prepare_cached(&update).await?;
    let epoch = unit.epoch();
    unit.transaction().execute(&statement, &[&dates, &ids, &statuses, &counterparts, &epoch]).await?;
    Ok(())
}

async fn insert_refused<C: Subject>(unit: &Guarded<'_>, changes: &Changes<C>) -> Result<(), DbError> {
    for (report, code) in &changes.refused {
        let statement = unit
            .transaction()
            .prepare_cached(
                "insert into trading.conflicts (record, trade_date, id, received_ms, content, code) \
                 values ($1, $2, $3, $4, $5, $6) on conflict do nothing",
            )
            .await?;
        let (date, id) = report.content.key();
        let (content, code) = (json(&report.content), code.word());
        let values: [&(dyn ToSql + Sync); 6] =
            [&report.record, &date, &id, &report.received_ms, &content, &code];
        unit.transaction().execute(&statement, &values).await?;
    }
    Ok(())
}

pub(super) async fn insert_answers<C: Subject>(
    unit: &Guarded<'_>,
    answers: &[Answer<C>],
) -> Result<(), DbError> {
    if answers.is_empty() {
        return Ok(());
    }
    // In the order of ids, so that two instances that write the same refusal do not wait in a circle.
    let mut answers: Vec<_> = answers.iter().collect();
    answers.sort_by_key(|answer| answer.message_id);
    let messages: Vec<Uuid> = answers.iter().map(|answer| answer.message_id).collect();
    let ids: Vec<&str> = answers.iter().map(|answer| answer.id.as_str()).collect();
    let received: Vec<i64> = answers.iter().map(|answer| answer.received_ms).collect();
    let statuses: Vec<&str> = answers.iter().map(|answer| answer.status()).collect();
    let bodies: Vec<String> = answers.iter().map(|answer| json(&answer.decided)).collect();
    let caused: Vec<i64> = answers.iter().map(|answer| answer.caused_ms).collect();
    let statement = unit.transaction().prepare_cached(INSERT_ANSWERS).await?;
    let epoch = unit.epoch();
    let traces = trace::column(answers.iter().map(|answer| answer.traceparent));
    let values: [&(dyn ToSql + Sync); 8] =
        [&messages, &ids, &received, &statuses, &bodies, &epoch, &caused, &traces];
    unit.transaction().execute(&statement, &values).await?;
    Ok(())
}

const INSERT_ANSWERS: &str = "with given as ( \
        select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $7::bigint[], $8::text[]) \
            as given (message_id, id, received_ms, status, body, caused_ms, traceparent)), \
     fresh as ( \
        insert into trading.outbox (message_id, id, received_ms, status, body, epoch, sent_at, caused_ms, traceparent) \
        select message_id, id, received_ms, status, body, $6::bigint, clock_timestamp(), caused_ms, traceparent \
        from given order by message_id \
        on conflict do nothing returning message_id, seq, caused_ms), \
     unsent as (insert into trading.unsent (seq, caused_ms) select seq, caused_ms from fresh) \
     insert into trading.unanswered (message_id, caused_ms) \
        select message_id, min(caused_ms) from fresh group by message_id on conflict do nothing";
