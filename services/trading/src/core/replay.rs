//! Replay: sends again what inbound has stored and core has not decided. Work grows with what is missing.

use serde::Serialize;
use services_common::amqp::Publisher;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, StageError};
use uuid::Uuid;

use crate::envelope::{Parsed, Raw, Record, pack};
use crate::parse::{Refusal, RefusalCode};
use crate::{inbound, names};

/// Records in one page.
const PAGE: i64 = 500;

/// How many records were sent again, and to where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Replayed {
    /// Stored by inbound, unknown to ingestion.
    pub(crate) to_ingestion: usize,
    /// Stored by ingestion, not decided by core.
    pub(crate) to_core: usize,
}

const PENDING: &str = "select pending.record, raw.correlation_id, raw.received_ms, raw.body, raw.defect, \
        ingested.trade, nacks.refusal, nacks.body as nack_body \
     from trading.pending \
     join trading.inbound_raw raw using (record) \
     left join trading.ingested using (record) \
     left join trading.nacks using (record) \
     where pending.record > $1 order by pending.record limit $2";

/// Sends every pending record into the stage that it did not reach, through the normal path.
///
/// # Errors
/// Database or broker; what was sent by then is harmless, and calling again completes it.
pub(crate) async fn replay(deps: &StageDeps, grant: &Grant) -> Result<Replayed, StageError> {
    let publisher = deps.broker.publisher().await?;
    let (mut replayed, mut after) = (Replayed::default(), Uuid::nil());
    loop {
        let (raw, parsed, last) = page(deps, grant, after).await?;
        let Some(last) = last else { return Ok(replayed) };
        send(&publisher, grant, &raw, &parsed).await?;
        replayed.to_ingestion += raw.len();
        replayed.to_core += parsed.len();
        after = last;
    }
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
        let record: Uuid = row.try_get("record")?;
        let (id, received_ms): (String, i64) = (row.try_get("correlation_id")?, row.try_get("received_ms")?);
        last = Some(record);
        let trade: Option<&str> = row.try_get("trade")?;
        let refusal: Option<&str> = row.try_get("refusal")?;
        if let Some(trade) = trade.and_then(|text| serde_json::from_str(text).ok()) {
            parsed.push(Record { record, id, received_ms, content: Parsed::Trade(trade) });
        } else if let Some(refusal) = refusal {
            let text: Option<String> = row.try_get("nack_body")?;
            let content = Parsed::Nack(read_refusal(refusal), text.unwrap_or_default());
            parsed.push(Record { record, id, received_ms, content });
        } else {
            let (body, defect): (&[u8], Option<&str>) = (row.try_get("body")?, row.try_get("defect")?);
            let text = String::from_utf8_lossy(body).into_owned();
            raw.push(inbound::record(record, id, received_ms, text, defect.map(read_refusal)));
        }
    }
    Ok((raw, parsed, last))
}

fn read_refusal(text: &str) -> Refusal {
    // Written by this program; an unreadable one still refuses.
    serde_json::from_str(text).unwrap_or_else(|_| Refusal::whole(RefusalCode::Malformed, text))
}

/// Messages stored by inbound that core has not decided, plus answers not sent.
///
/// # Errors
/// The database; no number is not zero.
pub(crate) async fn in_flight(deps: &StageDeps) -> Result<i64, DbError> {
    let connection = deps.database.connection().await?;
    let row = connection.query_one("select in_flight from trading.in_flight", &[]).await?;
    Ok(row.try_get(0)?)
}
