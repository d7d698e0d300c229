//! Counters of a stage, in the text format of OpenMetrics. Labels come from enums only.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Serialize;

/// What became of messages that a stage took.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Fate {
    /// Stored, passed on and acknowledged.
    Done,
    /// Given back to the broker: fenced, too late, or an error that passes.
    Requeued,
    /// Written to quarantine with a reason: a whole message, or one record of a message that is otherwise done.
    Quarantined,
}

/// What a process has done since its start, for `/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Messages stored, passed on and acknowledged.
    pub done: u64,
    /// Messages given back to the broker.
    pub requeued: u64,
    /// Messages, or records of messages, that were set apart with a reason.
    pub quarantined: u64,
    /// Records in the messages that were done.
    pub records: u64,
    /// Messages published onward and confirmed.
    pub published: u64,
    /// Transactions in which messages were stored: `done / batches` is the mean size of a batch.
    pub batches: u64,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FateLabels {
    fate: Fate,
}

/// What a stage spends the time of its batches on.
#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelValue)]
pub enum Part {
    /// Reading the records out of the messages.
    Read,
    /// The transaction, from asking for a connection to the commit.
    Store,
    /// Publishing onward, until the broker has confirmed.
    Publish,
    /// The transaction that notes the delivery.
    Note,
    /// Acknowledging.
    Acknowledge,
    /// A relay's transaction, without the publishing inside it.
    RelayStore,
    /// A relay's publishing, until the broker has confirmed.
    RelayPublish,
}

impl Part {
    const ALL: [Self; 7] = [
        Self::Read,
        Self::Store,
        Self::Publish,
        Self::Note,
        Self::Acknowledge,
        Self::RelayStore,
        Self::RelayPublish,
    ];
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PartLabels {
    part: Part,
}

/// The metrics of one process.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Registry>,
    messages: Family<FateLabels, Counter>,
    batch_messages: Histogram,
    batch_seconds: Histogram,
    /// The histograms' own count cannot be read.
    batches: Arc<AtomicU64>,
    part_seconds: Family<PartLabels, Counter<f64, AtomicU64>>,
    /// Messages published onward and confirmed.
    pub published: Counter,
    /// Records in the messages that were done: a message between stages holds many.
    pub records: Counter,
    /// 0 closed, 1 core, 2 open, 3 draining.
    pub gate: Gauge<i64, AtomicI64>,
    /// Epoch of the grant under which the process works; 0 when closed.
    pub epoch: Gauge<i64, AtomicI64>,
}

impl Metrics {
    /// Registers all metrics under the prefix `services` with the label `stage`; every label set starts at zero.
    pub fn new(stage: &'static str) -> Self {
        Self::with(stage, |_| {})
    }

    /// The same, with metrics of the application's own.
    pub fn with(stage: &'static str, own: impl FnOnce(&mut Registry)) -> Self {
        let labels = std::iter::once(("stage".into(), stage.into()));
        let mut registry = Registry::with_prefix_and_labels("services", labels);
        let messages = Family::<FateLabels, Counter>::default();
        for fate in [Fate::Done, Fate::Requeued, Fate::Quarantined] {
            let _ = messages.get_or_create(&FateLabels { fate });
        }
        let batch_messages = Histogram::new(exponential_buckets(1.0, 2.0, 10));
        let batch_seconds = Histogram::new(exponential_buckets(0.001, 2.0, 14));
        let part_seconds = Family::<PartLabels, Counter<f64, AtomicU64>>::default();
        for part in Part::ALL {
            let _ = part_seconds.get_or_create(&PartLabels { part });
        }
        let (published, records) = (Counter::default(), Counter::default());
        let (gate, epoch) = (Gauge::default(), Gauge::default());
        registry.register(
            "messages",
            "Messages taken from the queue, by what became of them",
            messages.clone(),
        );
        registry.register("batch_messages", "Messages in one transaction", batch_messages.clone());
        registry.register(
            "batch_seconds",
            "Time from taking a batch to acknowledging it",
            batch_seconds.clone(),
        );
        registry.register(
            "part_seconds",
            "Time of batches and of relays' rounds, by what it was spent on",
            part_seconds.clone(),
        );
        registry.register("published", "Messages published onward and confirmed", published.clone());
        registry.register("records", "Records in the messages that were done", records.clone());
        registry.register("gate", "0 closed, 1 core, 2 open, 3 draining", gate.clone());
        registry.register("epoch", "Epoch under which this process works, 0 when closed", epoch.clone());
        own(&mut registry);
        let registry = Arc::new(registry);
        Self {
            registry,
            messages,
            batch_messages,
            batch_seconds,
            batches: Arc::default(),
            part_seconds,
            published,
            records,
            gate,
            epoch,
        }
    }

    /// Counts messages that left the stage.
    pub fn count(&self, fate: Fate, messages: usize) {
        self.messages.get_or_create(&FateLabels { fate }).inc_by(messages as u64);
    }

    /// Records one finished batch.
    pub fn batch(&self, messages: usize, took: std::time::Duration) {
        #[expect(clippy::cast_precision_loss, reason = "a batch holds far fewer than 2^52 messages")]
        self.batch_messages.observe(messages as f64);
        self.batch_seconds.observe(took.as_secs_f64());
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// Sums since the start of the process.
    pub fn counts(&self) -> Counts {
        let messages = |fate| self.messages.get_or_create(&FateLabels { fate }).get();
        Counts {
            done: messages(Fate::Done),
            requeued: messages(Fate::Requeued),
            quarantined: messages(Fate::Quarantined),
            records: self.records.get(),
            published: self.published.get(),
            batches: self.batches.load(Ordering::Relaxed),
        }
    }

    /// Adds to the time that was spent on a part of batches.
    pub fn spent(&self, part: Part, took: std::time::Duration) {
        self.part_seconds.get_or_create(&PartLabels { part }).inc_by(took.as_secs_f64());
    }

    /// Does a part of a batch, and adds the time that it took.
    pub async fn timed<T>(&self, part: Part, doing: impl Future<Output = T>) -> T {
        let began = std::time::Instant::now();
        let done = doing.await;
        self.spent(part, began.elapsed());
        done
    }

    /// Everything, in the text format of OpenMetrics.
    pub fn text(&self) -> String {
        let mut text = String::new();
        match prometheus_client::encoding::text::encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# metrics could not be written: {error}\n"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stage_is_a_label_so_that_one_query_covers_all_stages() {
        let metrics = Metrics::new("core");
        metrics.count(Fate::Done, 3);
        let text = metrics.text();
        assert!(text.contains("services_messages_total{stage=\"core\",fate=\"Done\"} 3\n"), "{text}");
        assert!(text.contains("services_gate{stage=\"core\"} 0\n"), "{text}");
    }

    #[test]
    fn sums_since_the_start_say_how_large_a_batch_is_in_the_mean() {
        let metrics = Metrics::new("core");
        metrics.batch(3, std::time::Duration::from_millis(5));
        metrics.count(Fate::Done, 2);
        metrics.count(Fate::Requeued, 1);
        metrics.batch(5, std::time::Duration::from_millis(5));
        metrics.count(Fate::Done, 5);
        metrics.records.inc_by(40);
        let expected = Counts { done: 7, requeued: 1, records: 40, batches: 2, ..Counts::default() };
        assert_eq!(metrics.counts(), expected);
    }
}
