//! What ingestion stored against what core made of it: trades, refused reports, and the answers to refusals.

use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use matching::Status;
use tokio_postgres::Row;
use uuid::Uuid;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{Job, ReconcileError};
use crate::core;
use crate::envelope::{Decided, Parsed, Record};
use crate::ids;
use crate::message::{Trade, json};
use crate::parse::Refusal;

const COUNT: &str = "select (select count(*) from trading.ingested where received_ms >= $1) \
        + (select count(*) from trading.nacks where received_ms >= $1)";

/// Reports that core has neither taken nor refused under their own number. A report keeps its time in all stores, so the
/// mark holds for both sides.
const UNKNOWN: &str = "select ingested.record, ingested.id, ingested.received_ms, ingested.content as trade, \
        pending.record is not null as pending, \
        coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
     from trading.ingested left join trading.pending using (record) \
     where ingested.received_ms >= $1 \
       and not exists (select from trading.trades \
            where trades.record = ingested.record and trades.received_ms >= $1) \
       and not exists (select from trading.conflicts where conflicts.record = ingested.record) \
     order by ingested.record";

const OTHER_TEXT: &str = "select record, ingested.id, ingested.content as trade, core.id as core_id, core.trade as core_trade, \
        core.place \
     from trading.ingested \
     join (select record, id, trade, 'trading.trades' as place from trading.trades \
            where received_ms >= $1 \
           union all select record, id, content, 'trading.conflicts' from trading.conflicts) as core using (record) \
     where ingested.received_ms >= $1 and (core.id, core.trade) <> (ingested.id, ingested.content)";

/// A status holds if its answer was written with it, and no answer says another one. That of a settled trade comes after
/// the one that says that it is matched.
const OTHER_STATUS: &str = "select record, id, status from trading.trades \
     where received_ms >= $1 and ( \
        status <> 'UNMATCHED' and not exists ( \
            select from trading.outbox where message_id = trading.answer_id(trade_date, trades.id, version, trades.status)) \
        or exists (select from unnest(array['MATCHED', 'MISMATCHED', 'SETTLED', 'CANCELLED']) as told (status) \
            join trading.outbox \
              on message_id = trading.answer_id(trade_date, trades.id, version, told.status) \
            where told.status <> trades.status \
              and (told.status, trades.status) <> ('MATCHED', 'SETTLED')))";

/// Refusals with their answers. Where there is none, only a pending one may be under way.
const REFUSED: &str = "select nacks.record, nacks.id, nacks.description, nacks.body as nack_body, outbox.body, \
        coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
     from trading.nacks \
     left join trading.outbox on outbox.message_id = trading.nack_id(nacks.record) \
     left join trading.pending using (record) \
     where nacks.received_ms >= $1 order by nacks.record";

const UNANSWERED_CONFLICTS: &str = "select record, id, code as place from trading.conflicts \
     where received_ms >= $1 \
       and not exists (select from trading.outbox where message_id = trading.nack_id(conflicts.record))";

const AHEAD: &str = "select record, id, 'in trading.trades' as place from trading.trades \
        where received_ms >= $1 \
          and not exists (select from trading.ingested where ingested.record = trades.record) \
     union all select record, id, 'in trading.conflicts' from trading.conflicts \
        where received_ms >= $1 \
          and not exists (select from trading.ingested where ingested.record = conflicts.record)";

const AHEAD_ANSWERS: &str = "select message_id, id, body from trading.outbox \
     where status = 'NACK' and (sent_at is null or sent_at >= to_timestamp($1::bigint / 1000.0)) \
       and not exists (select from trading.nacks where trading.nack_id(nacks.record) = outbox.message_id) \
       and not exists (select from trading.conflicts where trading.nack_id(conflicts.record) = outbox.message_id)";

/// Compares the boundary.
pub(super) async fn compare(snapshot: &Snapshot<'_>) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(Job::IngressCore);
    comparison.compared = snapshot.count(COUNT).await?;
    unknown_reports(snapshot, &mut comparison).await?;
    refusals(snapshot, &mut comparison).await?;
    other_content(snapshot, &mut comparison).await?;
    ahead(snapshot, &mut comparison).await?;
    Ok(comparison)
}

/// A report that is not in core's stores under its own number.
struct Unknown {
    record: Record<Parsed>,
    trade: Trade,
    pending: bool,
    young: bool,
}

