//! Reconciliation of both applications as tests run it: plans, what they find, and stores damaged behind the guard's back.

use std::time::Duration;

use trading::names::Application;
use trading::reconcile::{self, Boundary, Job, Peer, Plan, Replaying, Report, Window};

use super::both::{ACCOUNT, Both, allocated, publish_pair};
use super::reports::{BROKER, IM};
use super::{PATIENCE, Process, REGION, broker_config, database_options, eventually};

/// All boundaries of settlements that one application compares, over everything that is stored.
pub fn plan(both: &Both, application: Application, grace: u64, replay: bool) -> Plan {
    let (own, other) = match application {
        Application::TradeMatching => (&both.trading, &both.settlement),
        Application::Settlement => (&both.settlement, &both.trading),
    };
    Plan {
        application,
        app: own.app().into(),
        region: REGION.into(),
        database: database_options(&own.name, "trading_core"),
        peer: Some(Peer { app: other.app().into(), database: database_options(&other.name, "trading_peer") }),
        jobs: match application {
            Application::TradeMatching => [&Job::SETTLING[..], &[Job::OutboundSettlementInbound]].concat(),
            Application::Settlement => {
                [&Job::SETTLEMENTS[..], &[Job::SettlementOutboundSettlementInbound]].concat()
            }
        },
        window: Window { since: None, grace: Duration::from_secs(grace) },
        resend_after: Duration::from_secs(600),
        replay: replay.then(|| Replaying {
            broker: broker_config(&own.name, "reconcile"),
            wait: PATIENCE,
            by: "a test".into(),
        }),
    }
}

pub const TRADING: Application = Application::TradeMatching;
pub const SETTLEMENT: Application = Application::Settlement;

pub async fn compared(both: &Both, application: Application) -> Report {
    reconcile::run(&plan(both, application, 0, false)).await.unwrap()
}

pub async fn replayed(both: &Both, application: Application) -> Report {
    reconcile::run(&plan(both, application, 0, true)).await.unwrap()
}

/// Missing, ahead and differing records of each boundary.
pub fn counts(report: &Report) -> Vec<[u64; 3]> {
    let count = |Boundary { comparison, .. }: &Boundary| {
        [comparison.missing.count, comparison.ahead.count, comparison.differs.count]
    };
    report.boundaries.iter().map(count).collect()
}

pub const NOTHING: [u64; 3] = [0, 0, 0];
/// Nothing at any of an application's four boundaries.
pub const CLEAN: [[u64; 3]; 4] = [NOTHING; 4];

/// Two trades that settle, one with an allocation on which the parties differ, and a settlement that is refused.
pub async fn one_of_every_kind(both: &Both) -> Vec<Process> {
    let processes = both.pipelines().await;
    publish_pair(&both.trading, 1).await;
    publish_pair(&both.trading, 2).await;
    for (sender, account) in [(IM, ACCOUNT), (BROKER, "0000000001")] {
        let (id, body) = allocated(sender, 3, account);
        both.trading.publish(Some(&id), body.as_bytes()).await;
    }
    let came = "select count(*) from trading.returned";
    eventually("all came back", async || (both.trading.number(came).await == 12).then_some(())).await;
    both.nothing_is_on_its_way().await;
    processes
}

/// What every store has, without the times at which a row was written.
pub async fn contents(both: &Both) -> Vec<String> {
    let there = "select (record, id, content)::text from trading.ingested \
        union all select (trade_date, id, version, status, counterpart, settlement)::text from trading.settlements \
        union all select (message_id, id, status, body)::text from trading.outbox \
        union all select (message_id, id, status, body)::text from trading.outgoing_settlements \
        union all select (record, correlation_id, body)::text from trading.inbound_raw";
    let here = "select (message_id, id, status, body)::text from trading.outgoing_settlements \
        union all select (record, correlation_id, body)::text from trading.returned_raw \
        union all select (record, id, content)::text from trading.returned_ingested \
        union all select (record, trade, id, code)::text from trading.returned \
        union all select (trade_date, trade, allocation_id, status)::text from trading.allocations \
        union all select (trade_date, id, status, trade)::text from trading.trades \
        union all select (message_id, id, status, body)::text from trading.sent";
    [both.settlement.texts(there).await, both.trading.texts(here).await].concat()
}
