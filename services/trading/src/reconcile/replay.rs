//! Sends what is missing again, through the normal path into the next stage, and waits until it has arrived there.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use jiff::civil::Date;
use services_common::amqp::{Broker, Outgoing};
use services_common::postgres::{Database, DbError, Grant, Guarded};
use tokio::time::sleep;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::finding::Replayable;
use super::made::Makes;
use super::{Job, Plan, ReconcileError, egress_outbound};
use crate::core::replay::{Onward, read};
use crate::core::{Subject, relay};
use crate::envelope::{Decided, Parsed, Record, pack};
use crate::ingestion::Content;
use crate::message::Trade;
use crate::names::{self, Application, Line};
use crate::settlement::{Back, Settlement};
use crate::trace;

/// Pause between two looks at what has arrived.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Records that are read, and are in memory, at one time.
const ROUND: usize = 2_000;
/// The next round is sent while no more than this is on its way: the stage always has something to do, and its queue stays
/// short.
const ON_ITS_WAY: usize = 2 * ROUND;
/// Ids in one question whether they have arrived: each is looked for in every day that is kept, within the few seconds of a statement.
const LOOKED_FOR: usize = 500;

fn raw_query(line: &Line) -> String {
    format!(
        "select record, correlation_id, received_ms, body, defect, traceparent, null::text as content, \
            null::text as refusal, null::text as nack_body \
         from {} where record = any($1) order by record",
        line.raw
    )
}

fn stored_query(line: &Line) -> String {
    let Line { raw, pending, ingested, nacks, .. } = line;
    format!(
        "select given.record, coalesce(ingested.id, nacks.id) as correlation_id, \
            coalesce(ingested.received_ms, nacks.received_ms) as received_ms, ''::bytea as body, \
            null::text as defect, ingested.content, nacks.refusal, nacks.body as nack_body, raw.traceparent, \
            pending.record is not null as pending \
         from unnest($1::uuid[]) as given (record) \
         left join {ingested} as ingested using (record) \
         left join {nacks} as nacks using (record) \
         left join {pending} as pending using (record) \
         left join {raw} as raw on raw.record = given.record \
            and raw.received_ms = coalesce(ingested.received_ms, nacks.received_ms) \
         where ingested.record is not null or nacks.record is not null order by given.record"
    )
}

/// Core passes over what is not on this list. It has been on its way for as long as its sender has waited.
fn waits_again(line: &Line) -> String {
    format!(
        "insert into {} (record, since, received_ms) select record, to_timestamp(received_ms / 1000.0), received_ms \
           from unnest($1::uuid[], $2::bigint[]) as given (record, received_ms) order by record \
         on conflict do nothing",
        line.pending
    )
}

const DECIDED: &str = "select message_id, id, received_ms, caused_ms, body, traceparent from trading.outbox \
     where message_id = any($1) order by message_id";

const ANSWERED: &str = "select egressed.message_id, egressed.id, egressed.body, egressed.caused_ms, outbox.traceparent \
      from trading.egressed \
      left join trading.outbox on outbox.message_id = egressed.message_id and outbox.caused_ms = egressed.caused_ms \
     where egressed.message_id = any($1) order by egressed.message_id";

/// Outbound sends again what is not marked as sent. Trade matching also waits for it from now on as from the beginning. Locks
/// are taken as the sender does: its rows first, then those that are waited for, in the order of ids.
const DUE_AGAIN: &str = "update trading.outgoing_settlements set sent_at = null where message_id = any($1) \
     returning trading.record_id(id, convert_to(body, 'UTF8'))";
const WAITED_FOR_AGAIN: &str = "with awaited as ( \
        select message_id from trading.unreturned where message_id = any($1) order by message_id for update) \
     update trading.unreturned set attempts = 0, due = null \
     where message_id = any(array(select message_id from awaited))";

/// Writes and publishes under one grant.
pub(super) struct Replayer<'a> {
    pub(super) database: &'a Database,
    pub(super) broker: &'a Broker,
    pub(super) grant: &'a Grant,
    /// Longest time in which nothing of what was sent again arrives.
    pub(super) wait: Duration,
    pub(super) plan: &'a Plan,
}

