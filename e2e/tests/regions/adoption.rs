//! An application that runs without an object is taken over without a pause: observed first, managed then.

use anyhow::Result;
use crds::TradingRegionStatus;
use e2e::clusters::APPLICATION;
use e2e::object::Choices;
use e2e::run;
use lab::Region;
use region_plan::Phase;

use crate::objects::touchable;
use crate::rig::Rig;

/// Bound of the customer's wait, in seconds: one closed gate, or pods made anew, would take longer.
const NO_PAUSE: f64 = 5.0;

fn limited(status: &TradingRegionStatus) -> bool {
    status.lease.as_ref().is_some_and(|lease| lease.remaining.is_some_and(|left| !left.get().is_zero()))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_without_an_object_is_observed_then_managed_and_its_customers_notice_neither()
-> Result<()> {
    let rig = Rig::ready().await?;
    for region in Region::ALL {
        rig.clusters.delete(region).await?;
    }
    for region in Region::ALL {
        rig.gone(APPLICATION, region).await?;
    }
    let customer = rig.customer().await?;
    let before = touchable(&rig.clusters).await?;

    rig.apply(&Choices { managed: "Observe", ..Choices::active(rig.active) }).await?;
    for region in Region::ALL {
        let observed = |status: &TradingRegionStatus| status.phase == Some(Phase::Observing);
        let status = rig.sees(region, "observing", observed).await?;
        assert_eq!(status.active_region.as_ref().map(|active| active.as_str()), Some(rig.active.name()));
        assert!(!limited(&status), "the lease has an end and nobody manages it: {status:?}");
    }
    customer.answered_more(100).await?;
    assert_eq!(touchable(&rig.clusters).await?, before, "observing changed something");

    run::start(&rig.clusters, &Choices { reason: "managed".into(), ..Choices::active(rig.active) }).await?;
    rig.sees(rig.active, "a lease with a limit", limited).await?;
    customer.answered_more(100).await?;
    assert_eq!(touchable(&rig.clusters).await?, before, "no Deployment and no routing control had to change");

    let verdict = customer.finish().await?;
    assert!(verdict.good(), "{verdict:?}");
    assert_eq!(verdict.epochs.len(), 1, "the lease was never given up: {verdict:?}");
    assert!(verdict.unavailable_seconds < NO_PAUSE, "{verdict:?}");
    Ok(())
}
