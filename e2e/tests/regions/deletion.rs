//! Deleting the object never stops trading.

use anyhow::Result;
use e2e::clusters::APPLICATION;
use e2e::object::Choices;
use e2e::run;
use lab::Region;

use crate::rig::{Rig, unharmed};

#[tokio::test(flavor = "multi_thread")]
async fn trades_are_answered_while_the_object_is_gone_and_after_it_is_back() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    for region in Region::ALL {
        rig.clusters.delete(region).await?;
    }
    for region in Region::ALL {
        rig.gone(APPLICATION, region).await?;
    }
    customer.answered_more(100).await?;
    run::start(&rig.clusters, &Choices::active(rig.active)).await?;
    unharmed(customer).await
}
