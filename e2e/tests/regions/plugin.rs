//! `kubectl region` against two real clusters: one screen, exit codes, no blind act.

use std::process::Output;

use anyhow::{Context as _, Result};
use e2e::deploy::repository;
use e2e::run;
use serde_json::Value;
use tokio::process::Command;

use crate::rig::Rig;

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

    let plan = region(&rig, &["plan", there, "trade-matching", "-o", "json"]).await?;
    assert_eq!(plan.status.code(), Some(0), "{}", text(&plan));
    let view: Value = serde_json::from_slice(&plan.stdout).context("the plan as JSON")?;
    let hash = find(&view, "hash").context("a plan hash in the view")?.to_owned();

    let blind = region(&rig, &["switch", there, "trade-matching", "--reason", "test"]).await?;
    assert_ne!(blind.status.code(), Some(0), "a switch without a terminal needs the plan's hash");
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
    let [_, new] = run::parts(&rig.clusters, rig.active.peer()).await?;
    let history = region(&rig, &["history", "trade-matching", "-o", "json"]).await?;
    assert!(text(&history).contains(&new.id.to_string()) && text(&history).contains("by the plugin"));
    Rig::ready().await?;
    Ok(())
}

/// The first text under that key, wherever it stands.
fn find<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    match value {
        Value::Object(map) => {
            map.get(key).and_then(Value::as_str).or_else(|| map.values().find_map(|it| find(it, key)))
        }
        Value::Array(items) => items.iter().find_map(|it| find(it, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}
