//! Core's tables: rows to reports and back, always for a whole batch at once.

use std::collections::HashSet;

use jiff::civil::Date;
use matching::Status;
use rust_decimal::Decimal;
use services_common::postgres::{DbError, Guarded};
use services_common::telemetry::chain;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Answer, Changes, Report};
use crate::message::json;

/// Namespace of the locks on match keys; any constant that no other lock of this database uses.
const LOCK_SPACE: i32 = 0x7472_6164;

/// Takes the locks, which must be sorted: everybody takes them in the same order, so nobody waits in a circle.
pub(super) async fn lock(unit: &Guarded<'_>, locks: &[i32]) -> Result<(), DbError> {
    let statement = unit
        .transaction()
        .prepare_cached("select pg_advisory_xact_lock($1, key) from unnest($2::integer[]) as key")
        .await?;
    unit.transaction().query(&statement, &[&LOCK_SPACE, &locks]).await?;
    Ok(())
}

const KNOWN: &str = "select trades.record, trades.received_ms, trades.trade, trades.status \
     from trading.trades join ( \
        select distinct * from unnest($1::text[], $2::text[], $3::text[], $4::date[]) \
            as given (im_id, broker_id, trade_id, trade_date)) as given \
     using (im_id, broker_id, trade_id, trade_date)";

/// All stored reports that share an identity or a match key with the given ones.
pub(super) async fn known(unit: &Guarded<'_>, reports: &[Report]) -> Result<Vec<(Report, Status)>, DbError> {
    let trades = || reports.iter().map(|report| &report.trade);
    let ims: Vec<&str> = trades().map(|trade| trade.im.as_str()).collect();
    let brokers: Vec<&str> = trades().map(|trade| trade.broker.as_str()).collect();
    let numbers: Vec<&str> = trades().map(|trade| trade.trade.as_str()).collect();
    let dates: Vec<Date> = trades().map(|trade| trade.trade_date).collect();
    let statement = unit.transaction().prepare_cached(KNOWN).await?;
    let rows = unit.transaction().query(&statement, &[&ims, &brokers, &numbers, &dates]).await?;
    let mut known = Vec::with_capacity(rows.len());
    for row in rows {
        let (text, word): (&str, &str) = (row.try_get("trade")?, row.try_get("status")?);
        // The table's checks and its only writer keep both readable; a row that is not is left to people.
        let (Ok(trade), Some(status)) = (serde_json::from_str(text), Status::from_word(word)) else {
            let record: Uuid = row.try_get("record")?;
            tracing::error!(%record, "stored trade is not readable: it takes no part in matching");
            continue;
        };
        let report =
            Report { record: row.try_get("record")?, received_ms: row.try_get("received_ms")?, trade };
        known.push((report, status));
    }
    Ok(known)
}

/// Writes everything that a batch changes.
pub(super) async fn write(unit: &Guarded<'_>, changes: &Changes) -> Result<(), DbError> {
    insert_trades(unit, changes).await?;
    update_trades(unit, changes).await?;
    insert_refused(unit, changes).await?;
    insert_answers(unit, &changes.answers).await
}

/// Takes a record that cannot be decided off the list of pending ones, with the answer that says so. Should the
/// database refuse the answer too, the sender cannot be told: the record is in quarantine, and the queue moves on.
pub(super) async fn write_refused(
    unit: &Guarded<'_>,
    record: Uuid,
    answer: Option<Answer>,
) -> Result<(), DbError> {
    if let Some(answer) = answer {
        unit.transaction().batch_execute("savepoint answer").await?;
        match insert_answers(unit, std::slice::from_ref(&answer)).await {
            Err(error @ DbError::Data { .. }) => {
                unit.transaction().batch_execute("rollback to savepoint answer").await?;
                tracing::error!(%record, error = chain(&error), "a refusal cannot be sent to its sender");
            }
            outcome => outcome?,
        }
    }
    no_longer_pending(unit, &[record]).await.map(drop)
}

