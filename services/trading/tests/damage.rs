//! The damage maker against reconciliation: at each boundary, each kind of damage is told exactly, and mended where a replay
//! can. Rows are chosen at random: `DAMAGE_SEED` chooses the same ones again.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

#[allow(dead_code, unreachable_pub, reason = "the example uses all of it")]
#[path = "../examples/damage/maker.rs"]
mod maker;
#[allow(dead_code, unreachable_pub, reason = "the example uses all of it")]
#[path = "../examples/damage/places.rs"]
mod places;
mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::civil::date;
use maker::{Damage, Stores};
use places::Kind;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use support::both::{ACCOUNT, Both, allocated};
use support::reconciling::{SETTLEMENT, TRADING, plan};
use support::reports::{BROKER, IM};
use support::{PATIENCE, Process, eventually};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Plan as Customer, Scenario, SharedLedger, Verdict};
use trading::names::Application;
use trading::reconcile::{self, Comparison, Job, Report};
use uuid::Uuid;

/// Rows that are damaged at once, at most.
const MOST: usize = 3;

/// Says the seed, so that a failure can be repeated.
fn seed() -> u64 {
    let given = std::env::vars().find(|(name, _)| name == "DAMAGE_SEED");
    let given = given.map(|(_, seed)| seed.parse().unwrap());
    let seed = given.unwrap_or_else(rand::random);
    println!("DAMAGE_SEED={seed}");
    seed
}

fn stores(both: &Both) -> Stores<'_> {
    Stores { trade_matching: &both.trading.sql, settlement: &both.settlement.sql }
}

fn customer(both: &Both, seed: u64, seconds: u64, stop: CancellationToken) -> JoinHandle<Verdict> {
    let scenario = Scenario::new(seed, 0.1, date(2026, 2, 9));
    let customer = Customer { rate: 40.0, duration: Duration::from_secs(seconds), wait: PATIENCE, scenario };
    let (submit, answers) = (both.trading.target("submit"), both.trading.target("answers"));
    tokio::spawn(generate::run(customer, submit, answers, SharedLedger::default(), stop))
}

