//! What trade matching's stores hold, and how they are damaged.

use super::World;
use super::reports::{BROKER, IM, report, send};

/// Messages of every kind: matched, mismatched, amended, cancelled, repeated, in conflict, too late, refused, waiting.
pub fn kinds() -> Vec<(String, String)> {
    vec![
        report(IM, 1, "18.5", 1, "Unmatched"),
        report(BROKER, 1, "18.50", 1, "Unmatched"),
        report(IM, 2, "18.5", 1, "Unmatched"),
        report(BROKER, 2, "7", 1, "Unmatched"),
        report(IM, 3, "18.5", 1, "Unmatched"),
        report(IM, 3, "19.5", 2, "Amended"),
        report(IM, 3, "19.50", 2, "Amended"),
        report(IM, 3, "20.5", 2, "Amended"),
        report(IM, 3, "21.5", 1, "Unmatched"),
        report(BROKER, 3, "19.5", 1, "Unmatched"),
        report(IM, 3, "19.5", 3, "Cancelled"),
        report(IM, 4, "18.5", 1, "Unmatched"),
        report(IM, 4, "18.5", 2, "Cancelled"),
        report(BROKER, 5, "18.5", 1, "Unmatched"),
        report(IM, 6, "0", 1, "Unmatched"),
        (format!("{IM}-{IM}-{BROKER}-7"), "no \u{0} JSON".to_owned()),
    ]
}

/// One of every kind, in an order in which each is what it is meant to be.
pub async fn one_of_every_kind(world: &World) {
    for message in &kinds() {
        send(world, message).await;
    }
    world.nothing_is_on_its_way().await;
}

/// What every store holds, without the times at which a row was written.
pub async fn contents(world: &World) -> Vec<String> {
    let query = "select (record, id, received_ms, content)::text from trading.ingested \
        union all select (record, id, refusal, body)::text from trading.nacks \
        union all select (trade_date, id, version, status, trade)::text from trading.trades \
        union all select (record, id, code)::text from trading.conflicts \
        union all select (message_id, id, received_ms, status, body)::text from trading.outbox \
        union all select (message_id, id, status, body)::text from trading.egressed \
        union all select (message_id, id, status, body)::text from trading.sent order by 1";
    world.sql.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// Changes a table behind the guard's back.
pub async fn damage(world: &World, table: &str, statement: &str) {
    let damage = format!(
        "alter table trading.{table} disable trigger user; {statement}; \
         alter table trading.{table} enable trigger user; \
         alter table trading.{table} enable always trigger region_guard"
    );
    world.sql.batch_execute(&damage).await.unwrap();
}
