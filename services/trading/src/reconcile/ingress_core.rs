//! What ingestion stored against what core made of it: reports that hold, refused ones, and the answers to refusals. The
//! same for trades and for settlements.

use std::collections::{HashMap, HashSet};
use std::future::Future;

use jiff::civil::Date;
use matching::Status;
use tokio_postgres::Row;
use uuid::Uuid;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{ANSWERED_SINCE, Job, ReconcileError, given_to_relay};
use crate::core::{self, Subject};
use crate::days::DAY_MS;
use crate::envelope::{Decided, Parsed, Record};
use crate::ids;
use crate::message::Trade;
use crate::parse::Refusal;
use crate::settlement::Settlement;

const COUNT: &str = "select (select count(*) from trading.ingested where received_ms >= $1) \
        + (select count(*) from trading.nacks where received_ms >= $1)";

/// What core decides, as it is compared.
pub(super) trait Compared: Subject + PartialEq {
    /// The column of the table of reports that hold with the report itself.
    const COLUMN: &'static str;
    /// What two reports that met may become, as it is told.
    const PAIRED: [Status; 2];

    /// Whether two reports under one id say the same: the second one changes nothing then.
    fn repeats(&self, other: &Self) -> bool {
        self == other
    }

    /// Notes reports whose status is not the one that its answers tell.
    fn other_status(
        snapshot: &Snapshot<'_>,
        comparison: &mut Comparison,
    ) -> impl Future<Output = Result<(), ReconcileError>>;
}

/// Reports that core has neither taken nor refused under their own number. A report keeps its time in all stores, so the
/// mark holds for both sides.
fn unknown<C: Compared>() -> String {
    format!(
        "select ingested.record, ingested.id, ingested.received_ms, ingested.content, \
            pending.record is not null as pending, \
            coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
         from trading.ingested left join trading.pending using (record) \
         where ingested.received_ms >= $1 \
           and not exists (select from {} as core \
                where core.record = ingested.record and core.received_ms >= $1) \
           and not exists (select from trading.conflicts \
                where conflicts.record = ingested.record and conflicts.received_ms >= $1::bigint - {DAY_MS}) \
         order by ingested.record",
        C::TABLE
    )
}

fn other_text<C: Compared>() -> String {
    format!(
        "select record, ingested.id, ingested.content, core.id as core_id, core.content as core_content, core.place \
         from trading.ingested \
         join (select record, id, {column} as content, '{table}' as place from {table} where received_ms >= $1 \
               union all select record, id, content, 'trading.conflicts' from trading.conflicts \
                  where received_ms >= $1::bigint - {DAY_MS}) as core using (record) \
         where ingested.received_ms >= $1 and (core.id, core.content) <> (ingested.id, ingested.content)",
        column = C::COLUMN,
        table = C::TABLE
    )
}

/// A status holds if its answer was written with it, and no answer says another one. That of a settled trade comes after
/// the one that says that it is matched. Answers are looked for under the trade's name, so that few of their ids, which are
/// digests, have to be computed.
const OTHER_TRADE_STATUS: &str = "select record, id, status from trading.trades \
     where received_ms >= $1 and status <> 'UNMATCHED' \
       and not exists (select from trading.outbox as told \
            where told.id = trades.id and told.status = trades.status and told.caused_ms >= $1::bigint - 86400000 \
              and told.message_id = trading.answer_id(trade_date, trades.id, version, told.status)) \
     union \
     select record, id, status from trading.trades \
     where received_ms >= $1 \
       and exists (select from trading.outbox as told \
            where told.id = trades.id and told.status <> trades.status and told.status <> 'NACK' \
              and (told.status, trades.status) <> ('MATCHED', 'SETTLED') and told.caused_ms >= $1::bigint - 86400000 \
              and told.message_id = trading.answer_id(trade_date, trades.id, version, told.status))";

