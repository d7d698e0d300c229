//! What is broken is told, and what runs is not disturbed.

use anyhow::{Context as _, Result};
use e2e::customer::{Customer, CustomerOptions};
use e2e::run;
use lab::fault;
use lab::{Place, control};
use region_plan::{Code, Mark};

use crate::rig::Rig;

/// Puts the simulator's faults back when a test ends, however it ends.
struct Faults(lab::Lab);

impl Drop for Faults {
    fn drop(&mut self) {
        if let Err(error) = control::request(&self.0, "PUT", "/faults", "{}") {
            eprintln!("the simulator's faults could not be put back: {error}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_ends_with_one_endpoint_dead_and_one_hung() -> Result<()> {
    let rig = Rig::ready().await?;
    let lab = rig.clusters.facts.lab();
    let body = r#"{"arc": {"us-east-1": {"mode": "dead"}, "eu-west-1": {"mode": "hung"}}}"#;
    control::request(&lab, "PATCH", "/faults", body).context("breaking two endpoints")?;
    let _back = Faults(lab);
    let parts = run::switch(&rig.clusters, &rig.there("two endpoints broken")).await?;
    assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_is_down_on_the_standby_is_told_and_blocks_a_switch_until_it_is_back() -> Result<()> {
    let rig = Rig::ready().await?;
    let standby = rig.active.peer();
    let customer =
        Customer::start(&rig.clusters.facts, &CustomerOptions { rate: 20, ..CustomerOptions::default() })?;
    customer.answered(20).await?;
    let lab = rig.clusters.facts.lab();
    fault::kill(&lab, Place::Region(standby), "rabbitmq")?;
    let told = rig
        .sees(standby, "BrokerUnknown", |status| {
            status.findings.iter().any(|finding| finding.code == Code::BrokerUnknown)
        })
        .await;
    customer.answered_more(20).await?;
    fault::restore(&lab, Place::Region(standby), "rabbitmq")?;
    told?;
    rig.sees(standby, "no findings", |status| status.findings.is_empty()).await?;
    let verdict = customer.finish().await?;
    assert_eq!((verdict.lost, verdict.doubled), (0, 0), "{verdict:?}");
    Ok(())
}
