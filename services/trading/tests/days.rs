//! Stores by day on real servers: partitions are made ahead and under the guard, repeats stay harmless whenever they come, old
//! days are dropped from all stores at once.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::num::NonZeroU16;
use std::time::Duration;

use support::both::{Both, publish_pair};
use support::days::{age, begin, made};
use support::reports::{BROKER, IM, report, send};
use support::stores::{damage, kinds, one_of_every_kind};
use support::{APP, Process, REGION, World, eventually};
use trading::names::Application;
use trading::reconcile::{self, Job, Plan, Report, Window};
use trading::run::StageName;

/// All boundaries of trades, since a time or over everything.
async fn compared(world: &World, since: Option<Duration>) -> Report {
    let plan = Plan {
        application: Application::TradeMatching,
        app: APP.into(),
        region: REGION.into(),
        database: support::database_options(&world.name, "trading_core"),
        jobs: Job::TRADES.to_vec(),
        peer: None,
        window: Window { since, grace: Duration::ZERO },
        resend_after: Duration::from_secs(600),
        replay: None,
    };
    reconcile::run(&plan).await.unwrap()
}

fn looked_at(report: &Report) -> u64 {
    report.boundaries.iter().map(|boundary| boundary.comparison.compared).sum()
}

/// Publishes messages once more, and waits until they have been taken.
async fn again(world: &World, marker: u32) {
    for (id, body) in kinds() {
        world.publish(Some(&id), body.as_bytes()).await;
    }
    send(world, &report(IM, marker, "18.5", 1, "Unmatched")).await;
    world.nothing_is_on_its_way().await;
}

/// A transaction under the guard, by hand.
async fn guarded(world: &World, role: &str, statement: &str) {
    let client = region_lease::connect(&support::database_options(&world.name, role)).await.unwrap();
    let row = client.query_one("select epoch, grant_id::text from region.lease", &[]).await.unwrap();
    let (epoch, grant): (i64, String) = (row.get(0), row.get(1));
    let guard = format!("select region.guard('{APP}', '{REGION}', {epoch}, '{grant}')");
    let unit = format!("set transaction_timeout = '5s'; begin; {guard}; {statement}; {guard}; commit");
    client.batch_execute(&unit).await.unwrap();
}

/// As the runbook does it.
async fn deal_with_quarantine(world: &World) {
    let deal = "update trading.quarantine set dealt_with = clock_timestamp()";
    guarded(world, "trading_core", deal).await;
}

/// Core looks after the days when it begins.
async fn core_anew(world: &World, pipeline: &mut Vec<Process>) {
    pipeline.remove(StageName::Core as usize).kill();
    pipeline.insert(StageName::Core as usize, world.stage(StageName::Core).await);
}

