//! The sending half of the customer. A message leaves its hands when the broker has confirmed it; until then it is
//! sent again to whatever broker the name leads to.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::Confirmation;
use lapin::types::FieldTable;
use services_common::amqp::{BrokerConfig, Outgoing, Publisher};
use services_common::backoff::Backoff;
use services_common::clock;
use services_common::telemetry::chain;
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::records::Scheduled;
use super::tally::Note;
use super::{Desk, Target, with};
use crate::names;

/// Messages that may be unconfirmed at one time.
const WINDOW: usize = 500;

/// Sends until the queue is closed and everything is confirmed, or until `stop`.
pub(super) async fn run(
    target: Target,
    customer: usize,
    mut messages: mpsc::Receiver<Scheduled>,
    desk: Desk,
    stop: CancellationToken,
) {
    let mut address = target.follow(stop.clone());
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_millis(500));
    let mut unsent: VecDeque<Scheduled> = VecDeque::new();
    loop {
        if messages.is_closed() && messages.is_empty() && unsent.is_empty() {
            return;
        }
        let present = *address.borrow_and_update();
        let ended = match present {
            None => Err("the broker's name is not resolved yet".to_owned()),
            Some(ip) => {
                let (messages, unsent) = (&mut messages, &mut unsent);
                let mut sender = Sender { customer, messages, unsent, desk: &desk };
                sender.session(&target, ip, &mut address, &stop, &mut backoff).await
            }
        };
        if stop.is_cancelled() {
            return;
        }
        if let Err(problem) = ended {
            with(&desk.ledger, |ledger| ledger.problem(format!("sending: {problem}")));
            tokio::select! {
                () = stop.cancelled() => return,
                // Another broker: why the old one refused says nothing of it.
                Ok(()) = address.changed() => backoff.reset(),
                () = sleep(backoff.next_wait()) => {}
            }
        }
    }
}

struct Sender<'a> {
    customer: usize,
    messages: &'a mut mpsc::Receiver<Scheduled>,
    /// Taken from the queue, not confirmed by anybody.
    unsent: &'a mut VecDeque<Scheduled>,
    desk: &'a Desk,
}

impl Sender<'_> {
    /// Sends over one connection. `Ok` when all is done, the name moved, or at `stop`; else what went wrong.
    async fn session(
        &mut self,
        target: &Target,
        ip: IpAddr,
        address: &mut watch::Receiver<Option<IpAddr>>,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<(), String> {
        let config = target.broker.clone().at(ip);
        let connection = config.connect().await.map_err(|error| chain(&error))?;
        let channel = config.within("opening a channel", connection.create_channel()).await;
        let channel = channel.map_err(|error| chain(&error))?;
        let publisher = Publisher::on(channel, &config).await.map_err(|error| chain(&error))?;
        let mut pending: BTreeMap<u64, Scheduled> = BTreeMap::new();
        let outcome = tokio::select! {
            outcome = self.pump(&config, &publisher, &mut pending, address, stop, backoff) => outcome,
            () = publisher.lost() => Err("the connection is gone".to_owned()),
        };
        // What is unconfirmed goes first next time, in its order.
        for message in pending.into_values().rev() {
            self.unsent.push_front(message);
        }
        let _ = timeout(Duration::from_millis(500), connection.close(200, "".into())).await;
        outcome
    }

    async fn pump(
        &mut self,
        config: &BrokerConfig,
        publisher: &Publisher,
        pending: &mut BTreeMap<u64, Scheduled>,
        address: &mut watch::Receiver<Option<IpAddr>>,
        stop: &CancellationToken,
        backoff: &mut Backoff,
    ) -> Result<(), String> {
        let mut confirms = FuturesUnordered::new();
        let mut number = 0_u64;
        let mut exhausted = false;
        loop {
            if exhausted && self.unsent.is_empty() && pending.is_empty() {
                return Ok(());
            }
            let room = pending.len() < WINDOW;
            let message = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(()),
                Ok(()) = address.changed() => return Ok(()),
                Some((number, confirmation)) = confirms.next() => {
                    self.settle(pending, number, confirmation)?;
                    backoff.reset();
                    continue;
                }
                () = std::future::ready(()), if room && !self.unsent.is_empty() => self.unsent.pop_front(),
                message = self.messages.recv(), if room && !exhausted => message,
            };
            let Some(message) = message else {
                exhausted = true;
                continue;
            };
            self.note(&message);
            let outgoing = outgoing(&message);
            pending.insert(number, message);
            let confirm = config.within("publishing", publisher.send(&outgoing)).await;
            let confirm = confirm.map_err(|error| chain(&error))?;
            let sent = number;
            confirms.push(async move { (sent, confirm.await) });
            number += 1;
        }
    }

    /// Into the books, and into the files if it is the first time.
    fn note(&self, scheduled: &Scheduled) {
        let now = clock::now();
        let Scheduled { message, at, .. } = scheduled;
        let note = Note {
            customer: self.customer,
            kind: message.kind,
            expected: message.expected,
            due: *at,
            timed: message.last,
            settles: message.settles,
        };
        if with(&self.desk.ledger, |ledger| ledger.sent_as(&message.id, note, now)) {
            self.desk.record(|records| records.sent(self.customer, scheduled, Some(now)));
        }
    }

    fn settle(
        &self,
        pending: &mut BTreeMap<u64, Scheduled>,
        number: u64,
        confirmation: Result<Confirmation, lapin::Error>,
    ) -> Result<(), String> {
        match confirmation.map_err(|error| chain(&error))? {
            Confirmation::Ack(None) => {
                if let Some(Scheduled { message, .. }) = pending.remove(&number) {
                    with(&self.desk.ledger, |ledger| ledger.confirmed(&message.id));
                }
                Ok(())
            }
            Confirmation::Ack(Some(_)) => Err("the broker has no queue for trades yet".to_owned()),
            Confirmation::Nack(_) | Confirmation::NotRequested => {
                Err("the broker's queue is full".to_owned())
            }
        }
    }
}

fn outgoing(Scheduled { message, .. }: &Scheduled) -> Outgoing {
    Outgoing {
        exchange: names::IN.to_owned(),
        body: message.body.clone(),
        message_id: message.id.clone(),
        correlation_id: message.correlation_id.clone(),
        headers: FieldTable::default(),
        user_id: None,
    }
}
