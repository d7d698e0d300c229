//! What people ask for, and what must not move by it.

use anyhow::Result;
use crds::{AcceptedLoss, TransitionMode};
use e2e::object::{Choices, trading_region};
use region_plan::{Code, Phase};

use crate::rig::{Rig, unharmed};

#[tokio::test(flavor = "multi_thread")]
async fn one_copy_alone_moves_nothing_and_both_say_why() -> Result<()> {
    let rig = Rig::ready().await?;
    let there = rig.active.peer();
    let object = trading_region(&rig.clusters.facts, &rig.there("one copy only"))?;
    rig.clusters.apply_in(there, &object).await?;
    for region in lab::Region::ALL {
        let status = rig
            .sees(region, "SpecDisagreed", |status| {
                status.findings.iter().any(|finding| finding.code == Code::SpecDisagreed)
            })
            .await?;
        assert_eq!(status.phase, Some(Phase::Steady), "{status:?}");
        assert_eq!(status.active_region.as_ref().map(|active| active.as_str()), Some(rig.active.name()));
    }
    Rig::ready().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn observing_tells_what_it_would_do_and_does_nothing() -> Result<()> {
    let rig = Rig::ready().await?;
    let before = rig.clusters.status(rig.active).await?.epoch;
    rig.apply(&Choices { managed: "Observe", ..rig.there("observe only") }).await?;
    let status = rig
        .sees(rig.active.peer(), "observing and telling", |status| {
            status.phase == Some(Phase::Observing)
                && status.reason.as_deref().is_some_and(|reason| reason.contains("would now do"))
        })
        .await?;
    assert_eq!(status.epoch, before, "{status:?}");
    Rig::ready().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn failover_is_admitted_moves_nothing_and_says_that_it_is_not_available() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    let before = rig.clusters.status(rig.active).await?;
    let run = |status: &crds::TradingRegionStatus| {
        status.side.as_ref().and_then(|side| side.run.as_ref()).map(|run| run.id)
    };
    let mut object = trading_region(&rig.clusters.facts, &rig.there("a failover"))?;
    object.spec.transition.mode = TransitionMode::Failover;
    object.spec.transition.accept_data_loss = Some(AcceptedLoss::Unknown);
    object.spec.transition.from_epoch = before.epoch;
    rig.clusters.apply(&object).await?;
    for region in lab::Region::ALL {
        rig.tells(region, Code::FailoverUnavailable, "moves nothing").await?;
    }
    customer.answered_more(100).await?;
    let after = rig.clusters.status(rig.active).await?;
    assert_eq!((after.phase, after.epoch), (Some(Phase::Steady), before.epoch), "{after:?}");
    assert_eq!((&after.active_region, run(&after)), (&before.active_region, run(&before)), "{after:?}");
    Rig::ready().await?;
    unharmed(customer).await
}