async fn metric(core: &Process, name: &str) -> Option<f64> {
    let (_, metrics) = support::http(core.http, "GET", "/metrics", "", "").await;
    let line = metrics.lines().find(|line| line.starts_with(&format!("services_{name}{{")))?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_into_a_partition_is_refused_without_the_guard_and_to_every_role() {
    let world = World::open().await;
    begin(&world, 2).await;
    let _core = world.stage(StageName::Core).await;
    made(&world).await;
    let parts = "select inhrelid::regclass::text from pg_inherits join pg_class on pg_class.oid = inhparent \
        where relkind = 'p' and relnamespace = 'trading'::regnamespace";
    let parts = world.texts(parts).await;
    // Ten stores: one before, one for the rest, two days that are over, today and seven to come.
    assert_eq!(parts.len(), 10 * (2 + 10), "{parts:?}");
    let whole = world.texts("select 'trading.' || store from trading.stores_by_day").await;
    for table in parts.iter().chain(&whole) {
        for statement in ["delete from", "truncate"] {
            let refused = world.sql.execute(&format!("{statement} {table}"), &[]).await.unwrap_err();
            assert_eq!(refused.code().unwrap().code(), "TR006", "{statement} {table}");
        }
    }
    // What is there once a day is so in each of them.
    let loose = "select count(*) from pg_inherits join trading.stores_by_day on inhparent = ('trading.' || store)::regclass, \
            unnest(once) as once_a_day \
        where not exists (select from pg_index join pg_attribute on attrelid = indrelid and attnum = indkey[0] \
            where indrelid = inhrelid and indisunique and indnatts = 1 and attname = once_a_day)";
    assert_eq!(world.number(loose).await, 0);
    for role in ["inbound", "ingestion", "core", "egress", "outbound"] {
        let options = support::database_options(&world.name, &format!("trading_{role}"));
        let client = region_lease::connect(&options).await.unwrap();
        for part in &parts {
            for statement in [format!("delete from {part}"), format!("select from {part}")] {
                let refused = client.execute(&statement, &[]).await.unwrap_err();
                assert_eq!(refused.code().unwrap().code(), "42501", "{role}: {statement}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_are_made_and_dropped_by_core_alone_and_under_the_guard_only() {
    let world = World::open().await;
    begin(&world, 30).await;
    for (role, statement, code) in [
        ("core", "select trading.make_days()", "TR006"),
        ("core", "select trading.drop_day(6)", "22023"),
        ("core", "select trading.drop_day(null)", "22023"),
        ("core", "select trading.make_days_until(0, 1)", "42501"),
        ("core", "select trading.drop_day_until(9000000000000)", "42501"),
        ("core", "select trading.delete_late_rows_until(9000000000000, 1)", "42501"),
        ("core", "insert into trading.days (from_ms, to_ms, suffix) values (1, 2, 'x')", "42501"),
        ("core", "insert into trading.stores_by_day values ('trades', 'received_ms', '{}')", "42501"),
        ("inbound", "select trading.make_days()", "42501"),
        ("outbound", "select trading.drop_day(7)", "42501"),
        ("outbound", "select trading.delete_late_rows()", "42501"),
        ("outbound", "select * from trading.days_standing()", "42501"),
    ] {
        let options = support::database_options(&world.name, &format!("trading_{role}"));
        let client = region_lease::connect(&options).await.unwrap();
        let refused = client.query(statement, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), code, "{role}: {statement}");
    }
    // Of thirty days one is old enough; the latest is never dropped, so there must be another one.
    let core = region_lease::connect(&support::database_options(&world.name, "trading_core")).await.unwrap();
    assert_eq!(core.query("select trading.drop_day(7)", &[]).await.unwrap().len(), 0);
    let next =
        "insert into trading.days values ((select max(to_ms) from trading.days), 9000000000000, 'next')";
    damage(&world, "days", next).await;
    let refused = core.query("select trading.drop_day(7)", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "TR006");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_before_its_day_was_made_moves_into_it_and_is_still_known() {
    let world = World::open().await;
    begin(&world, 0).await;
    let _inbound = world.stage(StageName::Inbound).await;
    let messages = [IM, BROKER].map(|sender| report(sender, 1, "18.5", 1, "Unmatched"));
    for _ in 0..2 {
        for (id, body) in &messages {
            world.publish(Some(id), body.as_bytes()).await;
        }
    }
    let rest = "select count(*) from trading.inbound_raw_rest";
    eventually("both are stored", async || (world.number(rest).await == 2).then_some(())).await;
    let ingestion = world.stage(StageName::Ingestion).await;
    let ingested = "select count(*) from trading.ingested_rest";
    eventually("both are read", async || (world.number(ingested).await == 2).then_some(())).await;
    let core = world.stage(StageName::Core).await;
    eventually("they have moved", async || (world.number(rest).await == 0).then_some(())).await;
    made(&world).await;
    for (id, body) in &messages {
        world.publish(Some(id), body.as_bytes()).await;
    }
    let (_egress, _outbound) = (world.stage(StageName::Egress).await, world.stage(StageName::Outbound).await);
    assert_eq!(world.answers(2).await.len(), 2);
    send(&world, &report(IM, 2, "18.5", 1, "Unmatched")).await;
    world.nothing_is_on_its_way().await;
    let today = "select count(*) from trading.inbound_raw where received_ms >= \
        trading.day_ms((now() at time zone 'UTC')::date - 1)";
    assert_eq!(world.number(today).await, 3);
    assert_eq!(world.number(ingested).await, 0);
    assert_eq!(world.number("select count(*) from trading.sent").await, 2);
    eventually("it is told", async || (metric(&core, "store_rows_outside_days").await? == 0.0).then_some(()))
        .await;
    drop(ingestion);
}

/// The gateway knows a message again on the next day; later core does, from the trade.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_comes_again_on_another_day_changes_no_trade_and_no_answer_but_tells_refusals_again() {
    let world = World::open().await;
    begin(&world, 15).await;
    let _pipeline = world.pipeline().await;
    made(&world).await;
    one_of_every_kind(&world).await;
    let (raw, outbox) = ("select count(*) from trading.inbound_raw", "select count(*) from trading.outbox");
    let (stored, decided) = (world.number(raw).await, world.number(outbox).await);
    let trades = "select (trade_date, id, record, version, status, trade)::text from trading.trades where trade_id < '7'";
    let standing = world.texts(trades).await;

    age(&world, 1).await;
    again(&world, 71).await;
    assert_eq!((world.number(raw).await, world.number(outbox).await), (stored + 1, decided));

    age(&world, 5).await;
    again(&world, 72).await;
    assert_eq!(world.number(raw).await, 2 * stored + 2);
    assert_eq!(world.texts(trades).await, standing);
    let twice = "select distinct status from trading.outbox where message_id in \
        (select message_id from trading.outbox group by message_id having count(*) > 1)";
    assert_eq!(world.texts(twice).await, ["NACK"]);
    let others = "select count(*) from trading.outbox where status <> 'NACK'";
    let told = "select count(distinct message_id) from trading.sent where status <> 'NACK'";
    assert_eq!(world.number(others).await, world.number(told).await);
    for since in [None, Some(Duration::from_secs(3_600))] {
        let report = compared(&world, since).await;
        assert!(report.agrees && looked_at(&report) > 0, "{since:?}: {report}");
    }
}

/// Trade matching asks again for up to four weeks.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_is_sent_again_after_days_is_answered_again() {
    let both = Both::start().await;
    begin(&both.settlement, 15).await;
    let _pipelines = both.pipelines().await;
    made(&both.settlement).await;
    publish_pair(&both.trading, 1).await;
    let settled = "select count(*) from trading.trades where status = 'SETTLED'";
    eventually("settled", async || (both.trading.number(settled).await == 2).then_some(())).await;
    both.nothing_is_on_its_way().await;
    for table in ["inbound_raw", "ingested", "settlements"] {
        let older = format!("update trading.{table} set received_ms = received_ms - 5 * 86400000::bigint");
        damage(&both.settlement, table, &older).await;
    }
    let early = "update trading.outgoing_settlements set sent_at = 'epoch'";
    damage(&both.settlement, "outgoing_settlements", early).await;
    let again = "update trading.outgoing_settlements set sent_at = null";
    damage(&both.trading, "outgoing_settlements", again).await;
    let answered = "select count(*) from trading.outgoing_settlements where sent_at > 'epoch'";
    eventually("answered again", async || (both.settlement.number(answered).await == 4).then_some(())).await;
    both.nothing_is_on_its_way().await;
    assert_eq!(both.settlement.number("select count(*) from trading.outgoing_settlements").await, 4);
    assert_eq!(both.settlement.number("select count(*) from trading.settlements").await, 4);
    assert_eq!(both.trading.number("select count(*) from trading.sent where status = 'SETTLED'").await, 2);
}

/// The moment is a parameter of the functions that do it, so that no test waits for a midnight.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_is_made_and_dropped_when_a_midnight_is_reached_and_not_a_moment_before() {
    let world = World::open().await;
    begin(&world, 20).await;
    let day_ms = |from: i32| format!("trading.day_ms((now() at time zone 'UTC')::date {from:+})");
    let days = "select count(*) from trading.days";
    let until = async |moment: &str| {
        guarded(&world, "postgres", &format!("select trading.make_days_until({moment}, 100)")).await;
        world.number(days).await
    };
    assert_eq!(until(&day_ms(-20)).await, 1, "what was before ends then");
    assert_eq!(until(&format!("{} + 1", day_ms(-20))).await, 2);
    assert_eq!(until(&day_ms(-19)).await, 2);
    assert_eq!(until(&day_ms(0)).await, 21);
    let to = async |moment: &str| {
        guarded(&world, "postgres", &format!("select trading.drop_day_until({moment})")).await;
        world.number(days).await
    };
    assert_eq!(to(&format!("{} - 1", day_ms(-20))).await, 21);
    assert_eq!(to(&day_ms(-20)).await, 20, "what was before is over");
    assert_eq!(to(&format!("{} - 1", day_ms(-19))).await, 20);
    assert_eq!(to(&day_ms(-19)).await, 19);
}

/// A queue that was left behind may give back what it held for longer than days are kept.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_for_a_dropped_day_is_deleted_under_the_guard_once_nothing_of_those_days_is_open() {
    let mut world = World::open().await;
    begin(&world, 20).await;
    world.keep_days = NonZeroU16::new(7);
    let mut pipeline = world.pipeline().await;
    let days = "select count(*) from trading.days";
    eventually("a week is kept", async || (world.number(days).await == 7 + 8).then_some(())).await;
    one_of_every_kind(&world).await;
    age(&world, 30).await;
    for sender in [IM, BROKER] {
        send(&world, &report(sender, 8, "18.5", 1, "Unmatched")).await;
    }
    world.nothing_is_on_its_way().await;
    let outside = "select outside from trading.days_standing()";
    let late = world.number(outside).await;
    assert!(late > 20, "{late}");

    // Inbound's own store has such a time only from a wrong clock, so nothing goes.
    let withdrawn = "update trading.trades set status = 'CANCELLED' where status = 'UNMATCHED'";
    pipeline.remove(StageName::Core as usize).kill();
    let waiting = world.texts("select record::text from trading.trades where status = 'UNMATCHED'").await;
    damage(&world, "trades", withdrawn).await;
    let five = "select trading.delete_late_rows_until((select since_ms from trading.kept), 5)";
    guarded(&world, "postgres", five).await;
    assert_eq!(world.number(outside).await, late);
    let again = format!(
        "update trading.trades set status = 'UNMATCHED' where record::text in ('{}')",
        waiting.join("','")
    );
    damage(&world, "trades", &again).await;
    let dropped = "delete from trading.inbound_raw where received_ms < (select since_ms from trading.kept)";
    damage(&world, "inbound_raw", dropped).await;
    let late = world.number(outside).await;
    pipeline.insert(StageName::Core as usize, world.stage(StageName::Core).await);

    // A trade waits, and of that time nothing goes.
    core_anew(&world, &mut pipeline).await;
    let told = async || metric(&pipeline[StageName::Core as usize], "store_rows_outside_days").await;
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    let all = late as f64;
    eventually("core has looked", async || (told().await? == all).then_some(())).await;

    pipeline.remove(StageName::Core as usize).kill();
    damage(&world, "trades", withdrawn).await;
    let core = region_lease::connect(&support::database_options(&world.name, "trading_core")).await.unwrap();
    let refused = core.query("select trading.delete_late_rows()", &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "TR006");
    let three = "select trading.delete_late_rows_until((select since_ms from trading.kept), 3)";
    guarded(&world, "postgres", three).await;
    assert_eq!(world.number(outside).await, late - 3);
    pipeline.insert(StageName::Core as usize, world.stage(StageName::Core).await);
    eventually("they are deleted", async || (world.number(outside).await == 0).then_some(())).await;
    for store in ["inbound_raw", "ingested", "outbox", "egressed", "sent"] {
        assert_eq!(world.number(&format!("select count(*) from trading.{store}")).await, 2, "{store}");
    }
    assert!(compared(&world, None).await.agrees);
}

#[tokio::test(flavor = "multi_thread")]
async fn old_days_are_dropped_from_all_stores_at_once_and_none_that_has_anything_open() {
    let mut world = World::open().await;
    begin(&world, 20).await;
    let mut pipeline = world.pipeline().await;
    made(&world).await;
    one_of_every_kind(&world).await;
    world.publish(None, b"from nobody").await;
    let apart = "select count(*) from trading.quarantine";
    eventually("set apart", async || (world.number(apart).await == 1).then_some(())).await;
    age(&world, 12).await;
    damage(
        &world,
        "quarantine",
        "update trading.quarantine set first_seen = first_seen - interval '12 days'",
    )
    .await;
    let days = "select count(*) from trading.days";

    // Twelve days ago there are a trade that waits and a message that nobody has dealt with.
    world.keep_days = NonZeroU16::new(7);
    core_anew(&world, &mut pipeline).await;
    eventually("what was before is gone", async || (world.number(days).await == 12 + 8).then_some(())).await;
    let core = &pipeline[StageName::Core as usize];
    let overdue = async || metric(core, "store_days_overdue").await.filter(|days| *days > 0.0);
    assert_eq!(eventually("it is told", overdue).await, 5.0);
    assert!(metric(core, "store_oldest_day_age_seconds").await.unwrap() >= 12.0 * 86_400.0);
    assert!(compared(&world, None).await.agrees);

    (world.keep_days, world.expire_after) = (None, NonZeroU16::new(1));
    core_anew(&world, &mut pipeline).await;
    let waiting = "select count(*) from trading.trades where status = 'UNMATCHED'";
    eventually("nothing waits", async || (world.number(waiting).await == 0).then_some(())).await;
    world.nothing_is_on_its_way().await;
    deal_with_quarantine(&world).await;

    (world.keep_days, world.expire_after) = (NonZeroU16::new(7), None);
    let trades = world.number("select count(*) from trading.trades").await;
    core_anew(&world, &mut pipeline).await;
    eventually("a week is kept", async || (world.number(days).await == 7 + 8).then_some(())).await;
    let left = "select store || '_' || suffix from trading.stores_by_day, trading.days order by 1";
    let parts = "select relname::text from pg_class where relnamespace = 'trading'::regnamespace and relispartition \
        and relkind = 'r' and relname not like '%\\_rest'";
    assert_eq!(world.texts(left).await, world.texts(parts).await);
    for store in world.texts("select store::text from trading.stores_by_day").await {
        assert_eq!(world.number(&format!("select count(*) from trading.{store}")).await, 0, "{store}");
    }

    // What was dropped is no finding, and a repeat of it no new trade.
    assert!(compared(&world, None).await.agrees);
    for sender in [IM, BROKER] {
        send(&world, &report(sender, 1, "18.5", 1, "Unmatched")).await;
        send(&world, &report(sender, 8, "18.5", 1, "Unmatched")).await;
    }
    world.nothing_is_on_its_way().await;
    assert_eq!(world.number("select count(*) from trading.trades").await, trades + 2);
    assert_eq!(world.texts("select distinct id from trading.sent").await.len(), 2);
    let report = compared(&world, None).await;
    assert!(report.agrees && looked_at(&report) > 0, "{report}");
}

/// Ends the stages, and waits until the server counts all that they did: a session may tell its numbers only at its end.
async fn told_by_all(world: &World, pipeline: impl IntoIterator<Item = Process>) {
    pipeline.into_iter().for_each(Process::kill);
    let sessions = "select count(*) from pg_stat_activity where datname = current_database() and usename like 'trading%'";
    eventually("all sessions have ended", async || (world.number(sessions).await == 0).then_some(())).await;
}

/// Of partitions that no statement ran into the server counts no scan. A statement that was planned for each day and ran into
/// none of them costs that much less, but not nothing: those that run all the time take their days as parameters.
#[tokio::test(flavor = "multi_thread")]
async fn stages_relay_replay_and_reconciliation_since_a_mark_look_into_the_days_around_now_alone() {
    let world = World::open().await;
    begin(&world, 20).await;
    let first = world.pipeline().await;
    made(&world).await;
    one_of_every_kind(&world).await;
    told_by_all(&world, first).await;
    // What a look since an hour ago finds may follow from what came a day before it, and that from a day before.
    let day = async |age: &str| {
        let day = format!("select to_char((now() - interval '{age}') at time zone 'UTC', '\"d\"YYYYMMDD')");
        world.texts(&day).await.remove(0)
    };
    let (today, earliest) = (day("0").await, day("2 days 1 hour").await);
    // From here on this test itself asks no store.
    world.sql.batch_execute("select pg_stat_force_next_flush()").await.unwrap();
    world.sql.batch_execute("select pg_stat_reset()").await.unwrap();
    let pipeline = world.pipeline().await;
    for number in 11..31 {
        for (sender, price) in [(IM, "18.5"), (BROKER, "18.50"), (IM, "18.5"), (IM, "0")] {
            let (id, body) = report(sender, number, price, 1, "Unmatched");
            world.publish(Some(&id), body.as_bytes()).await;
        }
    }
    assert!(world.answers(40).await.len() >= 40);
    world.nothing_is_on_its_way().await;
    let (status, did) = world.hook(&pipeline[StageName::Core as usize], "after-grant", 1).await;
    assert_eq!(status, 200, "{did}");
    let report = compared(&world, Some(Duration::from_secs(3_600))).await;
    assert!(report.agrees && looked_at(&report) > 0, "{report}");
    told_by_all(&world, pipeline).await;
    let scanned = |which: &str| {
        format!(
            "select relname || ' ' || seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables \
             where schemaname = 'trading' and seq_scan + coalesce(idx_scan, 0) > 0 and ({which})"
        )
    };
    let today = world.texts(&scanned(&format!("relname like '%_{today}'"))).await;
    for store in ["inbound_raw", "ingested", "nacks", "outbox", "egressed", "sent"] {
        assert!(today.iter().any(|part| part.starts_with(store)), "{store} is not in {today:?}");
    }
    let earlier = format!("relname ~ '_d[0-9]{{8}}$' and right(relname, 9) < '{earliest}'");
    let earlier = scanned(&format!("relname like '%_before' or {earlier}"));
    assert_eq!(world.texts(&earlier).await, Vec::<String>::new());
}
