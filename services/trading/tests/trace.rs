//! The trace context of a customer's message goes on with everything that follows from it, through rows and replays.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::collections::BTreeMap;

use lapin::types::AMQPValue;
use support::both::{ACCOUNT, Both, allocated};
use support::reports::{BROKER, IM, report, send};
use support::stores::damage;
use support::traces::{answered, publish_traced, text};
use support::{Process, World, eventually, reconciling};
use trading::names;
use trading::run::StageName;

/// The trace of a message: the number makes it its own.
fn trace(number: u8) -> String {
    format!("00-4bf92f3577b34da6a3ce929d0e0e47{number:02x}-00f067aa0ba902b7-01")
}

fn id_of(sender: &str, number: u32) -> String {
    format!("{sender}-{IM}-{BROKER}-{number}")
}

fn key(sender: &str, number: u32, status: &str) -> (String, String) {
    (id_of(sender, number), status.to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn each_side_of_a_trade_keeps_its_own_trace_to_the_answer_and_through_settlement_and_back() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let trading = &both.trading;
    publish_traced(trading, &allocated(IM, 1, ACCOUNT), text(&trace(1))).await;
    publish_traced(trading, &allocated(BROKER, 1, ACCOUNT), text(&trace(2))).await;
    publish_traced(trading, &report(IM, 2, "0", 1, "Unmatched"), text(&trace(3))).await;
    // One that says nothing, one that is no trace, one that is not even text.
    let (id, body) = allocated(IM, 3, ACCOUNT);
    trading.publish(Some(&id), body.as_bytes()).await;
    publish_traced(trading, &allocated(BROKER, 3, ACCOUNT), text(&trace(0).replace("-00f0", "-00F0"))).await;
    publish_traced(trading, &report(IM, 4, "18.5", 1, "Unmatched"), AMQPValue::LongInt(7)).await;
    publish_traced(trading, &report(BROKER, 4, "7", 1, "Unmatched"), text(&trace(5))).await;
    let mut expected = BTreeMap::new();
    for status in ["MATCHED", "SETTLED"] {
        expected.insert(key(IM, 1, status), Some(trace(1)));
        expected.insert(key(BROKER, 1, status), Some(trace(2)));
        expected.insert(key(IM, 3, status), None);
        expected.insert(key(BROKER, 3, status), None);
    }
    expected.insert(key(IM, 2, "NACK"), Some(trace(3)));
    expected.insert(key(IM, 4, "MISMATCHED"), None);
    expected.insert(key(BROKER, 4, "MISMATCHED"), Some(trace(5)));
    assert_eq!(answered(trading, expected.len()).await, expected);
    both.nothing_is_on_its_way().await;
    // Two allocations of each side; where no trace came, no byte of one is stored.
    let traces = "select coalesce(traceparent, 'none') || ' ' || count(*) from trading.inbound_raw group by traceparent";
    let sides = [format!("{} 2", trace(1)), format!("{} 2", trace(2)), "none 4".to_owned()];
    assert_eq!(both.settlement.texts(traces).await, sides);
    assert_eq!(both.settlement.texts(&traces.replace("inbound_raw", "outgoing_settlements")).await, sides);
    assert_eq!(trading.texts(&traces.replace("inbound_raw", "returned_raw")).await, sides);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_keeps_the_first_trace_and_an_amended_report_has_its_own() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let first = report(IM, 1, "18.5", 1, "Unmatched");
    publish_traced(&world, &first, text(&trace(1))).await;
    send(&world, &first).await;
    publish_traced(&world, &first, text(&trace(2))).await;
    let taken = "select count(*) from trading.inbound_raw where traceparent is not null";
    assert_eq!(world.number(taken).await, 1);
    publish_traced(&world, &report(IM, 2, "18.5", 1, "Unmatched"), text(&trace(3))).await;
    let amended = "select count(*) from trading.trades where version = 2";
    publish_traced(&world, &report(IM, 2, "19.5", 2, "Amended"), text(&trace(4))).await;
    eventually("it is amended", async || (world.number(amended).await == 1).then_some(())).await;
    for (number, price) in [(1, "18.5"), (2, "19.5")] {
        let (id, body) = report(BROKER, number, price, 1, "Unmatched");
        world.publish(Some(&id), body.as_bytes()).await;
    }
    let answers = answered(&world, 4).await;
    assert_eq!(answers[&key(IM, 1, "MATCHED")], Some(trace(1)));
    assert_eq!(answers[&key(IM, 2, "MATCHED")], Some(trace(4)));
    assert_eq!(answers[&key(BROKER, 1, "MATCHED")], None);
}

/// Runs the stages before a queue, loses what is in it, and lets a replay bring it on.
async fn replayed_after_losing(queue: &str, before: &[StageName]) {
    let world = World::open().await;
    let mut stages = Vec::new();
    for stage in before {
        stages.push(world.stage(*stage).await);
    }
    for (sender, number) in [(IM, 1), (BROKER, 2)] {
        publish_traced(&world, &report(sender, 1, "18.5", 1, "Unmatched"), text(&trace(number))).await;
    }
    publish_traced(&world, &report(IM, 2, "0", 1, "Unmatched"), text(&trace(3))).await;
    let stored = match before.last() {
        Some(StageName::Inbound) => "select count(*) from trading.inbound_raw",
        Some(StageName::Ingestion) => {
            "select (select count(*) from trading.ingested) + (select count(*) from trading.nacks)"
        }
        Some(StageName::Core) => {
            "select (select count(*) from trading.outbox) - (select count(*) from trading.unsent)"
        }
        _ => "select count(*) from trading.egressed",
    };
    eventually("all are stored", async || (world.number(stored).await == 3).then_some(())).await;
    stages.into_iter().for_each(Process::kill);
    let mut lost = 0;
    eventually("all are lost", async || {
        lost += world.purge(queue).await;
        (lost > 0).then_some(())
    })
    .await;
    let epoch = world.fence().await;
    let pipeline = world.pipeline().await;
    world.grant_core(epoch, epoch + 2).await;
    let (status, answer) = world.hook(&pipeline[StageName::Core as usize], "after-grant", epoch + 2).await;
    assert_eq!(status, 200, "{answer}");
    let expected = BTreeMap::from([
        (key(IM, 1, "MATCHED"), Some(trace(1))),
        (key(BROKER, 1, "MATCHED"), Some(trace(2))),
        (key(IM, 2, "NACK"), Some(trace(3))),
    ]);
    assert_eq!(answered(&world, 3).await, expected, "{queue}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_replayed_after_a_grant_keeps_its_trace_wherever_it_was_lost() {
    use StageName::{Core, Egress, Inbound, Ingestion};
    replayed_after_losing(names::INGESTION, &[Inbound]).await;
    replayed_after_losing(names::CORE, &[Inbound, Ingestion]).await;
    replayed_after_losing(names::EGRESS, &[Inbound, Ingestion, Core]).await;
    replayed_after_losing(names::OUTBOUND, &[Inbound, Ingestion, Core, Egress]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_reconciliation_sends_again_keeps_its_trace() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let trading = &both.trading;
    publish_traced(trading, &allocated(IM, 1, ACCOUNT), text(&trace(1))).await;
    publish_traced(trading, &allocated(BROKER, 1, ACCOUNT), text(&trace(2))).await;
    assert_eq!(answered(trading, 4).await.len(), 4);
    both.nothing_is_on_its_way().await;
    let made = "select message_id || ' ' || traceparent from trading.outgoing_settlements";
    let before = (trading.texts(made).await, both.settlement.texts(made).await);
    assert_eq!((before.0.len(), before.1.len()), (4, 4));
    damage(trading, "outgoing_settlements", "delete from trading.outgoing_settlements").await;
    damage(&both.settlement, "outgoing_settlements", "delete from trading.outgoing_settlements").await;
    damage(trading, "ingested", "delete from trading.ingested").await;
    damage(trading, "egressed", "delete from trading.egressed where status = 'MATCHED'").await;
    damage(trading, "sent", "delete from trading.sent where status = 'SETTLED'").await;
    let whole = trading::reconcile::Plan {
        jobs: trading::reconcile::Job::within(reconciling::TRADING, true),
        ..reconciling::plan(&both, reconciling::TRADING, 0, true)
    };
    let report = trading::reconcile::run(&whole).await.unwrap();
    assert!(report.agrees, "{report}");
    assert!(reconciling::replayed(&both, reconciling::SETTLEMENT).await.agrees);
    both.nothing_is_on_its_way().await;
    assert_eq!((trading.texts(made).await, both.settlement.texts(made).await), before);
    let expected = BTreeMap::from([
        (key(IM, 1, "MATCHED"), Some(trace(1))),
        (key(BROKER, 1, "MATCHED"), Some(trace(2))),
        (key(IM, 1, "SETTLED"), Some(trace(1))),
        (key(BROKER, 1, "SETTLED"), Some(trace(2))),
    ]);
    assert_eq!(answered(trading, 4).await, expected, "told again, with the same traces");
}
