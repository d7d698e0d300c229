//! What core says of its application: how many reports have which status, the same as a count over the store at each
//! moment; what is on its way; and the latest reconciliation.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::civil::date;
use serde_json::{Value, json};
use support::both::{ACCOUNT, Both, allocated};
use support::reconciling::{SETTLEMENT, TRADING, replayed};
use support::reports::{BROKER, IM, send};
use support::stores::one_of_every_kind;
use support::{Process, World, eventually};
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Mix, Plan, Scenario, SharedLedger, Verdict};
use trading::names::{self, Application};
use trading::run::StageName;

/// Statuses whose count is not that of the store, in one snapshot.
fn differing(application: Application) -> String {
    let table = match application {
        Application::TradeMatching => "trades",
        Application::Settlement => "settlements",
    };
    format!(
        "select count(*) from (select status, count(*) as reports from trading.{table} group by status) as stored \
         full join (select status, reports from trading.breakdown where reports <> 0) as counted using (status) \
         where stored.reports is distinct from counted.reports"
    )
}

async fn assert_counted(world: &World) {
    assert_eq!(world.number(&differing(world.application)).await, 0, "in {}", world.name);
}

/// A customer who sends everything that changes a status, and bad messages.
fn customer(world: &World, rate: f64, seconds: u64) -> impl Future<Output = Verdict> + use<> {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let odds = "matched,mismatched,unmatched,amended,cancelled".parse().unwrap();
    let scenario = Scenario::new(seed, 0.1, date(2026, 2, 9)).with(Mix { odds, ..Mix::default() });
    let plan = Plan { rate, duration: Duration::from_secs(seconds), wait: support::PATIENCE, scenario };
    let (submit, answers) = (world.target("submit"), world.target("answers"));
    generate::run(plan, submit, answers, SharedLedger::default(), CancellationToken::new())
}

