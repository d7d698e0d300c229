//! Every message twice for a while, then once for a while, and out of order: what a broker that promises "at least once" may do, at its worst.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions,
    ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation};
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use services_common::amqp::BrokerConfig;
use tokio::time::sleep;

use crate::side::Side;

/// Has a copy of every message that is sent to any queue but the customer's answers.
const QUEUE: &str = "soak.copies";
/// For so long each message is copied, then for so long none: a copy would make good what is lost.
const TURN: Duration = Duration::from_secs(20);
/// Copies that are kept for the very end at most.
const LATE_MAX: u64 = 20_000;
/// Copies that the broker holds for us at most; the oldest are dropped.
const UNTAKEN_MAX: i32 = 100_000;
/// Copies and messages in hand at one time.
const PREFETCH: u16 = 500;
/// Pause after a broker was not there.
const RETRY: Duration = Duration::from_millis(500);

/// A copy that waits for its time.
struct Kept {
    due: Instant,
    queue: String,
    properties: BasicProperties,
    body: Vec<u8>,
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.due == other.due
    }
}
impl Eq for Kept {}
impl PartialOrd for Kept {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Kept {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.due.cmp(&other.due)
    }
}

/// In each second turn sends a copy of each message of one broker to the same queue again: soon, after seconds, or at the very end.
pub(crate) struct Copies {
    config: BrokerConfig,
    waiting: Mutex<BinaryHeap<Reverse<Kept>>>,
    random: Mutex<StdRng>,
    /// Sent so far.
    sent: AtomicU64,
    late: AtomicU64,
    began: Instant,
    /// Whether the first turn copies.
    first: bool,
    /// When copies go out that are kept until then.
    end: Instant,
}

