//! Where ARC judges a batch entry by entry it refuses Off and On together: Off goes first, then On, and the switch ends well.

use anyhow::{Context as _, Result};
use e2e::run;
use lab::{Application, Lab, control};
use region_plan::Mark;
use serde_json::Value;

use crate::rig::{Rig, unharmed};
use crate::undo::Undo;

/// A call that asked to change the application controls, as AWS saw it.
struct Change {
    sequence: u64,
    /// What it asked of the old side's control and of the new side's.
    asked: [Option<String>; 2],
    outcome: String,
}

fn calls(lab: &Lab, after: u64) -> Result<Vec<Value>> {
    let answer = control::request(lab, "GET", &format!("/calls?after={after}"), "")?;
    let answer: Value = serde_json::from_str(&answer)?;
    answer["calls"].as_array().cloned().context("no list of calls")
}

fn sequence(call: &Value) -> u64 {
    call["sequence"].as_u64().unwrap_or_default()
}

/// The changes of these controls that were asked for since then, in order.
fn changes(lab: &Lab, after: u64, arns: [&str; 2]) -> Result<Vec<Change>> {
    let change = |call: &Value| {
        let entries = call["parameters"]["UpdateRoutingControlStateEntries"].as_array()?;
        let asked = arns.map(|arn| {
            let entry = entries.iter().find(|entry| entry["RoutingControlArn"] == *arn)?;
            entry["RoutingControlState"].as_str().map(str::to_owned)
        });
        let outcome = call["outcome"].as_str()?.to_owned();
        asked.iter().any(Option::is_some).then_some(Change { sequence: sequence(call), asked, outcome })
    };
    Ok(calls(lab, after)?.iter().filter_map(change).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_whose_batches_are_refused_turns_off_before_it_turns_on_and_ends_well() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    let lab = rig.clusters.facts.lab();
    let strict = r#"{"batch_judgement": "each-entry", "wait_period_ms": 1000}"#;
    control::request(&lab, "PATCH", "/faults", strict).context("judging batches entry by entry")?;
    let again = lab.clone();
    let judgement = Undo::new("the judgement of batches", async move {
        Ok(control::request(&again, "PUT", "/faults", "{}").map(drop)?)
    });
    let before = calls(&lab, 0)?.last().map(sequence).unwrap_or_default();
    let parts = run::switch(&rig.clusters, &rig.there("batches refused")).await?;
    assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);

    let names = &rig.clusters.facts.aws.applications[&Application::TradeMatching];
    let controls = [rig.active, rig.active.peer()].map(|region| names.control("app", region));
    let changes = changes(&lab, before, controls)?;
    let first = |asked: [Option<&str>; 2], outcome: &str| {
        let found = changes
            .iter()
            .find(|one| one.asked.each_ref().map(Option::as_deref) == asked && one.outcome == outcome);
        found.map(|one| one.sequence).with_context(|| format!("nobody asked for {asked:?} with {outcome}"))
    };
    let refused = first([Some("Off"), Some("On")], "ConflictException")?;
    let off = first([Some("Off"), None], "ok")?;
    let on = first([None, Some("On")], "ok")?;
    assert!(refused < off && off < on, "refused {refused}, Off {off}, On {on}");
    judgement.now().await?;
    rig.quiet().await?;
    unharmed(customer).await
}
