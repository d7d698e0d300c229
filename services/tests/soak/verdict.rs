//! What must hold at the end, asked of the stores themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio_postgres::Client;
use trading::names::Application;

use crate::conserved::{EQUATIONS, Equation};
use crate::rig::Rig;
use crate::side::Side;
use crate::wait::until;

/// Everything has come to rest within this time after the last copy.
const REST_LIMIT: Duration = Duration::from_secs(300);
/// So many looks after each other find nothing on its way.
const LOOKS: u32 = 3;
/// Ids that are named for one equation.
const NAMED: usize = 10;

struct Stores {
    trading: Client,
    settlement: Client,
}

impl Stores {
    async fn open(rig: &Rig) -> Result<Self> {
        Ok(Self {
            trading: rig.trading.database.connect().await?,
            settlement: rig.settlement.database.connect().await?,
        })
    }

    fn of(&self, application: Application) -> &Client {
        match application {
            Application::TradeMatching => &self.trading,
            Application::Settlement => &self.settlement,
        }
    }

    /// How often each text is there.
    async fn texts(&self, application: Application, query: &str) -> Result<BTreeMap<String, i64>> {
        let mut texts = BTreeMap::new();
        for row in self.of(application).query(query, &[]).await? {
            *texts.entry(row.try_get(0)?).or_default() += 1;
        }
        Ok(texts)
    }

    async fn number(&self, application: Application, query: &str) -> Result<i64> {
        Ok(self.of(application).query_one(query, &[]).await?.try_get(0)?)
    }
}

/// Waits until nothing is on its way, in queues, in rows or between the applications.
pub(crate) async fn rest(rig: &Rig) -> Result<()> {
    let mut found = 0;
    until(REST_LIMIT, "nothing is on its way", async || {
        found = if quiet(rig).await.unwrap_or(false) { found + 1 } else { 0 };
        (found >= LOOKS).then_some(())
    })
    .await
}

async fn quiet(rig: &Rig) -> Result<bool> {
    use Application::{Settlement, TradeMatching};
    let stores = Stores::open(rig).await?;
    let unsent = "select count(*) from trading.outgoing_settlements where sent_at is null";
    let none = [
        (TradeMatching, "select in_flight from trading.in_flight"),
        (TradeMatching, "select count(*) from trading.returned_pending"),
        (TradeMatching, unsent),
        (Settlement, "select in_flight from trading.in_flight"),
        (Settlement, unsent),
    ];
    for (application, query) in none {
        if stores.number(application, query).await? != 0 {
            return Ok(false);
        }
    }
    Ok(empty(&rig.trading).await? && empty(&rig.settlement).await?)
}

/// Whether nothing waits in any queue.
async fn empty(side: &Side) -> Result<bool> {
    let connection = side.broker.direct("queues")?.connect().await?;
    let channel = connection.create_channel().await?;
    let mut waiting = 0;
    for queue in side.queues() {
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(queue.into(), passive, FieldTable::default()).await?;
        waiting += queue.message_count();
    }
    connection.close(200, "".into()).await?;
    Ok(waiting == 0)
}

/// What each stage has that the one before did not give it, and the reverse; by id.
pub(crate) async fn conserved(rig: &Rig) -> Result<Vec<String>> {
    let stores = Stores::open(rig).await?;
    let mut broken = Vec::new();
    for Equation { name, one, first, other, second } in EQUATIONS {
        let (left, right) = (stores.texts(*one, first).await?, stores.texts(*other, second).await?);
        let mut different: Vec<String> = Vec::new();
        for (text, times) in &left {
            let there = right.get(text).copied().unwrap_or_default();
            if there != *times {
                different.push(format!("{times} against {there} of {}", shortened(text)));
            }
        }
        let only = right.iter().filter(|(text, _)| !left.contains_key(*text));
        different.extend(only.map(|(text, times)| format!("0 against {times} of {}", shortened(text))));
        if !different.is_empty() {
            let named = &different[..different.len().min(NAMED)];
            broken.push(format!("{name}: {} differ\n    {}", different.len(), named.join("\n    ")));
        }
    }
    Ok(broken)
}

fn shortened(text: &str) -> String {
    text.chars().take(160).collect()
}

/// How much went through, for people.
pub(crate) async fn counts(rig: &Rig) -> Result<String> {
    use Application::{Settlement, TradeMatching};
    let stores = Stores::open(rig).await?;
    let mut words = Vec::new();
    for (what, application, query) in [
        ("messages in", TradeMatching, "select count(*) from trading.inbound_raw"),
        ("trades", TradeMatching, "select count(*) from trading.trades"),
        ("settled", TradeMatching, "select count(*) from trading.trades where status = 'SETTLED'"),
        ("answers out", TradeMatching, "select count(*) from trading.sent"),
        ("settlements out", TradeMatching, "select count(*) from trading.outgoing_settlements"),
        ("settlements in", Settlement, "select count(*) from trading.inbound_raw"),
        ("paired", Settlement, "select count(*) from trading.settlements where status <> 'UNMATCHED'"),
        ("returned", TradeMatching, "select count(*) from trading.returned_raw"),
    ] {
        words.push(format!("{what} {}", stores.number(application, query).await?));
    }
    Ok(words.join(", "))
}
