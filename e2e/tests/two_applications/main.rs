//! Both applications on the lab's two regions, where settlements flow. Each moves alone, and both move at once, without
//! and with trades on their way; the customer must see every matched trade settled, and the stores of both applications
//! must agree, by what they hold and by what the chart's reconciliation says. Runs after `regions`, on the same lab; one
//! test at a time, each from wherever the one before has ended.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test ends at the first surprise")]

mod both;

use anyhow::Result;
use e2e::customer::{Customer, CustomerOptions};
use e2e::reconciliation;
use e2e::stores::Stores;
use lab::Application::{Settlement, TradeMatching};

use crate::both::Both;

/// Messages a second. Each makes about four settlements; both applications, their brokers and databases share one machine.
const RATE: u32 = 20;

fn customer(both: &Both) -> Result<Customer> {
    let options = CustomerOptions { rate: RATE, settled: true, ..CustomerOptions::default() };
    Customer::start(&both.clusters.facts, &options)
}

/// A customer's trades are all answered and settled, and the stores of both applications agree.
async fn settles(both: &Both) -> Result<Stores> {
    let customer = customer(both)?;
    customer.answered(100).await?;
    good(both, customer).await
}

async fn good(both: &Both, customer: Customer) -> Result<Stores> {
    let verdict = customer.finish().await?;
    println!("{verdict}");
    assert!(verdict.good(), "{verdict:?}");
    let stores = Stores::agree(&both.clusters).await?;
    println!("{stores}");
    Ok(stores)
}

/// Trades settle before and after these applications have moved while nothing was on its way, and nothing of before is
/// missing then.
async fn moved_without_traffic(which: &[lab::Application]) -> Result<()> {
    let mut both = Both::ready().await?;
    let before = settles(&both).await?;
    assert!(before.made() > 0, "nothing was settled");
    both.moved(which, "without traffic").await?;
    assert!(Stores::agree(&both.clusters).await? == before, "the new region has other rows");
    assert!(settles(&both).await?.contain(&before), "rows of before are gone");
    Ok(())
}

/// The same while a customer sends.
async fn moved_under_load(which: &[lab::Application]) -> Result<()> {
    let mut both = Both::ready().await?;
    let customer = customer(&both)?;
    customer.answered(100).await?;
    both.moved(which, "under load").await?;
    customer.answered_more(100).await?;
    good(&both, customer).await?;
    for application in which {
        let report = reconciliation::run(&both.clusters, *application, both.installed_for()).await?;
        println!("{report}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn settlement_moves_alone_without_traffic() -> Result<()> {
    moved_without_traffic(&[Settlement]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn settlement_moves_while_trade_matching_keeps_sending() -> Result<()> {
    moved_under_load(&[Settlement]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn trade_matching_moves_alone_without_traffic() -> Result<()> {
    moved_without_traffic(&[TradeMatching]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn trade_matching_moves_alone_while_its_customers_send() -> Result<()> {
    moved_under_load(&[TradeMatching]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_move_at_once_without_traffic() -> Result<()> {
    moved_without_traffic(&[TradeMatching, Settlement]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn both_move_at_once_while_customers_send() -> Result<()> {
    moved_under_load(&[TradeMatching, Settlement]).await
}

/// What a customer's confirmed messages would be that no drain had waited for.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_left_in_the_broker_of_the_other_region_is_carried_over() -> Result<()> {
    let both = Both::ready().await?;
    let left = both.active(TradeMatching).peer();
    let options =
        CustomerOptions { rate: RATE, settled: true, submit_at: Some(left), ..CustomerOptions::default() };
    let customer = Customer::start(&both.clusters.facts, &options)?;
    customer.answered(100).await?;
    good(&both, customer).await?;
    Ok(())
}
