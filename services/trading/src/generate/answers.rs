//! The reading half of the customer. When the name moves, it reads from the new broker at once and from the old
//! one until that has been idle for a while: answers that were already there are not left behind.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use futures::StreamExt;
use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Connection, Consumer};
use services_common::amqp::{AmqpError, BrokerConfig};
use services_common::backoff::Backoff;
use services_common::clock;
use services_common::telemetry::chain;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::ledger::Answer;
use super::{Desk, Target, expected, with};
use crate::message::Response;
use crate::names;

/// An old broker without an answer for this long has none left.
const IDLE: Duration = Duration::from_secs(3);
/// Attempts to reach an old broker again.
const OLD_ATTEMPTS: u32 = 10;
/// Answers in flight at one time.
const PREFETCH: u16 = 1000;

/// Reads until `stop`.
pub(super) async fn run(target: Target, desk: Desk, stop: CancellationToken) {
    let mut address = target.follow(stop.clone());
    // The newest broker that answers could be subscribed at: older ones may go once it is the present one.
    let connected = watch::Sender::new(None);
    let mut readers: HashMap<IpAddr, JoinHandle<()>> = HashMap::new();
    loop {
        let present = *address.borrow_and_update();
        if let Some(ip) = present {
            let reader = Reader {
                target: target.clone(),
                ip,
                address: address.clone(),
                connected: connected.clone(),
                desk: desk.clone(),
                stop: stop.clone(),
            };
            let ended = readers.get(&ip).is_none_or(JoinHandle::is_finished);
            if ended {
                readers.insert(ip, tokio::spawn(reader.run()));
            }
        }
        tokio::select! {
            () = stop.cancelled() => break,
            // Looked at now and then too: a reader that had just decided to end may be needed again.
            _ = timeout(IDLE, address.changed()) => {}
        }
    }
    for reader in readers.into_values() {
        // It sees the same token.
        let _ = timeout(Duration::from_secs(2), reader).await;
    }
}

struct Reader {
    target: Target,
    ip: IpAddr,
    address: watch::Receiver<Option<IpAddr>>,
    connected: watch::Sender<Option<IpAddr>>,
    desk: Desk,
    stop: CancellationToken,
}

impl Reader {
    /// The name leads elsewhere, and answers are read there already.
    fn replaced(&self) -> bool {
        let present = *self.address.borrow();
        present != Some(self.ip) && present == *self.connected.borrow()
    }

    async fn run(self) {
        let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut attempts = 0;
        while !self.stop.is_cancelled() {
            let outcome = self.session(&mut backoff, &mut attempts).await;
            let Err(problem) = outcome else { return };
            if *self.address.borrow() == Some(self.ip) {
                with(&self.desk.ledger, |ledger| ledger.problem(format!("reading answers: {problem}")));
            } else {
                attempts += 1;
                if attempts > OLD_ATTEMPTS {
                    return;
                }
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = sleep(backoff.next_wait()) => {}
            }
        }
    }

    /// Reads over one connection. `Ok` when there is nothing more to read here.
    async fn session(&self, backoff: &mut Backoff, attempts: &mut u32) -> Result<(), String> {
        let config = self.target.broker.clone().at(self.ip);
        let subscribed = subscribe(&config).await.map_err(|error| chain(&error));
        let (connection, consumer) = subscribed?;
        if *self.address.borrow() == Some(self.ip) {
            self.connected.send_replace(Some(self.ip));
        }
        backoff.reset();
        *attempts = 0;
        let mut chunks = consumer.ready_chunks(usize::from(PREFETCH));
        let mut last = Instant::now();
        loop {
            let chunk = tokio::select! {
                () = self.stop.cancelled() => break,
                chunk = timeout(IDLE / 3, chunks.next()) => chunk,
            };
            match chunk {
                Err(_) if self.replaced() && last.elapsed() > IDLE => break,
                // The consumer does not always say so.
                Err(_) if !connection.status().connected() => return Err("the connection is gone".to_owned()),
                Err(_) => {}
                Ok(None) => return Err("the broker ended the consumer".to_owned()),
                Ok(Some(chunk)) => {
                    last = Instant::now();
                    let chunk: Vec<Delivery> =
                        chunk.into_iter().collect::<Result<_, _>>().map_err(|error| chain(&error))?;
                    for delivery in &chunk {
                        self.note(delivery);
                    }
                    if let Some(last) = chunk.last() {
                        let multiple = BasicAckOptions { multiple: true };
                        let acked = config.within("acknowledging", last.ack(multiple)).await;
                        acked.map_err(|error| chain(&error))?;
                    }
                }
            }
        }
        let _ = timeout(Duration::from_millis(500), connection.close(200, "".into())).await;
        Ok(())
    }

    fn note(&self, delivery: &Delivery) {
        let Ok(response) = serde_json::from_slice::<Response>(&delivery.data) else {
            with(&self.desk.ledger, |ledger| {
                ledger.problem("an answer that is not a ResponseMessage".to_owned())
            });
            return;
        };
        let message_id = delivery.properties.message_id().as_ref().map(|id| id.as_str()).unwrap_or_default();
        let key = expected::answered_key(&response);
        let answer = Answer {
            id: &key,
            status: &response.status,
            message_id,
            body: &delivery.data,
            epoch: epoch(delivery),
        };
        let now = clock::now();
        with(&self.desk.ledger, |ledger| ledger.answered(answer, now));
        self.desk.record(|records| records.answered(answer, now));
    }
}

async fn subscribe(config: &BrokerConfig) -> Result<(Connection, Consumer), AmqpError> {
    let connection = config.connect().await?;
    let subscribed = async {
        let channel = connection.create_channel().await?;
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
        let (options, fields) = (BasicConsumeOptions::default(), FieldTable::default());
        channel.basic_consume(names::OUT.into(), "".into(), options, fields).await
    };
    let consumer = config.within("subscribing", subscribed).await?;
    Ok((connection, consumer))
}

fn epoch(delivery: &Delivery) -> Option<u64> {
    let headers = delivery.properties.headers().as_ref()?;
    match headers.inner().get("epoch")? {
        AMQPValue::LongLongInt(epoch) => u64::try_from(*epoch).ok(),
        _ => None,
    }
}
