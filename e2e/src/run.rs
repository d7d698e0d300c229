//! Starting and switching, and waiting for the end on both sides.

use std::collections::BTreeMap;

use anyhow::Result;
use crds::TradingRegionStatus;
use futures::future::try_join_all;
use lab::{Application, Region};
use region_plan::{Mark, Phase, RunReport};

use crate::clusters::Clusters;
use crate::object::{Choices, trading_region};
use crate::timeouts::{POLL_RUN, START, SWITCH};
use crate::wait::{Look, until_every};

/// Applies the object in both clusters and waits until its region is active and both sides are steady.
///
/// # Errors
/// At the bound, with what both sides said last.
pub async fn start(clusters: &Clusters, choices: &Choices) -> Result<()> {
    let clusters = clusters.of(choices.application);
    clusters.apply(&trading_region(&clusters.facts, choices)?).await?;
    let what = format!("{} to be active and both sides steady", choices.active);
    until_every(POLL_RUN, &what, START, || steady(&clusters, choices.active)).await
}

/// Starts each application where it is active already, or else in the first region, and waits until all are steady.
/// Answers where each is.
///
/// # Errors
/// As [`start`].
pub async fn started(clusters: &Clusters, reason: &str) -> Result<BTreeMap<Application, Region>> {
    let each = Application::ALL.into_iter().map(async |application| {
        let region = clusters.of(application).active().await.unwrap_or(Region::ALL[0]);
        start(clusters, &Choices { reason: reason.to_owned(), ..Choices::of(application, region) }).await?;
        anyhow::Ok((application, region))
    });
    Ok(try_join_all(each).await?.into_iter().collect())
}

/// Changes the active region in both clusters and waits for the end of the run on both sides.
/// Answers each side's part, the old side's first.
///
/// # Errors
/// At the bound, with what both sides said last.
pub async fn switch(clusters: &Clusters, choices: &Choices) -> Result<[RunReport; 2]> {
    let clusters = clusters.of(choices.application);
    clusters.apply(&trading_region(&clusters.facts, choices)?).await?;
    switched(&clusters, choices.active).await
}

/// Waits for the end of a run to that region that somebody asked for. Answers each side's part, the old side's first.
///
/// # Errors
/// At the bound, with what both sides said last.
pub async fn switched(clusters: &Clusters, to: Region) -> Result<[RunReport; 2]> {
    let what = format!("{to} to be active and both sides steady");
    until_every(POLL_RUN, &what, SWITCH, || steady(clusters, to)).await?;
    parts(clusters, to).await
}

/// Both sides' parts of the last run to that region, the old side's first.
///
/// # Errors
/// When a cluster does not answer or the run is not there.
pub async fn parts(clusters: &Clusters, to: Region) -> Result<[RunReport; 2]> {
    let part = async |region: Region| -> Result<RunReport> {
        let side = clusters.status(region).await?.side;
        side.and_then(|side| side.run).ok_or_else(|| anyhow::anyhow!("{region} reports no run"))
    };
    Ok([part(to.peer()).await?, part(to).await?])
}

async fn steady(clusters: &Clusters, active: Region) -> Result<Look<()>> {
    let mut seen = Vec::new();
    let mut all = true;
    for region in Region::ALL {
        let object = clusters.object(region).await?;
        let newest = object.metadata.generation;
        let status = object.status.unwrap_or_default();
        all &= status.observed_generation == newest && settled(&status, active);
        seen.push(format!("{region}: {}", sentence(&status)));
    }
    Ok(if all { Look::Seen(()) } else { Look::NotYet(seen.join("; ")) })
}

fn settled(status: &TradingRegionStatus, active: Region) -> bool {
    let ended = status.side.as_ref().and_then(|side| side.run.as_ref()).is_none_or(|run| run.mark.ended());
    let here = status.active_region.as_ref().is_some_and(|region| region.as_str() == active.name());
    ended && here && status.phase == Some(Phase::Steady)
}

/// A side's own words, for errors.
pub fn sentence(status: &TradingRegionStatus) -> String {
    let phase = status.phase.map_or("no phase".to_owned(), |phase| format!("{phase:?}"));
    let mark = status.side.as_ref().and_then(|side| side.run.as_ref()).map(|run| run.mark);
    let mark = mark.map_or(String::new(), |mark: Mark| format!(" ({mark:?})"));
    let waits: Vec<&str> = status.waits.iter().map(|wait| wait.on.as_str()).collect();
    let findings: Vec<String> = status
        .findings
        .iter()
        .map(|finding| format!("{}: {}", finding.code.text(), finding.message))
        .collect();
    let reason = status.reason.as_deref().unwrap_or("no reason");
    format!("{phase}{mark}: {reason}; waits for {waits:?}; findings {findings:?}")
}
