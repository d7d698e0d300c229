//! The ceiling: what the parts of the pipeline carry alone on the same processors, and what that makes together.

use std::collections::BTreeMap;
use std::time::Duration;

use trading::run::StageName;

use crate::cpu::Cpu;
use crate::load::{Load, Seen};
use crate::servers::{Pipeline, Servers};
use crate::{chain, material, stores, texts};

/// Sides that each store takes.
const STORED: usize = 40_000;

/// What one part cost.
pub(crate) struct Part {
    name: String,
    /// Sides a second by the clock, with as many workers as processors.
    rate: f64,
    /// Seconds of processor time a side.
    cpu: f64,
    by: BTreeMap<String, f64>,
}

impl Part {
    pub(crate) fn of(name: &str, sides: f64, took: Duration, cpu: &Cpu) -> Self {
        let by = cpu.0.iter().map(|(who, seconds)| (who.clone(), seconds / sides)).collect();
        Self { name: name.to_owned(), rate: sides / took.as_secs_f64(), cpu: cpu.total() / sides, by }
    }
}

/// How the pipeline batched while it was measured.
#[derive(Clone, Debug)]
pub(crate) struct Batches {
    /// Sides in a message between stages.
    pub(crate) records_in_message: usize,
    /// Messages that each stage took together.
    pub(crate) messages: Vec<usize>,
    /// Sides that each stage committed together.
    pub(crate) records: Vec<usize>,
    /// Rows that core's relay sent together.
    pub(crate) relayed: usize,
}

impl Batches {
    pub(crate) fn of(seen: &Seen) -> Self {
        let whole = |number: f64| if number.is_finite() { number.round().max(1.0) as usize } else { 1 };
        let each = |name: &str, by: &str| {
            StageName::ALL
                .map(|stage| whole(seen.counter(stage.word(), name) / seen.counter(stage.word(), by)))
        };
        let batches = "services_batch_messages_count{}";
        // How core's relay marks what it has sent; the texts of statements are cut.
        let marked = seen
            .statements
            .iter()
            .find(|statement| statement.text.starts_with("delete from trading.unsent where seq "))
            .unwrap();
        Self {
            records_in_message: each("services_records_total{}", "services_batch_messages_sum{}")[1],
            messages: each("services_batch_messages_sum{}", batches).to_vec(),
            records: each("services_records_total{}", batches).to_vec(),
            relayed: whole(marked.rows / marked.calls),
        }
    }
}

/// Measures all parts, each alone.
pub(crate) async fn measure(
    servers: &Servers,
    pipeline: &Pipeline,
    load: &Load,
    batches: &Batches,
) -> Ceiling {
    let sides = material::sides(load.workload, load.seed);
    let span = Duration::from_secs(5).min(load.span);
    let mut parts = vec![chain::run(servers, &sides, batches, load.window as u64, span).await];
    parts.extend(stores::run(servers, pipeline, &sides, batches, STORED).await);
    parts.push(texts::run(&sides, load, span).await);
    Ceiling(parts)
}

/// The parts.
pub(crate) struct Ceiling(Vec<Part>);

impl Ceiling {
    /// Sides a second if nothing but the parts took time, one after the other: 1 / Σ 1/T.
    pub(crate) fn by_clock(&self) -> f64 {
        1.0 / self.0.iter().map(|part| 1.0 / part.rate).sum::<f64>()
    }

    /// Seconds of processor time that a side costs in all parts together.
    pub(crate) fn cpu(&self) -> f64 {
        self.0.iter().map(|part| part.cpu).sum()
    }

    /// The broker's part.
    pub(crate) fn chain(&self) -> f64 {
        self.0[0].rate
    }

    pub(crate) fn print(&self) {
        println!("  part alone                              sides/s   CPU ms/1000 sides");
        for part in &self.0 {
            let by: Vec<_> = part.by.iter().map(|(who, cpu)| format!("{who} {:.0}", cpu * 1e6)).collect();
            println!("  {:<38} {:>8.0} {:>8.0}   {}", part.name, part.rate, part.cpu * 1e6, by.join(", "));
        }
    }
}
