//! What people ask for, and what must not move by it.

use anyhow::Result;
use e2e::object::{Choices, trading_region};
use region_plan::{Code, Phase};

use crate::rig::Rig;

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
