//! Ingestion: from raw text to a validated trade, or to a refusal that names the field.

use lapin::message::Delivery;
use matching::Status;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use tokio_postgres::types::ToSql;

use crate::envelope::{Parsed, Raw, Record, pack, unpack};
use crate::message::json;
use crate::parse::Refusal;
use crate::{names, parse, store};

/// Name of the stage in quarantine and probes.
pub(crate) const STAGE: &str = "ingestion";

/// The ingestion stage.
pub(crate) struct Ingestion;

impl Stage for Ingestion {
    type Record = Record<Parsed>;

    fn queue(&self) -> &'static str {
        names::INGESTION
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Record<Parsed>>, String> {
        Ok(unpack::<Raw>(message)?.into_iter().map(parsed).collect())
    }

    async fn store(&self, unit: &Guarded<'_>, records: &[Record<Parsed>]) -> Result<Vec<Outgoing>, DbError> {
        store::probes_passed(unit, STAGE, &store::records_where(records, Parsed::is_probe)).await?;
        insert_trades(unit, records).await?;
        insert_nacks(unit, records).await?;
        Ok(pack(names::CORE, records, unit.grant()))
    }

    /// Core answers with the refusal. Nothing but the quarantine is written here: if the refusal is lost on its
    /// way, replay sends the raw message again and it ends here again.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Record<Parsed>,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::quarantine(unit, STAGE, json(record).as_bytes(), reason).await?;
        Ok(pack(names::CORE, &[unstorable(record)], unit.grant()))
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }
}

/// Reads one record. A function of the record alone, so that a repeat gives the same.
pub(crate) fn parsed(raw: Record<Raw>) -> Record<Parsed> {
    let content = match raw.content {
        Raw::Text(text) => match parse::trade(&text, &raw.id) {
            Ok(trade) => Parsed::Trade(Box::new(trade)),
            Err(refusal) => Parsed::Nack(refusal, text),
        },
        Raw::Refused(refusal, text) => Parsed::Nack(refusal, text),
        Raw::Probe => Parsed::Probe,
    };
    Record { record: raw.record, id: raw.id, received_ms: raw.received_ms, content }
}

/// A record that the database refuses, as a refusal. One that was refused before keeps its reason.
fn unstorable(record: &Record<Parsed>) -> Record<Parsed> {
    let content = match &record.content {
        Parsed::Trade(trade) => {
            Parsed::Nack(Refusal::unstorable(record.record), trade.text(Status::Unmatched))
        }
        Parsed::Nack(..) | Parsed::Probe => record.content.clone(),
    };
    Record { content, ..record.clone() }
}

/// PostgreSQL's text cannot hold the zero character; the raw bytes are in inbound's store.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

async fn insert_trades(unit: &Guarded<'_>, records: &[Record<Parsed>]) -> Result<(), DbError> {
    let (mut keys, mut ids, mut received, mut trades) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for record in records {
        if let Parsed::Trade(trade) = &record.content {
            keys.push(record.record);
            ids.push(record.id.as_str());
            received.push(record.received_ms);
            trades.push(json(trade));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let statement = unit
        .transaction()
        .prepare_cached(
            "insert into trading.ingested (record, id, received_ms, trade) \
             select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) order by 1 \
             on conflict (record) do nothing",
        )
        .await?;
    unit.transaction().execute(&statement, &[&keys, &ids, &received, &trades]).await?;
    Ok(())
}

async fn insert_nacks(unit: &Guarded<'_>, records: &[Record<Parsed>]) -> Result<(), DbError> {
    let (mut keys, mut ids, mut received) = (Vec::new(), Vec::new(), Vec::new());
    let (mut codes, mut fields, mut descriptions) = (Vec::new(), Vec::new(), Vec::new());
    let (mut refusals, mut bodies) = (Vec::new(), Vec::new());
    for record in records {
        if let Parsed::Nack(refusal, text) = &record.content {
            keys.push(record.record);
            ids.push(record.id.as_str());
            received.push(record.received_ms);
            codes.push(refusal.code.word());
            fields.push(refusal.field.as_deref());
            descriptions.push(refusal.description());
            refusals.push(json(refusal));
            bodies.push(storable(text));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let statement = unit
        .transaction()
        .prepare_cached(
            "insert into trading.nacks (record, id, received_ms, code, field, description, refusal, body) \
             select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
                $7::text[], $8::text[]) order by 1 \
             on conflict (record) do nothing",
        )
        .await?;
    let values: [&(dyn ToSql + Sync); 8] =
        [&keys, &ids, &received, &codes, &fields, &descriptions, &refusals, &bodies];
    unit.transaction().execute(&statement, &values).await?;
    Ok(())
}
