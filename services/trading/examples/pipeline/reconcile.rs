//! Reconciliation over what the pipeline has stored: how long a comparison takes beside reading both stores once, whether it
//! names exactly the rows that are gone, and how fast what is gone is replayed.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use trading::names::Application;
use trading::reconcile::{self, Boundary, Comparison, Job, Plan, Replaying, Window};
use uuid::Uuid;

use crate::report;
use crate::servers::{PATIENCE, Pipeline, REGION, Servers};

/// Rows taken away behind each boundary: as many as a comparison names.
const GONE: i64 = 20;
/// Rows that are replayed: ten rounds of a replay.
const REPLAYED: i64 = 20_000;
const GOAL_OF_SCANS: f64 = 1.5;
const GOAL_OF_REPLAY: f64 = 3.0;

/// The stores before and behind a boundary, and the store and column whose rows are taken away.
fn stores(job: Job) -> (&'static [&'static str], &'static str, &'static str) {
    match job {
        Job::InboundIngress => (&["inbound_raw", "ingested", "nacks"], "ingested", "record"),
        Job::IngressCore => (&["ingested", "nacks", "trades", "conflicts", "outbox"], "trades", "record"),
        Job::CoreEgress => (&["outbox", "egressed"], "egressed", "message_id"),
        Job::EgressOutbound => (&["egressed", "sent"], "sent", "message_id"),
        _ => unreachable!("workload a has no settlements"),
    }
}

/// Compares what is stored, then the two last stores with so many rows each; `live` is what the pipeline took a second.
pub(crate) async fn run(servers: &Servers, pipeline: &Pipeline, rows: u32, live: f64) {
    pipeline.sql().batch_execute("vacuum analyze").await.unwrap();
    for job in Job::TRADES {
        let _ = beside_scans(servers, pipeline, job).await;
    }
    // From the last boundary to the first: what is taken away behind one stands before the next.
    for job in Job::TRADES.into_iter().rev() {
        names_what_is_gone(servers, pipeline, job).await;
    }
    let repaired = repair(servers, pipeline, Job::EgressOutbound).await;
    assert!(repaired.agrees(), "{repaired:?}");
    grow(pipeline.sql(), rows).await;
    let clean = beside_scans(servers, pipeline, Job::EgressOutbound).await;
    names_what_is_gone(servers, pipeline, Job::EgressOutbound).await;
    let gone = take_away(pipeline.sql(), Job::EgressOutbound, REPLAYED - GONE).await.len();
    let began = Instant::now();
    let repaired = repair(servers, pipeline, Job::EgressOutbound).await;
    let took = began.elapsed();
    let replay = repaired.replay.unwrap();
    // It compares before and after.
    let sending = took.saturating_sub(clean * 2);
    println!(
        "replay: {gone} more rows taken away; {} sent again and {} left in {took:.1?}, of which two comparisons {:.1?}",
        replay.replayed,
        replay.left,
        clean * 2
    );
    if sending < took / 5 {
        println!("  its rate cannot be told: nearly all of that time is the comparisons'");
        return;
    }
    let rate = report::rate(replay.replayed, sending);
    report::figure(
        "  its rate beside the comparisons, times the live rate",
        &[rate / live],
        Some(GOAL_OF_REPLAY),
    );
}

/// A comparison that finds nothing, beside reading its stores once. Its time.
async fn beside_scans(servers: &Servers, pipeline: &Pipeline, job: Job) -> Duration {
    let scanned = scan(pipeline.sql(), job).await;
    let began = Instant::now();
    let clean = compare(servers, pipeline, job).await;
    let took = began.elapsed();
    let false_findings = clean.missing.count + clean.ahead.count + clean.differs.count;
    if false_findings > 0 {
        report::broken();
    }
    println!(
        "{}: {} records compared in {took:.1?} ({:.0}/s), its stores read in {scanned:.1?}; false findings: {false_findings}",
        job.word(),
        clean.compared,
        report::rate(clean.compared, took),
    );
    report::at_most("  times the reading", took.as_secs_f64() / scanned.as_secs_f64(), GOAL_OF_SCANS);
    took
}

