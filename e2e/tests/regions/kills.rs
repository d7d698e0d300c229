//! Either operator killed before and after each step's effect: the same end. The cases come from the list of step
//! kinds, so that a new step has its cases at once. Each test run takes a share that moves with the day;
//! `cargo xtask bench kills` takes all.

use anyhow::{Context as _, Result};
use e2e::clusters::APPLICATION;
use e2e::run;
use kube::api::{Patch, PatchParams};
use lab::Region;
use region_plan::{Mark, StepKind};
use serde_json::json;

use crate::rig::Rig;

const ANNOTATION: &str = "test.regions.trading.dev/crash-at";
/// Cases of one test run.
const SHARE: usize = 4;

/// Whose step it is in a planned switch. `None`: the step belongs to a start, an abort or a deletion.
fn side(kind: StepKind) -> Option<Side> {
    use StepKind as K;
    match kind {
        K::RecordAccepted
        | K::RecordClosing
        | K::RecordDrained
        | K::RecordFenced
        | K::FlipIngressOff
        | K::CloseBroker
        | K::CloseAnswers
        | K::Fence
        | K::HookDrained
        | K::ScaleStandby => Some(Side::Old),
        K::RecordProposed
        | K::RecordWarm
        | K::RecordBegun
        | K::RecordEpoch
        | K::RecordHookDone
        | K::RecordFinished
        | K::ScaleActive
        | K::FlipAppOver
        | K::FlipIntakeOn
        | K::FlipIngressOn
        | K::OpenBroker
        | K::SwitchDatabase
        | K::Grant
        | K::OpenCore
        | K::OpenIntake
        | K::HookPreWarm
        | K::HookAfterGrant
        | K::HookProbe
        | K::HookAfterOpen => Some(Side::New),
        K::RecordDeclined
        | K::RecordAborted
        | K::FlipAppOn
        | K::FlipOwnOff
        | K::AbortRun
        | K::ReleaseUnlimited
        | K::RemoveFinalizer => None,
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Old,
    New,
}

/// All cases of a planned switch.
fn cases() -> Vec<(Side, &'static str, StepKind)> {
    StepKind::ALL
        .iter()
        .filter_map(|kind| side(*kind).map(|side| (side, *kind)))
        .flat_map(|(side, kind)| ["before", "after"].map(|moment| (side, moment, kind)))
        .collect()
}

/// The share of this run: all with `KILL_CASES=all`, else a few that move with the day.
fn share(all: Vec<(Side, &'static str, StepKind)>) -> Vec<(Side, &'static str, StepKind)> {
    #[expect(clippy::disallowed_methods, reason = "the switch of the benchmark that takes all cases")]
    let wish = std::env::var("KILL_CASES").ok();
    if wish.as_deref() == Some("all") {
        return all;
    }
    let day = services_common::clock::now().as_second() / 86_400;
    let first = usize::try_from(day).unwrap_or_default() * SHARE % all.len();
    all.iter().cycle().skip(first).take(SHARE).copied().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_around_any_step_leads_to_the_same_end() -> Result<()> {
    let all = cases();
    let count = all.len();
    let chosen = share(all);
    println!("{} of {count} kill cases", chosen.len());
    for (side, moment, kind) in chosen {
        one(side, moment, kind)
            .await
            .with_context(|| format!("killed {moment} {} on the {side:?} side", kind.name()))?;
        println!("  same end: killed {moment} {}", kind.name());
    }
    Ok(())
}

async fn one(side: Side, moment: &str, kind: StepKind) -> Result<()> {
    let rig = Rig::ready().await?;
    let region = match side {
        Side::Old => rig.active,
        Side::New => rig.active.peer(),
    };
    annotate(&rig, region, Some(&format!("{region}/{moment}/{}", kind.name()))).await?;
    let parts = run::switch(&rig.clusters, &rig.there(&format!("kill {moment} {}", kind.name()))).await?;
    assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);
    let left = rig.clusters.object(region).await?.metadata.annotations.unwrap_or_default();
    assert!(!left.contains_key(ANNOTATION), "the operator was never killed there");
    Ok(())
}

async fn annotate(rig: &Rig, region: Region, value: Option<&str>) -> Result<()> {
    let patch = json!({"metadata": {"annotations": {ANNOTATION: value}}});
    rig.clusters.objects(region).patch(APPLICATION, &PatchParams::default(), &Patch::Merge(patch)).await?;
    Ok(())
}
