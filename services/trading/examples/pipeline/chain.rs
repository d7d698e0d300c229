//! The broker's part of the ceiling: the same hops with the same bytes, confirms and acknowledgements, and nothing else. Each
//! relay takes what is there up to its stage's measured batch, publishes as much with confirms, and acknowledges.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use region_lease::Guard;
use services_common::amqp::{Broker, Outgoing, grant_headers};
use tokio::task::JoinSet;
use trading::names::{self, Application};
use uuid::Uuid;

use crate::ceiling::{Batches, Part};
use crate::cpu::Cpu;
use crate::load::real;
use crate::material::{self, Side};
use crate::servers::{REGION, Servers};

/// Unconfirmed messages of the customer at one time, as the real one has.
const CUSTOMER_WINDOW: usize = 500;
const WARM: Duration = Duration::from_secs(1);
/// The queues that a side passes.
const WAY: [&str; 6] = [names::IN, names::INGESTION, names::CORE, names::EGRESS, names::OUTBOUND, names::OUT];

/// What one relay does.
struct Relay {
    broker: Arc<Broker>,
    from: &'static str,
    /// Messages that it takes together at most, and those that make one batch if it must be full.
    take: usize,
    full: bool,
    /// What it publishes for a batch of so many messages.
    publishes: Box<dyn Fn(usize) -> Vec<Outgoing> + Send>,
}

/// Runs the bare chain on a virtual host of its own.
pub(crate) async fn run(
    servers: &Servers,
    sides: &[Side],
    batches: &Batches,
    window: u64,
    span: Duration,
) -> Part {
    const VHOST: &str = "chain";
    servers.management("PUT", &format!("/api/vhosts/{VHOST}")).await;
    let broker = |name: &str| Arc::new(Broker::new(servers.broker_config(VHOST, name)));
    trading::migrate::declare(Application::TradeMatching, &broker("migrator")).await.unwrap();
    let records = batches.records_in_message;
    let headers = grant_headers(&Guard::new("chain", REGION, 1, Uuid::new_v4()));
    let bodies = material::bodies(sides, records);
    let answered = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for hop in 0..5 {
        let (body, headers) = (bodies[hop + 1].clone(), headers.clone());
        let to = WAY[hop + 1];
        let publishes = move |taken: usize| -> Vec<Outgoing> {
            let messages = match hop {
                0 => taken.div_ceil(records),
                4 => taken * records,
                _ => taken,
            };
            (0..messages).map(|_| material::outgoing(to, body.clone(), &headers)).collect()
        };
        let take = if hop == 0 { records * batches.messages[1].max(1) } else { batches.messages[hop] };
        let relay = Relay {
            broker: broker("relay"),
            from: WAY[hop],
            take,
            full: hop == 0,
            publishes: Box::new(publishes),
        };
        tasks.spawn(relay.run());
    }
    tasks.spawn(read_answers(broker("answers"), answered.clone()));
    let first = material::outgoing(WAY[0], bodies[0].clone(), &FieldTable::default());
    tasks.spawn(submit(broker("customer"), first, answered.clone(), window));
    tokio::time::sleep(WARM).await;
    let (cpu, count, began) = (Cpu::now(&[]), answered.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(span).await;
    let done = real(answered.load(Ordering::Relaxed) - count);
    let part =
        Part::of("broker: the bare chain of relays", done, began.elapsed(), &Cpu::now(&[]).since(&cpu));
    tasks.shutdown().await;
    servers.management("DELETE", &format!("/api/vhosts/{VHOST}")).await;
    part
}

/// Singles, so many on their way at most.
async fn submit(broker: Arc<Broker>, message: Outgoing, answered: Arc<AtomicU64>, window: u64) {
    let publisher = broker.publisher().await.unwrap();
    let messages = vec![message; CUSTOMER_WINDOW];
    let mut sent = 0;
    loop {
        if sent - answered.load(Ordering::Relaxed) < window {
            publisher.publish_all(&messages).await.unwrap();
            sent += messages.len() as u64;
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn consume(broker: &Broker, queue: &str, take: usize) -> (lapin::Channel, lapin::Consumer) {
    let channel = broker.channel().await.unwrap();
    let prefetch = u16::try_from(take * 2).unwrap_or(u16::MAX);
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.unwrap();
    let options = BasicConsumeOptions::default();
    let consumer =
        channel.basic_consume(queue.into(), "".into(), options, FieldTable::default()).await.unwrap();
    (channel, consumer)
}

async fn acknowledge(channel: &lapin::Channel, batch: &[Result<Delivery, lapin::Error>]) {
    let last = batch.last().unwrap().as_ref().unwrap();
    channel.basic_ack(last.delivery_tag, BasicAckOptions { multiple: true }).await.unwrap();
}

impl Relay {
    async fn run(self) {
        let publisher = self.broker.publisher().await.unwrap();
        let (channel, consumer) = consume(&self.broker, self.from, self.take).await;
        let mut batches = if self.full {
            consumer.chunks(self.take).boxed()
        } else {
            consumer.ready_chunks(self.take).boxed()
        };
        while let Some(batch) = batches.next().await {
            publisher.publish_all(&(self.publishes)(batch.len())).await.unwrap();
            acknowledge(&channel, &batch).await;
        }
    }
}

async fn read_answers(broker: Arc<Broker>, answered: Arc<AtomicU64>) {
    const TOGETHER: usize = 1_000;
    let (channel, consumer) = consume(&broker, names::OUT, TOGETHER / 2).await;
    let mut batches = consumer.ready_chunks(TOGETHER);
    while let Some(batch) = batches.next().await {
        acknowledge(&channel, &batch).await;
        answered.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }
}
