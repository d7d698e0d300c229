//! The part of JSON in the ceiling: every text that a side needs on its way is written once and read once.

use std::time::{Duration, Instant};

use jiff::civil::date;
use serde::Serialize;
use serde::de::DeserializeOwned;
use trading::envelope::{Decided, Emitted, Parsed, Raw, Record};
use trading::generate::Scenario;
use trading::message::{Response, Trade, json};
use trading::parse;

use crate::ceiling::Part;
use crate::cpu::Cpu;
use crate::load::{Load, real};
use crate::material::{Envelope, Side, envelope};

/// Writes and reads on all processors for a while.
pub(crate) async fn run(sides: &[Side], load: &Load, span: Duration) -> Part {
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let (cpu, began) = (Cpu::now(&[]), Instant::now());
    let until = began + span;
    let done: u64 = tokio::task::block_in_place(|| {
        std::thread::scope(|threads| {
            let working: Vec<_> = (0..workers).map(|_| threads.spawn(|| work(sides, load, until))).collect();
            working.into_iter().map(|worker| worker.join().unwrap()).sum()
        })
    });
    Part::of("JSON: written and read once each", real(done), began.elapsed(), &Cpu::now(&[]).since(&cpu))
}

fn work(sides: &[Side], load: &Load, until: Instant) -> u64 {
    const TOGETHER: usize = 100;
    let mut scenario = Scenario::new(load.seed, 0.0, date(2026, 2, 9)).with(load.workload.mix());
    let mut done = 0;
    for batch in sides.chunks(TOGETHER).cycle() {
        if Instant::now() >= until {
            return done;
        }
        for side in batch {
            // The customer's message, and what ingestion, core, egress and outbound store of it.
            std::hint::black_box(scenario.next_message());
            std::hint::black_box(parse::trade(&side.text, &side.raw.id).unwrap());
            written_and_read::<Trade>(&side.trade, false);
            written_and_read::<Trade>(&side.trade, false);
            written_and_read::<Decided>(&side.decided.content, true);
            written_and_read::<Response>(&side.response, false);
            written_and_read::<Response>(&side.response, true);
        }
        through::<Raw>(batch.iter().map(|side| &side.raw));
        through::<Parsed>(batch.iter().map(|side| &side.parsed));
        through::<Decided>(batch.iter().map(|side| &side.decided));
        through::<Emitted>(batch.iter().map(|side| &side.emitted));
        done += batch.len() as u64;
    }
    done
}

fn written_and_read<C: Serialize + DeserializeOwned>(content: &C, read: bool) {
    let text = json(content);
    if read {
        std::hint::black_box(serde_json::from_str::<C>(&text).unwrap());
    }
    std::hint::black_box(text);
}

/// A hop between stages.
fn through<'a, C: Serialize + DeserializeOwned + 'a>(records: impl Iterator<Item = &'a Record<C>>) {
    let text = envelope(records);
    std::hint::black_box(serde_json::from_slice::<Envelope<Vec<Record<C>>>>(&text).unwrap());
}
