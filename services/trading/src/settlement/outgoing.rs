//! Settlements for the other application: rows that egress writes and outbound sends.
//!
//! They are rows, and not messages in a queue, because the other application's broker may be away for as long as it takes
//! to move it: nothing else waits for it, and what is unsent moves with the database.

use std::borrow::Borrow;
use std::time::Duration;

use services_common::amqp::{Outgoing, grant_headers};
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::trace::{Traceparent, traced};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Settlement, SettlementStatus, resend};
use crate::core::relay::{Route, Take, Unsent};
use crate::names::Application;
use crate::{ids, outbound, trace};

/// A settlement, or a refusal of one, as the other application will see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Made {
    /// Equal for each repetition.
    pub(crate) message_id: Uuid,
    /// Correlation id.
    pub(crate) id: String,
    pub(crate) status: &'static str,
    pub(crate) body: String,
    /// That of the trade's side, or of the settlement that is answered.
    pub(crate) traceparent: Option<Traceparent>,
}

impl Made {
    /// A settlement with a status.
    pub(crate) fn of(
        settlement: &Settlement,
        status: SettlementStatus,
        traceparent: Option<Traceparent>,
    ) -> Self {
        Self {
            message_id: settlement.message_id(status),
            id: settlement.id(),
            status: status.word(),
            body: settlement.text(status),
            traceparent,
        }
    }
}

/// Where what was made is noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noted {
    /// As to be sent, once.
    Sending,
    /// And as to come back.
    Returning,
}

const INSERT: &str = "insert into trading.outgoing_settlements (message_id, id, status, body, traceparent) \
    select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) order by 1 on conflict do nothing";

/// Only what is new has not come back: of a repeat it is not known here. Of one whose row was lost it may be known.
const INSERT_RETURNING: &str = "with fresh as ( \
        insert into trading.outgoing_settlements (message_id, id, status, body, traceparent) \
        select * from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[]) order by 1 on conflict do nothing \
        returning message_id) \
    insert into trading.unreturned (message_id) select message_id from fresh on conflict do nothing";

/// Writes settlements to be sent; those that are there already stay as they are.
///
/// # Errors
/// The database.
pub(crate) async fn insert(
    unit: &Guarded<'_>,
    made: &[impl Borrow<Made>],
    noted: Noted,
) -> Result<(), DbError> {
    let made: Vec<&Made> = made.iter().map(Borrow::borrow).collect();
    if made.is_empty() {
        return Ok(());
    }
    let messages: Vec<Uuid> = made.iter().map(|one| one.message_id).collect();
    let ids: Vec<&str> = made.iter().map(|one| one.id.as_str()).collect();
    let statuses: Vec<&str> = made.iter().map(|one| one.status).collect();
    let bodies: Vec<&str> = made.iter().map(|one| one.body.as_str()).collect();
    let traces = trace::column(made.iter().map(|one| one.traceparent));
    let insert = match noted {
        Noted::Sending => INSERT,
        Noted::Returning => INSERT_RETURNING,
    };
    let statement = unit.transaction().prepare_cached(insert).await?;
    unit.transaction().execute(&statement, &[&messages, &ids, &statuses, &bodies, &traces]).await?;
    Ok(())
}

const SENT: &str = "update trading.outgoing_settlements set sent_at = clock_timestamp() where seq = any($1)";

/// A settlement may be back, and core about to strike it off the list, before this commits: both lock in the order of ids. Past
/// the end of the delays in $2 there is none, and so no time at which it is due.
const SENT_AND_AWAITED: &str = "with sent as ( \
        update trading.outgoing_settlements set sent_at = clock_timestamp() where seq = any($1) \
        returning message_id), \
     awaited as ( \
        select message_id from trading.unreturned where message_id = any(array(select message_id from sent)) \
        order by message_id for update) \
     update trading.unreturned set attempts = attempts + 1, \
        due = clock_timestamp() + make_interval(secs => ($2::double precision[])[attempts + 1]) \
     where message_id = any(array(select message_id from awaited))";

/// The way from the table to the other application's broker. Trade matching sends again `resend_after` what has not come back.
pub(crate) fn route(application: Application, resend_after: Duration) -> Route {
    let messages: fn(&[Row], &Grant) -> Result<Unsent, DbError> = match application {
        Application::TradeMatching => |rows, grant| messages(Application::TradeMatching, rows, grant),
        Application::Settlement => |rows, grant| messages(Application::Settlement, rows, grant),
    };
    let (mark, due_after) = match application {
        Application::TradeMatching => (SENT_AND_AWAITED, Some(resend::delays(resend_after))),
        Application::Settlement => (SENT, None),
    };
    Route {
        queue: application.peer_queue(),
        take: Take::Rows(
            "select seq, message_id, id, body, traceparent from trading.outgoing_settlements where sent_at is null \
             order by seq limit $1 for update skip locked",
        ),
        mark,
        due_after,
        messages,
        foreign: true,
    }
}

fn messages(application: Application, rows: &[Row], grant: &Grant) -> Result<Unsent, DbError> {
    let headers = grant_headers(grant);
    let mut unsent = Unsent::default();
    for row in rows {
        let (message_id, id): (Uuid, &str) = (row.try_get("message_id")?, row.try_get("id")?);
        let traceparent = trace::read(row)?;
        let trace_id = traceparent.map_or_else(|| ids::trace(id), Traceparent::trace_id);
        trace::sent(outbound::STAGE, trace_id, message_id, id);
        unsent.numbers.push(row.try_get("seq")?);
        unsent.messages.push(Outgoing {
            exchange: application.peer_queue().to_owned(),
            body: row.try_get::<_, &str>("body")?.as_bytes().to_vec(),
            message_id: message_id.to_string(),
            correlation_id: Some(id.to_owned()),
            headers: traced(&headers, traceparent),
            user_id: None,
        });
    }
    Ok(unsent)
}
