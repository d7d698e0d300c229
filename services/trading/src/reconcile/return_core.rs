//! What came back from the settlement application and ingestion took, against what core made of it: each message once
//! with the reason or without one, its allocation with the status, and the trade SETTLED with its last allocation.

use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use matching::Status;
use tokio_postgres::Row;
use uuid::Uuid;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{Job, ReconcileError};
use crate::core;
use crate::envelope::{Parsed, Record};
use crate::message::Trade;
use crate::settlement::{Back, Returned, SettlementStatus, SettlingTrade};

/// Everything that core needs is in one transaction with the row of `trading.returned`, so only that can be under way.
const STORED: &str = "select ingested.record, ingested.id, ingested.received_ms, ingested.content, \
        returned.id as core_id, returned.content as core_content, \
        coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
     from trading.returned_ingested as ingested \
     left join trading.returned using (record) \
     left join trading.returned_pending as pending using (record) \
     where ingested.received_ms >= $1 order by ingested.record";

const AHEAD: &str = "select record, id, 'in trading.returned' as place from trading.returned \
     where received_ms >= $1 \
       and not exists (select from trading.returned_ingested as ingested where ingested.record = returned.record \
            and ingested.received_ms >= $1::bigint - 86400000)";

/// Settlements that count.
const COUNTING: &str = "select record, id, content from trading.returned \
     where received_ms >= $1 and code is null order by record";

const ALLOCATIONS: &str = "select trade_date, trade, allocation_id, status from trading.allocations \
     join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, trade)) as given \
     using (trade_date, trade)";

const TRADES: &str = "select record, trade_date, id, trade, status from trading.trades \
     join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, id)) as given \
     using (trade_date, id)";

/// What counts of everything that came back for these trades.
const FOUNDATIONS: &str = "select returned.trade_date, returned.trade, returned.content from trading.returned \
     join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, trade)) as given \
     using (trade_date, trade) where returned.code is null";

/// What came back too early is looked at again in the transaction that matches its trade: none of it stays.
const KEPT: &str = "select returned.record, returned.id, trades.status as place \
     from trading.returned join trading.trades \
       on trades.trade_date = returned.trade_date and trades.id = returned.trade \
     where returned.code = 'NOT_MATCHED' and trades.status in ('MATCHED', 'SETTLED') \
       and (returned.received_ms >= $1 or trades.received_ms >= $1)";

/// Trades, of which settlements may have changed some.
const RECENT: &str = "select record, trade_date, id, trade, status from trading.trades \
     where received_ms >= $1 order by record";

/// Compares the boundary.
pub(super) async fn compare(snapshot: &Snapshot<'_>) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(Job::ReturnIngressCore);
    taken(snapshot, &mut comparison).await?;
    let ahead = |row: &Row| {
        let (record, id, place) = super::placed_row(row)?;
        comparison.ahead.add(record, || format!("{id} is {place} and not in trading.returned_ingested"));
        Ok(())
    };
    snapshot.each(AHEAD, false, ahead).await?;
    let mut judged = Judged::default();
    applied(snapshot, &mut comparison, &mut judged).await?;
    let kept = |row: &Row| {
        let (record, id, status) = super::placed_row(row)?;
        comparison.missing(record, || {
            format!("{id} came back and is kept as NOT_MATCHED, and its trade is {status}")
        });
        Ok(())
    };
    snapshot.each(KEPT, false, kept).await?;
    let mut pages = snapshot.pages(RECENT, false).await?;
    while let Some(page) = pages.next().await? {
        let standing = settled(snapshot, &mut comparison, &page, &mut judged).await?;
        founded(snapshot, &mut comparison, &page, &standing).await?;
    }
    Ok(comparison)
}

/// Whether core has looked at every message.
async fn taken(snapshot: &Snapshot<'_>, comparison: &mut Comparison) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages(STORED, true).await?;
    while let Some(page) = pages.next().await? {
        let mut absent = Vec::new();
        for row in &page {
            comparison.compared += 1;
            absent.extend(judge(row, comparison).map_err(snapshot.unreadable())?);
        }
        let what = |id: &str| format!("{id} came back and is not in trading.returned");
        super::note_absent(snapshot, comparison, core::STAGE, absent, what).await?;
    }
    Ok(())
}

fn judge(
    row: &Row,
    comparison: &mut Comparison,
) -> Result<Option<Record<Parsed<Back>>>, tokio_postgres::Error> {
    let (record, id): (Uuid, String) = (row.try_get("record")?, row.try_get("id")?);
    let Ok(back) = serde_json::from_str::<Back>(row.try_get("content")?) else {
        comparison
            .differs
            .add(record, || format!("{id} has a content in trading.returned_ingested that cannot be read"));
        return Ok(None);
    };
    let Some(core_content) = row.try_get::<_, Option<&str>>("core_content")? else {
        if row.try_get("young")? {
            comparison.under_way += 1;
            return Ok(None);
        }
        let content = Parsed::Valid(Box::new(back));
        let received_ms = row.try_get("received_ms")?;
        let (caused_ms, traceparent) = (None, None);
        return Ok(Some(Record { record, id, received_ms, caused_ms, content, traceparent }));
    };
    let same = row.try_get::<_, &str>("core_id")? == id
        && serde_json::from_str::<Back>(core_content).is_ok_and(|core| core == back);
    if !same {
        comparison.differs.add(record, || {
            format!("{id} is another message in trading.returned than in trading.returned_ingested")
        });
    }
    Ok(None)
}

type Key = (Date, String);

/// Trades that were told of.
#[derive(Default)]
struct Judged(HashSet<Uuid>);

