//! What matching costs, and whether it decides as the oracle says. `cargo xtask bench matching` runs it.
//!
//! Sides per second count from a parsed report with its texts to the decision, in processor time of one thread, beside two
//! naive maps in the same run, interleaved A B C C B A. Bytes are what the process grew by, each time in a process of its own.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests and of this benchmark: it ends at the first surprise"
)]

mod contest;
mod market;
#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::{Command, ExitCode};

use clap::{Parser, ValueEnum};
use contest::{Digests, Make, PairingOnly, SameMemory, Tally, decide, run};
use market::{Market, Random};
use matching::{Book, Digester, SettlementTerms, Terms, TradeTerms};
use support::{Batch, compare};

const GOAL_SIDES_PER_SECOND: f64 = 2e6;
const GOAL_RATIO: f64 = 5.0;
const GOAL_BYTES: f64 = 96.0;
/// The table grows with this side: never is more of it free.
const WORST_SIDES: u32 = 880_929;

/// Measures matching.
#[derive(Debug, Parser)]
struct Settings {
    /// Random histories that are compared with the oracle, each as trades and as settlements.
    #[arg(long, default_value_t = 1_000_000)]
    cases: u64,
    /// Sides in a stream, two a trade.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(2..=10_000_000))]
    sides: u32,
    /// Seed of the stream and of the first history; each history after it has the next one.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Times that the stream is decided by each of the three; none leaves speed out.
    #[arg(long, default_value_t = 8)]
    rounds: usize,
    /// Bytes that a report carries beside the fields that matching knows.
    #[arg(long, default_value_t = 15)]
    rest: usize,
    /// Only fills a book with so many open sides and prints the bytes that one takes.
    #[arg(long, hide = true)]
    only_bytes: Option<Application>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Application {
    Trades,
    Settlements,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let market = Market { seed: settings.seed, rest: settings.rest };
    match settings.only_bytes {
        Some(Application::Trades) => bytes(&market, contest::trade, settings.sides),
        Some(Application::Settlements) => bytes(&market, contest::settlement, settings.sides),
        None => {
            machine();
            println!("settings: {settings:?}");
            if settings.rounds > 0 {
                speed(&market, &settings);
            }
            memory(&settings);
            return oracle(&settings);
        }
    }
    ExitCode::SUCCESS
}

fn machine() {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = file("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine: {threads} processors{model}; load average {}", file("/proc/loadavg").trim());
    if cfg!(debug_assertions) {
        println!("NOT a release build: speeds mean nothing");
    }
}

/// First quartile, median, third quartile.
fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let at = |share: f64| values[((values.len() - 1) as f64 * share).round() as usize];
    [at(0.25), at(0.5), at(0.75)]
}

/// A goal is missed when not even the upper quartile reaches it.
fn verdict([_, median, upper]: [f64; 3], goal: f64) -> &'static str {
    match (median >= goal, upper >= goal) {
        (true, _) => "PASS",
        (false, true) => "PASS, but only the upper quartile reaches it",
        (false, false) => "MISS",
    }
}

fn speed(market: &Market, settings: &Settings) {
    let arrivals = market.arrivals(settings.sides / 2);
    let mut tallies: Vec<Tally> = Vec::new();
    let mut speeds: [Vec<f64>; 3] = [const { Vec::new() }; 3];
    for round in 0..settings.rounds {
        let order = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
        for contestant in order {
            let (speed, tally) = match contestant {
                0 => run::<Digests>(market, &arrivals),
                1 => run::<PairingOnly>(market, &arrivals),
                _ => run::<SameMemory>(market, &arrivals),
            };
            speeds[contestant].push(speed);
            tallies.push(tally);
        }
    }
    assert!(tallies.iter().all(|tally| *tally == tallies[0]), "not all decide alike: {tallies:?}");
    println!("speed of one core, {} sides, {} rounds: {:?}", arrivals.len(), settings.rounds, tallies[0]);
    let names = ["book", "naive map that only pairs", "naive maps that also tell repeats and conflicts"];
    for (name, speeds) in names.iter().zip(&speeds) {
        let [low, median, high] = quartiles(speeds.clone()).map(|speed| speed / 1e6);
        println!("  {name}: median {median:.2}M sides/s, quartiles {low:.2}M to {high:.2}M");
    }
    let said = verdict(quartiles(speeds[0].clone()), GOAL_SIDES_PER_SECOND);
    println!("  goal, at least 2M sides/s: {said}");
    for naive in [1, 2] {
        let ratios = speeds[0].iter().zip(&speeds[naive]).map(|(book, naive)| book / naive).collect();
        let quartiles = quartiles(ratios);
        let [low, median, high] = quartiles;
        println!("  book / {}: median {median:.2}, quartiles {low:.2} to {high:.2}", names[naive]);
        println!("  goal, at least 5 times: {}", verdict(quartiles, GOAL_RATIO));
    }
}

