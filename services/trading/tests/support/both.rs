//! Both applications beside each other: each with its own database and its own virtual host of the broker.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use trading::names::{self, Application};
use trading::run::Settlements;

use super::conserved::{EQUATIONS, Equation};
use super::{Process, World, broker_config, broker_config_at, eventually, servers};

/// Trade matching and the settlement application, wired to each other.
pub struct Both {
    pub trading: World,
    pub settlement: World,
    /// The way from trade matching to the settlement application's broker.
    pub gateway: Gateway,
}

impl Both {
    pub async fn start() -> Self {
        let mut trading = World::open().await;
        let mut settlement = World::open_of(Application::Settlement).await;
        let gateway = Gateway::start().await;
        let there = broker_config_at(gateway.address, &settlement.name, "to the settlement application");
        trading.settlements = Settlements::On(Some(Box::new(there)));
        let back = broker_config(&trading.name, "to trade matching");
        settlement.settlements = Settlements::On(Some(Box::new(back)));
        Self { trading, settlement, gateway }
    }

    /// One process of each stage of both.
    pub async fn pipelines(&self) -> Vec<Process> {
        let mut processes = self.trading.pipeline().await;
        processes.extend(self.settlement.pipeline().await);
        processes
    }

    /// Waits until nothing is on its way in either application or between them.
    pub async fn nothing_is_on_its_way(&self) {
        const UNSENT: &str = "select count(*) from trading.outgoing_settlements where sent_at is null";
        const BACK: &str = "select count(*) from trading.returned_raw";
        let made = "select count(*) from trading.outgoing_settlements";
        eventually("nothing is on its way", async || {
            let (trading, settlement) = (&self.trading, &self.settlement);
            let quiet = trading.in_flight().await == 0
                && trading.number(UNSENT).await == 0
                && settlement.number("select count(*) from trading.inbound_raw").await
                    >= trading.number(made).await
                && settlement.in_flight().await == 0
                && settlement.number(UNSENT).await == 0
                && trading.number(BACK).await >= settlement.number(made).await
                && trading.number("select count(*) from trading.returned_pending").await == 0
                && trading.in_flight().await == 0;
            quiet.then_some(())
        })
        .await;
    }

    /// What each stage has is what the one before gave it, across both applications: reference §8.
    pub async fn assert_conserved(&self) {
        self.nothing_is_on_its_way().await;
        let of = |application| match application {
            Application::TradeMatching => &self.trading,
            Application::Settlement => &self.settlement,
        };
        for Equation { name, one, first, other, second } in EQUATIONS {
            assert_eq!(of(*one).texts(first).await, of(*other).texts(second).await, "{name}");
        }
    }
}

/// A port in front of the broker that can be closed, as a broker that is away.
pub struct Gateway {
    pub address: SocketAddr,
    broker: SocketAddr,
    accepting: Option<JoinHandle<()>>,
}

impl Gateway {
    async fn start() -> Self {
        let broker = SocketAddr::from(([127, 0, 0, 1], servers().1.amqp_port()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { address, broker, accepting: Some(accept(listener, broker)) }
    }

    /// Refuses connections and ends those that are there.
    pub async fn close(&mut self) {
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
            // Only then the listener and all connections are gone.
            let _ = accepting.await;
        }
    }

    pub async fn open(&mut self) {
        let listener = TcpListener::bind(self.address).await.unwrap();
        self.accepting = Some(accept(listener, self.broker));
    }
}

/// Passes bytes on; when it is aborted, its connections end with it.
fn accept(listener: TcpListener, broker: SocketAddr) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((mut client, _)) = listener.accept().await {
            connections.spawn(async move {
                let mut server = TcpStream::connect(broker).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    })
}

/// A trade with two allocations, as one party reports it; `account` is that of the second one.
pub fn allocated(sender: &str, number: u32, account: &str) -> (String, String) {
    use super::reports::{BROKER, IM};
    let allocation = |number: u32, quantity: u32, account: &str| {
        format!(
            r#""{{\"allocationID\":{number},\"quantity\":{quantity},\"account\":\"{account}\",\"status\":\"Unmatched\"}}""#
        )
    };
    let allocations = [allocation(1, 33, "1538552570"), allocation(2, 67, account)].join(",");
    let body = format!(
        r#"{{"senderID":"{sender}","imID":"{IM}","brokerID":"{BROKER}","tradeID":"{number}","security":"AMZN",
            "transactionIndicator":"B","price":18.5,"quantity":2,"tradeDate":"2026-02-09",
            "settlementDate":"2026-02-11","status":"Unmatched","allocations":[{allocations}]}}"#
    );
    (format!("{sender}-{IM}-{BROKER}-{number}"), body)
}

/// The second account of trades that agree.
pub const ACCOUNT: &str = "4208812345";

/// Publishes both parties' reports of a trade that agree.
pub async fn publish_pair(trading: &World, number: u32) {
    use super::reports::{BROKER, IM};
    for sender in [IM, BROKER] {
        let (id, body) = allocated(sender, number, ACCOUNT);
        trading.publish(Some(&id), body.as_bytes()).await;
    }
}

/// Carries what a table has into a queue of the other application by hand, in the order that the query gives.
pub async fn carry(from: &World, query: &str, to: &World, queue: &str) -> usize {
    let rows = from.sql.query(query, &[]).await.unwrap();
    for row in &rows {
        let (id, body): (&str, &str) = (row.get("id"), row.get("body"));
        to.publish_to(queue, Some(id), body.as_bytes()).await;
    }
    rows.len()
}

/// The queue that the settlement application takes from.
pub const THERE: &str = names::SETTLEMENT_IN;
/// The queue that trade matching takes what comes back from.
pub const BACK: &str = names::RETURNED_IN;
