//! What reconciliation of settlements tells after losses that no single deleted row shows, and how much it reads for it.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::time::Duration;

use support::both::{Both, THERE, publish_pair};
use support::reconciling::{
    CLEAN, NOTHING, SETTLEMENT, TRADING, compared, contents, counts, one_of_every_kind, plan, replayed,
};
use support::stores::damage;
use support::{World, eventually};
use trading::reconcile::{self, Job, Report};

/// What came back too early is looked at when its trade is matched; what was not is told, and applied by a replay.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_is_kept_as_too_early_although_its_trade_is_matched_is_told_and_applied() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let before = contents(&both).await;
    let here = &both.trading;
    damage(
        here,
        "allocations",
        "delete from trading.allocations where trade like '%-1' and allocation_id = 1",
    )
    .await;
    damage(here, "trades", "update trading.trades set status = 'MATCHED' where id like '%-1'").await;
    let kept = "update trading.returned set code = 'NOT_MATCHED' where id like '%-1-1'";
    damage(here, "returned", kept).await;
    let found = compared(&both, TRADING).await;
    assert_eq!(counts(&found)[2], [2, 0, 0], "{found}");
    assert!(found.to_string().contains("is kept as NOT_MATCHED, and its trade is MATCHED"), "{found}");
    let repaired = replayed(&both, TRADING).await;
    assert_eq!(counts(&repaired), CLEAN, "{repaired}");
    both.nothing_is_on_its_way().await;
    assert_eq!(contents(&both).await, before);
}

fn repeated(report: &Report, job: Job) -> (u64, [u64; 3]) {
    let place = report.boundaries.iter().position(|one| one.comparison.job == job).unwrap();
    (report.boundaries[place].comparison.repeated, counts(report)[place])
}

/// A failover that loses transactions of trade matching alone: it matches the trade anew, at another time.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_was_made_anew_at_another_time_is_a_repetition_and_no_finding() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let anew = r#"update trading.outgoing_settlements set body = regexp_replace(body, '"timestamp":\d+', '"timestamp":7')
        where id like '%-1-1'"#;
    damage(&both.trading, "outgoing_settlements", anew).await;
    let lost = compared(&both, TRADING).await;
    assert_eq!(repeated(&lost, Job::OutboundSettlementInbound), (2, [2, 0, 0]), "{lost}");
    let mut between = plan(&both, TRADING, 0, true);
    between.jobs = vec![Job::OutboundSettlementInbound];
    let sent = reconcile::run(&between).await.unwrap();
    assert_eq!(repeated(&sent, Job::OutboundSettlementInbound), (2, NOTHING), "{sent}");
    both.settlement.nothing_is_on_its_way().await;
    let there = compared(&both, SETTLEMENT).await;
    assert_eq!(counts(&there), CLEAN, "{there}");
    assert_eq!(repeated(&there, Job::SettlementIngressCore), (2, NOTHING), "{there}");
    assert!(there.to_string().contains("set apart, 2 repeated"), "{there}");
    // Another content under the same id is none: what the other application has of it was never made.
    let other = r#"update trading.outgoing_settlements set body = replace(body, '18.5', '18.6') where id like '%-2-1'"#;
    damage(&both.trading, "outgoing_settlements", other).await;
    let differs = compared(&both, TRADING).await;
    assert_eq!(repeated(&differs, Job::OutboundSettlementInbound), (2, [0, 0, 2]), "{differs}");
}

/// Messages that came back long ago.
const OLD: i64 = 100_000;

async fn rows_read(world: &World) -> i64 {
    let sessions = "select count(*) from pg_stat_activity \
        where usename = 'trading_core' and datname = current_database()";
    eventually("the session has ended", async || (world.number(sessions).await == 0).then_some(())).await;
    world
        .number(
            "select coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) from pg_stat_user_tables \
             where schemaname = 'trading' and relname = 'returned'",
        )
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_at_the_last_hour_does_not_read_all_that_ever_came_back() {
    let both = Both::start().await;
    let world = &both.trading;
    let fill = format!(
        "insert into trading.returned (record, trade_date, trade, id, received_ms, content, epoch) \
         select gen_random_uuid(), '2026-02-09', 'a-a-b-' || number, 'a-a-b-' || number || '-1', number, '{{}}', 1 \
         from generate_series(1, {OLD}) as number"
    );
    damage(world, "returned", &fill).await;
    let pipelines = settled_beside(&both).await;
    drop(pipelines);
    // Also summarises what the indexes of block ranges know.
    let analyzed =
        "vacuum analyze trading.returned, trading.trades, trading.allocations, trading.returned_ingested";
    world.sql.batch_execute(analyzed).await.unwrap();
    let mut recent = plan(&both, TRADING, 0, false);
    recent.jobs = vec![Job::ReturnIngressCore];
    recent.window.since = Some(Duration::from_secs(3_600));
    let before = rows_read(world).await;
    let report = reconcile::run(&recent).await.unwrap();
    assert!(report.agrees && report.boundaries[0].comparison.compared == 4, "{report}");
    let read = rows_read(world).await - before;
    // The newest range of blocks holds some of the old ones.
    assert!(read < OLD / 2, "{read} rows of trading.returned read");
}

/// A trade that settles, beside what is there.
async fn settled_beside(both: &Both) -> Vec<support::Process> {
    let pipelines = both.pipelines().await;
    publish_pair(&both.trading, 1).await;
    let settled = "select count(*) from trading.trades where status = 'SETTLED'";
    eventually("it settles", async || (both.trading.number(settled).await == 2).then_some(())).await;
    both.trading.nothing_is_on_its_way().await;
    pipelines
}

/// Outbound sends again by itself what was lost once; what was lost twice is told while it goes on trying.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_on_its_way_is_told_after_its_second_sending() {
    let mut both = Both::start().await;
    both.trading.resend_after = Duration::from_secs(2);
    let mut processes = both.trading.pipeline().await;
    publish_pair(&both.trading, 1).await;
    let mut between = plan(&both, TRADING, 0, false);
    between.jobs = vec![Job::OutboundSettlementInbound];
    between.resend_after = both.trading.resend_after;
    let twice = "select count(*) from trading.unreturned where attempts >= 2";
    let made = "select count(*) from trading.outgoing_settlements";
    eventually("settlements are made", async || (both.trading.number(made).await == 4).then_some(())).await;
    let report = eventually("all were sent twice", async || {
        both.settlement.purge(THERE).await;
        let all = both.trading.number(twice).await == 4;
        let report = reconcile::run(&between).await.unwrap();
        // What was sent for the second time since the count may be told already.
        if !all && both.trading.number(twice).await == 0 {
            assert!(report.agrees && report.boundaries[0].comparison.under_way == 4, "{report}");
        }
        (all && counts(&report) == [[4, 0, 0]]).then_some(report)
    })
    .await;
    assert!(report.to_string().contains("although it was or will be sent again"), "{report}");

    processes.extend(both.settlement.pipeline().await);
    between.replay = plan(&both, TRADING, 0, true).replay;
    let repaired = reconcile::run(&between).await.unwrap();
    assert!(repaired.agrees, "{repaired}");
    both.assert_conserved().await;
}