/// Refusals with their answers; of a refusal that is there on two days, one answer is enough. Where there is none, only a pending one may be under way.
const REFUSED: &str = "select nacks.record, nacks.id, nacks.description, nacks.body as nack_body, outbox.body, \
        coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
     from trading.nacks \
     left join lateral ( \
        select body from trading.outbox where outbox.message_id = trading.nack_id(nacks.record) \
           and outbox.caused_ms >= $1::bigint - 86400000 \
        order by outbox.caused_ms / 86400000 = nacks.received_ms / 86400000 desc limit 1) as outbox on true \
     left join trading.pending using (record) \
     where nacks.received_ms >= $1 order by nacks.record";

const UNANSWERED_CONFLICTS: &str = "select record, id, code as place from trading.conflicts \
     where received_ms >= $1 \
       and not exists (select from trading.outbox \
            where message_id = trading.nack_id(conflicts.record) and caused_ms >= $1::bigint - 86400000)";

fn ahead_reports<C: Compared>() -> String {
    let alone = |table: &str| {
        format!(
            "select record, id, 'in {table}' as place from {table} as core where received_ms >= $1 \
             and not exists (select from trading.ingested \
                where ingested.record = core.record and ingested.received_ms >= $1::bigint - {DAY_MS})"
        )
    };
    format!("{} union all {}", alone(C::TABLE), alone("trading.conflicts"))
}

fn ahead_answers() -> String {
    format!(
        "select message_id, id, body from trading.outbox where status = 'NACK' and {} \
           and not exists (select from trading.nacks where trading.nack_id(nacks.record) = outbox.message_id \
                and nacks.received_ms >= {ANSWERED_SINCE} - {DAY_MS}) \
           and not exists (select from trading.conflicts where trading.nack_id(conflicts.record) = outbox.message_id \
                and conflicts.received_ms >= {ANSWERED_SINCE} - {DAY_MS})",
        given_to_relay()
    )
}

/// Compares the boundary.
pub(super) async fn compare<C: Compared>(
    snapshot: &Snapshot<'_>,
    job: Job,
) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(job);
    comparison.compared = snapshot.count(COUNT).await?;
    unknown_reports::<C>(snapshot, &mut comparison).await?;
    refusals(snapshot, &mut comparison).await?;
    snapshot.each(&other_text::<C>(), false, |row| note_other_text::<C>(row, &mut comparison)).await?;
    C::other_status(snapshot, &mut comparison).await?;
    ahead::<C>(snapshot, &mut comparison).await?;
    Ok(comparison)
}

/// A report that is not in core's stores under its own number.
struct Unknown<C> {
    record: Record<Parsed<C>>,
    content: C,
    pending: bool,
    young: bool,
}

impl<C: Compared> Unknown<C> {
    /// `None`, and a finding, if what ingestion stored cannot be read.
    fn read(row: &Row, comparison: &mut Comparison) -> Result<Option<Self>, tokio_postgres::Error> {
        let (record, id): (Uuid, String) = (row.try_get("record")?, row.try_get("id")?);
        let Ok(content) = serde_json::from_str::<C>(row.try_get("content")?) else {
            comparison
                .differs
                .add(record, || format!("{id} has a {} in trading.ingested that cannot be read", C::WORD));
            return Ok(None);
        };
        let parsed = Parsed::Valid(Box::new(content.clone()));
        let received_ms = row.try_get("received_ms")?;
        let (caused_ms, traceparent) = (None, None);
        let record = Record { record, id, received_ms, caused_ms, content: parsed, traceparent };
        Ok(Some(Self { record, content, pending: row.try_get("pending")?, young: row.try_get("young")? }))
    }

    fn digest(&self) -> Uuid {
        ids::quarantined(core::STAGE, self.record.apart().as_bytes())
    }

    fn told(&self, answers: &HashSet<Uuid>) -> bool {
        C::PAIRED.iter().any(|status| answers.contains(&self.content.answer_id(*status)))
    }
}