/// What is to arrive, and the messages that bring it.
type Sending = (Vec<Uuid>, Vec<Outgoing>);

/// What became of records that were sent again.
pub(super) struct Sent {
    /// How many records are to arrive.
    pub(super) records: u64,
    /// How many of them were not downstream when the wait was over.
    pub(super) not_arrived: u64,
}

/// What goes in one round. What has the same key is never parted.
fn rounds(mut replayable: Vec<Replayable>) -> Vec<Vec<Uuid>> {
    replayable.sort_unstable();
    replayable.dedup();
    let mut rounds: Vec<Vec<Uuid>> = Vec::new();
    for together in replayable.chunk_by(Replayable::is_with) {
        let records = together.iter().map(|one| one.record);
        match rounds.last_mut() {
            Some(round) if round.len() + together.len() <= ROUND => round.extend(records),
            Some(_) | None => rounds.push(records.collect()),
        }
    }
    rounds
}

impl Replayer<'_> {
    /// Sends these records again, each round while earlier ones arrive, until all are downstream or nothing arrives any more.
    pub(super) async fn send(&self, job: Job, replayable: Vec<Replayable>) -> Result<Sent, ReconcileError> {
        let there = match &self.plan.peer {
            Some(peer) if job.is_between() => Some(peer.connect().await?),
            Some(_) | None => None,
        };
        let query = not_arrived(job);
        let mut rounds = rounds(replayable).into_iter();
        let (mut records, mut on_its_way) = (0, Vec::new());
        let mut until = Instant::now() + self.wait;
        loop {
            let next = if on_its_way.len() <= ON_ITS_WAY { rounds.next() } else { None };
            if let Some(round) = next {
                let sent = self.round(job, &round).await?;
                records += sent.len() as u64;
                on_its_way.extend(sent);
                until = Instant::now() + self.wait;
            } else if on_its_way.is_empty() || Instant::now() > until {
                return Ok(Sent { records, not_arrived: on_its_way.len() as u64 });
            } else {
                sleep(LOOK_INTERVAL).await;
            }
            let left = self.not_arrived(job, there.as_ref(), &query, &on_its_way).await?;
            if left.len() < on_its_way.len() {
                until = Instant::now() + self.wait;
            }
            on_its_way = left;
        }
    }

    /// Sends one round; names what is to arrive downstream.
    async fn round(&self, job: Job, missing: &[Uuid]) -> Result<Vec<Uuid>, ReconcileError> {
        let (sent, messages) = match job {
            Job::InboundIngress => self.raw::<Trade>(missing).await?,
            Job::ReturnInboundIngress => self.raw::<Back>(missing).await?,
            Job::SettlementInboundIngress => self.raw::<Settlement>(missing).await?,
            Job::IngressCore => self.parsed(missing, without_replaced::<Trade>).await?,
            Job::SettlementIngressCore => self.parsed(missing, without_replaced::<Settlement>).await?,
            Job::ReturnIngressCore => self.parsed(missing, all::<Back>).await?,
            Job::CoreEgress => self.decided::<Trade>(missing, only_it).await?,
            Job::CoreSettlements => self.decided::<Trade>(missing, what_follows).await?,
            Job::SettlementCoreEgress => self.decided::<Settlement>(missing, what_follows).await?,
            Job::EgressOutbound => self.answered(missing).await?,
            Job::OutboundSettlementInbound | Job::SettlementOutboundSettlementInbound => {
                (self.due_again(missing).await?, Vec::new())
            }
        };
        if !messages.is_empty() {
            let publisher = self.broker.publisher().await?;
            publisher.publish_all(&messages).await?;
        }
        Ok(sent)
    }

    /// The rows of a query in a guarded transaction, although it only reads: what is missing is judged by the writer.
    async fn guarded(&self, query: &str, ids: &[Uuid]) -> Result<Vec<Row>, DbError> {
        let mut connection = self.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        Ok(unit.transaction().query(query, &[&ids]).await?)
    }

    async fn raw<C: Content>(&self, missing: &[Uuid]) -> Result<Sending, DbError> {
        let mut records = Vec::new();
        for row in &self.guarded(&raw_query(&C::LINE), missing).await? {
            if let Onward::Raw(record) = read::<C>(row)? {
                records.push(record);
            }
        }
        Ok((numbers(&records), pack(C::LINE.ingestion, &records, self.grant)))
    }

    async fn parsed<C: Content>(&self, missing: &[Uuid], of: Chosen<C>) -> Result<Sending, DbError> {
        let mut connection = self.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        let mut found = Vec::new();
        for row in &unit.transaction().query(&stored_query(&C::LINE), &[&missing]).await? {
            if let Onward::Parsed(record) = read(row)? {
                found.push((record, row.try_get("pending")?));
            }
        }
        let records = of(found);
        let numbers = numbers(&records);
        let received: Vec<i64> = records.iter().map(|record| record.received_ms).collect();
        unit.transaction().execute(&waits_again(&C::LINE), &[&numbers, &received]).await?;
        unit.commit().await?;
        Ok((numbers, pack(C::LINE.core, &records, self.grant)))
    }

    async fn decided<C: Subject>(
        &self,
        missing: &[Uuid],
        awaited: fn(&Record<Decided<C>>) -> Vec<Uuid>,
    ) -> Result<Sending, DbError> {
        let mut records = Vec::new();
        for row in &self.guarded(DECIDED, missing).await? {
            records.extend(relay::read::<C>(row)?);
        }
        let arrive = records.iter().flat_map(awaited).collect();
        Ok((arrive, pack(C::EGRESS, &records, self.grant)))
    }

    /// Nothing is written into the other application's database: outbound sends as it always does.
    async fn due_again(&self, missing: &[Uuid]) -> Result<Vec<Uuid>, DbError> {
        let mut connection = self.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        let rows = unit.transaction().query(DUE_AGAIN, &[&missing]).await?;
        if self.plan.application == Application::TradeMatching {
            unit.transaction().execute(WAITED_FOR_AGAIN, &[&missing]).await?;
        }
        let records = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        unit.commit().await?;
        Ok(records)
    }

    async fn answered(&self, missing: &[Uuid]) -> Result<Sending, DbError> {
        let mut records = Vec::new();
        for row in &self.guarded(ANSWERED, missing).await? {
            let (message, id, body) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
            let emitted = egress_outbound::emitted(message, id, body, row.try_get(3)?);
            let traceparent = trace::read(row)?;
            records.extend(emitted.map(|record| Record { traceparent, ..record }));
        }
        Ok((numbers(&records), pack(names::OUTBOUND, &records, self.grant)))
    }

    /// Those of the ids that are not downstream yet.
    async fn not_arrived(
        &self,
        job: Job,
        there: Option<&Client>,
        query: &str,
        ids: &[Uuid],
    ) -> Result<Vec<Uuid>, ReconcileError> {
        let mut left = Vec::new();
        for some in ids.chunks(LOOKED_FOR) {
            let rows = match there {
                Some(there) => there
                    .query(query, &[&some])
                    .await
                    .map_err(|source| ReconcileError::Read { job, source })?,
                None => {
                    let connection = self.database.connection().await?;
                    connection.query(query, &[&some]).await.map_err(DbError::from)?
                }
            };
            for row in &rows {
                left.push(row.try_get(0).map_err(DbError::from)?);
            }
        }
        Ok(left)
    }
}