impl Unknown {
    /// `None`, and a finding, if what ingestion stored cannot be read.
    fn read(row: &Row, comparison: &mut Comparison) -> Result<Option<Self>, tokio_postgres::Error> {
        let (record, id): (Uuid, String) = (row.try_get("record")?, row.try_get("id")?);
        let Ok(trade) = serde_json::from_str::<Trade>(row.try_get("trade")?) else {
            comparison
                .differs
                .add(record, || format!("{id} has a trade in trading.ingested that cannot be read"));
            return Ok(None);
        };
        let content = Parsed::Valid(Box::new(trade.clone()));
        let record = Record { record, id, received_ms: row.try_get("received_ms")?, content };
        Ok(Some(Self { record, trade, pending: row.try_get("pending")?, young: row.try_get("young")? }))
    }

    fn digest(&self) -> Uuid {
        ids::quarantined(core::STAGE, json(&self.record).as_bytes())
    }

    fn answer(&self, status: Status) -> Uuid {
        ids::answer(self.trade.trade_date, &self.record.id, self.trade.version, status)
    }
}

async fn unknown_reports(snapshot: &Snapshot<'_>, comparison: &mut Comparison) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages(UNKNOWN, true).await?;
    while let Some(page) = pages.next().await? {
        let mut unknown = Vec::new();
        for row in &page {
            unknown.extend(Unknown::read(row, comparison).map_err(snapshot.unreadable())?);
        }
        let holding = reports_that_hold(snapshot, &unknown).await?;
        let digests: Vec<Uuid> = unknown.iter().map(Unknown::digest).collect();
        let apart = snapshot.set_apart(&digests).await?;
        let decided = pairs_told(snapshot, &unknown).await?;
        for (report, digest) in unknown.iter().zip(&digests) {
            let (record, id) = (report.record.record, &report.record.id);
            let told = PAIRED.iter().any(|status| decided.contains(&report.answer(*status)));
            if report.young {
                comparison.under_way += 1;
            } else if !report.pending && replaced(report, &holding) {
                // A higher version has its place, or the same was said twice in different words.
            } else if apart.contains(digest) {
                comparison.set_apart += 1;
            } else if told && !report.pending {
                // Decided anew it would find no counterpart that waits, and would wait for ever itself.
                comparison.missing.add(record, || {
                    format!("{id} was paired and told, and is not in trading.trades: restore the row, replay cannot")
                });
            } else {
                comparison.missing(record, || {
                    format!("{id} is neither in trading.trades nor in trading.conflicts")
                });
            }
        }
    }
    Ok(())
}

const PAIRED: [Status; 2] = [Status::Matched, Status::Mismatched];

/// The answers to these reports that say that they were paired.
async fn pairs_told(snapshot: &Snapshot<'_>, reports: &[Unknown]) -> Result<HashSet<Uuid>, ReconcileError> {
    let answers: Vec<Uuid> =
        reports.iter().flat_map(|report| PAIRED.map(|status| report.answer(status))).collect();
    snapshot.known("select message_id from trading.outbox where message_id = any($1)", &answers).await
}

type Holding = HashMap<(Date, String), Trade>;

/// The reports in `trading.trades` with the dates and ids of these.
async fn reports_that_hold(snapshot: &Snapshot<'_>, reports: &[Unknown]) -> Result<Holding, ReconcileError> {
    let dates: Vec<Date> = reports.iter().map(|report| report.trade.trade_date).collect();
    let ids: Vec<&str> = reports.iter().map(|report| report.record.id.as_str()).collect();
    let query = "select trade_date, id, trade from trading.trades \
        join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, id)) as given \
        using (trade_date, id)";
    let mut holding = Holding::new();
    for row in snapshot.rows(query, &[&dates, &ids]).await? {
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, &str>(2)?));
        let (date, id, trade): (Date, String, &str) = read().map_err(snapshot.unreadable())?;
        if let Ok(trade) = serde_json::from_str(trade) {
            holding.insert((date, id), trade);
        }
    }
    Ok(holding)
}

fn replaced(report: &Unknown, holding: &Holding) -> bool {
    let holds = holding.get(&(report.trade.trade_date, report.record.id.clone()));
    holds.is_some_and(|holds| holds.version > report.trade.version || *holds == report.trade)
}

/// Refusals, of ingestion and of core, against their answers.
async fn refusals(snapshot: &Snapshot<'_>, comparison: &mut Comparison) -> Result<(), ReconcileError> {
    snapshot.each(REFUSED, true, |row| judge_refusal(row, comparison)).await?;
    let unanswered = |row: &Row| {
        let (record, id, code) = super::placed_row(row)?;
        comparison
            .missing(record, || format!("{id} was refused as {code}, and trading.outbox has no answer"));
        Ok(())
    };
    snapshot.each(UNANSWERED_CONFLICTS, false, unanswered).await
}

