//! Inbound's raw messages against what ingestion made of them: something valid, or a refusal. The same for every line.

use tokio_postgres::Row;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{Job, ReconcileError};
use crate::core::replay::{self, read_refusal};
use crate::days::DAY_MS;
use crate::envelope::{Parsed, Record};
use crate::ingestion::{self, Content};
use crate::names::Line;
use crate::parse::Refusal;

/// What is not on the list of pending ones was decided, so ingestion must have it: only pending ones may be under way.
fn stored(line: &Line) -> String {
    let Line { raw, pending, ingested, nacks, .. } = line;
    // A message that came again on another day is stored and passed on again.
    let behind = |name: &str, table: &str| {
        format!(
            "left join {table} as {name} on {name}.record = raw.record \
                and {name}.received_ms / {DAY_MS} = raw.received_ms / {DAY_MS} \
                and {name}.received_ms >= $1::bigint - {DAY_MS}"
        )
    };
    format!(
        "select raw.record, raw.correlation_id, raw.received_ms, raw.body, raw.defect, \
            ingested.id as ingested_id, ingested.received_ms as ingested_ms, ingested.content, \
            nacks.id as nack_id, nacks.received_ms as nack_ms, nacks.code, nacks.field, nacks.description, \
            nacks.refusal, nacks.body as nack_body, \
            coalesce(pending.since > now() - make_interval(secs => $2), false) as young \
         from {raw} as raw \
         {} {} \
         left join {pending} as pending on pending.record = raw.record \
         where raw.received_ms >= $1",
        behind("ingested", ingested),
        behind("nacks", nacks)
    )
}

fn ahead(line: &Line) -> String {
    let Line { raw, ingested, nacks, .. } = line;
    let alone = |table: &str| {
        format!(
            "select record, id, 'in {table}' as place from {table} as behind where received_ms >= $1 \
             and not exists (select from {raw} as raw \
                where raw.record = behind.record and raw.received_ms >= $1::bigint - {DAY_MS})"
        )
    };
    format!("{} union all {}", alone(ingested), alone(nacks))
}

/// Compares the boundary.
pub(super) async fn compare<C: Content + PartialEq>(
    snapshot: &Snapshot<'_>,
    job: Job,
) -> Result<Comparison, ReconcileError> {
    let line = C::LINE;
    let mut comparison = Comparison::new(job);
    let mut pages = snapshot.pages(&stored(&line), true).await?;
    while let Some(page) = pages.next().await? {
        let mut absent = Vec::new();
        for row in &page {
            comparison.compared += 1;
            if let Some(record) = judge::<C>(row, &mut comparison).map_err(snapshot.unreadable())? {
                absent.push(record);
            }
        }
        let what = |id: &str| format!("{id} is neither in {} nor in {}", line.ingested, line.nacks);
        super::note_absent(snapshot, &mut comparison, ingestion::STAGE, absent, what).await?;
    }
    let told = |row: &Row| {
        let (record, id, place) = super::placed_row(row)?;
        comparison.ahead.add(record, || format!("{id} is {place} and not in {}", line.raw));
        Ok(())
    };
    snapshot.each(&ahead(&line), false, told).await?;
    Ok(comparison)
}

/// Compares what ingestion stored with what it would make now; gives the record if there is nothing and should be.
fn judge<C: Content + PartialEq>(
    row: &Row,
    comparison: &mut Comparison,
) -> Result<Option<Record<Parsed<C>>>, tokio_postgres::Error> {
    let expected: Record<Parsed<C>> = ingestion::parsed(replay::raw(row)?);
    let (content, refused): (Option<&str>, bool) =
        (row.try_get("content")?, row.try_get::<_, Option<&str>>("refusal")?.is_some());
    if content.is_none() && !refused {
        if row.try_get("young")? {
            comparison.under_way += 1;
            return Ok(None);
        }
        return Ok(Some(expected));
    }
    let difference = match (&expected.content, content, refused) {
        (Parsed::Valid(valid), Some(content), false) => content_difference(row, &expected, valid, content)?,
        (Parsed::Nack(refusal, text), None, true) => nack_difference(row, &expected, refusal, text)?,
        (_, Some(_), true) => Some("is both among ingestion's valid ones and among its refused ones"),
        (Parsed::Valid(_), ..) => Some("was refused by ingestion, and is valid"),
        (Parsed::Nack(..) | Parsed::Probe, ..) => Some("was taken by ingestion, and is not valid"),
    };
    if let Some(difference) = difference {
        comparison.differs.add(expected.record, || format!("{} {difference}", expected.id));
    }
    Ok(None)
}

/// A message that came again after inbound's row of it was lost has a later time there, and no other one.
///
/// Compared as values: a later version of this program may write the same thing with other spaces or digits.
fn content_difference<C: Content + PartialEq>(
    row: &Row,
    record: &Record<Parsed<C>>,
    expected: &C,
    stored: &str,
) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let (id, received_ms): (&str, i64) = (row.try_get("ingested_id")?, row.try_get("ingested_ms")?);
    Ok(match serde_json::from_str::<C>(stored) {
        Ok(content) if content != *expected => {
            Some("has another content among ingestion's valid ones than its message says")
        }
        Err(_) => Some("has a content among ingestion's valid ones that cannot be read"),
        Ok(_) if id != record.id || received_ms > record.received_ms => {
            Some("has another id or time among ingestion's valid ones than inbound stored")
        }
        Ok(_) => None,
    })
}

fn nack_difference<C>(
    row: &Row,
    record: &Record<Parsed<C>>,
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
        Some("has another reason among ingestion's refused ones than its message gives")
    } else if row.try_get::<_, &str>("nack_body")? != ingestion::storable(text) {
        Some("has another text among ingestion's refused ones than inbound stored")
    } else if id != record.id || received_ms > record.received_ms {
        Some("has another id or time among ingestion's refused ones than inbound stored")
    } else {
        None
    })
}
