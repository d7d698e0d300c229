//! Sends what is missing again, through the normal path into the next stage, and waits until it has arrived there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use services_common::amqp::{Broker, Outgoing};
use services_common::postgres::{Database, DbError, Grant, Guarded};
use tokio::time::sleep;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{Job, ReconcileError, egress_outbound};
use crate::core::relay;
use crate::core::replay::{Onward, read};
use crate::envelope::{Parsed, Record, pack};
use crate::message::Trade;
use crate::names;

/// Pause between two looks at what has arrived.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

const RAW: &str = "select record, correlation_id, received_ms, body, defect, null::text as content, \
        null::text as refusal, null::text as nack_body \
     from trading.inbound_raw where record = any($1) order by record";

const STORED: &str = "select record, coalesce(ingested.id, nacks.id) as correlation_id, \
        coalesce(ingested.received_ms, nacks.received_ms) as received_ms, ''::bytea as body, \
        null::text as defect, ingested.content, nacks.refusal, nacks.body as nack_body, \
        pending.record is not null as pending \
     from unnest($1::uuid[]) as given (record) \
     left join trading.ingested using (record) \
     left join trading.nacks using (record) \
     left join trading.pending using (record) \
     where ingested.record is not null or nacks.record is not null order by record";

/// Core passes over what is not on this list. It has been on its way for as long as the customer has waited.
const WAITS_AGAIN: &str = "insert into trading.pending (record, since) \
     select record, to_timestamp(received_ms / 1000.0) \
       from unnest($1::uuid[], $2::bigint[]) as given (record, received_ms) order by record \
     on conflict do nothing";

const DECIDED: &str = "select message_id, id, received_ms, body from trading.outbox \
     where message_id = any($1) order by message_id";

const ANSWERED: &str = "select message_id, id, body from trading.egressed \
     where message_id = any($1) order by message_id";

/// Writes and publishes under one grant.
pub(super) struct Replayer<'a> {
    pub(super) database: &'a Database,
    pub(super) broker: &'a Broker,
    pub(super) grant: &'a Grant,
    /// Longest wait for what was sent again to arrive.
    pub(super) wait: Duration,
}

impl Replayer<'_> {
    /// Sends these records again; names those that were sent.
    pub(super) async fn send(&self, job: Job, missing: &[Uuid]) -> Result<Vec<Uuid>, ReconcileError> {
        let (sent, messages) = match job {
            Job::InboundIngress => self.raw(missing).await?,
            Job::IngressCore => self.parsed(missing).await?,
            Job::CoreEgress => self.decided(missing).await?,
            Job::EgressOutbound => self.answered(missing).await?,
        };
        let publisher = self.broker.publisher().await?;
        publisher.publish_all(&messages).await?;
        Ok(sent)
    }

    /// The rows of a query in a guarded transaction, although it only reads: what is missing is judged by the writer.
    async fn guarded(&self, query: &str, ids: &[Uuid]) -> Result<Vec<Row>, DbError> {
        let mut connection = self.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        Ok(unit.transaction().query(query, &[&ids]).await?)
    }

    async fn raw(&self, missing: &[Uuid]) -> Result<(Vec<Uuid>, Vec<Outgoing>), DbError> {
        let mut records = Vec::new();
        for row in &self.guarded(RAW, missing).await? {
            if let Onward::Raw(record) = read::<Trade>(row)? {
                records.push(record);
            }
        }
        Ok((numbers(&records), pack(names::INGESTION, &records, self.grant)))
    }

    async fn parsed(&self, missing: &[Uuid]) -> Result<(Vec<Uuid>, Vec<Outgoing>), DbError> {
        let mut connection = self.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        let mut found = Vec::new();
        for row in &unit.transaction().query(STORED, &[&missing]).await? {
            if let Onward::Parsed(record) = read(row)? {
                found.push((record, row.try_get("pending")?));
            }
        }
        let records = without_replaced(found);
        let numbers = numbers(&records);
        let received: Vec<i64> = records.iter().map(|record| record.received_ms).collect();
        unit.transaction().execute(WAITS_AGAIN, &[&numbers, &received]).await?;
        unit.commit().await?;
        Ok((numbers, pack(names::CORE, &records, self.grant)))
    }

    async fn decided(&self, missing: &[Uuid]) -> Result<(Vec<Uuid>, Vec<Outgoing>), DbError> {
        let mut records = Vec::new();
        for row in &self.guarded(DECIDED, missing).await? {
            records.extend(relay::read::<Trade>(row)?);
        }
        Ok((numbers(&records), pack(names::EGRESS, &records, self.grant)))
    }

    async fn answered(&self, missing: &[Uuid]) -> Result<(Vec<Uuid>, Vec<Outgoing>), DbError> {
        let mut records = Vec::new();
        for row in &self.guarded(ANSWERED, missing).await? {
            records.extend(egress_outbound::emitted(row.try_get(0)?, row.try_get(1)?, row.try_get(2)?));
        }
        Ok((numbers(&records), pack(names::OUTBOUND, &records, self.grant)))
    }

    /// Waits until all of these are downstream; answers how many are not when the wait is over.
    pub(super) async fn arrived(&self, job: Job, sent: &[Uuid]) -> Result<u64, ReconcileError> {
        let until = Instant::now() + self.wait;
        loop {
            let connection = self.database.connection().await?;
            let row = connection.query_one(not_arrived(job), &[&sent]).await.map_err(DbError::from)?;
            let left: i64 = row.try_get(0).map_err(DbError::from)?;
            if left == 0 || Instant::now() > until {
                return Ok(left.unsigned_abs());
            }
            sleep(LOOK_INTERVAL).await;
        }
    }
}

fn numbers<C>(records: &[Record<C>]) -> Vec<Uuid> {
    records.iter().map(|record| record.record).collect()
}

/// How many of the given ones are not downstream yet.
fn not_arrived(job: Job) -> &'static str {
    match job {
        Job::InboundIngress => {
            "select count(*) from unnest($1::uuid[]) as given (record) \
             where not exists (select from trading.ingested where ingested.record = given.record) \
               and not exists (select from trading.nacks where nacks.record = given.record)"
        }
        Job::IngressCore => "select count(*) from trading.pending where record = any($1)",
        Job::CoreEgress => {
            "select count(*) from unnest($1::uuid[]) as given (message_id) \
             where not exists (select from trading.egressed where egressed.message_id = given.message_id)"
        }
        Job::EgressOutbound => {
            "select count(*) from unnest($1::uuid[]) as given (message_id) \
             where not exists (select from trading.sent where sent.message_id = given.message_id)"
        }
    }
}

/// Of reports that were decided before, only the highest version: a lower one that came after it would be refused, and
/// its sender told so, although it was taken in its time.
fn without_replaced(found: Vec<(Record<Parsed>, bool)>) -> Vec<Record<Parsed>> {
    let mut highest: HashMap<(Date, String), u32> = HashMap::new();
    for (record, _) in &found {
        if let Parsed::Valid(trade) = &record.content {
            let version = highest.entry((trade.trade_date, record.id.clone())).or_default();
            *version = trade.version.max(*version);
        }
    }
    let holds = |record: &Record<Parsed>| match &record.content {
        Parsed::Valid(trade) => highest
            .get(&(trade.trade_date, record.id.clone()))
            .is_none_or(|version| *version == trade.version),
        Parsed::Nack(..) | Parsed::Probe => true,
    };
    found
        .into_iter()
        .filter(|(record, pending)| *pending || holds(record))
        .map(|(record, _)| record)
        .collect()
}
