//! Endpoints of Application Recovery Controller that do not answer: a minority hinders nothing, a majority is told.

use anyhow::{Context as _, Result};
use e2e::run;
use lab::{Region, control};
use region_plan::{Code, Mark};

use crate::rig::{Rig, unharmed};
use crate::undo::Undo;

/// Changes how the simulator's endpoints behave.
fn broken(rig: &Rig, modes: &str) -> Result<Undo> {
    let lab = rig.clusters.facts.lab();
    let body = format!(r#"{{"arc": {modes}}}"#);
    control::request(&lab, "PATCH", "/faults", &body).context("breaking endpoints")?;
    Ok(Undo::new("the simulator's endpoints", async move {
        Ok(control::request(&lab, "PUT", "/faults", "{}").map(drop)?)
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_ends_with_one_endpoint_dead_and_one_hung() -> Result<()> {
    let rig = Rig::ready().await?;
    let endpoints = broken(&rig, r#"{"us-east-1": {"mode": "dead"}, "eu-west-1": {"mode": "hung"}}"#)?;
    let parts = run::switch(&rig.clusters, &rig.there("two endpoints broken")).await?;
    endpoints.now().await?;
    assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_dead_endpoints_are_told_before_the_lease_runs_out() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    let before = customer.answers();
    let dead = r#"{"us-east-1": {"mode": "dead"}, "eu-west-1": {"mode": "dead"}, "ap-northeast-1": {"mode": "dead"}}"#;
    let endpoints = broken(&rig, dead)?;
    for region in Region::ALL {
        rig.tells(region, Code::ControlsUnknown, "2 endpoints say On").await?;
    }
    let meanwhile = customer.answers();
    endpoints.now().await?;
    assert!(meanwhile > before, "trades were answered while the endpoints were dead");
    rig.quiet().await?;
    unharmed(customer).await
}