impl Copies {
    /// Begins before the first message.
    pub(crate) async fn start(side: &Side, seed: u64, end: Instant) -> Result<Arc<Self>> {
        let copies = Arc::new(Self {
            config: side.broker.direct("copies")?,
            waiting: Mutex::default(),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            sent: AtomicU64::new(0),
            late: AtomicU64::new(0),
            began: Instant::now(),
            first: seed.is_multiple_of(2),
            end,
        });
        let connection = copies.config.connect().await?;
        let channel = connection.create_channel().await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(UNTAKEN_MAX));
        channel.queue_declare(QUEUE.into(), durable, arguments).await?;
        for queue in side.queues() {
            let options = QueueBindOptions::default();
            channel.queue_bind(QUEUE.into(), queue.into(), "".into(), options, FieldTable::default()).await?;
        }
        connection.close(200, "".into()).await?;
        let both = copies.clone();
        // They end with the runtime of the test.
        tokio::spawn(async move { tokio::join!(patiently(|| both.take()), patiently(|| both.send())) });
        Ok(copies)
    }

    /// Copies sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Copies that wait for their time.
    pub(crate) fn waiting(&self) -> usize {
        self.with(|waiting| waiting.len())
    }

    fn with<T>(&self, act: impl FnOnce(&mut BinaryHeap<Reverse<Kept>>) -> T) -> T {
        act(&mut self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether what comes now is copied. Both brokers take the same turns, and after the load there is none.
    fn copying(&self) -> bool {
        let turn = self.began.elapsed().as_secs() / TURN.as_secs();
        turn.is_multiple_of(2) == self.first && Instant::now() < self.end
    }

    fn due(&self) -> Instant {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match random.random_range(0..10) {
            0 if self.late.fetch_add(1, Ordering::Relaxed) < LATE_MAX => self.end,
            0..=3 => now + Duration::from_millis(random.random_range(1_000..10_000)),
            _ => now + Duration::from_millis(random.random_range(0..1_000)),
        }
    }

    async fn take(&self) -> Result<()> {
        let connection = self.config.connect().await?;
        let channel = connection.create_channel().await?;
        let mut copies = subscribe(&channel, QUEUE).await?;
        while let Some(copy) = copies.next().await {
            let delivery = copy?;
            if self.copying() {
                let copy = Kept {
                    due: self.due(),
                    // Each exchange has the name of its queue.
                    queue: delivery.exchange.to_string(),
                    properties: delivery.properties.clone(),
                    body: delivery.data.clone(),
                };
                self.with(|waiting| waiting.push(Reverse(copy)));
            }
            delivery.ack(BasicAckOptions::default()).await?;
        }
        Ok(())
    }

    async fn send(&self) -> Result<()> {
        let connection = self.config.connect().await?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        loop {
            let batch = self.with(|waiting| {
                let mut batch = Vec::new();
                let now = Instant::now();
                while batch.len() < usize::from(PREFETCH)
                    && waiting.peek().is_some_and(|next| next.0.due <= now)
                {
                    batch.extend(waiting.pop().map(|next| next.0));
                }
                batch
            });
            if batch.is_empty() {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let messages =
                batch.iter().map(|copy| (copy.queue.as_str(), &copy.properties, copy.body.as_slice()));
            if let Err(error) = put(&channel, messages).await {
                // Which of them arrived is not known; a third time does not matter.
                self.with(|waiting| waiting.extend(batch.into_iter().map(Reverse)));
                return Err(error);
            }
            self.sent.fetch_add(batch.len() as u64, Ordering::Relaxed);
        }
    }
}

async fn patiently<F: Future<Output = Result<()>>>(work: impl Fn() -> F) {
    loop {
        // Its broker is away from time to time.
        let _ = work().await;
        sleep(RETRY).await;
    }
}

async fn subscribe(channel: &Channel, queue: &str) -> Result<lapin::Consumer> {
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let options = BasicConsumeOptions::default();
    Ok(channel.basic_consume(queue.into(), "soak".into(), options, FieldTable::default()).await?)
}

/// Puts messages into queues, not into their exchanges: those would copy them again.
async fn put<'a>(
    channel: &Channel,
    messages: impl Iterator<Item = (&'a str, &'a BasicProperties, &'a [u8])>,
) -> Result<()> {
    let mut confirms = Vec::new();
    for (queue, properties, body) in messages {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirm =
            channel.basic_publish("".into(), queue.into(), options, body, properties.clone()).await?;
        confirms.push(confirm);
    }
    for confirm in confirms {
        let confirmation = confirm.await?;
        ensure!(matches!(confirmation, Confirmation::Ack(None)), "not taken: {confirmation:?}");
    }
    Ok(())
}

/// Takes messages from each queue for a while, and puts them back in another order. What is in hand when the broker goes
/// away goes back by itself.
pub(crate) async fn reorder(side: &Side, seed: u64, lasts: Duration) -> Result<u64> {
    let connection = side.broker.direct("reorder")?.connect().await?;
    let mut random = StdRng::seed_from_u64(seed);
    let taking = side.queues().map(async |queue| {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut messages = subscribe(&channel, queue).await?;
        let mut taken: Vec<Delivery> = Vec::new();
        let end = tokio::time::Instant::now() + lasts;
        while let Ok(Some(message)) = tokio::time::timeout_at(end, messages.next()).await {
            taken.push(message?);
        }
        channel.basic_cancel("soak".into(), BasicCancelOptions::default()).await?;
        // Its end would take back the right to acknowledge.
        anyhow::Ok((queue, channel, messages, taken))
    });
    let mut moved = 0;
    for (queue, channel, _messages, mut taken) in futures::future::try_join_all(taking).await? {
        taken.shuffle(&mut random);
        let messages = taken.iter().map(|message| (queue, &message.properties, message.data.as_slice()));
        put(&channel, messages).await?;
        for message in &taken {
            message.ack(BasicAckOptions::default()).await?;
        }
        moved += taken.len() as u64;
    }
    // Everything is acknowledged; its channels are closing by themselves.
    let _ = connection.close(200, "".into()).await;
    Ok(moved)
}
