//! Replay: sends again what inbound has stored and core has not decided, and what core has decided and no customer's queue
//! has. Work grows with what is missing.

use serde::Serialize;
use services_common::amqp::Publisher;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, StageError};
use tokio_postgres::Row;
use uuid::Uuid;

use super::relay;
use crate::envelope::{Decided, Emitted, Parsed, Raw, Record, pack};
use crate::parse::{Refusal, RefusalCode};
use crate::{egress, inbound, names};

/// Records in one page.
const PAGE: i64 = 500;

/// How many records were sent again, and to where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Replayed {
    /// Stored by inbound, unknown to ingestion.
    pub(crate) to_ingestion: usize,
    /// Stored by ingestion, not decided by core.
    pub(crate) to_core: usize,
    /// Decided by core, unknown to egress.
    pub(crate) to_egress: usize,
    /// Stored by egress, not in the customers' queue.
    pub(crate) to_outbound: usize,
}

const PENDING: &str = "select pending.record, raw.correlation_id, raw.received_ms, raw.body, raw.defect, \
        ingested.trade, nacks.refusal, nacks.body as nack_body \
     from trading.pending \
     join trading.inbound_raw raw using (record) \
     left join trading.ingested using (record) \
     left join trading.nacks using (record) \
     where pending.record > $1 order by pending.record limit $2";

/// Sent ones only: the relay sends the others by itself.
const UNANSWERED: &str = "select outbox.message_id, outbox.id, outbox.received_ms, outbox.body, \
        egressed.message_id is not null as egressed \
     from trading.unanswered \
     join trading.outbox using (message_id) \
     left join trading.egressed using (message_id) \
     where outbox.message_id > $1 and outbox.sent_at is not null order by outbox.message_id limit $2";

/// Sends every record that is on its way into the stage that it did not reach, through the normal path.
///
/// # Errors
/// Database or broker; what was sent by then is harmless, and calling again completes it.
pub(crate) async fn replay(deps: &StageDeps, grant: &Grant) -> Result<Replayed, StageError> {
    let publisher = deps.broker.publisher().await?;
    let (mut replayed, mut after) = (Replayed::default(), Some(Uuid::nil()));
    while let Some(from) = after {
        let (raw, parsed, last) = page(deps, grant, from).await?;
        send(&publisher, grant, &raw, &parsed).await?;
        replayed.to_ingestion += raw.len();
        replayed.to_core += parsed.len();
        after = last;
    }
    after = Some(Uuid::nil());
    while let Some(from) = after {
        let unanswered = unanswered(deps, grant, from).await?;
        publisher.publish_all(&pack(names::EGRESS, &unanswered.decided, grant)).await?;
        publisher.publish_all(&pack(names::OUTBOUND, &unanswered.emitted, grant)).await?;
        replayed.to_egress += unanswered.decided.len();
        replayed.to_outbound += unanswered.emitted.len();
        after = unanswered.last;
    }
    Ok(replayed)
}

/// One page of what core has decided and no customer's queue has.
#[derive(Default)]
struct Unanswered {
    decided: Vec<Record<Decided>>,
    emitted: Vec<Record<Emitted>>,
    last: Option<Uuid>,
}

async fn unanswered(deps: &StageDeps, grant: &Grant, after: Uuid) -> Result<Unanswered, DbError> {
    let mut connection = deps.database.connection().await?;
    let unit = Guarded::begin(&mut connection, grant).await?;
    let statement = unit.transaction().prepare_cached(UNANSWERED).await?;
    let rows = unit.transaction().query(&statement, &[&after, &PAGE]).await?;
    let mut page = Unanswered::default();
    for row in &rows {
        page.last = Some(row.try_get("message_id")?);
        let Some(decided) = relay::read(row)? else { continue };
        // What egress has stored is what it would make again from the decision.
        if row.try_get("egressed")? {
            page.emitted.push(egress::emitted(decided));
        } else {
            page.decided.push(decided);
        }
    }
    Ok(page)
}

async fn send(
    publisher: &Publisher,
    grant: &Grant,
    raw: &[Record<Raw>],
    parsed: &[Record<Parsed>],
) -> Result<(), StageError> {
    publisher.publish_all(&pack(names::INGESTION, raw, grant)).await?;
    publisher.publish_all(&pack(names::CORE, parsed, grant)).await?;
    Ok(())
}

type Page = (Vec<Record<Raw>>, Vec<Record<Parsed>>, Option<Uuid>);

async fn page(deps: &StageDeps, grant: &Grant, after: Uuid) -> Result<Page, DbError> {
    let mut connection = deps.database.connection().await?;
    // Guarded although it only reads: what is missing is judged by the writer, never by a replica.
    let unit = Guarded::begin(&mut connection, grant).await?;
    let statement = unit.transaction().prepare_cached(PENDING).await?;
    let rows = unit.transaction().query(&statement, &[&after, &PAGE]).await?;
    let (mut raw, mut parsed, mut last) = (Vec::new(), Vec::new(), None);
    for row in &rows {
        last = Some(row.try_get("record")?);
        match read(row)? {
            Onward::Raw(record) => raw.push(record),
            Onward::Parsed(record) => parsed.push(record),
        }
    }
    Ok((raw, parsed, last))
}

/// A stored record, as it travels to the stage that does not have it.
pub(crate) enum Onward {
    /// To ingestion.
    Raw(Record<Raw>),
    /// To core.
    Parsed(Record<Parsed>),
}

/// A row of inbound's store with what ingestion made of it.
///
/// # Errors
/// The row has not the columns that it should.
pub(crate) fn read(row: &Row) -> Result<Onward, DbError> {
    let (trade, refusal): (Option<&str>, Option<&str>) = (row.try_get("trade")?, row.try_get("refusal")?);
    let content = if let Some(trade) = trade.and_then(|text| serde_json::from_str(text).ok()) {
        Parsed::Trade(trade)
    } else if let Some(refusal) = refusal {
        let text: Option<String> = row.try_get("nack_body")?;
        Parsed::Nack(read_refusal(refusal), text.unwrap_or_default())
    } else {
        return Ok(Onward::Raw(raw(row)?));
    };
    let (record, id) = (row.try_get("record")?, row.try_get("correlation_id")?);
    Ok(Onward::Parsed(Record { record, id, received_ms: row.try_get("received_ms")?, content }))
}

/// A row of inbound's store, as inbound sends it.
///
/// # Errors
/// The row has not the columns that it should.
pub(crate) fn raw(row: &Row) -> Result<Record<Raw>, tokio_postgres::Error> {
    let (body, defect): (&[u8], Option<&str>) = (row.try_get("body")?, row.try_get("defect")?);
    let text = String::from_utf8_lossy(body).into_owned();
    let (id, received_ms) = (row.try_get("correlation_id")?, row.try_get("received_ms")?);
    Ok(inbound::record(row.try_get("record")?, id, received_ms, text, defect.map(read_refusal)))
}

/// A refusal as a stage has stored it.
pub(crate) fn read_refusal(text: &str) -> Refusal {
    // Written by this program; an unreadable one still refuses.
    serde_json::from_str(text).unwrap_or_else(|_| Refusal::whole(RefusalCode::Malformed, text))
}

/// Messages stored by inbound that core has not decided, plus answers that are not in the customers' queue.
///
/// # Errors
/// The database; no number is not zero.
pub(crate) async fn in_flight(deps: &StageDeps) -> Result<i64, DbError> {
    let connection = deps.database.connection().await?;
    let row = connection.query_one("select in_flight from trading.in_flight", &[]).await?;
    Ok(row.try_get(0)?)
}
