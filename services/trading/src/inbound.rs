//! The inbound gateway: takes messages of a line, stores each as it came before acknowledging it, passes it on.

use std::collections::HashMap;

use lapin::message::Delivery;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use services_common::trace::Traceparent;
use services_common::{clock, wire};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::days::DAY_MS;
use crate::envelope::{Raw, Record, pack};
use crate::message::json;
use crate::names::Line;
use crate::parse::{Refusal, RefusalCode};
use crate::{ids, store, trace};

/// Largest message that is taken, in bytes.
pub(crate) const BODY_MAX: usize = 64 * 1024;
/// What is kept of a larger one.
const OVERSIZED_KEPT: usize = 1024;
/// Name of the stage in quarantine and probes.
pub(crate) const STAGE: &str = "inbound";

/// The inbound stage.
pub(crate) struct Inbound {
    /// What it takes, and where to.
    pub(crate) line: &'static Line,
    /// Broker user whose messages are probes; the broker vouches for the sender's name. `None` where no probe passes.
    pub(crate) probe_user: Option<String>,
}

/// A message, looked at without parsing it; or a probe.
pub(crate) enum Taken {
    Message(Message),
    Probe(Uuid),
}

/// One message with somebody to answer to.
pub(crate) struct Message {
    record: Uuid,
    id: String,
    body: Vec<u8>,
    refusal: Option<Refusal>,
    traceparent: Option<Traceparent>,
}

/// A message that its sender has given an id.
fn message(id: &str, data: &[u8], traceparent: Option<Traceparent>) -> Message {
    let (body, refusal) = if data.len() > BODY_MAX {
        let expected = format!("has {} bytes, at most {BODY_MAX} are taken", data.len());
        (&data[..OVERSIZED_KEPT], Some(Refusal::whole(RefusalCode::Oversized, expected)))
    } else if std::str::from_utf8(data).is_err() {
        (data, Some(Refusal::whole(RefusalCode::NotText, "must be UTF-8")))
    } else {
        (data, None)
    };
    Message { record: ids::record(id, data), id: id.to_owned(), body: body.to_vec(), refusal, traceparent }
}

impl Stage for Inbound {
    type Record = Taken;

    fn queue(&self) -> &'static str {
        self.line.input
    }

    fn needs(&self) -> Needs {
        Needs::Intake
    }

    fn batch_limit(&self) -> usize {
        500
    }

    fn read(&self, delivery: &Delivery) -> Result<Vec<Taken>, String> {
        let properties = &delivery.properties;
        let id = properties.correlation_id().as_ref().map(|id| id.as_str()).unwrap_or_default();
        let user = properties.user_id().as_ref().map(|user| user.as_str());
        if user.is_some() && user == self.probe_user.as_deref() {
            let probe = Uuid::parse_str(id).map_err(|_| "a probe without an id".to_owned())?;
            return Ok(vec![Taken::Probe(probe)]);
        }
        if id.is_empty() {
            return Err("no correlation id: nobody to answer to".into());
        }
        if id.contains(wire::SUBSTITUTE) {
            return Err("the correlation id is not UTF-8: nobody to answer to".into());
        }
        if id.chars().count() > self.line.id_max || id.chars().any(char::is_control) {
            return Err(format!(
                "the correlation id has more than {} characters or holds control characters",
                self.line.id_max
            ));
        }
        Ok(vec![Taken::Message(message(id, &delivery.data, Traceparent::of(delivery)))])
    }

    async fn store(&self, unit: &Guarded<'_>, taken: &[Taken]) -> Result<Vec<Outgoing>, DbError> {
        let now_ms = clock::now().as_millisecond();
        let (mut messages, mut probes) = (Vec::new(), Vec::new());
        for taken in taken {
            match taken {
                Taken::Message(message) => messages.push(message),
                Taken::Probe(probe) => probes.push(*probe),
            }
        }
        store::probes_passed(unit, STAGE, &probes).await?;
        let received = insert(unit, self.line, &messages, now_ms).await?;
        let records: Vec<_> = messages
            .into_iter()
            .map(|message| {
                // One that was there already is what it was when it came first.
                let new = (now_ms, message.traceparent);
                let (received_ms, traceparent) = received.get(&message.record).copied().unwrap_or(new);
                let text = String::from_utf8_lossy(&message.body).into_owned();
                let record =
                    record(message.record, message.id.clone(), received_ms, text, message.refusal.clone());
                Record { traceparent, ..record }
            })
            .chain(probes.into_iter().map(|probe| Record {
                record: probe,
                id: probe.to_string(),
                received_ms: now_ms,
                caused_ms: None,
                content: Raw::Probe,
                traceparent: None,
            }))
            .collect();
        trace::passed(STAGE, &records);
        Ok(pack(self.line.ingestion, &records, unit.grant()))
    }

    /// The body is stored as bytes, so what the database refuses here is the id: there is nobody to answer to.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        taken: &Taken,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        let (id, traceparent, body) = match taken {
            Taken::Message(message) => (message.id.as_str(), message.traceparent, message.body.as_slice()),
            Taken::Probe(probe) => ("", None, &probe.as_bytes()[..]),
        };
        let trace_id = traceparent.map_or_else(|| ids::trace(id), Traceparent::trace_id);
        store::quarantine_of(unit, STAGE, body, reason, (id, trace_id)).await?;
        Ok(Vec::new())
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
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
    Record { record, id, received_ms, caused_ms: None, content, traceparent: None }
}

