//! The stage rule, once for all stages:
//!
//! take a batch → one transaction {guard; the stage's store and effects; guard} → publish onward, confirmed → (the last
//! stage: note the delivery, guarded) → acknowledge the batch.
//!
//! A crash anywhere repeats a batch; ids make the repeat harmless. A batch is what is there, at once, up to a limit; after
//! one of several messages a stage rests for about as long as that took. A message holds one record or many. When the
//! database refuses a batch as data, the records that it refuses are found by halving and set apart one by one; all others
//! go on, so that none stops the queue.

use std::future::Future;
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use futures::StreamExt;
use futures::stream::ReadyChunks;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Consumer};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::amqp::{AmqpError, Broker, Outgoing};
use crate::backoff::Backoff;
use crate::gate::{Gate, GateKeeper, Needs};
use crate::link::Link;
use crate::metrics::{Fate, Metrics, Part};
use crate::postgres::{Database, DbError, Grant, Guarded};
use crate::telemetry::chain;

/// From taking a batch to acknowledging it. Longer than each of its parts may take together only if all are slow.
const BATCH_DEADLINE: Duration = Duration::from_secs(20);
/// From asking for a connection to the broker's answer that the consumer is there: twice what connecting may take, and more.
const BEGIN_DEADLINE: Duration = Duration::from_secs(30);
/// Longest rest between two batches.
const REST_MAX: Duration = Duration::from_millis(20);
/// A batch that took less than this may be followed by a larger one; a transaction has five times as long.
const QUICK: Duration = Duration::from_secs(1);
/// Longest pause before a stage tries again after an error.
const RETRY_CAP: Duration = Duration::from_secs(2);

/// What a stage does with the records of a batch. Everything else about it is the same for all stages.
pub trait Stage: Send + Sync + 'static {
    /// What its messages consist of.
    type Record: Send + Sync;

    /// The queue that it takes from.
    fn queue(&self) -> &str;

    /// When it may run.
    fn needs(&self) -> Needs;

    /// Messages in one batch at most.
    fn batch_limit(&self) -> usize;

    /// The records of one message.
    ///
    /// # Errors
    /// Why it cannot be read; the message goes to quarantine with this reason.
    fn read(&self, message: &Delivery) -> Result<Vec<Self::Record>, String>;

    /// Writes records inside the transaction, duplicates ignored, and returns what goes onward. What it returns
    /// must be a function of what is stored, so that a repeat sends the same bytes and ids.
    fn store(
        &self,
        unit: &Guarded<'_>,
        records: &[Self::Record],
    ) -> impl Future<Output = Result<Vec<Outgoing>, DbError>> + Send;

    /// Sets apart one record that the database refuses, tells its sender where this stage can, and returns what
    /// goes onward. The database must take what this writes, whatever the record holds.
    fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Self::Record,
        reason: &str,
    ) -> impl Future<Output = Result<Vec<Outgoing>, DbError>> + Send;

    /// Writes a message that cannot be read, and the reason, to quarantine.
    fn quarantine(
        &self,
        unit: &Guarded<'_>,
        body: &[u8],
        reason: &str,
    ) -> impl Future<Output = Result<(), DbError>> + Send;

    /// Whether this stage notes that the broker has what it sent, before the batch is acknowledged. It costs a
    /// transaction of its own, so only the last stage does.
    const NOTES_DELIVERY: bool = false;

    /// Notes that the broker has confirmed all that these records sent onward. The database must take what this writes.
    fn delivered(
        &self,
        _unit: &Guarded<'_>,
        _records: &[Self::Record],
    ) -> impl Future<Output = Result<(), DbError>> + Send {
        async { Ok(()) }
    }

    /// Called after a batch was acknowledged.
    fn batch_done(&self) {}
}

/// Why a stage stopped taking batches for the moment.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DbError),
    /// The broker.
    #[error(transparent)]
    Broker(#[from] AmqpError),
    /// The broker, while taking or acknowledging messages.
    #[error("queue {queue}: {what} failed; reconnecting")]
    Consume {
        /// The queue.
        queue: String,
        /// The operation.
        what: &'static str,
        /// What the client library said.
        source: lapin::Error,
    },
    /// The broker closed the consumer or did not open it in time, or the connection is gone.
    #[error("queue {queue}: there is no consumer; reconnecting")]
    Ended {
        /// The queue.
        queue: String,
    },
    /// A batch took too long as a whole.
    #[error("queue {queue}: a batch was not done within {seconds} s; requeued")]
    Deadline {
        /// The queue.
        queue: String,
        /// The deadline.
        seconds: u64,
    },
}

