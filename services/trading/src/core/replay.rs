//! Replay: sends again what inbound has stored and core has not decided, and what core has decided and no customer's queue
//! has. Work grows with what is missing.

use serde::Serialize;
use serde::de::DeserializeOwned;
use services_common::amqp::Publisher;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, StageError};
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Subject, relay};
use crate::days::DAY_MS;
use crate::envelope::{Decided, Emitted, Parsed, Raw, Record, pack};
use crate::ingestion::Content;
use crate::message::Trade;
use crate::names::Line;
use crate::parse::{Refusal, RefusalCode};
use crate::settlement::{Back, Settlement};
use crate::{egress, inbound, names, trace};

/// Records in one page.
const PAGE: i64 = 500;

/// How many records were sent again, and to where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Replayed {
    /// Stored by inbound, unknown to ingestion.
    pub(crate) to_ingestion: usize,
    /// Stored by ingestion, not decided by core.
    pub(crate) to_core: usize,
    /// Decided by core, unknown to egress.
    pub(crate) to_egress: usize,
    /// Stored by egress, not in the customers' queue.
    pub(crate) to_outbound: usize,
}

fn pending_query(line: &Line) -> String {
    let Line { raw, pending, ingested, nacks, .. } = line;
    // The list says on which days the rest is, so that no other one is looked into.
    let there = |name: &str, table: &str| {
        format!(
            "left join {table} as {name} on {name}.record = page.record \
                and {name}.received_ms / {DAY_MS} = page.received_ms / {DAY_MS} \
                and {name}.received_ms >= (select min(received_ms) from page) - {DAY_MS}"
        )
    };
    format!(
        "with page as materialized ( \
            select record, received_ms from {pending} where record > $1 order by record limit $2) \
         select page.record, raw.correlation_id, raw.received_ms, raw.body, raw.defect, raw.traceparent, \
            ingested.content, nacks.refusal, nacks.body as nack_body \
         from page \
         {} {} {} \
         order by page.record",
        there("raw", raw),
        there("ingested", ingested),
        there("nacks", nacks)
    )
}

/// Sent ones only: the relay sends the others by itself.
const UNANSWERED: &str = "with page as materialized ( \
        select message_id, caused_ms from trading.unanswered where message_id > $1 order by message_id limit $2) \
     select page.message_id, outbox.id, outbox.received_ms, outbox.caused_ms, outbox.body, outbox.traceparent, \
        egressed.message_id is not null as egressed, \
        outbox.seq is not null and not exists (select from trading.unsent where unsent.seq = outbox.seq) as sent \
     from page \
     left join trading.outbox on outbox.message_id = page.message_id and outbox.caused_ms = page.caused_ms \
        and outbox.caused_ms >= (select min(caused_ms) from page) \
     left join trading.egressed on egressed.message_id = page.message_id and egressed.caused_ms = page.caused_ms \
        and egressed.caused_ms >= (select min(caused_ms) from page) \
     order by page.message_id";

/// In the settlement application egress takes what it has stored off the list.
const UNRETURNED: &str = "with page as materialized ( \
        select message_id, caused_ms from trading.unanswered where message_id > $1 order by message_id limit $2) \
     select page.message_id, outbox.id, outbox.received_ms, outbox.caused_ms, outbox.body, outbox.traceparent, \
        outbox.seq is not null and not exists (select from trading.unsent where unsent.seq = outbox.seq) as sent \
     from page \
     left join trading.outbox on outbox.message_id = page.message_id and outbox.caused_ms = page.caused_ms \
        and outbox.caused_ms >= (select min(caused_ms) from page) \
     order by page.message_id";

/// Which application's records are sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Trades; and settlements that came back, where there are any.
    TradeMatching {
        /// Whether matched trades are settled.
        settlements: bool,
    },
    /// Settlements.
    Settlement,
}

/// Sends every record that is on its way into the stage that it did not reach, through the normal path.
///
/// # Errors
/// Database or broker; what was sent by then is harmless, and calling again completes it.
pub(crate) async fn replay(deps: &StageDeps, grant: &Grant, whose: Whose) -> Result<Replayed, StageError> {
    let replayer = Replayer { deps, grant, publisher: deps.broker.publisher().await? };
    let mut replayed = Replayed::default();
    match whose {
        Whose::TradeMatching { settlements } => {
            replayer.pending::<Trade>(&mut replayed).await?;
            if settlements {
                replayer.pending::<Back>(&mut replayed).await?;
            }
            replayer.unanswered::<Trade>(UNANSWERED, Some(egress::emitted), &mut replayed).await?;
        }
        Whose::Settlement => {
            replayer.pending::<Settlement>(&mut replayed).await?;
            replayer.unanswered::<Settlement>(UNRETURNED, None, &mut replayed).await?;
        }
    }
    Ok(replayed)
}

struct Replayer<'a> {
    deps: &'a StageDeps,
    grant: &'a Grant,
    publisher: Publisher,
}

/// What egress makes of a decision, where something is on its way behind egress.
type Emit<C> = fn(Record<Decided<C>>) -> Record<Emitted>;

/// One page of what core has decided and has not left this application's care.
struct Unanswered<C> {
    decided: Vec<Record<Decided<C>>>,
    emitted: Vec<Record<Emitted>>,
    last: Option<Uuid>,
}