/// Bytes that this process has in memory.
fn resident() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = pages.split(' ').nth(1).and_then(|pages| pages.parse().ok()).unwrap_or_default();
    pages * 4096
}

/// Fills a book with open sides and prints what one takes: by the growth of the process, and as the book itself counts.
fn bytes<T: Terms>(market: &Market, make: Make<T>, sides: u32) {
    let (mut book, mut digester, mut tally) = (Book::<T>::default(), Digester::new(1), Tally::default());
    decide(&mut book, &mut digester, make, &[market.report(0, false)], &mut tally);
    let before = resident();
    for trade in 1..u64::from(sides) {
        decide(&mut book, &mut digester, make, &[market.report(trade, false)], &mut tally);
    }
    let grown = resident() - before;
    assert_eq!(tally.open, u64::from(sides), "not all sides are open");
    println!("{} {}", grown as f64 / f64::from(sides), book.bytes() as f64 / f64::from(sides));
}

fn memory(settings: &Settings) {
    println!("bytes of an open side");
    let mut worst: f64 = 0.0;
    for application in ["trades", "settlements"] {
        for sides in [settings.sides, WORST_SIDES] {
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args(["--only-bytes", application, "--sides", &sides.to_string()]);
            command.args(["--seed", &settings.seed.to_string()]);
            let output = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let bytes: Vec<f64> = output.split_whitespace().map(|number| number.parse().unwrap()).collect();
            println!(
                "  {application}, {sides} sides: the process grew by {:.1}, the book counts {:.1}",
                bytes[0], bytes[1]
            );
            worst = worst.max(bytes[0]).max(bytes[1]);
        }
    }
    let said = if worst <= GOAL_BYTES { "PASS" } else { "MISS" };
    println!(
        "  goal, at most 96: {said}, {worst:.1} in the worst case ({WORST_SIDES} sides: the table has just grown)"
    );
}

/// A random history; the whole of it follows from its seed.
fn history(random: &mut Random) -> Vec<Batch> {
    let batches = random.below(6);
    let batch = |_| {
        let messages: Vec<u64> = (0..random.below(7)).map(|_| random.number()).collect();
        Batch::drawn(random.number(), &messages)
    };
    (0..batches).map(batch).collect()
}

fn oracle(settings: &Settings) -> ExitCode {
    let (mut different, mut messages) = (0_u64, 0);
    for case in 0..settings.cases {
        // Neighbouring seeds give unrelated histories, and each case can be had alone.
        let seed = settings.seed.wrapping_add(case);
        let mut random = Random(seed);
        let history = history(&mut random);
        messages += history.iter().map(|batch| batch.messages.len()).sum::<usize>();
        let key = u128::from(random.number()) << 64 | u128::from(random.number());
        for said in [compare::<TradeTerms>(&history, key), compare::<SettlementTerms>(&history, key)] {
            if let Err(said) = said {
                different += 1;
                println!("DIFFERENT, again with --cases 1 --rounds 0 --seed {seed}: {said}");
            }
        }
    }
    let (cases, seed) = (settings.cases, settings.seed);
    println!(
        "book and oracle: {cases} random histories of {messages} messages, each as trades and as settlements, seed {seed}"
    );
    println!("  goal, no difference: {}, {different} differ", if different == 0 { "PASS" } else { "MISS" });
    if different == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
