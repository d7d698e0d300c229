//! What comes back from the settlement application, and what it makes of allocations and trades.
//!
//! A settlement that comes back and does not find its trade matched takes the lock of the trade, as the trade's reports do, so
//! that it either finds the trade matched or is found when it becomes so. A matched trade stays so: there the row's own lock
//! does, which the trade's reports never wait for. With the locks that many trades share the two lines would take turns.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use jiff::civil::Date;
use lapin::message::Delivery;
use matching::Status;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use services_common::trace::Traceparent;
use tokio::sync::Notify;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Answer, Subject, tables};
use crate::envelope::{Decided, Parsed, Record, unpack};
use crate::message::{Trade, json};
use crate::settlement::{Back, Effect, Returned, SettlementStatus, SettlingTrade, Unfit};
use crate::{ids, names, store, trace};

/// Name of the stage in quarantine.
const STAGE: &str = "core";
/// The reason of a settlement that the settlement application refused.
const REFUSED: &str = "REFUSED";
/// The reason of a refusal of something that was never sent.
const UNKNOWN_SETTLEMENT: &str = "UNKNOWN_SETTLEMENT";

/// Core's second line.
pub(crate) struct Returns {
    /// Tells the relay that there are answers to send.
    pub(crate) answers_written: Arc<Notify>,
}

impl Stage for Returns {
    type Record = Record<Parsed<Back>>;

    fn queue(&self) -> &'static str {
        names::RETURNED_CORE
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Record<Parsed<Back>>>, String> {
        unpack(message)
    }

    async fn store(
        &self,
        unit: &Guarded<'_>,
        records: &[Record<Parsed<Back>>],
    ) -> Result<Vec<Outgoing>, DbError> {
        let came: Vec<Uuid> = records.iter().map(|record| record.record).collect();
        // What is not pending was applied before. What ingestion refused stays in its store, with the reason.
        let mut open = tables::no_longer_pending(unit, &names::RETURNED, &came).await?;
        let valid: Vec<Record<Back>> = records.iter().filter_map(valid).collect();
        trace::passed(STAGE, records);
        // One that is in the batch twice counts once.
        let fresh = valid.iter().filter(|record| open.remove(&record.record)).cloned().collect();
        apply(unit, fresh).await?;
        no_longer_unreturned(unit, &valid).await?;
        Ok(Vec::new())
    }

    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Record<Parsed<Back>>,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::set_apart(unit, STAGE, record, reason).await?;
        tables::no_longer_pending(unit, &names::RETURNED, &[record.record]).await?;
        Ok(Vec::new())
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }

    fn batch_done(&self) {
        self.answers_written.notify_one();
    }
}

fn valid(record: &Record<Parsed<Back>>) -> Option<Record<Back>> {
    let Parsed::Valid(back) = &record.content else { return None };
    let Record { record, id, received_ms, traceparent, .. } = record.clone();
    Some(Record { record, id, received_ms, caused_ms: None, content: back.as_ref().clone(), traceparent })
}

/// Looks again at what came back for these trades before they were matched. The caller holds their locks.
///
/// # Errors
/// The database.
pub(super) async fn apply_early(unit: &Guarded<'_>, keys: &[(Date, String)]) -> Result<(), DbError> {
    let (dates, trades) = columns(keys.iter().map(|(date, trade)| (*date, trade.as_str())));
    let early = "select record, id, received_ms, content from trading.returned \
        join unnest($1::date[], $2::text[]) as given (trade_date, trade) using (trade_date, trade) \
        where code = 'NOT_MATCHED' order by record";
    let statement = unit.transaction().prepare_cached(early).await?;
    let mut came = Vec::new();
    for row in unit.transaction().query(&statement, &[&dates, &trades]).await? {
        let record: Uuid = row.try_get("record")?;
        match serde_json::from_str(row.try_get("content")?) {
            Ok(content) => came.push(Record {
                record,
                id: row.try_get("id")?,
                received_ms: row.try_get("received_ms")?,
                caused_ms: None,
                content,
                // What follows continues the trade's own trace.
                traceparent: None,
            }),
            Err(error) => tracing::error!(%record, %error, "a settlement that came back is not readable"),
        }
    }
    apply(unit, came).await
}

