//! The pipeline on real servers, judged from outside by the customer's own books.

mod support;

use std::time::Duration;

use jiff::civil::date;
use support::{World, eventually};
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Plan, Scenario, SharedLedger, Verdict};
use trading::names;
use trading::run::StageName;

/// Runs the customer; `seconds` of messages at `rate`, a share of them bad.
async fn customer(world: &World, rate: f64, seconds: u64, bad_share: f64) -> Verdict {
    let seed = rand::random();
    eprintln!("seed {seed}");
    send(world, rate, seconds, Scenario::new(seed, bad_share, date(2026, 2, 9))).await
}

async fn send(world: &World, rate: f64, seconds: u64, scenario: Scenario) -> Verdict {
    let plan = Plan { rate, duration: Duration::from_secs(seconds), wait: support::PATIENCE, scenario };
    let (submit, answers) = (world.target("submit"), world.target("answers"));
    generate::run(plan, submit, answers, SharedLedger::default(), CancellationToken::new()).await
}

fn assert_good(verdict: &Verdict) {
    assert!(verdict.good(), "{verdict:#?}");
    assert_eq!((verdict.answered, verdict.unknown), (verdict.sent, 0), "{verdict:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_trade_is_answered_once_and_nothing_is_left_behind() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let verdict = customer(&world, 300.0, 5, 0.1).await;
    assert_good(&verdict);
    for status in ["MATCHED", "MISMATCHED", "NACK"] {
        assert!(verdict.statuses.get(status).is_some_and(|count| *count > 50), "{verdict:#?}");
    }
    assert_eq!(verdict.epochs, [1]);
    assert_eq!(world.number("select count(*) from trading.trades where status = 'UNMATCHED'").await, 0);
    assert_conserved(&world).await;
}

/// Nothing is on its way, and each stage has what the one before gave it.
async fn assert_conserved(world: &World) {
    world.nothing_is_on_its_way().await;
    let differing = [
        (
            "select record from trading.inbound_raw",
            "select record from trading.ingested union all select record from trading.nacks",
        ),
        (
            "select record from trading.ingested",
            "select record from trading.trades union all select record from trading.conflicts",
        ),
        (
            "select id || ' ' || status from trading.trades where status <> 'UNMATCHED'",
            "select id || ' ' || status from trading.egressed where status <> 'NACK'",
        ),
        ("select message_id from trading.outbox", "select message_id from trading.egressed"),
        (
            "select (message_id, status, body)::text from trading.egressed",
            "select (message_id, status, body)::text from trading.sent",
        ),
    ];
    for (from, to) in differing {
        for (one, other) in [(from, to), (to, from)] {
            let only = format!("select count(*) from (({one}) except all ({other})) as only_here");
            assert_eq!(world.number(&only).await, 0, "in ({one}) and not in ({other})");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seed_that_is_repeated_in_another_run_of_the_day_is_answered_again() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let first = Scenario::new(7, 0.1, date(2026, 2, 9));
    for run in [0, 1000] {
        assert_good(&send(&world, 300.0, 1, first.clone().in_run(run)).await);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_any_stage_in_the_middle_of_its_work_loses_and_doubles_nothing() {
    let world = World::open().await;
    let kills = async {
        for round in 0..3 {
            for stage in StageName::ALL {
                let process = world.stage(stage).await;
                let rows = "select count(*) from trading.inbound_raw";
                let before = world.number(rows).await;
                // Only one stage lives at a time here, so the others are started beside it for a moment.
                let others = world.pipeline().await;
                eventually("messages move on", async || {
                    (world.number(rows).await > before + 20 * (round + 1)).then_some(())
                })
                .await;
                process.kill();
                others.into_iter().for_each(support::Process::kill);
            }
        }
        world.pipeline().await
    };
    let (verdict, _pipeline) = tokio::join!(customer(&world, 100.0, 15, 0.05), kills);
    assert_good(&verdict);
    assert_conserved(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_in_the_middle_closes_the_gate_and_the_next_epoch_finishes_the_work() {
    let world = World::open().await;
    let pipeline = world.pipeline().await;
    let switch = async {
        let rows = "select count(*) from trading.inbound_raw";
        let sent = "select count(*) from trading.sent";
        eventually("answers flow", async || (world.number(sent).await > 50).then_some(())).await;
        let epoch = world.fence().await;
        for process in &pipeline {
            eventually("the gate closes", async || {
                let (_, status) = support::http(process.http, "GET", "/status", "", "").await;
                status.contains("\"gate\":\"closed\"").then_some(())
            })
            .await;
        }
        let stored = world.number(rows).await;
        // The customer goes on sending, and nothing of it is taken.
        let before = world.number("select count(*) from trading.outbox").await;
        world.grant(epoch, epoch + 2).await;
        assert_eq!(world.number(rows).await, stored);
        eventually("the next epoch answers", async || {
            (world.number("select count(*) from trading.outbox").await > before + 100).then_some(())
        })
        .await;
        let (status, answer) = world.hook(&pipeline[2], "after-grant", epoch + 2).await;
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = world.hook(&pipeline[2], "probe", epoch + 2).await;
        assert_eq!((status, &answer["did"]["epoch"]), (200, &serde_json::json!(epoch + 2)), "{answer}");
        let (status, _) = world.hook(&pipeline[2], "no-such-hook", epoch + 2).await;
        assert_eq!(status, 404);
    };
    let (verdict, ()) = tokio::join!(customer(&world, 200.0, 8, 0.05), switch);
    assert_good(&verdict);
    assert_eq!(verdict.epochs, [1, 3]);
    assert_conserved(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_sides_at_once_on_two_instances_always_meet() {
    let world = World::open().await;
    let mut pipeline = world.pipeline().await;
    pipeline.extend(world.pipeline().await);
    let verdict = customer(&world, 600.0, 4, 0.0).await;
    assert_good(&verdict);
    assert_eq!(world.number("select count(*) from trading.trades where status = 'UNMATCHED'").await, 0);
    let alone = "select count(*) from trading.trades one where not exists (select from trading.trades other \
         where other.id = one.counterpart and other.trade_date = one.trade_date \
           and other.counterpart = one.id and other.status = one.status)";
    assert_eq!(world.number(alone).await, 0, "pairs point at each other");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_between_stages_is_replayed_after_a_grant() {
    let world = World::open().await;
    let inbound = world.stage(StageName::Inbound).await;
    let mut scenario = Scenario::new(5, 0.0, date(2026, 2, 9));
    let mut messages: Vec<_> = (0..9).map(|_| scenario.next_message()).collect();
    messages.extend(scenario.close());
    for message in &messages {
        world.publish(Some(&message.id), &message.body).await;
    }
    let stored = i64::try_from(messages.len()).unwrap();
    eventually("all stored", async || (world.in_flight().await == stored).then_some(())).await;
    inbound.kill();
    // The broker of a lost region: everything between the stages is gone.
    assert!(world.purge(names::INGESTION).await > 0);
    let epoch = world.fence().await;
    let _ingestion = world.stage(StageName::Ingestion).await;
    let core = world.stage(StageName::Core).await;
    let _egress = world.stage(StageName::Egress).await;
    let _outbound = world.stage(StageName::Outbound).await;
    world.grant_core(epoch, epoch + 2).await;
    let (status, answer) = world.hook(&core, "after-grant", epoch + 2).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["did"]["replayed"]["to_ingestion"], stored, "{answer}");
    world.nothing_is_on_its_way().await;
    assert_eq!(world.answers(messages.len()).await.len(), messages.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_were_lost_on_their_way_out_are_replayed_after_a_grant_and_are_the_same() {
    let world = World::open().await;
    let mut before = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion, StageName::Core] {
        before.push(world.stage(stage).await);
    }
    let mut scenario = Scenario::new(11, 0.2, date(2026, 2, 9));
    let mut messages: Vec<_> = (0..12).map(|_| scenario.next_message()).collect();
    messages.extend(scenario.close());
    for message in &messages {
        world.publish(Some(&message.id), &message.body).await;
    }
    let decided = i64::try_from(messages.len()).unwrap();
    let relayed = "select (select count(*) from trading.outbox) - (select count(*) from trading.unsent)";
    eventually("all decided", async || (world.number(relayed).await == decided).then_some(())).await;
    let epoch = world.fence().await;
    before.into_iter().for_each(support::Process::kill);
    assert!(world.purge(names::EGRESS).await > 0);
    let mut after = Vec::new();
    for stage in [StageName::Core, StageName::Egress] {
        after.push(world.stage(stage).await);
    }
    world.grant_core(epoch, epoch + 2).await;
    // Without the last stage nothing reaches the customers' queue, so the hook says what is still on its way.
    let (status, answer) = world.hook(&after[0], "after-grant", epoch + 2).await;
    assert_eq!(status, 503, "{answer}");
    let egressed = "select count(*) from trading.egressed";
    eventually("egress has all", async || (world.number(egressed).await == decided).then_some(())).await;
    assert!(world.purge(names::OUTBOUND).await > 0);
    after.push(world.stage(StageName::Outbound).await);
    let (status, answer) = world.hook(&after[0], "after-grant", epoch + 2).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(answer["did"]["replayed"]["to_outbound"], decided, "{answer}");
    assert_eq!(world.answers(messages.len()).await.len(), messages.len());
    assert_conserved(&world).await;
}
