//! The stage rule, once for all stages:
//!
//! take a batch → one transaction {guard; the stage's store and effects; guard} → publish onward, confirmed →
//! acknowledge the batch.
//!
//! A crash anywhere repeats a batch; ids make the repeat harmless. A batch is what is there, at once, up to a
//! limit. Messages that the database refuses as data are set apart one by one, so that none stops the queue.

use std::future::Future;
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

use crate::amqp::{AmqpError, Broker, Outgoing, Publisher};
use crate::backoff::Backoff;
use crate::gate::{Gate, GateKeeper, Needs};
use crate::metrics::{Fate, Metrics};
use crate::postgres::{Database, DbError, Grant, Guarded};
use crate::telemetry::chain;

/// From taking a batch to acknowledging it. Longer than each of its parts may take together only if all are slow.
const BATCH_DEADLINE: Duration = Duration::from_secs(20);
/// Longest pause before a stage tries again after an error.
const RETRY_CAP: Duration = Duration::from_secs(2);

/// What a stage made of a batch.
#[derive(Debug, Default)]
pub struct Stored {
    /// Messages for the next stage.
    pub onward: Vec<Outgoing>,
    /// How many messages of the batch went to quarantine.
    pub quarantined: usize,
}

/// What a stage does with a batch. Everything else about it is the same for all stages.
pub trait Stage: Send + Sync + 'static {
    /// The queue that it takes from.
    fn queue(&self) -> &str;

    /// When it may run.
    fn needs(&self) -> Needs;

    /// Messages in one batch at most.
    fn batch_limit(&self) -> usize;

    /// Writes the batch inside the transaction, duplicates ignored, and returns what goes onward. What it returns
    /// must be a function of what is stored, so that a repeat sends the same bytes and ids.
    fn store(
        &self,
        unit: &Guarded<'_>,
        batch: &[Delivery],
    ) -> impl Future<Output = Result<Stored, DbError>> + Send;

    /// Writes one message, and the reason why it cannot be stored, to quarantine.
    fn quarantine(
        &self,
        unit: &Guarded<'_>,
        message: &Delivery,
        reason: &str,
    ) -> impl Future<Output = Result<(), DbError>> + Send;

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
    /// The broker closed the consumer.
    #[error("queue {queue}: the broker ended the consumer; reconnecting")]
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
}