/// What a stage works with.
#[derive(Clone)]
pub struct StageDeps {
    /// Connections to the region's database.
    pub database: Database,
    /// Connection to the region's broker.
    pub broker: std::sync::Arc<Broker>,
    /// Says when to work.
    pub gate: GateKeeper,
    /// Counters.
    pub metrics: Metrics,
    /// Messages in one batch, and rows in one round of a relay, at most; `None` leaves it to the stage. One is the form that
    /// batches are measured against.
    pub batch_limit: Option<NonZeroU16>,
}

impl StageDeps {
    /// The limit that holds where `own` is the stage's or relay's own.
    pub fn limited(&self, own: usize) -> usize {
        self.batch_limit.map_or(own, |limit| own.min(usize::from(limit.get())))
    }
}

impl StageDeps {
    /// What an error of the database means for the others in this process: connections to a writer that may have moved are
    /// forgotten, and a refused guard closes the gate at once.
    pub fn note(&self, error: &DbError, grant: &Grant) {
        self.database.note(error);
        if matches!(error, DbError::Fenced { .. }) {
            self.gate.fenced(grant);
        }
    }
}

/// Runs a stage until shutdown: works while the gate admits it, takes nothing while it does not.
pub async fn run<S: Stage>(stage: S, deps: StageDeps, shutdown: CancellationToken) {
    let mut gate = deps.gate.watch();
    let limit = deps.limited(stage.batch_limit());
    let mut pace = Pace { backoff: Backoff::new(Duration::from_millis(100), RETRY_CAP), size: limit, limit };
    let runner = Runner { stage, deps };
    loop {
        let Some(grant) = admitted(&mut gate, runner.stage.needs(), &shutdown).await else { return };
        match runner.consume(&grant, &mut gate, &shutdown, &mut pace).await {
            Ok(()) => {}
            Err(error) => {
                if let StageError::Database(error) = &error {
                    runner.deps.note(error, &grant);
                }
                let wait = pace.backoff.next_wait();
                tracing::warn!(
                    queue = runner.stage.queue(),
                    error = chain(&error),
                    ?wait,
                    "batch given back"
                );
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = sleep(wait) => {}
                }
            }
        }
    }
}

/// Waits until the gate admits a stage; `None` at shutdown.
pub async fn admitted(
    gate: &mut watch::Receiver<Gate>,
    needs: Needs,
    shutdown: &CancellationToken,
) -> Option<Grant> {
    tokio::select! {
        () = shutdown.cancelled() => None,
        gate = gate.wait_for(|gate| gate.admits(needs).is_some()) => gate.ok()?.admits(needs).cloned(),
    }
}

/// Resolves when the gate no longer admits this very grant.
pub async fn withdrawn(gate: &mut watch::Receiver<Gate>, needs: Needs, grant: &Grant) {
    // An error means that the gate is gone, which withdraws every grant.
    let _ = gate.wait_for(|gate| gate.admits(needs) != Some(grant)).await;
}

/// How long a stage leaves its queue alone after a batch of so many messages: as long as that took. Messages that come one by one
/// while it works would else make many small batches, each of which costs all stages behind as much as a large one. None where
/// nothing came together, so that a single message waits for nobody, and none where more has come than one batch takes.
fn rest(messages: usize, limit: usize, took: Duration) -> Option<Duration> {
    (messages > 1 && messages < limit).then(|| took.min(REST_MAX))
}

struct Runner<S> {
    stage: S,
    deps: StageDeps,
}

/// How fast a stage may go on.
struct Pace {
    backoff: Backoff,
    /// Messages in one transaction: fewer after one that failed, as a database that has become slow would never take so many in
    /// the time that a transaction has.
    size: usize,
    /// `size` is never more.
    limit: usize,
}

impl Pace {
    fn done(&mut self, took: Duration) {
        self.backoff.reset();
        if took < QUICK {
            self.size = (self.size * 2).min(self.limit);
        }
    }

    fn failed(&mut self, messages: usize) {
        self.size = (messages / 2).max(1);
    }
}

/// How the records of a batch are stored.
#[derive(Clone, Copy)]
enum How {
    /// In one transaction, which the database takes or refuses as a whole.
    Together,
    /// In halves of halves, until what the database refuses is alone.
    Sifted,
}

/// A batch as the stage reads it.
struct Batch<'a, R> {
    records: Vec<R>,
    /// Messages without records, and why.
    unreadable: Vec<(&'a [u8], String)>,
}

/// What became of a batch that was stored.
#[derive(Default)]
struct Stored {
    onward: Vec<Outgoing>,
    /// Messages and single records in quarantine.
    quarantined: usize,
}

impl<S: Stage> Runner<S> {
    fn consume_error(&self, what: &'static str) -> impl FnOnce(lapin::Error) -> StageError {
        let queue = self.stage.queue().to_owned();
        move |source| StageError::Consume { queue, what, source }
    }

