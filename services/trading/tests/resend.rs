//! Settlements that have not come back are sent again: when, how often, and what that reads.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use support::both::{Both, THERE, publish_pair};
use support::{World, eventually};
use trading::run::StageName;

/// Waits until a count has this value.
async fn reaches(world: &World, what: &str, query: &str, wanted: i64) {
    eventually(what, async || (world.number(query).await == wanted).then_some(())).await;
}

const SENT: &str = "select count(*) from trading.outgoing_settlements where sent_at is not null";
const UNSENT: &str = "select count(*) from trading.outgoing_settlements where sent_at is null";
const SETTLED: &str = "select count(*) from trading.trades where status = 'SETTLED'";
const ATTEMPTS: &str = "select message_id || ' ' || attempts from trading.unreturned";

/// Waits until outbound has looked so many times more for what is due.
async fn looks(world: &World, more: i64) {
    let scans = "select idx_scan from pg_stat_user_indexes where indexrelname = 'unreturned_due'";
    let before = world.number(scans).await;
    let what = format!("{more} looks");
    eventually(&what, async || (world.number(scans).await >= before + more).then_some(())).await;
}

/// Waits until a metric of core has a value that is wanted.
async fn metric(core: SocketAddr, name: &str, wanted: impl Fn(f64) -> bool) {
    let begin = format!("services_settlements_{name}{{stage=\"core\"}} ");
    eventually(name, async || {
        let (_, metrics) = support::http(core, "GET", "/metrics", "", "").await;
        let value = metrics.lines().find_map(|line| line.strip_prefix(begin.as_str()))?;
        value.parse::<f64>().ok().filter(|value| wanted(*value)).map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_stand_still_while_the_other_broker_is_away_and_all_come_back_when_it_is_there_again() {
    let mut both = Both::start().await;
    both.trading.resend_after = Duration::from_secs(1);
    let trading = both.trading.pipeline().await;
    let core = trading[StageName::Core as usize].http;
    publish_pair(&both.trading, 1).await;
    reaches(&both.trading, "the first trade's settlements are sent", SENT, 4).await;
    both.gateway.close().await;
    both.settlement.purge(THERE).await;
    publish_pair(&both.trading, 2).await;
    reaches(&both.trading, "what was lost is due, what is new waits", UNSENT, 8).await;
    let before = both.trading.texts(ATTEMPTS).await;
    let never_sent = "select count(*) from trading.unreturned where attempts = 0";
    assert_eq!((before.len(), both.trading.number(never_sent).await), (8, 4), "{before:?}");
    looks(&both.trading, 12).await;
    assert_eq!(both.trading.texts(ATTEMPTS).await, before);
    let due = "select count(*) from trading.unreturned where due <= clock_timestamp()";
    assert_eq!(both.trading.number(due).await, 0, "what waits for the sender is not looked at");
    metric(core, "unreturned", |count| (count - 8.0).abs() < 0.1).await;
    metric(core, "unreturned_oldest_seconds", |seconds| seconds > 0.0).await;

    both.gateway.open().await;
    let _settlement = both.settlement.pipeline().await;
    reaches(&both.trading, "all are settled", SETTLED, 4).await;
    both.assert_conserved().await;
    assert_eq!(both.trading.number("select count(*) from trading.unreturned").await, 0);
    metric(core, "unreturned", |count| count.abs() < 0.1).await;
}

/// Of all that wait, so many are due: more than a few rounds, at the usual pause longer than anything is waited for.
const DUE: i64 = 2_600;
/// And so many are not.
const NOT_DUE: i64 = 30_000;

/// Settlements that were made and sent, behind the guard's back.
async fn fill(world: &World) {
    let fill = format!(
        "alter table trading.unreturned disable trigger user; \
         alter table trading.outgoing_settlements disable trigger user; \
         with made as ( \
            insert into trading.outgoing_settlements (message_id, id, status, body, sent_at) \
            select gen_random_uuid(), 'a-a-b-' || number || '-1', 'Unmatched', '{{}}', now() - interval '1 hour' \
            from generate_series(1, {DUE} + {NOT_DUE}) as number returning seq, message_id) \
         insert into trading.unreturned (message_id, attempts, due) \
         select message_id, 1, now() + case when seq > {DUE} then interval '1 hour' else interval '0' end from made; \
         alter table trading.unreturned enable always trigger region_guard; \
         alter table trading.outgoing_settlements enable always trigger region_guard; \
         analyze trading.unreturned, trading.outgoing_settlements"
    );
    world.sql.batch_execute(&fill).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_sent_again_round_after_round_and_what_is_not_due_is_not_even_read() {
    let both = Both::start().await;
    let trading = &both.trading;
    fill(trading).await;
    let outbound = trading.stage(StageName::Outbound).await;
    let again = "select count(*) from trading.outgoing_settlements where sent_at >= made_at";
    reaches(trading, "all that is due is sent again", again, DUE).await;
    drop(outbound);
    // A session that has ended has told what it read.
    let sessions = "select count(*) from pg_stat_activity \
        where usename = 'trading_outbound' and datname = current_database()";
    reaches(trading, "outbound's sessions end", sessions, 0).await;
    let read = "select idx_tup_read from pg_stat_user_indexes where indexrelname = 'unreturned_due'";
    let read = trading.number(read).await;
    assert!((DUE..NOT_DUE).contains(&read), "{read} entries read");
    let scanned = "select seq_tup_read from pg_stat_user_tables \
        where schemaname = 'trading' and relname = 'unreturned'";
    assert_eq!(trading.number(scanned).await, 0, "the table is not read as a whole");
    let taken_again = "select count(*) from trading.unreturned \
        where attempts = 2 and due between now() + interval '15 minutes' and now() + interval '20 minutes'";
    assert_eq!(trading.number(taken_again).await, DUE, "due again after twice ten minutes");
    let others = "select count(*) from trading.unreturned where attempts = 1";
    assert_eq!(trading.number(others).await, NOT_DUE);
}
