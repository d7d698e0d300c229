//! Either operator killed around each step's effect: the one that makes it before and after, the other one while the first is
//! held just before it. The same end. The cases come from the list of step kinds, so that a new step has its cases at
//! once. Each test run takes a random share, of which it prints the seed; `KILL_SEED` takes the same again,
//! `KILL_CASES=Fence,Grant` those whose names contain these, and `cargo xtask bench kills` all.

use anyhow::{Context as _, Result, ensure};
use crds::TradingRegionStatus;
use e2e::clusters::APPLICATION;
use e2e::object::{Choices, trading_region};
use e2e::run;
use e2e::timeouts;
use e2e::wait::{Look, until};
use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams};
use lab::{Region, fault};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use region_operator::apply::FAILPOINT_ANNOTATION as ANNOTATION;
use region_plan::{Epoch, Mark, Phase, StepKind};
use serde_json::{Value, json};

use crate::by_hand;
use crate::rig::{Rig, unharmed};
use crate::undo::Undo;

/// Cases of one test run.
const SHARE: usize = 4;

/// What makes an operator take the step.
#[derive(Clone, Copy, Debug)]
enum Scenario {
    /// The application moves to the other region.
    Switch,
    /// The spec goes back while the old side drains.
    Abort,
    /// Both copies of the object are deleted, and applied again at the end.
    Deletion,
    /// Both copies are applied again after their deletion.
    Return,
    /// Somebody turned the holder's application control off.
    HolderTurnedOff,
    /// Somebody turned the intake of the region on standby on.
    StandbyTurnedOn,
}

/// Which operator makes the step.
#[derive(Clone, Copy, Debug)]
enum Side {
    /// That of the region that is active at the beginning.
    Active,
    /// That of the region on standby at the beginning.
    Standby,
}

/// When a step of that kind is made, and by whom. A new kind without an entry does not compile.
fn scenario(kind: StepKind) -> (Scenario, Side) {
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
        | K::ScaleStandby => (Scenario::Switch, Side::Active),
        K::RecordProposed
        | K::RecordWarm
        | K::RecordBegun
        | K::RecordEpoch
        | K::RecordFinished
        | K::ScaleActive
        | K::FlipAppOver
        | K::FlipIntakeOn
        | K::FlipIngressOn
        | K::OpenBroker
        | K::SwitchDatabase
        | K::Grant
        | K::OpenIntake
        | K::HookPreWarm
        | K::HookAfterGrant
        | K::HookProbe
        | K::HookAfterOpen => (Scenario::Switch, Side::Standby),
        K::AbortRun | K::RecordAborted => (Scenario::Abort, Side::Active),
        K::RecordDeclined => (Scenario::Abort, Side::Standby),
        K::ReleaseUnlimited | K::RemoveFinalizer => (Scenario::Deletion, Side::Active),
        K::LimitAgain => (Scenario::Return, Side::Active),
        K::FlipAppOn => (Scenario::HolderTurnedOff, Side::Active),
        K::FlipOwnOff => (Scenario::StandbyTurnedOn, Side::Standby),
    }
}

/// Who is killed, and when.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kill {
    /// The operator that makes the step, before its effect.
    Before,
    /// The same, after its effect and before it is told.
    After,
    /// Those of the other region, while the one that makes the step is held before its effect.
    Beside,
}

/// One kill.
#[derive(Clone, Copy, Debug)]
struct Case {
    kill: Kill,
    kind: StepKind,
}

impl Case {
    fn name(self) -> String {
        let kill = match self.kill {
            Kill::Before => "before",
            Kill::After => "after",
            Kill::Beside => "beside",
        };
        format!("{kill} {}", self.kind.name())
    }

    /// The failpoint of the operator that makes the step.
    fn failpoint(self, maker: Region) -> String {
        let act = match self.kill {
            Kill::Before => "before",
            Kill::After => "after",
            Kill::Beside => "hold",
        };
        format!("{maker}/{act}/{}", self.kind.name())
    }
}

