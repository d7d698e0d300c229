//! What is printed.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use trading::generate::Percentiles;

use crate::load::{Seen, real};
use crate::servers::{POSTGRES_OPTIONS, Servers};

/// What the figures were measured on.
pub(crate) async fn machine(servers: &Servers) {
    let file = |path| std::fs::read_to_string(path).unwrap_or_default();
    let processors = file("/proc/cpuinfo");
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown");
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    println!("machine: {threads} processors{model}; load average {}", file("/proc/loadavg").trim());
    let build = if cfg!(debug_assertions) { "the one for development, opt-level 1" } else { "release" };
    let sql = region_lease::connect(&servers.database("postgres", "postgres")).await.unwrap();
    let version: String = sql.query_one("show server_version", &[]).await.unwrap().get(0);
    let overview = servers.management("GET", "/api/overview").await;
    let broker = overview.split_once(r#""rabbitmq_version":""#).and_then(|(_, rest)| rest.split('"').next());
    println!(
        "build: {build}; PostgreSQL {version} {POSTGRES_OPTIONS}; RabbitMQ {}",
        broker.unwrap_or("unknown")
    );
    println!("data on disk, no standby, no TLS, one process of each stage");
}

/// Rate and cost of one measurement, and whether the customer's books are right.
pub(crate) fn end_to_end(what: &str, seen: &Seen) {
    let verdict = &seen.verdict;
    let books = if verdict.good() { "nothing lost, nothing doubled" } else { "NOT GOOD" };
    println!(
        "{what}: {:.0} sides/s over {:.0} s; {:.0} CPU ms and {:.0} KiB of database log per 1000 sides; {} answered: {books}",
        seen.rate(),
        seen.seconds,
        seen.cpu_per_1000() * 1000.0,
        seen.wal / seen.sides * 1000.0 / 1024.0,
        verdict.answered,
    );
    if seen.returned > 0.0 {
        let after = seen
            .settled_after
            .map_or("never".to_owned(), |after| format!("{after:.1?} after the last answer"));
        println!(
            "  settlements: {:.0} came back a second; the last one {after}",
            seen.returned / seen.seconds
        );
    }
    let by: Vec<_> =
        seen.cpu.0.iter().map(|(who, seconds)| format!("{who} {:.0}", seconds / seen.sides * 1e6)).collect();
    println!("  CPU ms/1000 sides: {}", by.join(", "));
    if !verdict.good() {
        println!("{verdict:#?}");
        broken();
    }
}

static BROKEN: AtomicBool = AtomicBool::new(false);

/// Notes that the product did something wrong, which is another matter than a goal that is missed.
pub(crate) fn broken() {
    BROKEN.store(true, Ordering::Relaxed);
}

/// Failure where something wrong was noted.
pub(crate) fn exit_code() -> ExitCode {
    if BROKEN.load(Ordering::Relaxed) { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// From when a side was due to its answer.
pub(crate) fn latency(what: &str, seen: &Seen) {
    let Percentiles { count, p50, p99, p999, max } = seen.verdict.details.latency;
    println!(
        "answers {what} ({:.0} sides/s) took {p50:.1} ms (P50), {p99:.1} (P99), {p999:.1} (P99.9), {max:.1} (all {count})",
        seen.rate()
    );
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The value that so large a share does not exceed.
fn quantile(values: &[f64], share: f64) -> f64 {
    sorted(values)[((values.len() - 1) as f64 * share).round() as usize]
}

pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// Median and quartiles of all rounds. A goal is missed when not even the upper quartile reaches it.
pub(crate) fn figure(what: &str, values: &[f64], goal: Option<f64>) {
    let [lower, middle, upper] = [0.25, 0.5, 0.75].map(|share| quantile(values, share));
    let digits = if middle < 100.0 { 2 } else { 0 };
    print!(
        "{what}: {middle:.digits$} (quartiles {lower:.digits$} to {upper:.digits$} of {} rounds)",
        values.len()
    );
    match goal {
        None => println!(),
        Some(goal) => println!("; goal at least {goal}: {}", if upper >= goal { "PASS" } else { "MISS" }),
    }
}

pub(crate) fn at_most(what: &str, value: f64, goal: f64) {
    println!("{what}: {value:.2}; goal at most {goal}: {}", if value <= goal { "PASS" } else { "MISS" });
}

/// So many a second.
pub(crate) fn rate(count: u64, took: Duration) -> f64 {
    real(count) / took.as_secs_f64()
}
