//! The applications move independently: AWS, the lab's servers and the broker names of one go to the other region, and of
//! the other application nothing moves. A person asks AWS here; no operator looks after settlement.

use anyhow::{Context as _, Result, ensure};
use e2e::clusters::NAMESPACE;
use e2e::object::{Choices, trading_region};
use e2e::timeouts;
use e2e::wait::{Look, until};
use kube::api::{Patch, PatchParams};
use lab::database::Database;
use lab::{Application, Facts, ProcessStatus, Region, Standing};
use region_aws::{ControlState, FlipLimits, Outcome, RdsClient, RdsLimits};
use tokio::task::spawn_blocking;

use crate::by_hand;
use crate::rig::Rig;

const MOVED: Application = Application::Settlement;
const STAYS: Application = Application::TradeMatching;

/// What of an application a move would change.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    standing: Standing,
    servers: Vec<ProcessStatus>,
    /// Whether the server of each region is a standby.
    standbys: [bool; 2],
}

async fn seen(facts: &Facts, application: Application) -> Result<Seen> {
    let lab = facts.lab();
    let (standing, servers) = spawn_blocking(move || -> Result<_> {
        let standing = lab::standings(&lab)?.into_iter().find(|standing| standing.application == application);
        let mut servers = lab::status(&lab)?;
        servers.retain(|process| process.name == application.database_process());
        Ok((standing.context("the simulator does not know the application")?, servers))
    })
    .await??;
    let mut standbys = [false; 2];
    for (standby, region) in standbys.iter_mut().zip(Region::ALL) {
        *standby = sql(facts, application, region, "SELECT pg_is_in_recovery()").await? == "t";
    }
    Ok(Seen { standing, servers, standbys })
}

async fn sql(facts: &Facts, application: Application, region: Region, text: &'static str) -> Result<String> {
    let facts = facts.clone();
    let run = move || {
        let lab = facts.lab();
        Database::new(&lab, application, region, &facts.credentials)?.sql(text)
    };
    let answer = spawn_blocking(run).await?;
    answer.with_context(|| format!("asking the database of {application} in {region}"))
}

/// Moves the database by RDS, as AWS's own API does, and waits until it has.
async fn move_database(facts: &Facts, from: Region) -> Result<()> {
    let names = &facts.aws.applications[&MOVED];
    let access = by_hand::access(facts).await?;
    let rds = RdsClient::new(from.name(), Some(&facts.aws.rds_url), &access, RdsLimits::default());
    let target = &names.database_clusters[&from.peer()];
    let outcome = rds.switchover(&names.global_cluster, target).await;
    ensure!(matches!(outcome, Outcome::Done { .. }), "the switchover was not accepted: {outcome}");
    until(&format!("{} to settle on {target}", names.global_cluster), timeouts::SWITCH, async || {
        let view = rds.describe(&names.global_cluster).await?;
        Ok(if view.settled_on(target) { Look::Seen(()) } else { Look::NotYet(format!("{view:?}")) })
    })
    .await
}

/// Turns all controls over in one batch; before, a second region On is refused by the application's own rule.
async fn move_controls(facts: &Facts, from: Region) -> Result<()> {
    let arc = by_hand::client(facts).await?;
    let names = &facts.aws.applications[&MOVED];
    let control = |kind: &str, region, state| (names.control(kind, region).to_owned(), state);
    let second = [control("app", from.peer(), ControlState::On)];
    let refused = arc.flip(&second, FlipLimits::default()).await;
    ensure!(
        matches!(&refused, Outcome::Refused(refusal) if refusal.conflict),
        "two regions may have the application: {refused}"
    );
    let batch = ["ingress", "intake", "app"]
        .map(|kind| [control(kind, from, ControlState::Off), control(kind, from.peer(), ControlState::On)]);
    let turned = arc.flip(&batch.concat(), FlipLimits::default()).await;
    ensure!(turned.holds(), "the controls were not turned: {turned}");
    Ok(())
}

/// Where settlement is before the test: all of it in one region.
fn home(seen: &Seen) -> Result<Region> {
    let region: Region = seen.standing.writer.parse().map_err(anyhow::Error::msg)?;
    let there = seen.standing.controls.iter().all(|(_, on)| *on == [region]);
    ensure!(there, "settlement is in no one region: {}", seen.standing);
    Ok(region)
}

#[tokio::test(flavor = "multi_thread")]
async fn settlement_moves_at_aws_and_trade_matching_notices_nothing() -> Result<()> {
    let rig = Rig::ready().await?;
    let facts = &rig.clusters.facts;
    let customer = rig.customer().await?;
    let [stayed, before] = [seen(facts, STAYS).await?, seen(facts, MOVED).await?];
    let from = home(&before)?;
    let mark = "DROP TABLE IF EXISTS moved; CREATE TABLE moved AS SELECT 7 AS n";
    sql(facts, MOVED, from, mark).await?;

    move_database(facts, from).await?;
    let half = seen(facts, MOVED).await?;
    assert_eq!(half.standing.controls, before.standing.controls, "the database alone has moved");
    move_controls(facts, from).await?;

    let after = seen(facts, MOVED).await?;
    assert_eq!(home(&after)?, from.peer());
    assert_eq!(after.standing.broker, facts.regions[&from.peer()].address.to_string());
    assert_eq!(after.standbys, before.standbys.map(|standby| !standby));
    assert_eq!(sql(facts, MOVED, from.peer(), "SELECT n FROM moved").await?, "7", "a row was left behind");
    assert_eq!(seen(facts, STAYS).await?, stayed, "something of trade matching has moved");
    sql(facts, MOVED, from.peer(), "DROP TABLE moved").await?;

    customer.answered_more(50).await?;
    rig.quiet().await?;
    let verdict = customer.finish().await?;
    assert!(verdict.good(), "{verdict:?}");
    assert_eq!(verdict.epochs.len(), 1, "trade matching kept its lease: {verdict:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn both_clusters_admit_the_object_of_settlement() -> Result<()> {
    let rig = Rig::ready().await?;
    let object = trading_region(&rig.clusters.facts, &Choices::of(MOVED, Region::ALL[0]))?;
    let dry_run = PatchParams { dry_run: true, ..PatchParams::apply("kubectl").force() };
    for region in Region::ALL {
        let admitted =
            rig.clusters.objects(region).patch(MOVED.name(), &dry_run, &Patch::Apply(&object)).await?;
        assert_eq!(admitted.metadata.namespace.as_deref(), Some(NAMESPACE));
        assert_eq!(admitted.spec.active_region.as_str(), Region::ALL[0].name());
    }
    Ok(())
}
