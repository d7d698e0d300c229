//! Reports as customers send them, each with a sender, a number, a price, a version and a status.

use super::{World, eventually};

pub const IM: &str = "QAINS012";
pub const BROKER: &str = "QABRO010";

/// One party's report of trade `number`, as customers send it.
pub fn report(sender: &str, number: u32, price: &str, version: u32, status: &str) -> (String, String) {
    let body = format!(
        r#"{{"senderID":"{sender}","imID":"{IM}","brokerID":"{BROKER}","tradeID":"{number}","security":"AMZN",
            "transactionIndicator":"B","price":{price},"quantity":2,"tradeDate":"2026-02-09","version":{version},
            "settlementDate":"2026-02-11","status":"{status}"}}"#
    );
    (format!("{sender}-{IM}-{BROKER}-{number}"), body)
}

/// Publishes a report and waits until core has decided it.
pub async fn send(world: &World, (id, body): &(String, String)) {
    world.publish(Some(id), body.as_bytes()).await;
    let decided = "select count(*) from trading.inbound_raw raw where raw.body = $1 \
                   and not exists (select from trading.pending where pending.record = raw.record)";
    eventually("core has decided it", async || {
        let row = world.sql.query_one(decided, &[&body.as_bytes()]).await.unwrap();
        (row.get::<_, i64>(0) == 1).then_some(())
    })
    .await;
}