fn insert_query(line: &Line) -> String {
    let Line { raw, pending, .. } = line;
    format!(
        "with given as ( \
            select distinct on (record) * \
              from unnest($1::uuid[], $2::text[], $3::bytea[], $4::text[], $8::text[]) \
                as given (record, id, body, defect, traceparent) \
             order by record), \
        known as ( \
            select record from {raw} where record = any($1) and received_ms >= $6 and received_ms < $7), \
        fresh as ( \
            insert into {raw} (record, correlation_id, received_ms, body, defect, traceparent) \
            select record, id, $5, body, defect, traceparent from given \
            where not exists (select from known where known.record = given.record) order by record \
            on conflict do nothing returning record, received_ms) \
        insert into {pending} (record, received_ms) select record, received_ms from fresh on conflict do nothing"
    )
}

/// Which of the records were received around now, when first, and with which trace. One that came longer ago is taken as new:
/// core tells what it is.
fn first_query(line: &Line) -> String {
    format!(
        "select distinct on (record) record, received_ms, traceparent from {} \
         where record = any($1) and received_ms >= $2 and received_ms < $3 order by record, received_ms",
        line.raw
    )
}

/// The days on which a message that comes now may have come before: today, yesterday, and tomorrow by another clock.
fn around(now_ms: i64) -> (i64, i64) {
    let today = now_ms - now_ms.rem_euclid(DAY_MS);
    (today - DAY_MS, today + 2 * DAY_MS)
}

/// When a message was received first, and the trace that it came with.
type First = (i64, Option<Traceparent>);

/// Stores the messages; returns the first ones of those that were there already.
async fn insert(
    unit: &Guarded<'_>,
    line: &Line,
    messages: &[&Message],
    now_ms: i64,
) -> Result<HashMap<Uuid, First>, DbError> {
    if messages.is_empty() {
        return Ok(HashMap::new());
    }
    let records: Vec<Uuid> = messages.iter().map(|message| message.record).collect();
    let ids: Vec<&str> = messages.iter().map(|message| message.id.as_str()).collect();
    let bodies: Vec<&[u8]> = messages.iter().map(|message| message.body.as_slice()).collect();
    let defects: Vec<Option<String>> =
        messages.iter().map(|message| message.refusal.as_ref().map(json)).collect();
    let (from_ms, to_ms) = around(now_ms);
    let traces: Vec<Option<String>> = trace::column(messages.iter().map(|message| message.traceparent));
    let statement = unit.transaction().prepare_cached(&insert_query(line)).await?;
    let values: [&(dyn ToSql + Sync); 8] =
        [&records, &ids, &bodies, &defects, &now_ms, &from_ms, &to_ms, &traces];
    let fresh = unit.transaction().execute(&statement, &values).await?;
    if fresh == messages.len() as u64 {
        return Ok(HashMap::new());
    }
    let statement = unit.transaction().prepare_cached(&first_query(line)).await?;
    let rows = unit.transaction().query(&statement, &[&records, &from_ms, &to_ms]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, trace::read(row)?)))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_may_have_come_yesterday_or_by_a_clock_that_is_ahead_tomorrow_on_both_sides_of_midnight() {
        let days = |from: i64, to: i64| (from * DAY_MS, to * DAY_MS);
        assert_eq!(around(100 * DAY_MS - 1), days(98, 101));
        assert_eq!(around(100 * DAY_MS), days(99, 102));
        assert_eq!(around(-1), days(-2, 1), "a clock before 1970");
    }
}
