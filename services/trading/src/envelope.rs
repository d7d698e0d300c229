//! Messages between stages: many records in one, because cost is per message.

use lapin::message::Delivery;
use lapin::types::FieldTable;
use matching::Status;
use serde::{Deserialize, Serialize};
use services_common::amqp::{Outgoing, grant_headers};
use services_common::postgres::Grant;
use services_common::trace::{self, TraceId, Traceparent};
use uuid::Uuid;

use crate::ids;
use crate::message::{Response, Trade, json};
use crate::parse::Refusal;

/// Records in one envelope at most.
const RECORDS_MAX: usize = 200;
/// Bytes in one envelope, about: a larger one is split before it.
const BYTES_MAX: usize = 512 * 1024;

/// A record on its way between stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record<C> {
    /// Digest of the customer's message; from core on, the message id of the answer.
    pub record: Uuid,
    /// The customer's id.
    pub id: String,
    /// When inbound took it, in milliseconds since 1970.
    pub received_ms: i64,
    /// From core on, when inbound took the message that this follows from: of two reports that met, the later one. Tells the
    /// day on which stores keep it. Absent before core, of probes, and in what an older version sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caused_ms: Option<i64>,
    /// What the sending stage made of it.
    pub content: C,
    /// The trace that it belongs to, if its sender named one.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "trace::lenient")]
    pub traceparent: Option<Traceparent>,
}

impl<C> Record<C> {
    /// The same with a part of what the sending stage made of it, or with what becomes of it.
    pub fn with<D>(self, content: impl FnOnce(C) -> D) -> Record<D> {
        let Self { record, id, received_ms, caused_ms, traceparent, .. } = self;
        Record { record, id, received_ms, caused_ms, content: content(self.content), traceparent }
    }

    /// The trace by which logs tell of it: the one that its sender named, or else one for all that is said of its id.
    pub fn trace_id(&self) -> TraceId {
        self.traceparent.map_or_else(|| ids::trace(&self.id), Traceparent::trace_id)
    }
}

impl<C: Serialize> Record<C> {
    /// Its text where it is set apart: the same record is the same whatever trace it came with.
    pub fn apart(&self) -> String {
        let Self { record, id, received_ms, content, .. } = self;
        json(&Record {
            record: *record,
            id: id.clone(),
            received_ms: *received_ms,
            caused_ms: None,
            content,
            traceparent: None,
        })
    }
}

impl<C> Record<C> {
    /// The time that says on which day stores keep it.
    pub fn caused_ms(&self) -> i64 {
        self.caused_ms.unwrap_or(self.received_ms)
    }
}

/// What inbound sends: the text as it came.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Raw {
    /// To be parsed.
    Text(String),
    /// Refused by inbound already, with what there is of the text.
    Refused(Refusal, String),
    /// A probe: passes all stages, means nothing.
    Probe,
}

/// What ingestion sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parsed<C = Trade> {
    /// A valid trade or settlement.
    Valid(Box<C>),
    /// A refusal, with the refused text.
    Nack(Refusal, String),
    /// A probe.
    Probe,
}

impl<C> Parsed<C> {
    /// Whether it means nothing and is only to pass.
    pub fn is_probe(&self) -> bool {
        matches!(self, Self::Probe)
    }
}

/// What core sends: something that was decided and is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Decided<C = Trade> {
    /// A trade or settlement that reached a status.
    Told {
        /// What its sender reported.
        content: Box<C>,
        /// Its status.
        status: Status,
        /// Reason codes and their meaning.
        description: String,
    },
    /// A message that was refused.
    Nack {
        /// Who sent it.
        destination: String,
        /// Reason code, field, what was expected.
        description: String,
        /// The refused text.
        text: String,
    },
    /// A probe.
    Probe,
}

/// What egress sends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Emitted {
    /// An answer, as the customer will see it.
    Answer(Response),
    /// A probe.
    Probe,
}

impl<C> Decided<C> {
    /// Whether it means nothing and is only to pass.
    pub fn is_probe(&self) -> bool {
        matches!(self, Self::Probe)
    }
}

impl Emitted {
    /// Whether it means nothing and is only to pass.
    pub fn is_probe(&self) -> bool {
        matches!(self, Self::Probe)
    }
}

/// One message between stages.
#[derive(Debug, Serialize, Deserialize)]
struct Envelope<R> {
    records: R,
}

/// Packs records into as few messages as the limits allow.
pub fn pack<'a, C: Serialize + 'a>(
    exchange: &str,
    records: impl IntoIterator<Item = &'a Record<C>>,
    grant: &Grant,
) -> Vec<Outgoing> {
    let headers = grant_headers(grant);
    let mut messages = Vec::new();
    let records: Vec<&Record<C>> = records.into_iter().collect();
    let mut rest = records.as_slice();
    while !rest.is_empty() {
        let mut count = rest.len().min(RECORDS_MAX);
        let message = loop {
            let message = envelope(exchange, &rest[..count], &headers);
            if message.body.len() <= BYTES_MAX || count == 1 {
                break message;
            }
            count = count.div_ceil(2);
        };
        messages.push(message);
        rest = &rest[count..];
    }
    messages
}

fn envelope<C: Serialize>(exchange: &str, records: &[&Record<C>], headers: &FieldTable) -> Outgoing {
    let id = ids::envelope(exchange, records.iter().map(|record| record.record));
    Outgoing {
        exchange: exchange.to_owned(),
        body: json(&Envelope { records }).into_bytes(),
        message_id: id.to_string(),
        correlation_id: None,
        headers: headers.clone(),
        user_id: None,
    }
}

/// The records in one message.
///
/// # Errors
/// It is not an envelope of ours; the reason is for the quarantine.
pub fn unpack<C: for<'a> Deserialize<'a>>(delivery: &Delivery) -> Result<Vec<Record<C>>, String> {
    let envelope: Envelope<Vec<Record<C>>> = serde_json::from_slice(&delivery.data)
        .map_err(|error| format!("not an envelope of records: {error}"))?;
    Ok(envelope.records)
}
