//! Deleting the object never stops trading.

use anyhow::Result;
use e2e::customer::{Customer, CustomerOptions};
use e2e::timeouts;
use e2e::wait::{Look, until};
use lab::Region;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn trades_are_answered_while_the_object_is_gone_and_after_it_is_back() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer =
        Customer::start(&rig.clusters.facts, &CustomerOptions { rate: 20, ..CustomerOptions::default() })?;
    customer.answered(20).await?;
    for region in Region::ALL {
        rig.clusters.delete(region).await?;
    }
    for region in Region::ALL {
        until(&format!("the object to be gone from {region}"), timeouts::NOTICE, async || {
            let object = rig.clusters.objects(region).get_opt(e2e::clusters::APPLICATION).await?;
            Ok(object.map_or(Look::Seen(()), |object| Look::NotYet(format!("{:?}", object.status))))
        })
        .await?;
    }
    customer.answered_more(100).await?;
    Rig::ready().await?;
    customer.answered_more(20).await?;
    let verdict = customer.finish().await?;
    assert_eq!((verdict.lost, verdict.doubled), (0, 0), "{verdict:?}");
    Ok(())
}