fn columns<'a>(keys: impl Iterator<Item = (Date, &'a str)>) -> (Vec<Date>, Vec<&'a str>) {
    keys.unzip()
}

/// One message that came back, and what it was good for.
struct Looked {
    came: Record<Back>,
    /// Why it changes nothing; `None` if it counts.
    code: Option<&'static str>,
}

/// A trade with what was known of its allocations.
struct Known {
    trade: Trade,
    received_ms: i64,
    settling: SettlingTrade,
    /// Numbers of the allocations that got another status.
    moved: HashSet<i64>,
    /// When inbound took the settlement that settled the trade.
    settled_ms: Option<i64>,
    traceparent: Option<Traceparent>,
}

type Trades = HashMap<(Date, String), Known>;

async fn apply(unit: &Guarded<'_>, came: Vec<Record<Back>>) -> Result<(), DbError> {
    if came.is_empty() {
        return Ok(());
    }
    let settlements: Vec<&Returned> = came.iter().filter_map(|one| one.content.settlement()).collect();
    let key = |one: &Returned| (one.settlement.trade_date, one.settlement.trade_id());
    let keys: Vec<_> = settlements.iter().copied().map(key).collect();
    let matched = matched(unit, &keys).await?;
    let early = settlements.iter().filter(|one| !matched.contains(&key(one)));
    let locks: BTreeSet<i32> = early.map(|one| one.settlement.lock()).collect();
    if !locks.is_empty() {
        tables::lock(unit, &locks.into_iter().collect::<Vec<_>>()).await?;
    }
    let mut trades = known(unit, &keys).await?;
    let sent = sent(unit, &came).await?;
    let mut looked = Vec::with_capacity(came.len());
    for came in came {
        let code = match &came.content {
            Back::Settlement(returned) => {
                take(&mut trades, returned, came.received_ms).err().map(Unfit::code)
            }
            Back::Nack(_) if sent.contains(&came.record) => Some(REFUSED),
            Back::Nack(_) => Some(UNKNOWN_SETTLEMENT),
        };
        if let Some(code) = code {
            let (trace_id, id) = (came.trace_id(), came.id.as_str());
            tracing::warn!(%trace_id, id, code, "a message that came back changes nothing");
        }
        looked.push(Looked { came, code });
    }
    write_allocations(unit, &trades).await?;
    write_settled(unit, &trades).await?;
    write_returned(unit, &looked).await?;
    let answers: Vec<Answer<Trade>> = trades.values().filter_map(settled).collect();
    tables::insert_answers(unit, &answers).await
}

/// Applies one settlement to its trade. One that is not known here as matched may become so: that is no other reason than
/// that of a trade that is not known at all.
fn take(trades: &mut Trades, returned: &Returned, received_ms: i64) -> Result<(), Unfit> {
    let key = (returned.settlement.trade_date, returned.settlement.trade_id());
    let known = trades.get_mut(&key).ok_or(Unfit::NotMatched)?;
    if !matches!(known.settling.status, Status::Matched | Status::Settled) {
        return Err(Unfit::NotMatched);
    }
    if let Effect::Moved { allocation_id, trade_settled, .. } = known.settling.take(returned)? {
        known.moved.insert(allocation_id);
        if trade_settled {
            known.settled_ms = Some(received_ms);
        }
    }
    Ok(())
}

/// The answer to a trade that was settled just now.
fn settled(known: &Known) -> Option<Answer<Trade>> {
    let Known { trade, received_ms, settled_ms, traceparent, .. } = known;
    Some(Answer {
        message_id: trade.answer_id(Status::Settled),
        id: trade.id(),
        received_ms: *received_ms,
        caused_ms: (*settled_ms)?,
        decided: Decided::Told {
            content: Box::new(trade.clone()),
            status: Status::Settled,
            description: "SETTLED: all allocations are settled".to_owned(),
        },
        traceparent: *traceparent,
    })
}

const MATCHED: &str = "select trade_date, id from trading.trades \
     join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, id)) as given \
     using (trade_date, id) where status in ('MATCHED', 'SETTLED')";

/// Locked in the order of their keys, so that two instances do not wait in a circle.
const TRADES: &str = "select trade_date, id, received_ms, trade, status, traceparent from trading.trades \
     join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, id)) as given \
     using (trade_date, id) where status in ('MATCHED', 'SETTLED') \
     order by trade_date, id for no key update of trades";

