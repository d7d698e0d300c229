//! Reconciliation as a hook of a switch, on real servers.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use support::reports::{BROKER, IM};
use support::stores::{contents, damage, one_of_every_kind};
use support::{World, eventually};
use trading::run::StageName;

/// Boundary after boundary, in order, before the new region takes anything from customers.
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_of_a_switch_reconciles_stage_by_stage_before_the_intake_opens() {
    let world = World::open().await;
    let pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    let before = contents(&world).await;
    let epoch = world.fence().await;
    damage(&world, "ingested", &format!("delete from trading.ingested where id = '{IM}-{IM}-{BROKER}-1'"))
        .await;
    damage(&world, "egressed", "delete from trading.egressed where status = 'MATCHED'").await;
    damage(&world, "sent", "delete from trading.sent where status = 'CANCELLED'").await;
    world.grant_core(epoch, epoch + 2).await;
    let core = &pipeline[StageName::Core as usize];
    let (status, answer) = world.hook(core, "reconcile?since=soon", epoch + 2).await;
    assert_eq!(status, 400, "{answer}");
    let answer = eventually("the hook is done", async || {
        let (status, answer) = world.hook(core, "reconcile?since=1d", epoch + 2).await;
        assert!([200, 202].contains(&status), "{status} {answer}");
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer["did"]["agrees"], true, "{answer}");
    let done: Vec<_> =
        answer["did"]["boundaries"].as_array().unwrap().iter().map(|one| &one["job"]).collect();
    assert_eq!(done, ["InboundIngress", "IngressCore", "CoreEgress", "EgressOutbound"]);
    assert_eq!(contents(&world).await, before);
    let noted = format!(
        "select count(*) from trading.reconciliations \
         where performed_by = 'hook of run run-1' and epoch = {} and outcome = 'repaired'",
        epoch + 2
    );
    assert_eq!(world.number(&noted).await, 3);
    // Its answer may have been lost.
    let (status, again) = world.hook(core, "reconcile?since=1d", epoch + 2).await;
    assert_eq!((status, &again["did"]), (200, &answer["did"]), "asked again, it is not done again");
    assert_eq!(world.number(&noted).await, 3);
}

/// Customers wait for the hook.
#[tokio::test(flavor = "multi_thread")]
async fn the_hook_of_a_switch_tells_what_it_cannot_read_and_holds_nothing_up() {
    let world = World::open().await;
    let pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    let epoch = world.fence().await;
    world.sql.batch_execute("revoke select on trading.sent from trading_core").await.unwrap();
    world.grant_core(epoch, epoch + 2).await;
    let core = &pipeline[StageName::Core as usize];
    let answer = eventually("the hook is done", async || {
        let (status, answer) = world.hook(core, "reconcile", epoch + 2).await;
        assert!([200, 202].contains(&status), "{status} {answer}");
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!(answer["did"]["agrees"], false, "{answer}");
    assert_eq!(answer["did"]["untold"][0]["job"], "EgressOutbound", "{answer}");
    assert_eq!(answer["did"]["boundaries"].as_array().unwrap().len(), 3, "{answer}");
}
