//! Inbound's raw messages against what ingestion made of them: a trade, or a refusal.

use tokio_postgres::Row;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{Job, ReconcileError};
use crate::core::replay::{self, read_refusal};
use crate::envelope::{Parsed, Record};
use crate::ingestion;
use crate::message::Trade;
use crate::parse::Refusal;

/// What is not on the list of pending ones was decided, so ingestion must have it: only pending ones may be under way.
const STORED: &str = "select raw.record, raw.correlation_id, raw.received_ms, raw.body, raw.defect, \
        ingested.id as ingested_id, ingested.received_ms as ingested_ms, ingested.content as trade, \
        nacks.id as nack_id, nacks.received_ms as nack_ms, nacks.code, nacks.field, nacks.description, \
        nacks.refusal, nacks.body as nack_body, \
        coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
     from trading.inbound_raw raw \
     left join trading.ingested using (record) \
     left join trading.nacks using (record) \
     left join trading.pending using (record) \
     where raw.received_ms >= $1 order by raw.record";

const AHEAD: &str = "select record, id, 'in trading.ingested' as place from trading.ingested \
        where received_ms >= $1 \
          and not exists (select from trading.inbound_raw raw where raw.record = ingested.record) \
     union all select record, id, 'in trading.nacks' from trading.nacks \
        where received_ms >= $1 \
          and not exists (select from trading.inbound_raw raw where raw.record = nacks.record)";

/// Compares the boundary.
pub(super) async fn compare(snapshot: &Snapshot<'_>) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(Job::InboundIngress);
    let mut pages = snapshot.pages(STORED, true).await?;
    while let Some(page) = pages.next().await? {
        let mut absent = Vec::new();
        for row in &page {
            comparison.compared += 1;
            if let Some(record) = judge(row, &mut comparison).map_err(snapshot.unreadable())? {
                absent.push(record);
            }
        }
        let what = |id: &str| format!("{id} is neither in trading.ingested nor in trading.nacks");
        super::note_absent(snapshot, &mut comparison, ingestion::STAGE, absent, what).await?;
    }
    let told = |row: &Row| {
        let (record, id, place) = super::placed_row(row)?;
        comparison.ahead.add(record, || format!("{id} is {place} and not in trading.inbound_raw"));
        Ok(())
    };
    snapshot.each(AHEAD, false, told).await?;
    Ok(comparison)
}

/// Compares what ingestion stored with what it would make now; gives the record if there is nothing and should be.
fn judge(row: &Row, comparison: &mut Comparison) -> Result<Option<Record<Parsed>>, tokio_postgres::Error> {
    let expected = ingestion::parsed(replay::raw(row)?);
    let (trade, refused): (Option<&str>, bool) =
        (row.try_get("trade")?, row.try_get::<_, Option<&str>>("refusal")?.is_some());
    if trade.is_none() && !refused {
        if row.try_get("young")? {
            comparison.under_way += 1;
            return Ok(None);
        }
        return Ok(Some(expected));
    }
    let difference = match (&expected.content, trade, refused) {
        (Parsed::Valid(expected_trade), Some(trade), false) => {
            trade_difference(row, &expected, expected_trade, trade)?
        }
        (Parsed::Nack(refusal, text), None, true) => nack_difference(row, &expected, refusal, text)?,
        (_, Some(_), true) => Some("is both in trading.ingested and in trading.nacks"),
        (Parsed::Valid(_), ..) => Some("was refused, and is a valid trade"),
        (Parsed::Nack(..) | Parsed::Probe, ..) => Some("was taken as a trade, and is not valid"),
    };
    if let Some(difference) = difference {
        comparison.differs.add(expected.record, || format!("{} {difference}", expected.id));
    }
    Ok(None)
}

/// Compared as values: a later version of this program may write the same trade with other spaces or digits.
fn trade_difference(
    row: &Row,
    record: &Record<Parsed>,
    expected: &Trade,
    stored: &str,
) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let (id, received_ms): (&str, i64) = (row.try_get("ingested_id")?, row.try_get("ingested_ms")?);
    Ok(match serde_json::from_str::<Trade>(stored) {
        Ok(trade) if trade != *expected => {
            Some("has another trade in trading.ingested than its message says")
        }
        Err(_) => Some("has a trade in trading.ingested that cannot be read"),
        Ok(_) if (id, received_ms) != (&record.id, record.received_ms) => {
            Some("has another id or time in trading.ingested than in trading.inbound_raw")
        }
        Ok(_) => None,
    })
}

fn nack_difference(
    row: &Row,
    record: &Record<Parsed>,
    refusal: &Refusal,
    text: &str,
) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let (code, field): (&str, Option<&str>) = (row.try_get("code")?, row.try_get("field")?);
    let (description, stored): (&str, &str) = (row.try_get("description")?, row.try_get("refusal")?);
    let (id, received_ms): (&str, i64) = (row.try_get("nack_id")?, row.try_get("nack_ms")?);
    let same_reason = code == refusal.code.word()
        && field == refusal.field.as_deref()
        && description == refusal.description()
        && read_refusal(stored) == *refusal;
    Ok(if !same_reason {
        Some("has another reason in trading.nacks than its message gives")
    } else if row.try_get::<_, &str>("nack_body")? != ingestion::storable(text) {
        Some("has another text in trading.nacks than in trading.inbound_raw")
    } else if (id, received_ms) != (&record.id, record.received_ms) {
        Some("has another id or time in trading.nacks than in trading.inbound_raw")
    } else {
        None
    })
}