fn cases() -> Vec<Case> {
    let all =
        |kind: &StepKind| [Kill::Before, Kill::After, Kill::Beside].map(|kill| Case { kill, kind: *kind });
    StepKind::ALL.iter().flat_map(all).collect()
}

#[expect(clippy::disallowed_methods, reason = "switches for the benchmark and for people")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// All with `KILL_CASES=all`, those whose names contain its parts, or without it a random share.
fn chosen(mut all: Vec<Case>) -> Result<Vec<Case>> {
    match variable("KILL_CASES").as_deref() {
        Some("all") => Ok(all),
        Some(parts) => {
            let is_named = |case: &Case| parts.split(',').any(|part| case.name().contains(part));
            let named: Vec<Case> = all.into_iter().filter(is_named).collect();
            ensure!(!named.is_empty(), "no kill case has {parts:?} in its name");
            Ok(named)
        }
        None => {
            let seed = match variable("KILL_SEED") {
                Some(text) => text.parse().with_context(|| format!("KILL_SEED {text:?} is not a number"))?,
                None => rand::random::<u32>().into(),
            };
            println!("kill cases by seed: KILL_SEED={seed}");
            all.shuffle(&mut StdRng::seed_from_u64(seed));
            all.truncate(SHARE);
            Ok(all)
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_killed_around_any_step_leads_to_the_same_end() -> Result<()> {
    let all = cases();
    let count = all.len();
    let chosen = chosen(all)?;
    println!("{} of {count} kill cases", chosen.len());
    for case in chosen {
        one(case).await.with_context(|| format!("killed {} ({:?})", case.name(), scenario(case.kind)))?;
        println!("  same end: killed {}", case.name());
    }
    Ok(())
}

async fn one(case: Case) -> Result<()> {
    let rig = Rig::ready().await?;
    let (scenario, side) = scenario(case.kind);
    let maker = match side {
        Side::Active => rig.active,
        Side::Standby => rig.active.peer(),
    };
    let victim = if case.kill == Kill::Beside { maker.peer() } else { maker };
    // Some steps exist only while customers are connected; their ledger is the judge.
    let customer = rig.customer().await?;
    let epoch = rig.clusters.status(rig.active).await?.epoch;
    let killed = rig.killed_operators(victim).await?;
    let wish = match scenario {
        Scenario::Return => {
            deleted(&rig).await?;
            applied_with_wish(&rig, maker, &case.failpoint(maker)).await?
        }
        _ => wished(&rig, maker, &case.failpoint(maker)).await?,
    };
    let other_killed =
        async { if case.kill == Kill::Beside { killed_beside(&rig, maker).await } else { Ok(()) } };
    let name = case.name();
    let (played, other_killed) = futures::join!(play(&rig, scenario, &name), other_killed);
    other_killed?;
    played?;
    until("an operator to be killed", timeouts::NOTICE, async || {
        let now = rig.killed_operators(victim).await?;
        let newly =
            now.values().flatten().any(|container| !killed.values().any(|known| known.contains(container)));
        Ok(if newly { Look::Seen(()) } else { Look::NotYet("none was".to_owned()) })
    })
    .await?;
    if !matches!(scenario, Scenario::Switch) {
        in_the_same_place(&rig, epoch).await?;
    }
    unharmed(customer).await?;
    rig.quiet().await?;
    wish.now().await?;
    rig.replace_killed_operators(victim).await
}

async fn play(rig: &Rig, scenario: Scenario, reason: &str) -> Result<()> {
    match scenario {
        Scenario::Switch => {
            switch(rig, reason).await?;
            rig.stands_by(rig.active).await
        }
        Scenario::Abort => abort(rig, reason).await,
        Scenario::Deletion => deleted(rig).await,
        Scenario::Return => Ok(()),
        Scenario::HolderTurnedOff => by_hand::flipped_and_back(rig, "app", rig.active).await,
        Scenario::StandbyTurnedOn => by_hand::flipped_and_back(rig, "intake", rig.active.peer()).await,
    }
}

/// Once the operator of `maker` is held, kills those of the other region, and lets the first go on.
async fn killed_beside(rig: &Rig, maker: Region) -> Result<()> {
    let objects = rig.clusters.objects(maker);
    until(&format!("the operator of {maker} to be held"), timeouts::SWITCH, async || {
        let metadata = objects.get_metadata_opt(APPLICATION).await?;
        let wish = metadata.and_then(|metadata| metadata.annotations().get(ANNOTATION).cloned());
        let held = wish.as_deref().is_some_and(|wish| wish.contains("/held/"));
        Ok(if held { Look::Seen(()) } else { Look::NotYet(format!("its wish is {wish:?}")) })
    })
    .await?;
    let lab = rig.clusters.facts.lab();
    for container in rig.running_operators(maker.peer()).await? {
        fault::kill_container(&lab, maker.peer(), &container)?;
    }
    objects.patch(APPLICATION, &PatchParams::default(), &Patch::Merge(annotation(None))).await?;
    Ok(())
}

fn annotation(value: Option<&str>) -> Value {
    json!({"metadata": {"annotations": {ANNOTATION: value}}})
}

/// Asks the operator of a region to end or wait there.
async fn wished(rig: &Rig, region: Region, place: &str) -> Result<Undo> {
    let objects = rig.clusters.objects(region);
    let wish = Patch::Merge(annotation(Some(place)));
    objects.patch(APPLICATION, &PatchParams::default(), &wish).await?;
    Ok(no_wish(rig, region))
}

/// Applies both copies anew, with such a wish from the beginning.
async fn applied_with_wish(rig: &Rig, region: Region, place: &str) -> Result<Undo> {
    let plain = trading_region(&rig.clusters.facts, &Choices::active(rig.active))?;
    let mut wishing = plain.clone();
    wishing.metadata.annotations = Some([(ANNOTATION.to_owned(), place.to_owned())].into());
    rig.clusters.apply_in(region.peer(), &plain).await?;
    rig.clusters.apply_in(region, &wishing).await?;
    Ok(no_wish(rig, region))
}

fn no_wish(rig: &Rig, region: Region) -> Undo {
    let objects = rig.clusters.objects(region);
    Undo::new("the wish for a crash", async move {
        objects.patch(APPLICATION, &PatchParams::default(), &Patch::Merge(annotation(None))).await?;
        Ok(())
    })
}

async fn switch(rig: &Rig, reason: &str) -> Result<()> {
    let parts = run::switch(&rig.clusters, &rig.there(reason)).await?;
    assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);
    let epoch = parts[1].grant.map(|grant| grant.epoch);
    assert!(epoch > Some(parts[1].from_epoch), "{epoch:?}");
    Ok(())
}

async fn abort(rig: &Rig, reason: &str) -> Result<()> {
    rig.apply(&Choices { hold: "25s", ..rig.there(reason) }).await?;
    rig.sees(rig.active, "draining", |status| status.phase == Some(Phase::Draining)).await?;
    run::start(&rig.clusters, &Choices { reason: "back".into(), ..Choices::active(rig.active) }).await?;
    let parts = run::parts(&rig.clusters, rig.active.peer()).await?;
    assert_eq!(parts.map(|part| part.mark), [Mark::Aborted, Mark::Declined]);
    Ok(())
}

async fn deleted(rig: &Rig) -> Result<()> {
    for region in Region::ALL {
        rig.clusters.delete(region).await?;
    }
    for region in Region::ALL {
        rig.gone(APPLICATION, region).await?;
    }
    Ok(())
}

/// The region that was active still is, by the same grant, and its lease is renewed.
async fn in_the_same_place(rig: &Rig, epoch: Option<Epoch>) -> Result<()> {
    run::start(&rig.clusters, &Choices { reason: "as before".into(), ..Choices::active(rig.active) }).await?;
    let renewed = |status: &TradingRegionStatus| {
        status.lease.as_ref().is_some_and(|lease| lease.remaining.is_some_and(|left| !left.get().is_zero()))
    };
    let status = rig.sees(rig.active, "a lease with a limit", renewed).await?;
    assert_eq!(status.epoch, epoch, "the lease was never given up");
    Ok(())
}