async fn unknown_reports<C: Compared>(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages(&unknown::<C>(), true).await?;
    while let Some(page) = pages.next().await? {
        let mut unknown: Vec<Unknown<C>> = Vec::new();
        for row in &page {
            unknown.extend(Unknown::read(row, comparison).map_err(snapshot.unreadable())?);
        }
        let holding = reports_that_hold(snapshot, &unknown).await?;
        let digests: Vec<Uuid> = unknown.iter().map(Unknown::digest).collect();
        let apart = snapshot.set_apart(&digests).await?;
        let decided = pairs_told(snapshot, &unknown).await?;
        for (report, digest) in unknown.iter().zip(&digests) {
            let (record, id) = (report.record.record, &report.record.id);
            if report.young {
                comparison.under_way += 1;
            } else if let Some(standing) = holding.get(&report.content.key()).filter(|_| !report.pending)
                && (standing.version() > report.content.version() || standing.repeats(&report.content))
            {
                // A higher version has its place, or the same was said twice in different words.
                comparison.repeated += u64::from(standing.version() == report.content.version());
            } else if apart.contains(digest) {
                comparison.set_apart += 1;
            } else if report.told(&decided) && !report.pending {
                // Decided anew it would find no counterpart that waits, and would wait for ever itself.
                comparison.missing.add(record, || {
                    let table = C::TABLE;
                    format!("{id} was paired and told, and is not in {table}: restore the row, replay cannot")
                });
            } else {
                let what = || format!("{id} is neither in {} nor in trading.conflicts", C::TABLE);
                comparison.missing_with(report.content.key(), record, what);
            }
        }
    }
    Ok(())
}

/// The answers to these reports that say that they were paired.
async fn pairs_told<C: Compared>(
    snapshot: &Snapshot<'_>,
    reports: &[Unknown<C>],
) -> Result<HashSet<Uuid>, ReconcileError> {
    let told = |report: &Unknown<C>| C::PAIRED.map(|status| report.content.answer_id(status));
    answers_there(snapshot, &reports.iter().flat_map(told).collect::<Vec<_>>()).await
}

/// Those of the answers that core wrote; they are about reports since the mark, so none is older.
async fn answers_there(snapshot: &Snapshot<'_>, answers: &[Uuid]) -> Result<HashSet<Uuid>, ReconcileError> {
    if answers.is_empty() {
        return Ok(HashSet::new());
    }
    let there = "select message_id from trading.outbox where message_id = any($1) and caused_ms >= $2";
    let rows = snapshot.rows(there, &[&answers, &(snapshot.since_ms() - DAY_MS)]).await?;
    rows.iter().map(|row| row.try_get(0).map_err(snapshot.unreadable())).collect()
}

type Holding<C> = HashMap<(Date, String), C>;

