//! What `kubectl get tradingregion` shows in either cluster is true at each moment of a switch: the database is the judge.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use e2e::clusters::{APPLICATION, NAMESPACE};
use e2e::{kubectl, run};
use lab::database::Database;
use lab::{Application, Facts, Region};
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::rig::Rig;

/// How old a shown fact may be: a look of the operator, a write, and the stalls of a machine that carries both regions.
const AGE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(300);

/// The lease as the database has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Held {
    by: Option<String>,
    epoch: String,
    /// Whose server takes writes.
    writer: Region,
}

/// The columns of one cluster.
#[derive(Clone, Debug)]
struct Shown {
    active: String,
    wanted: String,
    phase: String,
    ready: String,
    epoch: String,
}

/// The database, then both clusters.
#[derive(Debug)]
struct Sample {
    at: Instant,
    /// `None` while no server takes writes.
    held: Option<Held>,
    shown: [Shown; 2],
}

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_get_tells_the_truth_in_both_clusters_at_each_moment_of_a_switch() -> Result<()> {
    let rig = Rig::ready().await?;
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(rig.clusters.facts.clone(), stop.clone()));
    run::switch(&rig.clusters, &rig.there("columns")).await?;
    stop.cancel();
    let samples = watching.await??;
    for (index, sample) in samples.iter().enumerate() {
        let next = samples.get(index + 1).map_or(sample.at, |next| next.at);
        let recent: Vec<Option<&Held>> = samples
            .iter()
            .filter(|other| other.at + AGE >= sample.at && other.at <= next)
            .map(|other| other.held.as_ref())
            .collect();
        for shown in &sample.shown {
            ensure!(is_true(shown, &recent), "{shown:?} is none of what the database had: {recent:?}");
        }
    }
    let last = samples.last().context("nothing was sampled")?;
    for (index, shown) in last.shown.iter().enumerate() {
        assert_eq!((shown.active.as_str(), shown.phase.as_str()), (rig.active.peer().name(), "Steady"));
        assert_eq!((shown.wanted.as_str(), shown.ready.as_str()), (rig.active.peer().name(), "True"));
        let mut phases: Vec<&str> = samples.iter().map(|sample| sample.shown[index].phase.as_str()).collect();
        phases.dedup();
        println!("{}: {} samples, phases {phases:?}", Region::ALL[index], samples.len());
        assert!(phases.len() > 2, "progress was not to be seen: {phases:?}");
    }
    Ok(())
}

/// A name and an epoch must be those of a holder; neither a name nor `Ready` may be shown while nobody ever held.
fn is_true(shown: &Shown, recent: &[Option<&Held>]) -> bool {
    let known = || recent.iter().copied().flatten();
    // Between two servers that took writes there was a time in which none did, even if no sample hit it.
    let writers: Vec<Region> = known().map(|held| held.writer).collect();
    let unknown = recent.contains(&None) || writers.windows(2).any(|pair| pair[0] != pair[1]);
    let active = match shown.active.as_str() {
        "" => unknown || known().any(|held| held.by.is_none()),
        name => known().any(|held| held.by.as_deref() == Some(name)),
    };
    let epoch = known().any(|held| held.epoch == shown.epoch) || (unknown && shown.epoch.is_empty());
    let ready = shown.ready != "True" || known().any(|held| held.by.is_some());
    active && epoch && ready
}

async fn watch(facts: Facts, stop: CancellationToken) -> Result<Vec<Sample>> {
    let mut samples = Vec::new();
    // One more after the end, so that the last sample shows it.
    let mut ended = false;
    while !ended {
        ended = stop.is_cancelled();
        let at = Instant::now();
        let held = spawn_blocking({
            let facts = facts.clone();
            move || held(&facts)
        })
        .await?;
        let [east, west] = Region::ALL.map(|region| shown(&facts, region));
        samples.push(Sample { at, held, shown: [east.await?, west.await?] });
        tokio::select! {
            () = stop.cancelled() => {}
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    Ok(samples)
}

/// What the server that takes writes has.
fn held(facts: &Facts) -> Option<Held> {
    let lab = facts.lab();
    let sql = format!(
        "SELECT coalesce(holder, ''), epoch FROM region.lease WHERE app = '{APPLICATION}' AND NOT pg_is_in_recovery()"
    );
    Region::ALL.into_iter().find_map(|region| {
        let database = Database::new(&lab, Application::TradeMatching, region, &facts.credentials).ok()?;
        let row = database.sql(&sql).ok()?;
        let (holder, epoch) = row.split_once('|')?;
        Some(Held {
            by: (!holder.is_empty()).then(|| holder.to_owned()),
            epoch: epoch.to_owned(),
            writer: region,
        })
    })
}

async fn shown(facts: &Facts, region: Region) -> Result<Shown> {
    let arguments = ["--namespace", NAMESPACE, "get", "tradingregion", APPLICATION, "--output=wide"];
    let table = kubectl::run(facts, region, &arguments).await?;
    let mut lines = table.lines();
    let (head, row) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let cell = |name: &str| cell(head, row, name).with_context(|| format!("no column {name} in\n{table}"));
    Ok(Shown {
        active: cell("ACTIVE")?,
        wanted: cell("WANTED")?,
        phase: cell("PHASE")?,
        ready: cell("READY")?,
        epoch: cell("EPOCH")?,
    })
}

/// A cell begins under its column's title and ends where the next title begins.
fn cell(head: &str, row: &str, title: &str) -> Option<String> {
    let start = head.find(title)?;
    let rest = &head[start..];
    let next = rest.find("  ").map(|gap| head.len() - rest[gap..].trim_start().len());
    let text = row.get(start.min(row.len())..next.unwrap_or(row.len()).min(row.len()))?.trim();
    Some(if text == "<none>" { String::new() } else { text.to_owned() })
}
