//! Expiry on real servers: a trade whose other party does not report is told so once, and never while it is being matched.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::num::NonZeroU16;
use std::time::Duration;

use support::reports::{BROKER, IM, report, send};
use support::{APP, REGION, World, eventually};
use trading::names::Application;
use trading::reconcile::{self, Job, Plan, Report, Window};
use trading::run::StageName;

async fn compared(world: &World) -> Report {
    let plan = Plan {
        application: Application::TradeMatching,
        app: APP.into(),
        region: REGION.into(),
        database: support::database_options(&world.name, "trading_core"),
        jobs: Job::TRADES.to_vec(),
        peer: None,
        window: Window { since: None, grace: Duration::ZERO },
        resend_after: Duration::from_secs(600),
        replay: None,
    };
    reconcile::run(&plan).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trade_whose_counterpart_does_not_come_expires_and_its_next_version_comes_too_late() {
    let mut world = World::open().await;
    let mut pipeline = world.pipeline().await;
    send(&world, &report(IM, 1, "18.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 2, "18.5", 1, "Unmatched")).await;
    send(&world, &report(BROKER, 2, "18.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 3, "18.5", 1, "Unmatched")).await;
    send(&world, &report(IM, 3, "18.5", 2, "Cancelled")).await;
    world.nothing_is_on_its_way().await;
    world.expire_after = NonZeroU16::new(2);
    let core = StageName::Core as usize;
    pipeline.remove(core).kill();
    pipeline.insert(core, world.stage(StageName::Core).await);
    let answers = world.answers(4).await;
    let id = |sender: &str, number: u32| format!("{sender}-{IM}-{BROKER}-{number}");
    let expired = &answers[&id(IM, 1)];
    assert_eq!(expired.status, "EXPIRED");
    assert_eq!(expired.description, "EXPIRED: the other party had not reported by the end of 2026-02-11");
    assert!(expired.message.contains(r#""status":"EXPIRED""#), "{expired:?}");
    assert_eq!(
        [&answers[&id(IM, 2)], &answers[&id(IM, 3)]].map(|one| one.status.as_str()),
        ["MATCHED", "CANCELLED"]
    );

    // The same report again says nothing new, another version comes too late, a counterpart waits by itself.
    send(&world, &report(IM, 1, "19.5", 2, "Amended")).await;
    send(&world, &report(BROKER, 1, "18.5", 1, "Unmatched")).await;
    world.nothing_is_on_its_way().await;
    assert_eq!(world.texts("select code from trading.conflicts").await, ["TOO_LATE"]);
    let trades = "select id || ' ' || status || coalesce(' ' || counterpart, '') from trading.trades where trade_id = '1'";
    assert_eq!(
        world.texts(trades).await,
        [format!("{} UNMATCHED", id(BROKER, 1)), format!("{} EXPIRED", id(IM, 1))]
    );
    let (_, metrics) = support::http(pipeline[core].http, "GET", "/metrics", "", "").await;
    assert!(metrics.contains("services_trades_expired_total{stage=\"core\"} 1\n"), "{metrics}");
    let report = compared(&world).await;
    assert!(report.agrees, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trade_of_which_the_database_refuses_that_it_expires_keeps_no_other_one_waiting() {
    let mut world = World::open().await;
    let mut pipeline = world.pipeline().await;
    for number in 1..=5 {
        send(&world, &report(IM, number, "18.5", 1, "Unmatched")).await;
    }
    world.nothing_is_on_its_way().await;
    let refuse = "alter table trading.trades add constraint refused check (trade_id not in ('1', '3') or status = 'UNMATCHED')";
    world.sql.batch_execute(refuse).await.unwrap();
    world.expire_after = NonZeroU16::new(2);
    let core = StageName::Core as usize;
    pipeline.remove(core).kill();
    pipeline.insert(core, world.stage(StageName::Core).await);
    world.answers(3).await;
    let trades = "select trade_id || ' ' || status from trading.trades order by 1";
    let waits_and_expired = ["1 UNMATCHED", "2 EXPIRED", "3 UNMATCHED", "4 EXPIRED", "5 EXPIRED"];
    assert_eq!(world.texts(trades).await, waits_and_expired);
}

/// Two cores look for waits to end while the counterparts come.
#[tokio::test(flavor = "multi_thread")]
async fn a_counterpart_that_comes_as_the_wait_ends_finds_the_trade_waiting_or_expired_and_both_are_told_the_same()
 {
    const TRADES: u32 = 600;
    let mut world = World::open().await;
    let mut pipeline = world.pipeline().await;
    let publish = async |sender| {
        let channel = support::connected(&world.name, "customer").await;
        let channel = channel.create_channel().await.unwrap();
        for number in 1..=TRADES {
            let (id, body) = report(sender, number, "18.5", 1, "Unmatched");
            let properties = lapin::BasicProperties::default().with_correlation_id(id.into());
            let options = lapin::options::BasicPublishOptions::default();
            channel
                .basic_publish(trading::names::IN.into(), "".into(), options, body.as_bytes(), properties)
                .await
                .unwrap();
        }
        // Confirms are not asked for: what arrives is counted.
        channel.close(200, "".into()).await.unwrap();
    };
    publish(IM).await;
    let waiting = "select count(*) from trading.trades where status = 'UNMATCHED'";
    eventually("all wait", async || (world.number(waiting).await == i64::from(TRADES)).then_some(())).await;
    publish(BROKER).await;
    world.expire_after = NonZeroU16::new(1);
    for _ in 0..2 {
        pipeline.push(world.stage(StageName::Core).await);
    }
    let came = "select count(*) from trading.trades";
    eventually("all came", async || (world.number(came).await == 2 * i64::from(TRADES)).then_some(())).await;
    world.nothing_is_on_its_way().await;
    // Of each trade: both matched with each other, or the manager's expired; then the broker's waits, or expired too.
    let torn = "select count(*) from trading.trades as one join trading.trades as other using (trade_date, trade_id) \
        where one.sender_id = one.im_id and other.sender_id = other.broker_id \
          and not (one.status = 'MATCHED' and other.status = 'MATCHED' \
                   and one.counterpart = other.id and other.counterpart = one.id) \
          and not (one.status = 'EXPIRED' and other.status in ('UNMATCHED', 'EXPIRED'))";
    assert_eq!(world.number(torn).await, 0);
    let decided = "select id || ' ' || status from trading.trades where status <> 'UNMATCHED'";
    let told = "select id || ' ' || status from trading.sent";
    assert_eq!(world.texts(decided).await, world.texts(told).await);
    let report = compared(&world).await;
    assert!(report.agrees, "{report}");
}