/// Whether everything that counts has moved its allocation, and with the last one the trade.
async fn applied(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    judged: &mut Judged,
) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages(COUNTING, false).await?;
    while let Some(page) = pages.next().await? {
        let mut came: Vec<(Uuid, &str, Returned)> = Vec::new();
        for row in &page {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, &str>(2)?));
            let (record, id, content) = read().map_err(snapshot.unreadable())?;
            // One that cannot be read is told of as differing.
            if let Ok(Back::Settlement(returned)) = serde_json::from_str(content) {
                came.push((record, id, returned));
            }
        }
        let keys: Vec<Key> =
            came.iter().map(|(.., one)| (one.settlement.trade_date, one.settlement.trade_id())).collect();
        let standing = standing(snapshot, &keys).await?;
        for ((record, id, returned), (date, trade)) in came.iter().zip(&keys) {
            let number = returned.settlement.allocation_id;
            let status = standing.get(&(*date, trade.clone())).and_then(|known| known.get(&number));
            if status.copied().unwrap_or(SettlementStatus::Unmatched) < returned.status {
                comparison.differs.add(*record, || {
                    format!(
                        "{id} came back as {}, and trading.allocations does not say so",
                        returned.status.word()
                    )
                });
            }
        }
        let (dates, ids): (Vec<Date>, Vec<String>) = keys.into_iter().unzip();
        let trades = snapshot.rows(TRADES, &[&dates, &ids]).await?;
        settled(snapshot, comparison, &trades, judged).await?;
    }
    Ok(())
}

/// The status of each allocation, by its number.
type Standing = HashMap<Key, HashMap<i64, SettlementStatus>>;

async fn standing(snapshot: &Snapshot<'_>, keys: &[Key]) -> Result<Standing, ReconcileError> {
    let (dates, ids): (Vec<Date>, Vec<&str>) = keys.iter().map(|(date, id)| (*date, id.as_str())).unzip();
    let mut standing = Standing::new();
    for row in snapshot.rows(ALLOCATIONS, &[&dates, &ids]).await? {
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get::<_, &str>(3)?));
        let (date, id, number, word): (Date, String, i64, &str) = read().map_err(snapshot.unreadable())?;
        if let Some(status) = SettlementStatus::from_word(word) {
            standing.entry((date, id)).or_default().insert(number, status);
        }
    }
    Ok(standing)
}

/// Whether these trades are settled exactly if all of their allocations are; gives what is known of those.
async fn settled(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    rows: &[Row],
    judged: &mut Judged,
) -> Result<Standing, ReconcileError> {
    let mut trades: Vec<(Uuid, &str, Key, &str)> = Vec::new();
    for row in rows {
        let read = || Ok((row.try_get("record")?, row.try_get("status")?, key(row)?, row.try_get("trade")?));
        trades.push(read().map_err(snapshot.unreadable())?);
    }
    let keys: Vec<Key> = trades.iter().map(|(_, _, key, _)| key.clone()).collect();
    let standing = standing(snapshot, &keys).await?;
    for (record, status, key, text) in trades {
        if !matches!(Status::from_word(status), Some(Status::Matched | Status::Settled)) {
            continue;
        }
        let id = &key.1;
        let Ok(trade) = serde_json::from_str::<Trade>(text) else {
            if judged.0.insert(record) {
                let what = || format!("{id} has a trade in trading.trades that cannot be read");
                comparison.differs.add(record, what);
            }
            continue;
        };
        let known = standing.get(&key);
        let allocations = SettlingTrade::of_matched(&trade).allocations;
        let moved = allocations.iter().map(|allocation| {
            let status = known.and_then(|known| known.get(&allocation.allocation_id));
            Status::from(status.copied().unwrap_or(allocation.status))
        });
        let expected = Status::Matched.after_settlements(moved);
        if status != expected.word() && judged.0.insert(record) {
            comparison.differs.add(record, || {
                format!("{id} is {status} in trading.trades, and its allocations make it {}", expected.word())
            });
        }
    }
    Ok(standing)
}

fn key(row: &Row) -> Result<Key, tokio_postgres::Error> {
    Ok((row.try_get("trade_date")?, row.try_get("id")?))
}

/// Whether something that came back gave each allocation of these trades its status. What cannot be read gave none.
async fn founded(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    rows: &[Row],
    standing: &Standing,
) -> Result<(), ReconcileError> {
    if standing.is_empty() {
        return Ok(());
    }
    let (dates, trades): (Vec<Date>, Vec<&str>) =
        standing.keys().map(|(date, trade)| (*date, trade.as_str())).unzip();
    let mut said: HashSet<(Date, String, i64, SettlementStatus)> = HashSet::new();
    for row in snapshot.rows(FOUNDATIONS, &[&dates, &trades]).await? {
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, &str>(2)?));
        let (date, trade, content): (Date, String, &str) = read().map_err(snapshot.unreadable())?;
        if let Ok(Back::Settlement(returned)) = serde_json::from_str(content) {
            said.insert((date, trade, returned.settlement.allocation_id, returned.status));
        }
    }
    for row in rows {
        let read = || Ok((row.try_get("record")?, key(row)?));
        let (record, key): (Uuid, Key) = read().map_err(snapshot.unreadable())?;
        let mut allocations: Vec<(i64, SettlementStatus)> =
            standing.get(&key).into_iter().flatten().map(|(number, status)| (*number, *status)).collect();
        allocations.sort_unstable_by_key(|(number, _)| *number);
        let (date, trade) = key;
        for (number, status) in allocations {
            if !said.contains(&(date, trade.clone(), number, status)) {
                comparison.ahead.add(record, || {
                    let word = Status::from(status).word();
                    format!("{trade}-{number} is {word} in trading.allocations, and nothing that came back says so")
                });
            }
        }
    }
    Ok(())
}