/// The reports that hold with the dates and ids of these.
async fn reports_that_hold<C: Compared>(
    snapshot: &Snapshot<'_>,
    reports: &[Unknown<C>],
) -> Result<Holding<C>, ReconcileError> {
    let (dates, ids): (Vec<Date>, Vec<String>) = reports.iter().map(|report| report.content.key()).unzip();
    let query = format!(
        "select trade_date, id, {} from {} \
         join (select distinct * from unnest($1::date[], $2::text[]) as given (trade_date, id)) as given \
         using (trade_date, id)",
        C::COLUMN,
        C::TABLE
    );
    let mut holding = Holding::new();
    for row in snapshot.rows(&query, &[&dates, &ids]).await? {
        let read = || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get::<_, &str>(2)?));
        let (date, id, content): (Date, String, &str) = read().map_err(snapshot.unreadable())?;
        if let Ok(content) = serde_json::from_str(content) {
            holding.insert((date, id), content);
        }
    }
    Ok(holding)
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
    let same = match serde_json::from_str::<Decided<serde_json::Value>>(body) {
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

fn note_other_text<C: Compared>(row: &Row, comparison: &mut Comparison) -> Result<(), tokio_postgres::Error> {
    // Another text may still say the same, written by another version of this program.
    let read = |column| Ok(serde_json::from_str::<C>(row.try_get(column)?).ok());
    let (ours, cores): (Option<C>, Option<C>) = (read("content")?, read("core_content")?);
    let (id, core_id): (&str, &str) = (row.try_get("id")?, row.try_get("core_id")?);
    if id != core_id || ours.is_none() || ours != cores {
        let place: &str = row.try_get("place")?;
        let what = || format!("{id} is another {} in {place} than in trading.ingested", C::WORD);
        comparison.differs.add(row.try_get("record")?, what);
    }
    Ok(())
}

impl Compared for Trade {
    const COLUMN: &'static str = "trade";
    const PAIRED: [Status; 2] = [Status::Matched, Status::Mismatched];

    /// The server compares: there is a row for each trade.
    async fn other_status(
        snapshot: &Snapshot<'_>,
        comparison: &mut Comparison,
    ) -> Result<(), ReconcileError> {
        let note = |row: &Row| {
            other_status_than_told::<Self>(comparison, row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            Ok(())
        };
        snapshot.each(OTHER_TRADE_STATUS, false, note).await
    }
}

fn other_status_than_told<C: Compared>(comparison: &mut Comparison, record: Uuid, id: &str, status: &str) {
    comparison.differs.add(record, || {
        format!("{id} is {status} in {}, and its answers in trading.outbox say otherwise", C::TABLE)
    });
}

const SETTLEMENTS: &str = "select record, id, status, settlement from trading.settlements \
     where received_ms >= $1 order by record";

impl Compared for Settlement {
    const COLUMN: &'static str = "settlement";
    const PAIRED: [Status; 2] = [Status::Settled, Status::Mismatched];

    /// Trade matching that lost its last transactions matches a trade anew, and then makes its settlements with another time.
    fn repeats(&self, other: &Self) -> bool {
        self.equals_but_for_time(other)
    }

    /// An answer's id depends on account and quantity, which only the message has.
    async fn other_status(
        snapshot: &Snapshot<'_>,
        comparison: &mut Comparison,
    ) -> Result<(), ReconcileError> {
        let mut pages = snapshot.pages(SETTLEMENTS, false).await?;
        while let Some(page) = pages.next().await? {
            let mut standing: Vec<(Uuid, &str, &str, [Uuid; 2])> = Vec::new();
            for row in &page {
                let read =
                    || Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?, row.try_get::<_, &str>(3)?));
                let (record, id, status, text) = read().map_err(snapshot.unreadable())?;
                // One that cannot be read differs from ingestion's anyway.
                if let Ok(settlement) = serde_json::from_str::<Self>(text) {
                    let answers = Self::PAIRED.map(|status| settlement.answer_id(status));
                    standing.push((record, id, status, answers));
                }
            }
            let answers: Vec<Uuid> = standing.iter().flat_map(|(.., answers)| *answers).collect();
            let told = answers_there(snapshot, &answers).await?;
            for (record, id, status, answers) in standing {
                let says =
                    |(answer, paired): (&Uuid, Status)| told.contains(answer) == (paired.word() == status);
                if !answers.iter().zip(Self::PAIRED).all(says) {
                    other_status_than_told::<Self>(comparison, record, id, status);
                }
            }
        }
        Ok(())
    }
}

async fn ahead<C: Compared>(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
) -> Result<(), ReconcileError> {
    let placed = |row: &Row| {
        let (record, id, place) = super::placed_row(row)?;
        comparison.ahead.add(record, || format!("{id} is {place} and not in trading.ingested"));
        Ok(())
    };
    snapshot.each(&ahead_reports::<C>(), false, placed).await?;
    let mut pages = snapshot.pages(&ahead_answers(), false).await?;
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
    let Ok(Decided::Nack { description, .. }) = serde_json::from_str::<Decided<serde_json::Value>>(body)
    else {
        return None;
    };
    let record = description.rsplit(' ').next().and_then(|last| Uuid::parse_str(last).ok())?;
    let says = description == Refusal::unstorable(record).description() && ids::nack(record) == message;
    says.then_some(record)
}