impl Replayer<'_> {
    async fn pending<C: Content>(&self, replayed: &mut Replayed) -> Result<(), StageError> {
        let mut after = Some(Uuid::nil());
        while let Some(from) = after {
            let (raw, parsed, last) = self.page::<C>(from).await?;
            self.publisher.publish_all(&pack(C::LINE.ingestion, &raw, self.grant)).await?;
            self.publisher.publish_all(&pack(C::LINE.core, &parsed, self.grant)).await?;
            replayed.to_ingestion += raw.len();
            replayed.to_core += parsed.len();
            after = last;
        }
        Ok(())
    }

    async fn unanswered<C: Subject>(
        &self,
        query: &str,
        emitted: Option<Emit<C>>,
        replayed: &mut Replayed,
    ) -> Result<(), StageError> {
        let mut after = Some(Uuid::nil());
        while let Some(from) = after {
            let page = self.unanswered_page(query, emitted, from).await?;
            self.publisher.publish_all(&pack(C::EGRESS, &page.decided, self.grant)).await?;
            self.publisher.publish_all(&pack(names::OUTBOUND, &page.emitted, self.grant)).await?;
            replayed.to_egress += page.decided.len();
            replayed.to_outbound += page.emitted.len();
            after = page.last;
        }
        Ok(())
    }

    async fn unanswered_page<C: Subject>(
        &self,
        query: &str,
        emitted: Option<Emit<C>>,
        after: Uuid,
    ) -> Result<Unanswered<C>, DbError> {
        let mut page = Unanswered { decided: Vec::new(), emitted: Vec::new(), last: None };
        for row in &self.rows(query, after).await? {
            page.last = Some(row.try_get("message_id")?);
            if !row.try_get::<_, bool>("sent")? {
                continue;
            }
            let Some(decided) = relay::read(row)? else { continue };
            match emitted {
                // What egress has stored is what it would make again from the decision.
                Some(emitted) if row.try_get("egressed")? => page.emitted.push(emitted(decided)),
                Some(_) | None => page.decided.push(decided),
            }
        }
        Ok(page)
    }

    async fn page<C: Content>(&self, after: Uuid) -> Result<Page<C>, DbError> {
        let (mut raw, mut parsed, mut last) = (Vec::new(), Vec::new(), None);
        for row in &self.rows(&pending_query(&C::LINE), after).await? {
            last = Some(row.try_get("record")?);
            // A row that was lost since: reconciliation tells of it.
            if row.try_get::<_, Option<&str>>("correlation_id")?.is_none() {
                continue;
            }
            match read(row)? {
                Onward::Raw(record) => raw.push(record),
                Onward::Parsed(record) => parsed.push(record),
            }
        }
        Ok((raw, parsed, last))
    }

    /// Guarded although it only reads: what is missing is judged by the writer, never by a replica.
    async fn rows(&self, query: &str, after: Uuid) -> Result<Vec<Row>, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        let statement = unit.transaction().prepare_cached(query).await?;
        Ok(unit.transaction().query(&statement, &[&after, &PAGE]).await?)
    }
}

type Page<C> = (Vec<Record<Raw>>, Vec<Record<Parsed<C>>>, Option<Uuid>);

/// A stored record, as it travels to the stage that does not have it.
pub(crate) enum Onward<C> {
    /// To ingestion.
    Raw(Record<Raw>),
    /// To core.
    Parsed(Record<Parsed<C>>),
}

/// A row of inbound's store with what ingestion made of it.
///
/// # Errors
/// The row has not the columns that it should.
pub(crate) fn read<C: DeserializeOwned>(row: &Row) -> Result<Onward<C>, DbError> {
    let (content, refusal): (Option<&str>, Option<&str>) = (row.try_get("content")?, row.try_get("refusal")?);
    let content = if let Some(content) = content.and_then(|text| serde_json::from_str(text).ok()) {
        Parsed::Valid(content)
    } else if let Some(refusal) = refusal {
        let text: Option<String> = row.try_get("nack_body")?;
        Parsed::Nack(read_refusal(refusal), text.unwrap_or_default())
    } else {
        return Ok(Onward::Raw(Record { traceparent: trace::read(row)?, ..raw(row)? }));
    };
    let (record, id) = (row.try_get("record")?, row.try_get("correlation_id")?);
    let (received_ms, traceparent) = (row.try_get("received_ms")?, trace::read(row)?);
    Ok(Onward::Parsed(Record { record, id, received_ms, caused_ms: None, content, traceparent }))
}

/// A row of inbound's store, as inbound sends it, but for the trace.
///
/// # Errors
/// The row has not the columns that it should.
pub(crate) fn raw(row: &Row) -> Result<Record<Raw>, tokio_postgres::Error> {
    let (body, defect): (&[u8], Option<&str>) = (row.try_get("body")?, row.try_get("defect")?);
    let text = String::from_utf8_lossy(body).into_owned();
    let (id, received_ms) = (row.try_get("correlation_id")?, row.try_get("received_ms")?);
    Ok(inbound::record(row.try_get("record")?, id, received_ms, text, defect.map(read_refusal)))
}

/// A refusal as a stage has stored it.
pub(crate) fn read_refusal(text: &str) -> Refusal {
    // Written by this program; an unreadable one still refuses.
    serde_json::from_str(text).unwrap_or_else(|_| Refusal::whole(RefusalCode::Malformed, text))
}

/// Messages stored by inbound that core has not decided, plus answers that are not in the customers' queue.
///
/// # Errors
/// The database; no number is not zero.
pub(crate) async fn in_flight(deps: &StageDeps) -> Result<i64, DbError> {
    let connection = deps.database.connection().await?;
    let row = connection.query_one("select in_flight from trading.in_flight", &[]).await?;
    Ok(row.try_get(0)?)
}