async fn names_what_is_gone(servers: &Servers, pipeline: &Pipeline, job: Job) {
    let gone = take_away(pipeline.sql(), job, GONE).await;
    let began = Instant::now();
    let found = compare(servers, pipeline, job).await;
    let took = began.elapsed();
    let named: BTreeSet<Uuid> = found.missing.first.iter().map(|finding| finding.id).collect();
    let whose = if named == gone {
        "are theirs"
    } else {
        report::broken();
        "are NOT theirs"
    };
    println!(
        "{}: {} rows taken away, {} found missing in {took:.1?}, the ids {whose}",
        job.word(),
        gone.len(),
        found.missing.count
    );
}

/// Fills the last two stores up with copies of what they hold, under ids of their own.
async fn grow(sql: &Client, rows: u32) {
    let fill = format!(
        "alter table trading.egressed disable trigger region_guard; \
         alter table trading.sent disable trigger region_guard; \
         insert into trading.egressed (message_id, id, status, body, caused_ms) \
            select gen_random_uuid(), id, status, body, caused_ms from trading.egressed, \
               generate_series(1, {rows} / (select count(*) from trading.egressed)) \
            limit greatest({rows} - (select count(*) from trading.egressed), 0); \
         insert into trading.sent (message_id, id, status, body, caused_ms) \
            select message_id, id, status, body, caused_ms from trading.egressed on conflict do nothing; \
         alter table trading.egressed enable always trigger region_guard; \
         alter table trading.sent enable always trigger region_guard; \
         vacuum analyze trading.egressed; vacuum analyze trading.sent"
    );
    for step in fill.split(';') {
        sql.batch_execute(step).await.unwrap();
    }
}

/// Reads every row of a boundary's stores.
async fn scan(sql: &Client, job: Job) -> Duration {
    let began = Instant::now();
    for table in stores(job).0 {
        let scan = format!("select count(whole) from trading.{table} as whole");
        sql.query_one(&scan, &[]).await.unwrap();
    }
    began.elapsed()
}

async fn compare(servers: &Servers, pipeline: &Pipeline, job: Job) -> Comparison {
    boundary(servers, pipeline, job, None).await.comparison
}

async fn repair(servers: &Servers, pipeline: &Pipeline, job: Job) -> Boundary {
    let broker = pipeline.target(servers, "reconcile").broker;
    let replaying = Replaying { broker, wait: PATIENCE, by: "the benchmark".to_owned() };
    boundary(servers, pipeline, job, Some(replaying)).await
}

async fn boundary(servers: &Servers, pipeline: &Pipeline, job: Job, replay: Option<Replaying>) -> Boundary {
    let plan = Plan {
        application: Application::TradeMatching,
        app: "trade-matching".to_owned(),
        region: REGION.to_owned(),
        database: servers.database(pipeline.database(), "trading_core"),
        peer: None,
        jobs: vec![job],
        window: Window { since: None, grace: Duration::ZERO },
        resend_after: Duration::MAX,
        replay,
    };
    reconcile::run(&plan).await.unwrap().boundaries.remove(0)
}

/// As a fault would, past the triggers that demand the lease.
async fn take_away(sql: &Client, job: Job, rows: i64) -> BTreeSet<Uuid> {
    let (_, store, column) = stores(job);
    let trigger = |word| format!("alter table trading.{store} {word} trigger region_guard");
    let delete = format!(
        "delete from trading.{store} where {column} in (select {column} from trading.{store} limit {rows}) \
         returning {column}"
    );
    sql.batch_execute(&trigger("disable")).await.unwrap();
    let rows = sql.query(&delete, &[]).await.unwrap();
    sql.batch_execute(&trigger("enable always")).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
