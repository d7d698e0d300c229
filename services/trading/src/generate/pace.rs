//! When each message is due. The schedule is open: a message is due at its time whatever became of the others, and
//! what is late is sent at once. While the routing control is off the schedule stands still.

use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::records::Scheduled;
use super::scenario::Scenario;
use super::{SharedLedger, with};

/// How often messages are due.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pace {
    /// Messages per second.
    pub rate: f64,
    /// Messages that are due at the same time; the rate stays what it is.
    pub burst: u32,
    /// Messages at most, without the counterparts at the end.
    pub count: Option<u32>,
    /// When the first one is due, so that several customers take turns.
    pub offset: Duration,
}

impl Pace {
    /// One at a time, without an end of its own.
    pub fn steady(rate: f64) -> Self {
        Self { rate, burst: 1, count: None, offset: Duration::ZERO }
    }

    /// When the n-th message is due, from 0.
    pub fn due(&self, number: u32) -> Duration {
        let begins_burst = number - number % self.burst.max(1);
        self.offset + Duration::from_secs_f64(f64::from(begins_burst) / self.rate)
    }
}

/// What a source of messages has to do with.
pub(super) struct Source {
    pub(super) scenario: Scenario,
    pub(super) pace: Pace,
    pub(super) duration: Duration,
    /// Longest time for the counterparts.
    pub(super) wait: Duration,
    pub(super) queue: mpsc::Sender<Scheduled>,
    /// True while messages may be sent.
    pub(super) control: watch::Receiver<bool>,
    pub(super) ledger: SharedLedger,
    pub(super) shutdown: CancellationToken,
}

impl Source {
    /// Generates, then adds the counterparts of what is open. Says when generating ended.
    pub(super) async fn run(mut self) -> Instant {
        let (began, at) = (Instant::now(), services_common::clock::now());
        self.generate(began, at).await;
        let ended = Instant::now();
        let due = ended - began;
        let last = self.scenario.close();
        with(&self.ledger, |ledger| ledger.generated(last.len() as u64));
        let closing = async {
            for message in last {
                // These come all at once, so they say nothing about a schedule.
                let message = Scheduled { message, due, at: None };
                if self.queue.send(message).await.is_err() {
                    return;
                }
            }
        };
        // With a broker that takes nothing the queue stays full: what did not fit was not sent.
        let _ = tokio::time::timeout(self.wait, closing).await;
        ended
    }

    async fn generate(&mut self, began: Instant, at: jiff::Timestamp) {
        let end = began + self.duration;
        let mut paused = Duration::ZERO;
        for number in 0..self.pace.count.unwrap_or(u32::MAX) {
            let due = loop {
                if !self.allowed(end, &mut paused).await {
                    return;
                }
                let due = self.pace.due(number) + paused;
                if began + due >= end {
                    return;
                }
                tokio::select! {
                    () = self.shutdown.cancelled() => return,
                    () = off(&mut self.control) => {}
                    () = sleep_until(began + due) => break due,
                }
            };
            let message = self.scenario.next_message();
            let at = jiff::SignedDuration::try_from(due).ok().and_then(|due| at.checked_add(due).ok());
            with(&self.ledger, |ledger| ledger.generated(1));
            // A broker that takes nothing keeps the queue full: that holds nobody beyond the end.
            tokio::select! {
                biased;
                sent = self.queue.send(Scheduled { message, due, at }) => if sent.is_err() { return },
                () = self.shutdown.cancelled() => return,
                () = sleep_until(end) => return,
            }
        }
    }

    /// Waits while the control is off, and lets the schedule stand still meanwhile. False at the end.
    async fn allowed(&mut self, end: Instant, paused: &mut Duration) -> bool {
        if *self.control.borrow() {
            return !self.shutdown.is_cancelled();
        }
        let since = Instant::now();
        let resumed = tokio::select! {
            () = self.shutdown.cancelled() => false,
            () = sleep_until(end) => false,
            () = turned(&mut self.control, true) => true,
        };
        *paused += since.elapsed();
        with(&self.ledger, |ledger| ledger.paused(paused.as_secs_f64()));
        resumed
    }
}

async fn off(control: &mut watch::Receiver<bool>) {
    turned(control, false).await;
}