/// Runs a stage until shutdown: works while the gate admits it, takes nothing while it does not.
pub async fn run<S: Stage>(stage: S, deps: StageDeps, shutdown: CancellationToken) {
    let mut gate = deps.gate.watch();
    let mut backoff = Backoff::new(Duration::from_millis(100), RETRY_CAP);
    let runner = Runner { stage, deps };
    loop {
        let Some(grant) = admitted(&mut gate, runner.stage.needs(), &shutdown).await else { return };
        match runner.consume(&grant, &mut gate, &shutdown, &mut backoff).await {
            Ok(()) => {}
            Err(error) => {
                runner.note(&error, &grant);
                let wait = backoff.next_wait();
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

struct Runner<S> {
    stage: S,
    deps: StageDeps,
}

impl<S: Stage> Runner<S> {
    fn note(&self, error: &StageError, grant: &Grant) {
        if let StageError::Database(error) = error {
            self.deps.database.note(error);
            if matches!(error, DbError::Fenced { .. }) {
                self.deps.gate.fenced(grant);
            }
        }
    }

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
        backoff: &mut Backoff,
    ) -> Result<(), StageError> {
        let channel = self.deps.broker.channel().await?;
        let publisher = self.deps.broker.publisher().await?;
        let mut batches = self.subscribe(&channel).await?;
        let result = loop {
            let batch = tokio::select! {
                biased;
                () = shutdown.cancelled() => break Ok(()),
                () = withdrawn(gate, self.stage.needs(), grant) => break Ok(()),
                batch = batches.next() => batch,
            };
            let Some(batch) = batch else {
                break Err(StageError::Ended { queue: self.stage.queue().to_owned() });
            };
            let batch: Vec<Delivery> = match batch.into_iter().collect() {
                Ok(batch) => batch,
                Err(source) => break Err(self.consume_error("taking messages")(source)),
            };
            if let Err(error) = self.work(grant, &channel, &publisher, &batch).await {
                self.deps.metrics.count(Fate::Requeued, batch.len());
                break Err(error);
            }
            backoff.reset();
        };
        // Dead or alive, the channel is done with; closing it is what gives messages back.
        let closing = async { (channel.close(200, "".into()).await, publisher.close().await) };
        let _ = timeout(Duration::from_secs(1), closing).await;
        result
    }

    async fn subscribe(&self, channel: &Channel) -> Result<ReadyChunks<Consumer>, StageError> {
        let prefetch = u16::try_from(self.stage.batch_limit() * 2).unwrap_or(u16::MAX);
        channel
            .basic_qos(prefetch, BasicQosOptions::default())
            .await
            .map_err(self.consume_error("setting the prefetch"))?;
        let options = BasicConsumeOptions::default();
        let consumer = channel
            .basic_consume(self.stage.queue().into(), "".into(), options, FieldTable::default())
            .await
            .map_err(self.consume_error("subscribing"))?;
        Ok(consumer.ready_chunks(self.stage.batch_limit()))
    }

    /// One batch, from the transaction to the acknowledgement.
    async fn work(
        &self,
        grant: &Grant,
        channel: &Channel,
        publisher: &Publisher,
        batch: &[Delivery],
    ) -> Result<(), StageError> {
        let Some(last) = batch.last() else { return Ok(()) };
        let began = Instant::now();
        let all = async {
            let Stored { onward, quarantined } = self.store_or_set_apart(grant, batch).await?;
            publisher.publish_all(&onward).await?;
            self.deps.metrics.published.inc_by(onward.len() as u64);
            let options = BasicAckOptions { multiple: true };
            channel
                .basic_ack(last.delivery_tag, options)
                .await
                .map_err(self.consume_error("acknowledging"))?;
            Ok::<_, StageError>(quarantined)
        };
        let queue = || self.stage.queue().to_owned();
        let quarantined = timeout(BATCH_DEADLINE, all)
            .await
            .map_err(|_| StageError::Deadline { queue: queue(), seconds: BATCH_DEADLINE.as_secs() })??;
        self.deps.metrics.count(Fate::Done, batch.len() - quarantined);
        self.deps.metrics.count(Fate::Quarantined, quarantined);
        self.deps.metrics.batch(batch.len(), began.elapsed());
        self.stage.batch_done();
        Ok(())
    }

    /// Stores the batch in one transaction; if its data is refused, message by message, the bad ones to quarantine.
    async fn store_or_set_apart(&self, grant: &Grant, batch: &[Delivery]) -> Result<Stored, DbError> {
        match self.store(grant, batch).await {
            Err(DbError::Data { .. }) => {}
            done => return done,
        }
        let mut all = Stored::default();
        for message in batch {
            match self.store(grant, std::slice::from_ref(message)).await {
                Ok(one) => {
                    all.onward.extend(one.onward);
                    all.quarantined += one.quarantined;
                }
                Err(error @ DbError::Data { .. }) => {
                    self.set_apart(grant, message, &chain(&error)).await?;
                    all.quarantined += 1;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    async fn store(&self, grant: &Grant, batch: &[Delivery]) -> Result<Stored, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let onward = self.stage.store(&unit, batch).await?;
        unit.commit().await?;
        Ok(onward)
    }

    async fn set_apart(&self, grant: &Grant, message: &Delivery, reason: &str) -> Result<(), DbError> {
        tracing::warn!(queue = self.stage.queue(), reason, "message to quarantine");
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        self.stage.quarantine(&unit, message, reason).await?;
        unit.commit().await
    }
}
