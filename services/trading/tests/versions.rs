//! Later words of a party about its own trade: amended and cancelled while it waits for the other one.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use support::reports::{BROKER, IM, report, send};
use support::{World, eventually};

/// The answers about one id: status and description, in the order of their words.
async fn answers(world: &World, id: &str) -> Vec<(String, String)> {
    let rows = world
        .sql
        .query(
            "select status, body::jsonb ->> 'description' from trading.sent where id = $1 order by 1, 2",
            &[&id],
        )
        .await
        .unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_amended_report_is_the_one_that_is_compared() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    send(&world, &report(IM, 1, "18.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 1, "19.5", 2, "Amended")).await;
    send(&world, &report(BROKER, 1, "19.50", 1, "Unmatched")).await;
    world.nothing_is_on_its_way().await;
    for sender in [IM, BROKER] {
        let told = answers(&world, &format!("{sender}-QAINS012-QABRO010-1")).await;
        assert_eq!(
            told.iter().map(|(status, _)| status.as_str()).collect::<Vec<_>>(),
            ["MATCHED"],
            "{told:?}"
        );
    }
    let prices = "select count(*) from trading.trades where price = 19.5 and status = 'MATCHED'";
    assert_eq!(world.number(prices).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_report_is_answered_waits_no_longer_and_may_be_stated_anew() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let id = "QAINS012-QAINS012-QABRO010-2";
    send(&world, &report(IM, 2, "18.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 2, "18.5", 2, "Cancelled")).await;
    send(&world, &report(BROKER, 2, "18.5", 1, "Unmatched")).await;
    world.nothing_is_on_its_way().await;
    assert_eq!(answers(&world, id).await[0].0, "CANCELLED");
    let waiting = "select count(*) from trading.trades where status = 'UNMATCHED'";
    assert_eq!(world.number(waiting).await, 1, "the other party's");
    send(&world, &report(IM, 2, "18.5", 3, "Unmatched")).await;
    world.nothing_is_on_its_way().await;
    assert_eq!(answers(&world, id).await.len(), 2);
    assert_eq!(world.number("select count(*) from trading.trades where status = 'MATCHED'").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_that_come_too_late_or_out_of_order_are_refused_with_the_reason() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let later = report(IM, 3, "19.5", 2, "Amended");
    send(&world, &later).await;
    send(&world, &report(IM, 3, "18.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 3, "20.5", 2, "Amended")).await;
    // The same again is a repeat and nothing else.
    send(&world, &later).await;
    send(&world, &report(BROKER, 3, "19.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 3, "19.5", 3, "Cancelled")).await;
    world.nothing_is_on_its_way().await;
    let told = answers(&world, &later.0).await;
    let words: Vec<&str> = told.iter().map(|(_, why)| why.split(':').next().unwrap_or_default()).collect();
    assert_eq!(words, ["MATCHED", "CONFLICT", "SUPERSEDED", "TOO_LATE"], "{told:?}");
    let codes = "select count(distinct code) from trading.conflicts";
    assert_eq!(world.number(codes).await, 3);
    eventually("one answer each", async || {
        (world.number("select count(*) from trading.sent").await == 5).then_some(())
    })
    .await;
}