async fn status(core: &Process) -> Value {
    let (code, body) = support::http(core.http, "GET", "/status", "", "").await;
    assert_eq!(code, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Waits until core tells what a count over the store gives, in `/status` and as metrics.
async fn assert_told(world: &World, core: &Process, table: &str, metric: &str) {
    let query = format!("select status || ' ' || count(*) from trading.{table} group by status");
    let stored: BTreeMap<String, i64> = world
        .texts(&query)
        .await
        .iter()
        .map(|text| {
            text.split_once(' ').map(|(word, count)| (word.to_owned(), count.parse().unwrap())).unwrap()
        })
        .collect();
    assert!(stored.len() > 1, "{stored:?}");
    eventually("core tells what the store holds", async || {
        let told = status(core).await["breakdown"].clone();
        let all = told["total"] == json!(stored.values().sum::<i64>());
        (all && stored.iter().all(|(word, count)| told[word] == json!(count))).then_some(())
    })
    .await;
    let (_, metrics) = support::http(core.http, "GET", "/metrics", "", "").await;
    for (word, count) in &stored {
        let line = format!("services_{metric}{{stage=\"core\",status=\"{word}\"}} {count}.0\n");
        assert!(metrics.contains(&line), "{line} is not in {metrics}");
    }
}

/// Kills the only core of an application while it works, and starts another one.
async fn core_killed_at_work(world: &World) -> Process {
    let decided = "select count(*) from trading.outbox";
    for round in 0..3 {
        let core = world.stage(StageName::Core).await;
        let before = world.number(decided).await;
        eventually("core decides", async || {
            (world.number(decided).await > before + 10 * round).then_some(())
        })
        .await;
        core.kill();
        assert_counted(world).await;
    }
    world.stage(StageName::Core).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_counts_are_those_of_the_stores_at_each_moment_whatever_happens_to_core() {
    let both = Both::start().await;
    let mut others = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion, StageName::Egress, StageName::Outbound] {
        others.push(both.trading.stage(stage).await);
        others.push(both.settlement.stage(stage).await);
    }
    let traffic = tokio::spawn(customer(&both.trading, 100.0, 8));
    let (trading, settlement) =
        tokio::join!(core_killed_at_work(&both.trading), core_killed_at_work(&both.settlement));
    // Two at once, whose transactions overlap.
    others.push(both.trading.stage(StageName::Core).await);
    others.push(both.settlement.stage(StageName::Core).await);
    let mut looks = 0;
    while !traffic.is_finished() {
        assert_counted(&both.trading).await;
        assert_counted(&both.settlement).await;
        looks += 1;
    }
    let verdict = traffic.await.unwrap();
    assert!(verdict.good() && looks > 20, "{looks} looks, {verdict:#?}");
    // Amended, cancelled, repeated, in conflict, too late.
    one_of_every_kind(&both.trading).await;
    // Its second allocation does not settle.
    for (sender, account) in [(IM, ACCOUNT), (BROKER, "0000000001")] {
        send(&both.trading, &allocated(sender, 903, account)).await;
    }
    both.nothing_is_on_its_way().await;
    assert_told(&both.trading, &trading, "trades", "trades").await;
    assert_told(&both.settlement, &settlement, "settlements", "settlements").await;
    for world in [&both.trading, &both.settlement] {
        assert_counted(world).await;
        let shares = world.number("select count(*) from trading.standings").await;
        assert!(shares <= 65 * 6, "{shares} shares");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn reports_that_were_lost_before_core_and_are_replayed_count_once() {
    let world = World::open().await;
    let mut stages = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion] {
        stages.push(world.stage(stage).await);
    }
    let mut scenario = Scenario::new(21, 0.0, date(2026, 2, 9));
    let mut messages: Vec<_> = (0..20).map(|_| scenario.next_message()).collect();
    messages.extend(scenario.close());
    for message in &messages {
        world.publish(Some(&message.id), &message.body).await;
    }
    let ingested = "select count(*) from trading.ingested";
    let sent = i64::try_from(messages.len()).unwrap();
    eventually("all are at core's door", async || (world.number(ingested).await == sent).then_some(())).await;
    eventually("something to lose", async || (world.purge(names::CORE).await > 0).then_some(())).await;
    let epoch = world.fence().await;
    for stage in [StageName::Core, StageName::Egress, StageName::Outbound] {
        stages.push(world.stage(stage).await);
    }
    world.grant(epoch, epoch + 2).await;
    let core = &stages[2];
    for _ in 0..2 {
        let (code, answer) = world.hook(core, "after-grant", epoch + 2).await;
        assert_eq!(code, 200, "{answer}");
    }
    world.nothing_is_on_its_way().await;
    assert_eq!(world.number("select count(*) from trading.trades").await, sent);
    assert_counted(&world).await;
}

/// The migration's own text, on a store that has grown without it.
#[tokio::test(flavor = "multi_thread")]
async fn reports_that_were_there_before_the_counting_are_counted_while_others_come() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    world
        .sql
        .batch_execute(
            "drop table trading.standings cascade; drop function trading.count_standings() cascade; \
             drop function trading.recount(); drop index trading.reconciliations_by_job",
        )
        .await
        .unwrap();
    let traffic = tokio::spawn(customer(&world, 150.0, 4));
    let decided = "select count(*) from trading.outbox";
    let before = world.number(decided).await;
    eventually("trades flow", async || (world.number(decided).await > before + 20).then_some(())).await;
    let as_owner = async |text: &str| {
        world.sql.batch_execute(&format!("set role trading_owner; {text}; reset role")).await.unwrap();
    };
    as_owner(include_str!("../migrations/trade_matching/V10__standings.sql")).await;
    assert_eq!(world.number("select count(*) from trading.breakdown").await, 0, "not known yet is not zero");
    let before = world.number(decided).await;
    eventually("trades flow", async || (world.number(decided).await > before + 20).then_some(())).await;
    as_owner(include_str!("../migrations/trade_matching/V11__standings_so_far.sql")).await;
    while !traffic.is_finished() {
        assert_counted(&world).await;
    }
    assert!(traffic.await.unwrap().good());
    assert!(world.number("select sum(reports)::bigint from trading.breakdown").await > 300);
    assert_counted(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_behind_the_guard_is_counted_again_on_demand() {
    let world = World::open().await;
    let pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    drop(pipeline);
    support::stores::damage(&world, "trades", "delete from trading.trades where status = 'MATCHED'").await;
    assert_eq!(world.number(&differing(world.application)).await, 1);
    world.sql.batch_execute("select trading.recount()").await.unwrap();
    assert_counted(&world).await;
    world.sql.batch_execute("select trading.recount()").await.unwrap();
    assert_counted(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_core_cannot_read_is_unknown_and_what_it_can_is_told_beside_it() {
    let world = World::open().await;
    let core = world.stage(StageName::Core).await;
    let told = eventually("core has looked", async || {
        let told = status(&core).await;
        told["looked_seconds_ago"].is_number().then_some(told)
    })
    .await;
    // What was there before, and what is new.
    assert_eq!(
        (&told["stage"], &told["app"], &told["gate"]),
        (&json!("core"), &json!(world.app()), &json!("open"))
    );
    assert_eq!(
        (&told["epoch"], &told["done"], &told["batches"]),
        (&json!(1), &json!(0), &json!(0)),
        "{told}"
    );
    assert_eq!(told["on_its_way"]["undecided"], json!({ "records": 0, "oldest_seconds": null }), "{told}");
    assert_eq!((&told["breakdown"]["total"], &told["reconciliations"]), (&json!(0), &json!([])), "{told}");
    let metrics = async || support::http(core.http, "GET", "/metrics", "", "").await.1;
    let unmatched = "services_trades{stage=\"core\",status=\"UNMATCHED\"}";
    assert!(metrics().await.contains(&format!("{unmatched} 0.0")));
    let revoke = "revoke select on trading.breakdown, trading.reconciliations from trading_core";
    world.sql.batch_execute(revoke).await.unwrap();
    eventually("it is not known", async || {
        let told = status(&core).await;
        (told["breakdown"].is_null() && told["reconciliations"].is_null()).then_some(())
    })
    .await;
    assert!(metrics().await.contains(&format!("{unmatched} NaN")));
    assert_eq!(status(&core).await["on_its_way"]["unanswered"]["records"], 0);
    let inbound = world.stage(StageName::Inbound).await;
    assert!(status(&inbound).await.get("breakdown").is_none(), "only core looks");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_reconciliation_of_each_boundary_is_told_with_its_outcome() {
    let both = Both::start().await;
    let _processes = support::reconciling::one_of_every_kind(&both).await;
    let core = both.settlement.stage(StageName::Core).await;
    for application in [TRADING, SETTLEMENT, SETTLEMENT] {
        assert!(replayed(&both, application).await.agrees);
    }
    let told = eventually("core tells", async || {
        let told = status(&core).await["reconciliations"].clone();
        (told.as_array().is_some_and(|runs| runs.len() == 4)).then_some(told)
    })
    .await;
    for run in told.as_array().unwrap() {
        assert_eq!(
            (&run["outcome"], &run["by"], &run["remaining"]),
            (&json!("clean"), &json!("a test"), &json!(0))
        );
        assert!(run["seconds_ago"].as_f64().is_some_and(|age| (0.0..60.0).contains(&age)), "{run}");
    }
    assert_eq!(told[0]["boundary"], "SettlementOutboundSettlementInbound", "the latest of all first: {told}");
}
