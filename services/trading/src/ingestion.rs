//! Ingestion: from raw text to a validated trade or settlement, or to a refusal that names the field.

use std::marker::PhantomData;

use lapin::message::Delivery;
use matching::Status;
use serde::Serialize;
use serde::de::DeserializeOwned;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use tokio_postgres::types::ToSql;

use crate::envelope::{Parsed, Raw, Record, pack, unpack};
use crate::message::{Trade, json};
use crate::names::Line;
use crate::parse::Refusal;
use crate::{names, parse, store, trace};

/// Name of the stage in quarantine and probes.
pub(crate) const STAGE: &str = "ingestion";

/// What a line carries, once it is valid.
pub(crate) trait Content: Clone + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// The line.
    const LINE: Line;

    /// Reads a message.
    ///
    /// # Errors
    /// The first thing that is wrong with it.
    fn read(text: &str, id: &str, received_ms: i64) -> Result<Self, Refusal>;

    /// The message again, for a sender who must be told that it was not taken.
    fn text(&self) -> String;
}

impl Content for Trade {
    const LINE: Line = names::TRADES;

    fn read(text: &str, id: &str, _received_ms: i64) -> Result<Self, Refusal> {
        parse::trade(text, id)
    }

    fn text(&self) -> String {
        self.text(Status::Unmatched)
    }
}

/// The ingestion stage of a line.
pub(crate) struct Ingestion<C>(PhantomData<fn() -> C>);

impl<C> Default for Ingestion<C> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<C: Content> Stage for Ingestion<C> {
    type Record = Record<Parsed<C>>;

    fn queue(&self) -> &'static str {
        C::LINE.ingestion
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Record<Parsed<C>>>, String> {
        Ok(unpack::<Raw>(message)?.into_iter().map(parsed).collect())
    }

    async fn store(
        &self,
        unit: &Guarded<'_>,
        records: &[Record<Parsed<C>>],
    ) -> Result<Vec<Outgoing>, DbError> {
        store::probes_passed(unit, STAGE, &store::records_where(records, Parsed::is_probe)).await?;
        insert_valid(unit, records).await?;
        insert_nacks(unit, records).await?;
        trace::passed(STAGE, records);
        Ok(pack(C::LINE.core, records, unit.grant()))
    }

    /// Core answers with the refusal. Nothing but the quarantine is written here: if the refusal is lost on its
    /// way, replay sends the raw message again and it ends here again.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Record<Parsed<C>>,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::set_apart(unit, STAGE, record, reason).await?;
        Ok(pack(C::LINE.core, &[unstorable(record)], unit.grant()))
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }
}

/// Reads one record. A function of the record alone, so that a repeat gives the same.
pub(crate) fn parsed<C: Content>(raw: Record<Raw>) -> Record<Parsed<C>> {
    let (id, received_ms) = (raw.id.clone(), raw.received_ms);
    raw.with(|content| match content {
        Raw::Text(text) => match C::read(&text, &id, received_ms) {
            Ok(content) => Parsed::Valid(Box::new(content)),
            Err(refusal) => Parsed::Nack(refusal, text),
        },
        Raw::Refused(refusal, text) => Parsed::Nack(refusal, text),
        Raw::Probe => Parsed::Probe,
    })
}

/// A record that the database refuses, as a refusal. One that was refused before keeps its reason.
fn unstorable<C: Content>(record: &Record<Parsed<C>>) -> Record<Parsed<C>> {
    let content = match &record.content {
        Parsed::Valid(content) => Parsed::Nack(Refusal::unstorable(record.record), content.text()),
        Parsed::Nack(..) | Parsed::Probe => record.content.clone(),
    };
    Record { content, ..record.clone() }
}

/// PostgreSQL's text cannot hold the zero character; the raw bytes are in inbound's store.
pub(crate) fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

async fn insert_valid<C: Content>(unit: &Guarded<'_>, records: &[Record<Parsed<C>>]) -> Result<(), DbError> {
    let (mut keys, mut ids, mut received, mut contents) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for record in records {
        if let Parsed::Valid(content) = &record.content {
            keys.push(record.record);
            ids.push(record.id.as_str());
            received.push(record.received_ms);
            contents.push(json(content));
        }
    }
    if keys.is_empty() {
        return Ok(());
    }
    let insert = format!(
        "insert into {} (record, id, received_ms, content) \
         select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[]) order by 1 \
         on conflict do nothing",
        C::LINE.ingested
    );
    let statement = unit.transaction().prepare_cached(&insert).await?;
    unit.transaction().execute(&statement, &[&keys, &ids, &received, &contents]).await?;
    Ok(())
}

async fn insert_nacks<C: Content>(unit: &Guarded<'_>, records: &[Record<Parsed<C>>]) -> Result<(), DbError> {
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
    let insert = format!(
        "insert into {} (record, id, received_ms, code, field, description, refusal, body) \
         select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::text[], \
            $7::text[], $8::text[]) order by 1 \
         on conflict do nothing",
        C::LINE.nacks
    );
    let statement = unit.transaction().prepare_cached(&insert).await?;
    let values: [&(dyn ToSql + Sync); 8] =
        [&keys, &ids, &received, &codes, &fields, &descriptions, &refusals, &bodies];
    unit.transaction().execute(&statement, &values).await?;
    Ok(())
}
