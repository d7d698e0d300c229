//! Reconciliation over what the pipeline has stored: how long a comparison takes beside reading both stores once, and
//! whether it names exactly the rows that are gone.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use tokio_postgres::Client;
use trading::reconcile::{self, Comparison, Job, Plan, Window};
use uuid::Uuid;

use crate::report;
use crate::servers::{Pipeline, REGION, Servers};

/// Rows taken away behind each boundary: as many as a comparison names.
const GONE: i64 = 20;
const GOAL_OF_SCANS: f64 = 1.5;

/// The stores before and behind a boundary, and the store and column whose rows are taken away.
fn stores(job: Job) -> (&'static [&'static str], &'static str, &'static str) {
    match job {
        Job::InboundIngress => (&["inbound_raw", "ingested", "nacks"], "ingested", "record"),
        Job::IngressCore => (&["ingested", "nacks", "trades", "conflicts", "outbox"], "trades", "record"),
        Job::CoreEgress => (&["outbox", "egressed"], "egressed", "message_id"),
        Job::EgressOutbound => (&["egressed", "sent"], "sent", "message_id"),
    }
}

pub(crate) async fn run(servers: &Servers, pipeline: &Pipeline) {
    let sql = pipeline.sql();
    sql.batch_execute("vacuum analyze").await.unwrap();
    for job in Job::ALL {
        let scanned = scan(sql, job).await;
        let began = Instant::now();
        let clean = compare(servers, pipeline, job).await;
        let took = began.elapsed();
        println!(
            "{}: {} records compared in {took:.1?} ({:.0}/s), its stores scanned in {scanned:.1?}; false findings: {}",
            job.word(),
            clean.compared,
            report::rate(clean.compared, took),
            clean.missing.count + clean.ahead.count + clean.differs.count,
        );
        report::at_most("  times the scans", took.as_secs_f64() / scanned.as_secs_f64(), GOAL_OF_SCANS);
    }
    // From the last boundary to the first: what is taken away behind one stands before the next.
    for job in Job::ALL.into_iter().rev() {
        let gone = take_away(sql, job).await;
        let found = compare(servers, pipeline, job).await;
        let named: BTreeSet<Uuid> = found.missing.first.iter().map(|finding| finding.id).collect();
        let whose = if named == gone { "are theirs" } else { "are NOT theirs" };
        println!(
            "{}: {} rows taken away, {} found missing, the ids {whose}",
            job.word(),
            gone.len(),
            found.missing.count
        );
    }
}

/// Reads every byte of a boundary's stores.
async fn scan(sql: &Client, job: Job) -> Duration {
    let began = Instant::now();
    for table in stores(job).0 {
        let scan = format!("select sum(octet_length(whole::text)) from trading.{table} as whole");
        sql.query_one(&scan, &[]).await.unwrap();
    }
    began.elapsed()
}

async fn compare(servers: &Servers, pipeline: &Pipeline, job: Job) -> Comparison {
    let plan = Plan {
        app: "trade-matching".to_owned(),
        region: REGION.to_owned(),
        database: servers.database(pipeline.database(), "trading_core"),
        jobs: vec![job],
        window: Window { since: None, grace: Duration::ZERO },
        replay: None,
    };
    reconcile::run(&plan).await.unwrap().boundaries.remove(0).comparison
}

/// As a fault would, past the triggers that demand the lease.
async fn take_away(sql: &Client, job: Job) -> BTreeSet<Uuid> {
    let (_, store, column) = stores(job);
    let delete = format!(
        "delete from trading.{store} where {column} in (select {column} from trading.{store} limit {GONE}) \
         returning {column}"
    );
    sql.batch_execute("set session_replication_role = replica").await.unwrap();
    let rows = sql.query(&delete, &[]).await.unwrap();
    sql.batch_execute("reset session_replication_role").await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}
