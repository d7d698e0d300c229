//! What the parts of the pipeline carry, made from the customer's own messages: the same texts, records and answers.

use jiff::civil::date;
use matching::Status;
use serde::{Deserialize, Serialize};
use services_common::amqp::Outgoing;
use trading::envelope::{Decided, Emitted, Parsed, Raw, Record};
use trading::generate::Scenario;
use trading::message::{Response, Trade, json};
use trading::parse;
use uuid::Uuid;

use crate::load::Workload;

/// Sides in the sample: whole pairs, with all of their counterparts.
const SIDES: usize = 1_000;

/// One side, as each hop and each store has it.
pub(crate) struct Side {
    /// What the customer sends.
    pub(crate) text: String,
    pub(crate) raw: Record<Raw>,
    pub(crate) trade: Trade,
    pub(crate) parsed: Record<Parsed>,
    pub(crate) decided: Record<Decided>,
    pub(crate) emitted: Record<Emitted>,
    pub(crate) response: Response,
}

/// A message between stages.
#[derive(Serialize, Deserialize)]
pub(crate) struct Envelope<R> {
    pub(crate) records: R,
}

/// Sides of a workload.
pub(crate) fn sides(workload: Workload, seed: u64) -> Vec<Side> {
    let mut scenario = Scenario::new(seed, 0.0, date(2026, 2, 9)).with(workload.mix());
    let mut messages: Vec<_> = (0..SIDES).map(|_| scenario.next_message()).collect();
    messages.extend(scenario.close());
    messages.iter().filter_map(|message| side(message.correlation_id.as_deref()?, &message.body)).collect()
}

fn side(id: &str, body: &[u8]) -> Option<Side> {
    let text = String::from_utf8(body.to_vec()).ok()?;
    let trade = parse::trade(&text, id).ok()?;
    let (record, received_ms) = (Uuid::new_v4(), 1_770_000_000_000);
    let description = "MATCHED: both parties reported the same terms".to_owned();
    let response = Response {
        id: id.to_owned(),
        timestamp: received_ms,
        status: Status::Matched.word().to_owned(),
        description: description.clone(),
        destination: trade.sender.clone(),
        message: trade.text(Status::Matched),
    };
    let told = Decided::Told { content: Box::new(trade.clone()), status: Status::Matched, description };
    Some(Side {
        raw: of(record, id, received_ms, Raw::Text(text.clone())),
        parsed: of(record, id, received_ms, Parsed::Valid(Box::new(trade.clone()))),
        decided: decided(of(record, id, received_ms, told)),
        emitted: decided(of(record, id, received_ms, Emitted::Answer(response.clone()))),
        text,
        trade,
        response,
    })
}

/// As it travels from core on.
fn decided<C>(record: Record<C>) -> Record<C> {
    Record { caused_ms: Some(record.received_ms), ..record }
}

fn of<C>(record: Uuid, id: &str, received_ms: i64, content: C) -> Record<C> {
    Record { record, id: id.to_owned(), received_ms, caused_ms: None, content, traceparent: None }
}

/// The bytes that pass each hop with so many sides in one message, from the customer to the customer.
pub(crate) fn bodies(sides: &[Side], records: usize) -> [Vec<u8>; 6] {
    let sides = &sides[..records.min(sides.len())];
    [
        sides[0].text.clone().into_bytes(),
        envelope(sides.iter().map(|side| &side.raw)),
        envelope(sides.iter().map(|side| &side.parsed)),
        envelope(sides.iter().map(|side| &side.decided)),
        envelope(sides.iter().map(|side| &side.emitted)),
        json(&sides[0].response).into_bytes(),
    ]
}

pub(crate) fn envelope<'a, C: Serialize + 'a>(records: impl Iterator<Item = &'a Record<C>>) -> Vec<u8> {
    json(&Envelope { records: records.collect::<Vec<_>>() }).into_bytes()
}

/// A message for an exchange, with an id and the headers that the stages' messages have.
pub(crate) fn outgoing(exchange: &str, body: Vec<u8>, headers: &lapin::types::FieldTable) -> Outgoing {
    Outgoing {
        exchange: exchange.to_owned(),
        body,
        message_id: Uuid::new_v4().to_string(),
        correlation_id: None,
        headers: headers.clone(),
        user_id: None,
    }
}
