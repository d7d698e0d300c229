//! A run that is given up before the fence leaves the old side serving.

use anyhow::Result;
use e2e::customer::{Customer, CustomerOptions};
use e2e::object::Choices;
use e2e::run;
use region_plan::{Mark, Phase};

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_spec_that_goes_back_while_draining_reopens_the_old_side_and_loses_nothing() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer =
        Customer::start(&rig.clusters.facts, &CustomerOptions { rate: 20, ..CustomerOptions::default() })?;
    customer.answered(20).await?;
    rig.apply(&Choices { hold: "25s", ..rig.there("to be aborted") }).await?;
    rig.sees(rig.active, "draining", |status| status.phase == Some(Phase::Draining)).await?;
    run::start(&rig.clusters, &Choices { reason: "never mind".into(), ..Choices::active(rig.active) })
        .await?;
    customer.answered_more(20).await?;
    let verdict = customer.finish().await?;
    assert_eq!((verdict.lost, verdict.doubled), (0, 0), "{verdict:?}");
    let [old, new] = run::parts(&rig.clusters, rig.active.peer()).await?;
    assert_eq!((old.mark, new.mark), (Mark::Aborted, Mark::Declined));
    assert_eq!(verdict.epochs.len(), 1, "the lease was never given up: {verdict:?}");
    Ok(())
}
