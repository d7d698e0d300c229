//! What cannot be read or does not fit is told, with the fact itself, and what runs goes on. Each test breaks something,
//! waits for the finding, sees trades answered, mends it, and waits until nothing is left to tell.

use anyhow::{Context as _, Result};
use crds::conditions::{LEASE_HELD, VALID};
use e2e::clusters::APPLICATION;
use lab::fault::{self, Cut};
use lab::{Place, Region, control};
use region_plan::Code;

use crate::rig::{Rig, unharmed};
use crate::secrets;
use crate::undo::Undo;

fn killed(rig: &Rig, region: Region, process: &'static str) -> Result<Undo> {
    let lab = rig.clusters.facts.lab();
    fault::kill(&lab, Place::Region(region), process)?;
    Ok(Undo::new(format!("{process} of {region}"), async move {
        Ok(fault::restore(&lab, Place::Region(region), process)?)
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_servers_of_the_standby_and_a_cut_link_are_told_and_do_not_stop_trading() -> Result<()> {
    let rig = Rig::ready().await?;
    let standby = rig.active.peer();
    let customer = rig.customer().await?;

    let servers = [killed(&rig, standby, "postgres")?, killed(&rig, standby, "rabbitmq")?];
    let place = &rig.clusters.facts.regions[&standby];
    rig.tells(standby, Code::DatabaseUnknown, &place.address.to_string()).await?;
    rig.tells(standby, Code::BrokerUnknown, &place.broker_management_url).await?;
    customer.answered_more(20).await?;
    for server in servers {
        server.now().await?;
    }
    rig.quiet().await?;

    let lab = rig.clusters.facts.lab();
    let between = Cut::Between(Place::Region(rig.active), Place::Region(standby));
    fault::cut(&lab, between)?;
    let link = Undo::new("the link of the regions", async move { Ok(fault::mend(&lab, between)?) });
    rig.tells(rig.active, Code::PeerUnknown, "last seen").await?;
    rig.tells(standby, Code::PeerUnknown, "last seen").await?;
    customer.answered_more(20).await?;
    link.now().await?;
    rig.quiet().await?;
    unharmed(customer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_writer_is_told_on_both_sides_moves_nothing_and_loses_nothing() -> Result<()> {
    let rig = Rig::ready().await?;
    let epoch = rig.clusters.status(rig.active).await?.epoch;
    let customer = rig.customer().await?;
    let database = killed(&rig, rig.active, "postgres")?;
    let address = rig.clusters.facts.regions[&rig.active].address.to_string();
    rig.tells(rig.active, Code::DatabaseUnknown, &address).await?;
    // A standby cannot tell a lease that ran out from one whose renewals no longer reach it.
    rig.says(rig.active.peer(), LEASE_HELD, "Unknown", rig.active.name()).await?;
    database.now().await?;
    rig.quiet().await?;
    unharmed(customer).await?;
    assert_eq!(rig.clusters.status(rig.active).await?.epoch, epoch, "the lease stayed where it was");
    Ok(())
}

/// Secrets are read again every 30 s, so wrong and missing ones are noticed side by side. The AWS key is read when a
/// process starts.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_and_missing_secrets_are_told_by_name_and_do_not_stop_trading() -> Result<()> {
    let rig = Rig::ready().await?;
    let standby = rig.active.peer();
    let customer = rig.customer().await?;

    let broker = secrets::broker();
    let database = secrets::database();
    let peer = secrets::peer(standby);
    let wrong = [
        broker.spoiled(&rig.clusters, standby, "password").await?,
        database.spoiled(&rig.clusters, standby, "operator-password").await?,
    ];
    let missing =
        [broker.removed(&rig.clusters, rig.active).await?, peer.removed(&rig.clusters, rig.active).await?];
    rig.tells(standby, Code::BrokerUnknown, "401").await?;
    rig.tells(standby, Code::DatabaseUnknown, "region_operator").await?;
    rig.tells(rig.active, Code::BrokerUnknown, &format!("secret {broker} does not exist")).await?;
    rig.tells(rig.active, Code::PeerUnknown, &format!("secret {peer} does not exist")).await?;
    rig.says(rig.active, VALID, "False", &broker.to_string()).await?;
    customer.answered_more(20).await?;

    let key = secrets::aws().spoiled(&rig.clusters, standby, "secret-access-key").await?;
    rig.restart_operator(standby).await?;
    rig.tells(standby, Code::GlobalDatabaseUnknown, "SignatureDoesNotMatch").await?;
    rig.tells(standby, Code::ControlsUnknown, "0 endpoints say On").await?;
    customer.answered_more(20).await?;

    for undo in wrong.into_iter().chain(missing).chain([key]) {
        undo.now().await?;
    }
    rig.restart_operator(standby).await?;
    rig.quiet().await?;
    unharmed(customer).await
}

/// The rules are listed once a minute, and when a process starts.
#[tokio::test(flavor = "multi_thread")]
async fn a_missing_safety_rule_is_told_on_both_sides_and_does_not_stop_trading() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    let lab = rig.clusters.facts.lab();
    let absent = format!(r#"{{"absent_rules": ["{APPLICATION}-at-most-one-app"]}}"#);
    control::request(&lab, "PATCH", "/faults", &absent).context("taking a safety rule away")?;
    let rule =
        Undo::new(
            "the safety rule",
            async move { Ok(control::request(&lab, "PUT", "/faults", "{}").map(drop)?) },
        );
    for region in Region::ALL {
        rig.restart_operator(region).await?;
    }
    for region in Region::ALL {
        rig.tells(region, Code::SafetyRuleMissing, "App").await?;
    }
    customer.answered_more(20).await?;
    rule.now().await?;
    for region in Region::ALL {
        rig.restart_operator(region).await?;
    }
    rig.quiet().await?;
    unharmed(customer).await
}
