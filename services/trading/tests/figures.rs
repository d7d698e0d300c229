//! What the pipeline tells about itself: what is on its way, and how long answers take.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::net::SocketAddr;

use jiff::civil::date;
use serde_json::Value;
use support::{World, eventually};
use trading::generate::Scenario;
use trading::run::StageName;

/// What a process answers on a path.
async fn asked(http: SocketAddr, path: &str) -> (u16, String) {
    support::http(http, "GET", path, "", "").await
}

async fn backlog(http: SocketAddr) -> Value {
    let (status, body) = asked(http, "/backlog").await;
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// The sum of a counter over all its labels.
fn total(metrics: &str, name: &str) -> u64 {
    let lines = metrics.lines().filter(|line| line.starts_with(name));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_on_its_way_is_told_and_each_answer_is_timed_once() {
    let world = World::open().await;
    let mut pipeline = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion, StageName::Core] {
        pipeline.push(world.stage(stage).await);
    }
    let core = pipeline[2].http;
    assert_eq!(backlog(core).await["oldestSeconds"], Value::Null, "nothing is not a time");
    let mut scenario = Scenario::new(3, 0.2, date(2026, 2, 9));
    let mut messages: Vec<_> = (0..20).map(|_| scenario.next_message()).collect();
    messages.extend(scenario.close());
    for message in &messages {
        world.publish(Some(&message.id), &message.body).await;
    }
    let sent = messages.len() as u64;
    eventually("all decided, none answered", async || {
        let told = backlog(core).await;
        (told["undecided"] == 0 && told["unanswered"] == sent).then_some(())
    })
    .await;
    let told = backlog(core).await;
    assert_eq!(told["total"], sent, "{told}");
    assert!(told["oldestSeconds"].as_f64().is_some_and(|seconds| seconds > 0.0), "{told}");
    eventually("the metrics tell it too", async || {
        let (_, metrics) = asked(core, "/metrics").await;
        let line = format!("services_backlog_records{{stage=\"core\",part=\"unanswered\"}} {sent}.0");
        metrics.contains(&line).then_some(())
    })
    .await;
    pipeline.push(world.stage(StageName::Egress).await);
    let outbound = world.stage(StageName::Outbound).await;
    world.nothing_is_on_its_way().await;
    assert_eq!(backlog(core).await["total"], 0);
    let (_, metrics) = asked(outbound.http, "/metrics").await;
    assert_eq!(total(&metrics, "services_answer_seconds_count"), sent, "{metrics}");
    assert_eq!(total(&metrics, "services_records_total"), sent, "{metrics}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_that_cannot_be_read_is_not_zero() {
    let world = World::open().await;
    let core = world.stage(StageName::Core).await;
    assert_eq!(backlog(core.http).await["total"], 0);
    world
        .sql
        .batch_execute("revoke select on trading.on_its_way, trading.backlog from trading_core")
        .await
        .unwrap();
    let (status, body) = asked(core.http, "/backlog").await;
    assert_eq!(status, 503, "{body}");
    assert!(body.contains("not known") && body.contains("on_its_way"), "{body}");
    eventually("the metrics say that it is not known", async || {
        let (_, metrics) = asked(core.http, "/metrics").await;
        metrics.contains("services_backlog_records{stage=\"core\",part=\"undecided\"} NaN").then_some(())
    })
    .await;
}
