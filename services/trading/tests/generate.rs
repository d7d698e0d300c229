//! The customers on real servers: several at once, everything that is wrong, changed and withdrawn, and files.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::civil::date;
use serde_json::Value;
use services_common::amqp::BrokerConfig;
use support::{World, eventually};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use trading::generate::{
    self, Bad, Customer, Desk, Mix, Named, Pace, Plan, Records, Scenario, SharedLedger, Verdict,
};

/// So many customers who share a rate of 300 a second for 4 seconds.
fn customers(world: &World, number: u32, scenario: &Scenario) -> Vec<Customer> {
    let rate = 300.0 / f64::from(number);
    let customer = |index| Customer {
        plan: Plan {
            rate,
            duration: Duration::from_secs(4),
            wait: support::PATIENCE,
            scenario: scenario.clone().of_customer(index, number),
        },
        pace: Pace { offset: Duration::from_secs_f64(f64::from(index) / 300.0), ..Pace::steady(rate) },
        submit: world.target(&format!("submit {index}")),
        answers: world.target(&format!("answers {index}")),
    };
    (0..number).map(customer).collect()
}

fn scenario(bad_share: f64, mix: Mix) -> Scenario {
    let seed = rand::random();
    eprintln!("seed {seed}");
    Scenario::new(seed, bad_share, date(2026, 2, 9)).with(mix)
}

async fn run(customers: Vec<Customer>, desk: Desk) -> Verdict {
    generate::run_all(customers, desk, CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn several_customers_share_one_verdict_and_each_has_its_part_of_it() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let customers = customers(&world, 4, &scenario(0.1, Mix::default()));
    let verdict = run(customers, Desk::new(SharedLedger::default())).await;
    assert!(verdict.good() && verdict.answered == verdict.sent && verdict.unknown == 0, "{verdict:#?}");
    let parts = &verdict.details.customers;
    assert_eq!(parts.len(), 4);
    assert!(parts.iter().all(|part| part.sent >= 300 && part.answered == part.sent), "{parts:?}");
    assert_eq!(parts.iter().map(|part| part.sent).sum::<u64>(), verdict.sent);
    // The first report of a pair and what follows at the end are not timed.
    let (latency, lateness) = (verdict.details.latency, verdict.details.lateness);
    assert!(latency.count > 300 && latency.p50 > 0.0 && latency.p50 <= latency.max, "{latency:?}");
    assert!(lateness.count >= 1_200 && latency.count < lateness.count, "{lateness:?}");
    assert_eq!(world.number("select count(*) from trading.trades where status = 'UNMATCHED'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_bad_message_gets_what_the_books_expect_and_the_queue_moves_on() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let mix = Mix { bad: "all".parse().unwrap(), ..Mix::default() };
    let verdict = run(customers(&world, 1, &scenario(0.5, mix)), Desk::new(SharedLedger::default())).await;
    assert!(verdict.good() && verdict.unknown == 0, "{verdict:#?}");
    let details = &verdict.details;
    for kind in Bad::ALL {
        assert!(
            details.kinds.get(kind.name()).is_some_and(|count| *count > 0),
            "{}: {details:?}",
            kind.name()
        );
    }
    assert!(details.quarantined > 0);
    assert_eq!(verdict.answered + details.quarantined, verdict.sent, "{verdict:#?}");
    let apart = "select coalesce(sum(seen), 0)::bigint from trading.quarantine";
    let expected = i64::try_from(details.quarantined).unwrap();
    eventually("all are set apart", async || (world.number(apart).await == expected).then_some(())).await;
    world.nothing_is_on_its_way().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn amended_and_withdrawn_reports_get_what_the_books_expect() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let mix = Mix { odds: "matched,amended,cancelled".parse().unwrap(), ..Mix::default() };
    let verdict = run(customers(&world, 1, &scenario(0.0, mix)), Desk::new(SharedLedger::default())).await;
    assert!(verdict.good() && verdict.unknown == 0, "{verdict:#?}");
    let of = |status: &str| verdict.statuses.get(status).copied().unwrap_or_default();
    assert!(of("CANCELLED") > 100 && of("MATCHED") > 300, "{verdict:#?}");
    assert_eq!(world.number("select count(*) from trading.trades where status = 'UNMATCHED'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sent_and_answered_is_in_the_files() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let folder = tempfile::tempdir().unwrap();
    let (file, trades) = (folder.path().join("all.jsonl"), folder.path().join("trades"));
    let records = Arc::new(Mutex::new(Records::create(Some(&file), Some(&trades), 100_000).unwrap()));
    let desk = Desk { records: Some(records.clone()), ..Desk::new(SharedLedger::default()) };
    let verdict = run(customers(&world, 2, &scenario(0.1, Mix::default())), desk).await;
    records.lock().unwrap().finish().unwrap();
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |what: &str| lines.iter().filter(|line| line["what"] == what).collect::<Vec<_>>();
    let (sent, answers) = (of("sent"), of("answer"));
    assert!(verdict.good(), "{verdict:#?}");
    assert_eq!(sent.len() as u64, verdict.sent);
    assert_eq!(answers.len() as u64, verdict.answered + verdict.repeats);
    assert_eq!(std::fs::read_dir(&trades).unwrap().count(), sent.len());
    for (number, line) in sent.iter().enumerate() {
        let Some(body) = line["body"].as_str() else { continue };
        let trade = trades.join(format!("trade_{}.json", number + 1));
        assert_eq!(std::fs::read_to_string(trade).unwrap(), body);
    }
}

/// How long the broker answers nobody.
const AWAY: Duration = Duration::from_secs(1);

/// The broker behind a door that opens after [`AWAY`].
async fn late_broker(world: &World) -> BrokerConfig {
    let door = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = |url: &str| url.rsplit(':').next().unwrap().split('/').next().unwrap().parse::<u16>().unwrap();
    let url = support::broker_url(&world.name);
    let (outside, inside) = (door.local_addr().unwrap().port(), port(&url));
    tokio::spawn(async move {
        tokio::time::sleep(AWAY).await;
        while let Ok((mut client, _)) = door.accept().await {
            let mut broker = TcpStream::connect(("127.0.0.1", inside)).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut broker).await });
        }
    });
    let url = url.replace(&format!(":{inside}/"), &format!(":{outside}/"));
    BrokerConfig::new(&url, "guest", "guest", None, "late").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_away_makes_messages_late_and_the_time_to_an_answer_counts_from_when_they_were_due()
{
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let mut customers = customers(&world, 1, &scenario(0.0, Mix::default()));
    customers[0].submit.broker = late_broker(&world).await;
    let verdict = run(customers, Desk::new(SharedLedger::default())).await;
    assert!(verdict.good() && verdict.answered == verdict.sent, "{verdict:#?}");
    // Two sides of a pair are due within 7 ms, so the first answer that is timed is late by nearly all of it.
    let away = AWAY.as_secs_f64() * 1000.0 - 50.0;
    let (latency, lateness) = (verdict.details.latency, verdict.details.lateness);
    assert!(lateness.max >= away && lateness.p50 < lateness.max, "{lateness:?}");
    assert!(latency.max >= away, "{latency:?}");
    assert!(verdict.details.kinds.values().sum::<u64>() >= 1_200, "no message was left out");
}