/// Some of everything: traffic that has passed, trades that wait, and settlements of which the other party has none.
async fn stocked(both: &Both, seed: u64) -> Vec<Process> {
    let processes = both.pipelines().await;
    let verdict = customer(both, seed, 3, CancellationToken::new()).await.unwrap();
    assert!(verdict.good(), "{verdict:#?}");
    for number in 9_000_001..=9_000_004 {
        let (id, body) = allocated(IM, number, ACCOUNT);
        both.trading.publish(Some(&id), body.as_bytes()).await;
    }
    for number in 9_000_011..=9_000_013 {
        let (id, body) = allocated(IM, number, ACCOUNT);
        both.trading.publish(Some(&id), body.as_bytes()).await;
        let (id, body) = allocated(BROKER, number, ACCOUNT);
        let body = body.replace(r#"allocationID\":2"#, r#"allocationID\":3"#);
        both.trading.publish(Some(&id), body.as_bytes()).await;
    }
    let unpaired = "select count(*) from trading.settlements where status = 'UNMATCHED'";
    eventually("some wait", async || (both.settlement.number(unpaired).await >= 6).then_some(())).await;
    both.nothing_is_on_its_way().await;
    processes
}

fn all_of(application: Application) -> Vec<Job> {
    Job::within(application, true).into_iter().chain([Job::between(application)]).collect()
}

async fn run(both: &Both, jobs: &[Job], grace: u64, replay: bool) -> Report {
    let mut run = plan(both, jobs[0].application(), grace, replay);
    run.jobs = jobs.to_vec();
    reconcile::run(&run).await.unwrap()
}

async fn assert_clean(both: &Both, what: &str) {
    both.nothing_is_on_its_way().await;
    for application in [TRADING, SETTLEMENT] {
        let report = run(both, &all_of(application), 0, false).await;
        assert!(report.agrees, "after {what}: {report}");
    }
}

/// That the damaged rows are told, and nothing else.
fn assert_told(damage: &Damage, comparison: &Comparison) {
    let Comparison { missing, ahead, differs, .. } = comparison;
    let kind = damage.place.kind;
    let (told, others) = match kind {
        Kind::Missing => (missing, [ahead, differs]),
        Kind::Ahead => (ahead, [missing, differs]),
        Kind::Content | Kind::Status => (differs, [missing, ahead]),
    };
    let ids: BTreeSet<Uuid> = told.first.iter().map(|finding| finding.id).collect();
    assert_eq!(told.count, damage.told.len() as u64, "{damage:?}: {comparison:#?}");
    assert!(ids.is_subset(&damage.told), "{damage:?}: {comparison:#?}");
    // An allocation that nothing gave its status is what a lost message leaves.
    let echo = (damage.place.job, kind) == (Job::ReturnIngressCore, Kind::Missing);
    assert!(echo || others.iter().all(|found| found.count == 0), "{damage:?}: {comparison:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_damage_at_each_boundary_is_told_exactly_and_mended_where_a_replay_can() {
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let both = Both::start().await;
    let _pipelines = stocked(&both, seed).await;
    assert_clean(&both, "no damage").await;
    for place in places::all() {
        let what = format!("{} {}", place.job.word(), place.kind.word());
        let most = random.random_range(1..=MOST);
        let mut damage = Damage::choose(stores(&both), place, most, &mut random).await.unwrap();
        assert!(!damage.keys.is_empty(), "nothing to damage: {what}");
        damage.apply(stores(&both)).await.unwrap();
        let report = run(&both, &[damage.place.job], 0, false).await;
        assert_told(&damage, &report.boundaries[0].comparison);
        if damage.place.mended {
            for application in [TRADING, SETTLEMENT] {
                run(&both, &all_of(application), 0, true).await;
            }
        } else {
            damage.undo(stores(&both)).await.unwrap();
        }
        assert_clean(&both, &what).await;
    }
}

/// Stores of which the age of a row counts: what is there now becomes old.
async fn aged(both: &Both) {
    for (world, table, column) in [
        (&both.trading, "egressed", "at"),
        (&both.trading, "outgoing_settlements", "sent_at"),
        (&both.settlement, "outgoing_settlements", "sent_at"),
    ] {
        let older = format!("update trading.{table} set {column} = {column} - interval '1 hour'");
        support::stores::damage(world, table, &older).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_is_told_exactly_and_mended_while_traffic_flows_beside_it() {
    const GRACE: u64 = 60;
    let seed = seed();
    let mut random = StdRng::seed_from_u64(seed);
    let both = Both::start().await;
    let _pipelines = stocked(&both, seed).await;
    aged(&both).await;
    let mut damages = Vec::new();
    for place in places::all().filter(|place| place.kind == Kind::Missing) {
        damages.push(Damage::choose(stores(&both), place, MOST, &mut random).await.unwrap());
    }
    let stop = CancellationToken::new();
    let traffic = customer(&both, seed.wrapping_add(1), 600, stop.clone());
    // From the end of the way to its beginning: what is mended is young afterwards.
    for damage in damages.iter_mut().rev() {
        damage.apply(stores(&both)).await.unwrap();
        let job = [damage.place.job];
        let found = run(&both, &job, GRACE, false).await;
        assert_told(damage, &found.boundaries[0].comparison);
        let mended = run(&both, &job, GRACE, true).await;
        assert!(mended.agrees, "{mended}");
        let replay = mended.boundaries[0].replay.unwrap();
        assert_eq!((replay.found, replay.left), (damage.told.len() as u64, 0), "{mended}");
        assert!(!traffic.is_finished(), "traffic flows beside it");
    }
    stop.cancel();
    let verdict = traffic.await.unwrap();
    assert!(verdict.good() && verdict.answered > 20, "{verdict:#?}");
    assert_clean(&both, "all of it").await;
}