const ALLOCATIONS: &str = "select trade_date, trade, allocation_id, status from trading.allocations \
     join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, trade)) as given \
     using (trade_date, trade)";

/// Which of these trades are matched, or settled since.
async fn matched(unit: &Guarded<'_>, keys: &[(Date, String)]) -> Result<HashSet<(Date, String)>, DbError> {
    let (dates, ids) = columns(keys.iter().map(|(date, id)| (*date, id.as_str())));
    let statement = unit.transaction().prepare_cached(MATCHED).await?;
    let rows = unit.transaction().query(&statement, &[&dates, &ids]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Those of these trades that are matched, or settled since, locked.
async fn known(unit: &Guarded<'_>, keys: &[(Date, String)]) -> Result<Trades, DbError> {
    let (dates, ids) = columns(keys.iter().map(|(date, id)| (*date, id.as_str())));
    let mut trades = Trades::new();
    let statement = unit.transaction().prepare_cached(TRADES).await?;
    for row in unit.transaction().query(&statement, &[&dates, &ids]).await? {
        if let Some(known) = read(&row)? {
            trades.insert(known.trade.key(), known);
        }
    }
    let statement = unit.transaction().prepare_cached(ALLOCATIONS).await?;
    for row in unit.transaction().query(&statement, &[&dates, &ids]).await? {
        let key: (Date, String) = (row.try_get("trade_date")?, row.try_get("trade")?);
        let (number, word): (i64, &str) = (row.try_get("allocation_id")?, row.try_get("status")?);
        let Some(status) = SettlementStatus::from_word(word) else { continue };
        let allocations = trades.get_mut(&key).map(|known| &mut known.settling.allocations);
        for allocation in allocations.into_iter().flatten().filter(|one| one.allocation_id == number) {
            allocation.status = status;
        }
    }
    Ok(trades)
}

fn read(row: &Row) -> Result<Option<Known>, DbError> {
    let (text, word): (&str, &str) = (row.try_get("trade")?, row.try_get("status")?);
    let (Ok(trade), Some(status)) = (serde_json::from_str::<Trade>(text), Status::from_word(word)) else {
        let id: &str = row.try_get("id")?;
        tracing::error!(id, "a stored trade is not readable: what comes back for it waits");
        return Ok(None);
    };
    let settling = SettlingTrade { status, ..SettlingTrade::of_matched(&trade) };
    let received_ms = row.try_get("received_ms")?;
    let traceparent = trace::read(row)?;
    Ok(Some(Known { trade, received_ms, settling, moved: HashSet::new(), settled_ms: None, traceparent }))
}

/// Which of the refusals are of settlements that were sent.
async fn sent(unit: &Guarded<'_>, came: &[Record<Back>]) -> Result<HashSet<Uuid>, DbError> {
    let mut refused: HashMap<Uuid, Uuid> = HashMap::new();
    for one in came {
        if let Some(settlement) = one.content.refused(&one.id) {
            refused.insert(settlement.message_id(SettlementStatus::Unmatched), one.record);
        }
    }
    if refused.is_empty() {
        return Ok(HashSet::new());
    }
    let messages: Vec<Uuid> = refused.keys().copied().collect();
    let query = "select message_id from trading.outgoing_settlements where message_id = any($1)";
    let rows = unit.transaction().query(query, &[&messages]).await?;
    let known = rows.iter().map(|row| row.try_get(0)).collect::<Result<HashSet<Uuid>, _>>()?;
    Ok(refused.into_iter().filter(|(message, _)| known.contains(message)).map(|(_, record)| record).collect())
}

/// Whatever an answer is good for, and however often it came, its settlement is not sent again.
async fn no_longer_unreturned(unit: &Guarded<'_>, came: &[Record<Back>]) -> Result<(), DbError> {
    let sent = |came: &Record<Back>| match &came.content {
        Back::Settlement(returned) => Some(returned.settlement.message_id(SettlementStatus::Unmatched)),
        Back::Nack(_) => {
            let refused = came.content.refused(&came.id)?;
            Some(refused.message_id(SettlementStatus::Unmatched))
        }
    };
    let messages: Vec<Uuid> = came.iter().filter_map(sent).collect();
    let take = "with those as ( \
            select message_id from trading.unreturned where message_id = any($1) order by message_id for update) \
        delete from trading.unreturned using those where unreturned.message_id = those.message_id";
    let statement = unit.transaction().prepare_cached(take).await?;
    unit.transaction().execute(&statement, &[&messages]).await?;
    Ok(())
}

async fn write_allocations(unit: &Guarded<'_>, trades: &Trades) -> Result<(), DbError> {
    let mut rows = Vec::new();
    for ((date, id), known) in trades {
        let moved = known.settling.allocations.iter().filter(|one| known.moved.contains(&one.allocation_id));
        rows.extend(moved.map(|allocation| (*date, id.as_str(), allocation)));
    }
    if rows.is_empty() {
        return Ok(());
    }
    rows.sort_by_key(|(date, id, allocation)| (*date, *id, allocation.allocation_id));
    let (dates, ids) = columns(rows.iter().map(|(date, id, _)| (*date, *id)));
    let numbers: Vec<i64> = rows.iter().map(|(.., allocation)| allocation.allocation_id).collect();
    let accounts: Vec<&str> = rows.iter().map(|(.., allocation)| allocation.account.as_str()).collect();
    let quantities: Vec<i32> = rows.iter().map(|(.., allocation)| allocation.quantity).collect();
    let statuses: Vec<&str> =
        rows.iter().map(|(.., allocation)| Status::from(allocation.status).word()).collect();
    let insert = "insert into trading.allocations (trade_date, trade, allocation_id, account, quantity, status, epoch) \
        select *, $7::bigint from unnest($1::date[], $2::text[], $3::bigint[], $4::text[], $5::integer[], $6::text[]) \
        on conflict (trade_date, trade, allocation_id) do update set status = excluded.status, epoch = excluded.epoch";
    let statement = unit.transaction().prepare_cached(insert).await?;
    let epoch = unit.epoch();
    unit.transaction()
        .execute(&statement, &[&dates, &ids, &numbers, &accounts, &quantities, &statuses, &epoch])
        .await?;
    Ok(())
}

async fn write_settled(unit: &Guarded<'_>, trades: &Trades) -> Result<(), DbError> {
    let settled = trades.iter().filter(|(_, known)| known.settled_ms.is_some());
    let (dates, ids) = columns(settled.map(|((date, id), _)| (*date, id.as_str())));
    if dates.is_empty() {
        return Ok(());
    }
    let update = "update trading.trades set status = 'SETTLED', epoch = $3 \
        from unnest($1::date[], $2::text[]) as given (trade_date, id) \
        where trades.trade_date = given.trade_date and trades.id = given.id and trades.status = 'MATCHED'";
    let statement = unit.transaction().prepare_cached(update).await?;
    unit.transaction().execute(&statement, &[&dates, &ids, &unit.epoch()]).await?;
    Ok(())
}

async fn write_returned(unit: &Guarded<'_>, looked: &[Looked]) -> Result<(), DbError> {
    let (mut records, mut dates, mut trades, mut ids) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut received, mut contents, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    for Looked { came, code } in looked {
        let settlement = came.content.settlement().map(|returned| &returned.settlement);
        records.push(came.record);
        dates.push(settlement.map(|settlement| settlement.trade_date));
        trades.push(ids::trade_of_settlement(&came.id));
        ids.push(came.id.as_str());
        received.push(came.received_ms);
        contents.push(json(&came.content));
        codes.push(*code);
    }
    let insert = "insert into trading.returned (record, trade_date, trade, id, received_ms, content, code, epoch) \
        select *, $8::bigint from unnest($1::uuid[], $2::date[], $3::text[], $4::text[], $5::bigint[], $6::text[], \
            $7::text[]) order by 1 \
        on conflict (record) do update set code = excluded.code, epoch = excluded.epoch \
        where returned.code = 'NOT_MATCHED'";
    let statement = unit.transaction().prepare_cached(insert).await?;
    let epoch = unit.epoch();
    unit.transaction()
        .execute(&statement, &[&records, &dates, &trades, &ids, &received, &contents, &codes, &epoch])
        .await?;
    Ok(())
}
