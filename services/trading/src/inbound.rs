//! The inbound gateway: takes customers' messages, stores each as it came before acknowledging it, passes it on.

use std::collections::HashMap;

use lapin::message::Delivery;
use services_common::amqp::Outgoing;
use services_common::clock;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::{Stage, Stored};
use uuid::Uuid;

use crate::envelope::{Raw, Record, pack};
use crate::message::json;
use crate::parse::{Refusal, RefusalCode};
use crate::{ids, names, store};

/// Largest message that is taken, in bytes.
pub(crate) const BODY_MAX: usize = 64 * 1024;
/// What is kept of a larger one.
const OVERSIZED_KEPT: usize = 1024;
/// Longest id of a customer: three names of 20, a trade number of 10, three dashes.
const ID_MAX: usize = 73;
/// Name of the stage in quarantine and probes.
const STAGE: &str = "inbound";

/// The inbound stage.
pub(crate) struct Inbound {
    /// Broker user whose messages are probes; the broker vouches for the sender's name.
    pub(crate) probe_user: String,
}

/// One customer message, looked at without parsing it.
struct Taken {
    record: Uuid,
    id: String,
    body: Vec<u8>,
    refusal: Option<Refusal>,
}

enum Seen {
    Message(Taken),
    Probe(Uuid),
    Unattributable(&'static str),
}

impl Inbound {
    fn look(&self, delivery: &Delivery) -> Seen {
        let properties = &delivery.properties;
        let id = properties.correlation_id().as_ref().map(|id| id.as_str()).unwrap_or_default();
        if properties.user_id().as_ref().is_some_and(|user| user.as_str() == self.probe_user) {
            return Uuid::parse_str(id).map_or(Seen::Unattributable("a probe without an id"), Seen::Probe);
        }
        if id.is_empty() {
            return Seen::Unattributable("no correlation id: nobody to answer to");
        }
        if id.len() > ID_MAX || id.chars().any(char::is_control) {
            return Seen::Unattributable(
                "the correlation id is longer than 73 bytes or holds control characters",
            );
        }
        let (body, refusal) = if delivery.data.len() > BODY_MAX {
            let expected = format!("has {} bytes, at most {BODY_MAX} are taken", delivery.data.len());
            let kept = delivery.data[..OVERSIZED_KEPT].to_vec();
            (kept, Some(Refusal::whole(RefusalCode::Oversized, expected)))
        } else if std::str::from_utf8(&delivery.data).is_err() {
            (delivery.data.clone(), Some(Refusal::whole(RefusalCode::NotText, "must be UTF-8")))
        } else {
            (delivery.data.clone(), None)
        };
        let record = ids::record(id, &delivery.data);
        Seen::Message(Taken { record, id: id.to_owned(), body, refusal })
    }
}

impl Stage for Inbound {
    fn queue(&self) -> &'static str {
        names::IN
    }

    fn needs(&self) -> Needs {
        Needs::Intake
    }

    fn batch_limit(&self) -> usize {
        500
    }

    async fn store(&self, unit: &Guarded<'_>, batch: &[Delivery]) -> Result<Stored, DbError> {
        let now_ms = clock::now().as_millisecond();
        let (mut taken, mut probes, mut quarantined) = (Vec::new(), Vec::new(), 0);
        for delivery in batch {
            match self.look(delivery) {
                Seen::Message(message) => taken.push(message),
                Seen::Probe(probe) => probes.push(probe),
                Seen::Unattributable(reason) => {
                    store::quarantine(unit, STAGE, &delivery.data, reason).await?;
                    quarantined += 1;
                }
            }
        }
        store::probes_passed(unit, STAGE, &probes).await?;
        let received = insert(unit, &taken, now_ms).await?;
        let records: Vec<_> = taken
            .into_iter()
            .map(|message| {
                let received_ms = received.get(&message.record).copied().unwrap_or(now_ms);
                let text = String::from_utf8_lossy(&message.body).into_owned();
                record(message.record, message.id, received_ms, text, message.refusal)
            })
            .chain(probes.into_iter().map(|probe| Record {
                record: probe,
                id: probe.to_string(),
                received_ms: now_ms,
                content: Raw::Probe,
            }))
            .collect();
        let onward: Vec<Outgoing> = pack(names::INGESTION, &records, unit.grant());
        Ok(Stored { onward, quarantined })
    }

    async fn quarantine(&self, unit: &Guarded<'_>, message: &Delivery, reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, &message.data, reason).await
    }
}

/// The record that inbound sends for a stored message; replay builds the same one.
pub(crate) fn record(
    record: Uuid,
    id: String,
    received_ms: i64,
    text: String,
    refusal: Option<Refusal>,
) -> Record<Raw> {
    let content = match refusal {
        Some(refusal) => Raw::Refused(refusal, text),
        None => Raw::Text(text),
    };
    Record { record, id, received_ms, content }
}

const INSERT: &str = "with given as ( \
        select distinct on (record) * \
          from unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[]) as given (record, id, body, defect) \
         order by record), \
    fresh as ( \
        insert into trading.inbound_raw (record, correlation_id, received_ms, body, defect) \
        select record, id, $5, body, defect from given on conflict (record) do nothing returning record) \
    insert into trading.pending (record) select record from fresh";

/// Stores the messages; returns when those that were there already had been received first.
async fn insert(unit: &Guarded<'_>, taken: &[Taken], now_ms: i64) -> Result<HashMap<Uuid, i64>, DbError> {
    if taken.is_empty() {
        return Ok(HashMap::new());
    }
    let records: Vec<Uuid> = taken.iter().map(|message| message.record).collect();
    let ids: Vec<&str> = taken.iter().map(|message| message.id.as_str()).collect();
    let bodies: Vec<&[u8]> = taken.iter().map(|message| message.body.as_slice()).collect();
    let defects: Vec<Option<String>> =
        taken.iter().map(|message| message.refusal.as_ref().map(json)).collect();
    let statement = unit.transaction().prepare_cached(INSERT).await?;
    let fresh = unit.transaction().execute(&statement, &[&records, &ids, &bodies, &defects, &now_ms]).await?;
    if fresh == taken.len() as u64 {
        return Ok(HashMap::new());
    }
    let first = "select record, received_ms from trading.inbound_raw where record = any($1)";
    let statement = unit.transaction().prepare_cached(first).await?;
    let rows = unit.transaction().query(&statement, &[&records]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}