    /// Takes batches under one grant. Leaving it closes the channel, which gives back what is unacknowledged.
    async fn consume(
        &self,
        grant: &Grant,
        gate: &mut watch::Receiver<Gate>,
        shutdown: &CancellationToken,
        pace: &mut Pace,
    ) -> Result<(), StageError> {
        let (link, mut batches) = tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = withdrawn(gate, self.stage.needs(), grant) => return Ok(()),
            begun = timeout(BEGIN_DEADLINE, self.begin()) => match begun {
                Ok(begun) => begun?,
                Err(_) => {
                    self.deps.broker.forget().await;
                    return Err(self.gone());
                }
            },
        };
        let result = loop {
            let batch = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                () = withdrawn(gate, self.stage.needs(), grant) => break Ok(()),
                batch = batches.next() => batch,
                () = link.lost() => None,
            };
            let Some(batch) = batch else { break Err(self.gone()) };
            let batch: Vec<Delivery> = match batch.into_iter().collect() {
                Ok(batch) => batch,
                Err(source) => break Err(self.consume_error("taking messages")(source)),
            };
            let began = Instant::now();
            if let Err(error) = self.take_parts(grant, &link, &batch, pace).await {
                break Err(error);
            }
            if let Some(rest) = rest(batch.len(), pace.limit, began.elapsed()) {
                tokio::select! {
                    biased;
                    () = shutdown.cancelled() => break Ok(()),
                    () = withdrawn(gate, self.stage.needs(), grant) => break Ok(()),
                    () = sleep(rest) => {}
                }
            }
        };
        link.close().await;
        result
    }

    fn gone(&self) -> StageError {
        StageError::Ended { queue: self.stage.queue().to_owned() }
    }

    async fn begin(&self) -> Result<(Link, ReadyChunks<Consumer>), StageError> {
        let link = Link {
            channel: self.deps.broker.channel().await?,
            publisher: self.deps.broker.publisher().await?,
        };
        let batches = self.subscribe(&link.channel).await?;
        Ok((link, batches))
    }

    async fn subscribe(&self, channel: &Channel) -> Result<ReadyChunks<Consumer>, StageError> {
        let limit = self.deps.limited(self.stage.batch_limit());
        let prefetch = u16::try_from(limit * 2).unwrap_or(u16::MAX);
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .map_err(self.consume_error("setting the prefetch"))?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(self.stage.queue().into(), "".into(), options, FieldTable::default())
            .await
            .map_err(self.consume_error("subscribing"))?;
        Ok(consumer.ready_chunks(limit))
    }

    /// A batch, in as many parts as the last one that failed asks for. What is done before a part fails stays done.
    async fn take_parts(
        &self,
        grant: &Grant,
        link: &Link,
        batch: &[Delivery],
        pace: &mut Pace,
    ) -> Result<(), StageError> {
        let mut left = batch;
        while !left.is_empty() {
            let (part, behind) = left.split_at(left.len().min(pace.size));
            let began = Instant::now();
            if let Err(error) = self.take(grant, link, part).await {
                pace.failed(part.len());
                self.deps.metrics.count(Fate::Requeued, behind.len());
                return Err(error);
            }
            pace.done(began.elapsed());
            left = behind;
        }
        Ok(())
    }

    /// One part of a batch: all at once, or, if the database refuses its data, message by message. Each message then has a
    /// deadline and an acknowledgement of its own, so that a repeat does not begin from the first one again.
    async fn take(&self, grant: &Grant, link: &Link, batch: &[Delivery]) -> Result<(), StageError> {
        let requeued = |messages, error| {
            self.deps.metrics.count(Fate::Requeued, messages);
            Err(error)
        };
        match self.work(grant, link, batch, How::Together).await {
            Ok(()) => return Ok(()),
            Err(StageError::Database(error @ DbError::Data { .. })) => {
                tracing::warn!(queue = self.stage.queue(), reason = chain(&error), "sifting a batch");
            }
            Err(error) => return requeued(batch.len(), error),
        }
        for (done, message) in batch.iter().enumerate() {
            if let Err(error) = self.work(grant, link, std::slice::from_ref(message), How::Sifted).await {
                return requeued(batch.len() - done, error);
            }
        }
        Ok(())
    }

    /// Messages from the transaction to the acknowledgement.
    async fn work(
        &self,
        grant: &Grant,
        link: &Link,
        messages: &[Delivery],
        how: How,
    ) -> Result<(), StageError> {
        let Some(last) = messages.last() else { return Ok(()) };
        let began = Instant::now();
        let metrics = &self.deps.metrics;
        let batch = self.read(messages);
        metrics.spent(Part::Read, began.elapsed());
        let all = async {
            let stored = async {
                match how {
                    How::Together => self.store(grant, &batch.records, &batch.unreadable).await,
                    How::Sifted => self.sift(grant, &batch).await,
                }
            };
            let Stored { onward, quarantined } = metrics.timed(Part::Store, stored).await?;
            metrics.timed(Part::Publish, link.publisher.publish_all(&onward)).await?;
            metrics.published.inc_by(onward.len() as u64);
            if S::NOTES_DELIVERY && !batch.records.is_empty() {
                metrics.timed(Part::Note, self.note_delivery(grant, &batch.records)).await?;
            }
            let options = BasicAckOptions { multiple: true };
            let acknowledged = link.channel.basic_ack(last.delivery_tag, options);
            metrics
                .timed(Part::Acknowledge, acknowledged)
                .await
                .map_err(self.consume_error("acknowledging"))?;
            Ok::<_, StageError>(quarantined)
        };
        let queue = || self.stage.queue().to_owned();
        let quarantined = timeout(BATCH_DEADLINE, all)
            .await
            .map_err(|_| StageError::Deadline { queue: queue(), seconds: BATCH_DEADLINE.as_secs() })??;
        self.deps.metrics.count(Fate::Done, messages.len() - batch.unreadable.len());
        self.deps.metrics.records.inc_by(batch.records.len() as u64);
        self.deps.metrics.count(Fate::Quarantined, quarantined);
        self.deps.metrics.batch(messages.len(), began.elapsed());
        self.stage.batch_done();
        Ok(())
    }

    fn read<'a>(&self, messages: &'a [Delivery]) -> Batch<'a, S::Record> {
        let mut batch = Batch { records: Vec::new(), unreadable: Vec::new() };
        for message in messages {
            match self.stage.read(message) {
                Ok(records) => batch.records.extend(records),
                Err(reason) => batch.unreadable.push((&message.data, reason)),
            }
        }
        batch
    }

    /// Stores what the database takes, and refuses the single records that it does not take: fewer than two
    /// transactions a record at worst, about two for each halving when one record is bad.
    async fn sift(&self, grant: &Grant, batch: &Batch<'_, S::Record>) -> Result<Stored, DbError> {
        let mut all = self.store(grant, &[], &batch.unreadable).await?;
        let mut left = vec![batch.records.as_slice()];
        while let Some(records) = left.pop() {
            let stored = match (self.store(grant, records, &[]).await, records) {
                (Err(error @ DbError::Data { .. }), [record]) => {
                    self.refuse(grant, record, &chain(&error)).await?
                }
                (Err(DbError::Data { .. }), [_, _, ..]) => {
                    let (first, second) = records.split_at(records.len() / 2);
                    left.extend([second, first]);
                    continue;
                }
                (outcome, _) => outcome?,
            };
            all.onward.extend(stored.onward);
            all.quarantined += stored.quarantined;
        }
        Ok(all)
    }

    async fn store(
        &self,
        grant: &Grant,
        records: &[S::Record],
        unreadable: &[(&[u8], String)],
    ) -> Result<Stored, DbError> {
        if records.is_empty() && unreadable.is_empty() {
            return Ok(Stored::default());
        }
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        for (body, reason) in unreadable {
            self.stage.quarantine(&unit, body, reason).await?;
        }
        let onward = if records.is_empty() { Vec::new() } else { self.stage.store(&unit, records).await? };
        unit.commit().await?;
        Ok(Stored { onward, quarantined: unreadable.len() })
    }

    async fn note_delivery(&self, grant: &Grant, records: &[S::Record]) -> Result<(), DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        self.stage.delivered(&unit, records).await?;
        unit.commit().await
    }

    async fn refuse(&self, grant: &Grant, record: &S::Record, reason: &str) -> Result<Stored, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let onward = self.stage.refuse(&unit, record, reason).await?;
        unit.commit().await?;
        Ok(Stored { onward, quarantined: 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_rests_where_messages_come_together_and_neither_after_one_alone_nor_before_a_full_batch() {
        let took = Duration::from_millis(7);
        assert_eq!(
            [1, 2, 7, 8].map(|messages| rest(messages, 8, took)),
            [None, Some(took), Some(took), None]
        );
        assert_eq!(rest(1, 1, took), None, "the form without batches");
        assert_eq!(rest(2, 8, Duration::from_secs(1)), Some(REST_MAX));
    }

    #[test]
    fn batches_are_halved_while_they_fail_and_grow_again_only_when_they_are_quick() {
        let mut pace = Pace { backoff: Backoff::new(QUICK, RETRY_CAP), size: 500, limit: 500 };
        for messages in [500, 250, 3, 1] {
            pace.failed(messages);
            assert_eq!(pace.size, (messages / 2).max(1));
        }
        for (took, size) in [(QUICK, 1), (Duration::ZERO, 2), (Duration::ZERO, 4), (QUICK, 4)] {
            pace.done(took);
            assert_eq!(pace.size, size);
        }
        for _ in 0..8 {
            pace.done(Duration::ZERO);
        }
        assert_eq!(pace.size, 500);
    }
}