/// Waits until the control has this position. One that nobody holds any more stays as it is.
async fn turned(control: &mut watch::Receiver<bool>, position: bool) {
    if control.wait_for(|now| *now == position).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_due_one_by_one_or_in_bursts_at_the_same_rate() {
        let steady = Pace::steady(4.0);
        let seconds = |pace: Pace| (0..6).map(|number| pace.due(number).as_secs_f64()).collect::<Vec<_>>();
        assert_eq!(seconds(steady), [0.0, 0.25, 0.5, 0.75, 1.0, 1.25]);
        assert_eq!(seconds(Pace { burst: 4, ..steady }), [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]);
        let later = Pace { offset: Duration::from_millis(100), ..steady };
        assert_eq!(seconds(later)[..2], [0.1, 0.35]);
    }

    struct Rig {
        control: watch::Sender<bool>,
        messages: mpsc::Receiver<Scheduled>,
        shutdown: CancellationToken,
        ledger: SharedLedger,
        ended: tokio::task::JoinHandle<Instant>,
    }

    fn start(pace: Pace, on: bool, queue: usize) -> Rig {
        let (control, positions) = watch::channel(on);
        let (queue, messages) = mpsc::channel(queue);
        let (shutdown, ledger) = (CancellationToken::new(), SharedLedger::default());
        let source = Source {
            scenario: Scenario::new(1, 0.0, jiff::civil::date(2026, 2, 9)),
            pace,
            duration: Duration::from_secs(10),
            wait: Duration::from_secs(5),
            queue,
            control: positions,
            ledger: ledger.clone(),
            shutdown: shutdown.clone(),
        };
        let ended = tokio::spawn(source.run());
        Rig { control, messages, shutdown, ledger, ended }
    }

    async fn all(messages: &mut mpsc::Receiver<Scheduled>) -> Vec<Scheduled> {
        let mut all = Vec::new();
        while let Some(message) = messages.recv().await {
            all.push(message);
        }
        all
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_that_is_slow_changes_no_due_time() {
        let mut rig = start(Pace { count: Some(20), ..Pace::steady(10.0) }, true, 1);
        // It takes the first message when the last one was due long ago.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let due: Vec<_> = all(&mut rig.messages).await.into_iter().take(20).map(|one| one.due).collect();
        let expected: Vec<_> = (0..20).map(|number| Pace::steady(10.0).due(number)).collect();
        assert_eq!(due, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_sent_while_the_control_is_off_and_the_schedule_goes_on_where_it_stood() {
        let mut rig = start(Pace { count: Some(4), ..Pace::steady(1.0) }, false, 100);
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert!(rig.messages.try_recv().is_err());
        rig.control.send(true).unwrap();
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        rig.control.send(false).unwrap();
        tokio::time::sleep(Duration::from_secs(3)).await;
        rig.control.send(true).unwrap();
        let due: Vec<_> = all(&mut rig.messages).await.iter().map(|one| one.due.as_secs()).collect();
        // At 2 and 3; off from 3.5 to 6.5, so that what was due at 4 and 5 is due at 7 and 8.
        assert_eq!(due[..4], [2, 3, 7, 8]);
        let paused =
            with(&rig.ledger, |ledger| ledger.verdict(jiff::Timestamp::UNIX_EPOCH)).details.paused_seconds;
        assert!((paused - 5.0).abs() < 0.01, "{paused}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_control_that_stays_off_ends_with_the_duration_and_one_without_a_holder_stays_as_it_is() {
        let mut rig = start(Pace::steady(1.0), false, 100);
        assert!(all(&mut rig.messages).await.is_empty());
        rig.ended.await.unwrap();
        let Rig { control, mut messages, .. } =
            start(Pace { count: Some(5), ..Pace::steady(1.0) }, true, 100);
        drop(control);
        assert!(all(&mut messages).await.len() >= 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shutdown_ends_generating_and_the_counterparts_still_follow() {
        let mut rig = start(Pace::steady(100.0), true, 1_000);
        tokio::time::sleep(Duration::from_secs(2)).await;
        rig.shutdown.cancel();
        let messages = all(&mut rig.messages).await;
        let timed = messages.iter().filter(|one| one.at.is_some()).count();
        assert!((190..=210).contains(&timed), "{timed}");
        assert!(messages.len() > timed);
    }
}