fn numbers<C>(records: &[Record<C>]) -> Vec<Uuid> {
    records.iter().map(|record| record.record).collect()
}

/// A decision itself is what is to arrive.
fn only_it(decided: &Record<Decided>) -> Vec<Uuid> {
    vec![decided.record]
}

/// Settlements that are made of a decision are what is to arrive.
fn what_follows<C: Makes>(decided: &Record<Decided<C>>) -> Vec<Uuid> {
    C::made(decided).iter().map(|made| made.message_id).collect()
}

/// Which of the given ones are not downstream yet.
fn not_arrived(job: Job) -> String {
    let in_none_of = |tables: &[&str], key: &str| {
        let none: Vec<String> = tables
            .iter()
            .map(|table| format!("not exists (select from {table} as there where there.{key} = given.id)"))
            .collect();
        format!("select given.id from unnest($1::uuid[]) as given (id) where {}", none.join(" and "))
    };
    let ingested = |line: &Line| in_none_of(&[line.ingested, line.nacks], "record");
    let decided = |line: &Line| format!("select record from {} where record = any($1)", line.pending);
    match job {
        Job::InboundIngress => ingested(&Trade::LINE),
        Job::ReturnInboundIngress => ingested(&Back::LINE),
        Job::SettlementInboundIngress => ingested(&Settlement::LINE),
        Job::IngressCore => decided(&Trade::LINE),
        Job::ReturnIngressCore => decided(&Back::LINE),
        Job::SettlementIngressCore => decided(&Settlement::LINE),
        Job::CoreEgress => in_none_of(&["trading.egressed"], "message_id"),
        Job::CoreSettlements | Job::SettlementCoreEgress => {
            in_none_of(&["trading.outgoing_settlements"], "message_id")
        }
        Job::EgressOutbound => in_none_of(&["trading.sent"], "message_id"),
        Job::OutboundSettlementInbound => in_none_of(&[Settlement::LINE.raw], "record"),
        Job::SettlementOutboundSettlementInbound => in_none_of(&[Back::LINE.raw], "record"),
    }
}