fn judge_refusal(row: &Row, comparison: &mut Comparison) -> Result<(), tokio_postgres::Error> {
    let (record, id): (Uuid, &str) = (row.try_get("record")?, row.try_get("id")?);
    let Some(body) = row.try_get::<_, Option<&str>>("body")? else {
        if row.try_get("young")? {
            comparison.under_way += 1;
        } else {
            comparison.missing(record, || format!("{id} was refused, and trading.outbox has no answer"));
        }
        return Ok(());
    };
    let (reason, refused): (&str, &str) = (row.try_get("description")?, row.try_get("nack_body")?);
    let same = match serde_json::from_str::<Decided>(body) {
        Ok(Decided::Nack { destination, description, text }) => {
            destination == core::destination(id)
                && description == reason
                && crate::ingestion::storable(&text) == refused
        }
        Ok(Decided::Told { .. } | Decided::Probe) | Err(_) => false,
    };
    if !same {
        comparison
            .differs
            .add(record, || format!("the answer to {id} in trading.outbox is not the one of its refusal"));
    }
    Ok(())
}

async fn other_content(snapshot: &Snapshot<'_>, comparison: &mut Comparison) -> Result<(), ReconcileError> {
    let text = |row: &Row| {
        if let Some((record, id, place)) = other_trade(row)? {
            let what = || format!("{id} is another trade in {place} than in trading.ingested");
            comparison.differs.add(record, what);
        }
        Ok(())
    };
    snapshot.each(OTHER_TEXT, false, text).await?;
    let status = |row: &Row| {
        let (record, id, status): (Uuid, &str, &str) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let what =
            || format!("{id} is {status} in trading.trades, and its answers in trading.outbox say otherwise");
        comparison.differs.add(record, what);
        Ok(())
    };
    snapshot.each(OTHER_STATUS, false, status).await
}

/// Another text may still be the same trade, written by another version of this program.
fn other_trade(row: &Row) -> Result<Option<(Uuid, &str, &str)>, tokio_postgres::Error> {
    let read = |column| Ok(serde_json::from_str::<Trade>(row.try_get(column)?).ok());
    let (ours, cores): (Option<Trade>, Option<Trade>) = (read("trade")?, read("core_trade")?);
    let (id, core_id): (&str, &str) = (row.try_get("id")?, row.try_get("core_id")?);
    let same = id == core_id && ours.is_some() && ours == cores;
    Ok(if same { None } else { Some((row.try_get("record")?, id, row.try_get("place")?)) })
}

async fn ahead(snapshot: &Snapshot<'_>, comparison: &mut Comparison) -> Result<(), ReconcileError> {
    let placed = |row: &Row| {
        let (record, id, place) = super::placed_row(row)?;
        comparison.ahead.add(record, || format!("{id} is {place} and not in trading.ingested"));
        Ok(())
    };
    snapshot.each(AHEAD, false, placed).await?;
    let mut pages = snapshot.pages(AHEAD_ANSWERS, false).await?;
    while let Some(page) = pages.next().await? {
        let mut answers = Vec::new();
        for row in &page {
            let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, &str>(2)?));
            let (message, id, body): (Uuid, &str, &str) = read().map_err(snapshot.unreadable())?;
            answers.push((message, id, unstorable_record(message, body)));
        }
        // A record that the database refused is in no store but inbound's, and is answered all the same.
        let named: Vec<Uuid> = answers.iter().filter_map(|(.., record)| *record).collect();
        let received =
            snapshot.known("select record from trading.inbound_raw where record = any($1)", &named).await?;
        for (message, id, record) in answers {
            if !record.is_some_and(|record| received.contains(&record)) {
                comparison.ahead.add(message, || {
                    format!("a refusal to {id} is in trading.outbox, and nothing was refused")
                });
            }
        }
    }
    Ok(())
}

/// The record of which an answer says that the database does not take it.
fn unstorable_record(message: Uuid, body: &str) -> Option<Uuid> {
    let Ok(Decided::Nack { description, .. }) = serde_json::from_str::<Decided>(body) else { return None };
    let record = description.rsplit(' ').next().and_then(|last| Uuid::parse_str(last).ok())?;
    let says = description == Refusal::unstorable(record).description() && ids::nack(record) == message;
    says.then_some(record)
}
