//! The product's main promise, by the customer's own ledger.

use anyhow::Result;
use e2e::customer::{Customer, CustomerOptions};
use e2e::{run, timeline};
use region_plan::Mark;

use crate::rig::Rig;

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_under_load_loses_and_doubles_nothing_in_both_directions() -> Result<()> {
    let mut rig = Rig::ready().await?;
    let customer =
        Customer::start(&rig.clusters.facts, &CustomerOptions { rate: 100, ..CustomerOptions::default() })?;
    customer.answered(100).await?;
    for _ in 0..2 {
        let parts = run::switch(&rig.clusters, &rig.there("end-to-end test")).await?;
        println!("{}", timeline::text(&parts));
        assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);
        let epoch = parts[1].grant.map(|grant| grant.epoch);
        assert!(epoch > Some(parts[1].from_epoch), "{epoch:?}");
        customer.answered_more(100).await?;
        rig.stands_by(rig.active).await?;
        rig.active = rig.active.peer();
    }
    let verdict = customer.finish().await?;
    println!("{verdict:?}");
    assert_eq!((verdict.lost, verdict.doubled, verdict.unconfirmed), (0, 0, 0), "{verdict:?}");
    assert_eq!(verdict.epochs.len(), 3, "answers came in three epochs: {verdict:?}");
    Ok(())
}