/// A record that ingestion stored, and whether core's decision is pending.
type Stored<C> = (Record<Parsed<C>>, bool);

/// Which of the stored ones are sent again.
type Chosen<C> = fn(Vec<Stored<C>>) -> Vec<Record<Parsed<C>>>;

/// What comes back has no versions.
fn all<C>(found: Vec<Stored<C>>) -> Vec<Record<Parsed<C>>> {
    found.into_iter().map(|(record, _)| record).collect()
}

/// Of reports that were decided before, only the highest version: a lower one that came after it would be refused, and
/// its sender told so, although it was taken in its time.
fn without_replaced<C: Subject>(found: Vec<Stored<C>>) -> Vec<Record<Parsed<C>>> {
    let mut highest: HashMap<(Date, String), u32> = HashMap::new();
    for (record, _) in &found {
        if let Parsed::Valid(content) = &record.content {
            let version = highest.entry(content.key()).or_default();
            *version = content.version().max(*version);
        }
    }
    let holds = |record: &Record<Parsed<C>>| match &record.content {
        Parsed::Valid(content) => {
            highest.get(&content.key()).is_none_or(|version| *version == content.version())
        }
        Parsed::Nack(..) | Parsed::Probe => true,
    };
    found
        .into_iter()
        .filter(|(record, pending)| *pending || holds(record))
        .map(|(record, _)| record)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::Comparison;
    use super::*;

    #[test]
    fn no_round_parts_what_has_one_key_and_none_sends_a_record_twice() {
        let mut comparison = Comparison::new(Job::IngressCore);
        let (keys, versions) = (ROUND, 3);
        let key_of: HashMap<Uuid, usize> =
            (0..keys * versions).map(|number| (Uuid::new_v4(), number % keys)).collect();
        for _ in 0..2 {
            for (record, key) in &key_of {
                comparison.missing_with(key, *record, String::new);
            }
        }
        let rounds = rounds(comparison.replayable);
        let mut round_of = HashMap::new();
        for (number, round) in rounds.iter().enumerate() {
            assert!(round.len() <= ROUND, "{} records in one round", round.len());
            for record in round {
                assert_eq!(
                    *round_of.entry(key_of[record]).or_insert(number),
                    number,
                    "its key is in two rounds"
                );
            }
        }
        assert!(rounds.len() > versions - 1);
        assert_eq!(rounds.iter().map(Vec::len).sum::<usize>(), keys * versions);
    }
}
