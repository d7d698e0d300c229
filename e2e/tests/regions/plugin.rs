//! `kubectl region` against two real clusters: one screen, exit codes, no blind act.

use std::process::Output;

use anyhow::{Context as _, Result};
use e2e::deploy::repository;
use e2e::object::Choices;
use e2e::run;
use region_plan::{Mark, Phase};
use serde_json::Value;
use tokio::process::Command;

use crate::rig::{Rig, unharmed};

async fn region(rig: &Rig, args: &[&str]) -> Result<Output> {
    Command::new(repository().join("target/debug/kubectl-region"))
        .env("KUBECONFIG", &rig.clusters.facts.kubeconfig)
        .args(["-n", "trading", "--contexts", "us-east-1,us-west-2"])
        .args(args)
        .output()
        .await
        .context("running kubectl-region")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn status_plan_switch_and_history_tell_the_truth() -> Result<()> {
    let rig = Rig::ready().await?;
    let there = rig.active.peer().name();
    let status = region(&rig, &["status", "trade-matching", "--exit-code"]).await?;
    println!("{}", text(&status));
    assert_eq!(status.status.code(), Some(0), "{}", text(&status));
    assert!(
        text(&status).contains(rig.active.name()) && text(&status).lines().count() <= 24,
        "{}",
        text(&status)
    );

    let hash = plan_hash(&rig).await?;
    let blind = region(&rig, &["switch", there, "trade-matching", "--reason", "test"]).await?;
    assert_eq!(blind.status.code(), Some(2), "{}", text(&blind));
    assert!(text(&blind).contains("--confirm"), "{}", text(&blind));
    let changed = region(
        &rig,
        &["switch", there, "trade-matching", "--reason", "test", "--confirm", "0000000000000000"],
    )
    .await?;
    assert_eq!(changed.status.code(), Some(5), "{}", text(&changed));

    let switched =
        region(&rig, &["switch", there, "trade-matching", "--reason", "by the plugin", "--confirm", &hash])
            .await?;
    println!("{}", text(&switched));
    assert_eq!(switched.status.code(), Some(0), "{}", text(&switched));
    for line in ["has done Fence", "has done SwitchDatabase", &format!("active {there}")] {
        assert!(text(&switched).contains(line), "{line}: {}", text(&switched));
    }
    let [_, new] = run::parts(&rig.clusters, rig.active.peer()).await?;
    let history = region(&rig, &["history", "trade-matching", "-o", "json"]).await?;
    assert!(text(&history).contains(&new.id.to_string()) && text(&history).contains("by the plugin"));
    Rig::ready().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_while_draining_opens_the_old_side_again_and_loses_nothing() -> Result<()> {
    let rig = Rig::ready().await?;
    let (here, there) = (rig.active.name(), rig.active.peer().name());
    let customer = rig.customer().await?;
    let longer = Choices { hold: "45s", reason: "time to abort".into(), ..Choices::active(rig.active) };
    run::start(&rig.clusters, &longer).await?;
    let hash = plan_hash(&rig).await?;
    let begun = region(
        &rig,
        &["switch", there, "trade-matching", "--reason", "to be aborted", "--confirm", &hash, "--no-wait"],
    )
    .await?;
    assert_eq!(begun.status.code(), Some(0), "{}", text(&begun));
    rig.sees(rig.active, "draining", |status| status.phase == Some(Phase::Draining)).await?;

    let status = region(&rig, &["status", "trade-matching", "-o", "json", "--exit-code"]).await?;
    assert_eq!(status.status.code(), Some(3), "{}", text(&status));
    let view: Value = serde_json::from_slice(&status.stdout).context("the status as JSON")?;
    assert_eq!(view["run"]["pastReturn"], false, "{view}");
    let run = view["run"]["id"].as_str().context("the open run's id")?;
    let other = region(&rig, &["abort", "trade-matching", "--confirm", "another-run"]).await?;
    assert_eq!(other.status.code(), Some(5), "{}", text(&other));

    let aborted =
        region(&rig, &["abort", "trade-matching", "--reason", "never mind", "--confirm", run]).await?;
    println!("{}", text(&aborted));
    assert_eq!(aborted.status.code(), Some(0), "{}", text(&aborted));
    assert!(text(&aborted).contains(&format!("active {here}")), "{}", text(&aborted));
    let [old, new] = run::parts(&rig.clusters, rig.active.peer()).await?;
    assert_eq!((old.mark, new.mark), (Mark::Aborted, Mark::Declined));
    unharmed(customer).await?;
    Rig::ready().await?;
    Ok(())
}

/// The hash of the plan for a switch to the other region.
async fn plan_hash(rig: &Rig) -> Result<String> {
    let plan = region(rig, &["plan", rig.active.peer().name(), "trade-matching", "-o", "json"]).await?;
    assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
    let view: Value = serde_json::from_slice(&plan.stdout).context("the plan as JSON")?;
    Ok(view["plan"]["hash"].as_str().context("a plan hash in the view")?.to_owned())
}