/// Takes records off the list of pending ones, in the order of their ids, so that two instances with the same ones do not
/// wait in a circle. Answers those that were on it.
pub(super) async fn no_longer_pending(
    unit: &Guarded<'_>,
    records: &[Uuid],
) -> Result<HashSet<Uuid>, DbError> {
    let statement = unit
        .transaction()
        .prepare_cached(
            "with those as (select record from trading.pending where record = any($1) order by record for update) \
             delete from trading.pending using those where pending.record = those.record returning pending.record",
        )
        .await?;
    let rows = unit.transaction().query(&statement, &[&records]).await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

const INSERT_TRADES: &str = "insert into trading.trades (trade_date, id, record, received_ms, sender_id, im_id, \
        broker_id, trade_id, security, indicator, price, quantity, settlement_date, trade, status, counterpart, \
        version, epoch) \
     select *, $18::bigint from unnest($1::date[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], \
        $7::text[], $8::text[], $9::text[], $10::text[], $11::numeric[], $12::integer[], $13::date[], $14::text[], \
        $15::text[], $16::text[], $17::integer[]) \
     on conflict (trade_date, id) do update set record = excluded.record, received_ms = excluded.received_ms, \
        security = excluded.security, indicator = excluded.indicator, price = excluded.price, \
        quantity = excluded.quantity, settlement_date = excluded.settlement_date, trade = excluded.trade, \
        status = excluded.status, counterpart = excluded.counterpart, version = excluded.version, \
        epoch = excluded.epoch";

async fn insert_trades(unit: &Guarded<'_>, changes: &Changes) -> Result<(), DbError> {
    if changes.new.is_empty() {
        return Ok(());
    }
    let new = &changes.new;
    fn column<'a, T>(
        new: &'a [(Report, Status, Option<String>)],
        of: impl Fn(&'a (Report, Status, Option<String>)) -> T,
    ) -> Vec<T> {
        new.iter().map(of).collect()
    }
    let dates: Vec<Date> = column(new, |(report, ..)| report.trade.trade_date);
    let ids: Vec<String> = column(new, |(report, ..)| report.trade.id());
    let records: Vec<Uuid> = column(new, |(report, ..)| report.record);
    let received: Vec<i64> = column(new, |(report, ..)| report.received_ms);
    let senders: Vec<&str> = column(new, |(report, ..)| report.trade.sender.as_str());
    let ims: Vec<&str> = column(new, |(report, ..)| report.trade.im.as_str());
    let brokers: Vec<&str> = column(new, |(report, ..)| report.trade.broker.as_str());
    let numbers: Vec<&str> = column(new, |(report, ..)| report.trade.trade.as_str());
    let securities: Vec<&str> = column(new, |(report, ..)| report.trade.security.as_str());
    let indicators: Vec<&str> = column(new, |(report, ..)| report.trade.indicator.letter());
    let prices: Vec<Decimal> = column(new, |(report, ..)| report.trade.price);
    let quantities: Vec<i32> = column(new, |(report, ..)| report.trade.quantity);
    let settlements: Vec<Date> = column(new, |(report, ..)| report.trade.settlement_date);
    let trades: Vec<String> = column(new, |(report, ..)| json(&report.trade));
    let statuses: Vec<&str> = column(new, |(_, status, _)| status.word());
    let counterparts: Vec<Option<&str>> = column(new, |(_, _, counterpart)| counterpart.as_deref());
    let versions: Vec<i32> =
        column(new, |(report, ..)| i32::try_from(report.trade.version).unwrap_or(i32::MAX));
    let statement = unit.transaction().prepare_cached(INSERT_TRADES).await?;
    unit.transaction()
        .execute(
            &statement,
            &[
                &dates,
                &ids,
                &records,
                &received,
                &senders,
                &ims,
                &brokers,
                &numbers,
                &securities,
                &indicators,
                &prices,
                &quantities,
                &settlements,
                &trades,
                &statuses,
                &counterparts,
                &versions,
                &unit.epoch(),
            ],
        )
        .await?;
    Ok(())
}

async fn update_trades(unit: &Guarded<'_>, changes: &Changes) -> Result<(), DbError> {
    if changes.updated.is_empty() {
        return Ok(());
    }
    let updated = || changes.updated.iter();
    let dates: Vec<Date> = updated().map(|update| update.trade_date).collect();
    let ids: Vec<&str> = updated().map(|update| update.id.as_str()).collect();
    let statuses: Vec<&str> = updated().map(|update| update.status).collect();
    let counterparts: Vec<&str> = updated().map(|update| update.counterpart.as_str()).collect();
    let statement = unit
        .transaction()
        .prepare_cached(
            "update trading.trades set status = given.status, counterpart = given.counterpart, epoch = $5 \
             from unnest($1::date[], $2::text[], $3::text[], $4::text[]) \
                as given (trade_date, id, status, counterpart) \
             where trades.trade_date = given.trade_date and trades.id = given.id",
        )
        .await?;
    let epoch = unit.epoch();
    unit.transaction().execute(&statement, &[&dates, &ids, &statuses, &counterparts, &epoch]).await?;
    Ok(())
}

async fn insert_refused(unit: &Guarded<'_>, changes: &Changes) -> Result<(), DbError> {
    for (report, code) in &changes.refused {
        let statement = unit
            .transaction()
            .prepare_cached(
                "insert into trading.conflicts (record, trade_date, id, received_ms, trade, code) \
                 values ($1, $2, $3, $4, $5, $6) on conflict (record) do nothing",
            )
            .await?;
        let (id, trade) = (report.trade.id(), json(&report.trade));
        let code = code.word();
        let values: [&(dyn ToSql + Sync); 6] =
            [&report.record, &report.trade.trade_date, &id, &report.received_ms, &trade, &code];
        unit.transaction().execute(&statement, &values).await?;
    }
    Ok(())
}

async fn insert_answers(unit: &Guarded<'_>, answers: &[Answer]) -> Result<(), DbError> {
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
    let values: [&(dyn ToSql + Sync); 7] = [&messages, &ids, &received, &statuses, &bodies, &epoch, &caused];
    unit.transaction().execute(&statement, &values).await?;
    Ok(())
}

const INSERT_ANSWERS: &str = "with given as ( \
        select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $7::bigint[]) \
            as given (message_id, id, received_ms, status, body, caused_ms)), \
     fresh as ( \
        insert into trading.outbox (message_id, id, received_ms, status, body, epoch) \
        select message_id, id, received_ms, status, body, $6::bigint from given order by message_id \
        on conflict (message_id) do nothing returning message_id) \
     insert into trading.unanswered (message_id, caused_ms) \
        select message_id, caused_ms from given join fresh using (message_id)";
