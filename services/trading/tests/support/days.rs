//! Stores by day as tests see them: days that begin long ago, and rows that grow old at once.

use super::stores::damage;
use super::{World, eventually};

/// Milliseconds of a day.
pub const DAY_MS: i64 = 86_400_000;

/// Lets the first partition end so many days ago, so that core makes one for each day from then on.
pub async fn begin(world: &World, days_ago: i32) {
    let until =
        world.number(&format!("select trading.day_ms((now() at time zone 'UTC')::date - {days_ago})")).await;
    let first = format!("update trading.days set from_ms = {until} - {DAY_MS}, to_ms = {until}");
    damage(world, "days", &first).await;
    for store in world.texts("select store::text from trading.stores_by_day").await {
        let anew = format!(
            "alter table trading.{store} detach partition trading.{store}_before;
             alter table trading.{store} attach partition trading.{store}_before for values from (minvalue) to ({until})"
        );
        world.sql.batch_execute(&anew).await.unwrap();
    }
}

/// Waits until core has made all days to come.
pub async fn made(world: &World) {
    let ahead =
        "select (max(to_ms) - trading.day_ms((now() at time zone 'UTC')::date)) / 86400000 from trading.days";
    eventually("days to come are made", async || (world.number(ahead).await >= 8).then_some(())).await;
}

/// What trade matching has stored becomes so many days older, with the times in its answers.
pub async fn age(world: &World, days: i64) {
    let (ms, earlier) = (days * DAY_MS, format!("- interval '{days} days'"));
    let received = format!("received_ms = received_ms - {ms}");
    let timestamp = "substring(body from '\"timestamp\":([0-9]+)')";
    let answered = format!(
        "caused_ms = caused_ms - {ms}, at = at {earlier}, \
         body = replace(body, '\"timestamp\":' || {timestamp}, '\"timestamp\":' || ({timestamp}::bigint - {ms}))"
    );
    let decided = format!("{received}, caused_ms = caused_ms - {ms}, sent_at = sent_at {earlier}");
    for table in ["inbound_raw", "ingested", "nacks", "conflicts", "trades"] {
        damage(world, table, &format!("update trading.{table} set {received}")).await;
    }
    damage(world, "outbox", &format!("update trading.outbox set {decided}")).await;
    for table in ["egressed", "sent"] {
        damage(world, table, &format!("update trading.{table} set {answered}")).await;
    }
}
