//! What each test begins with: both charts installed once, the object applied, both sides steady.

use anyhow::{Context as _, Result};
use e2e::object::{Choices, trading_region};
use e2e::wait::{Look, until};
use e2e::{Clusters, deploy, run, timeouts};
use lab::{Facts, Region};
use tokio::sync::OnceCell;

static INSTALLED: OnceCell<Facts> = OnceCell::const_new();

/// Both clusters, and the region that is active.
pub struct Rig {
    pub clusters: Clusters,
    pub active: Region,
}

impl Rig {
    /// Installs if need be, and waits until both sides are steady with the object as the demo has it.
    pub async fn ready() -> Result<Self> {
        let facts = INSTALLED.get_or_try_init(install).await?;
        let clusters = Clusters::connect(facts).await?;
        let active = holder(&clusters).await?.unwrap_or(Region::ALL[0]);
        run::start(&clusters, &Choices { reason: "test".into(), ..Choices::active(active) }).await?;
        Ok(Self { clusters, active })
    }

    /// The object that moves the application to the other region.
    pub fn there(&self, reason: &str) -> Choices {
        Choices { reason: reason.to_owned(), ..Choices::active(self.active.peer()) }
    }

    /// Applies choices in both clusters.
    pub async fn apply(&self, choices: &Choices) -> Result<()> {
        self.clusters.apply(&trading_region(&self.clusters.facts, choices)?).await
    }

    /// Waits until one side's status satisfies a condition.
    pub async fn sees(
        &self,
        region: Region,
        what: &str,
        condition: impl Fn(&crds::TradingRegionStatus) -> bool,
    ) -> Result<crds::TradingRegionStatus> {
        until(&format!("{region}: {what}"), timeouts::NOTICE, async || {
            let status = self.clusters.status(region).await?;
            Ok(if condition(&status) { Look::Seen(status) } else { Look::NotYet(run::sentence(&status)) })
        })
        .await
    }
}

async fn install() -> Result<Facts> {
    let facts = Facts::read("tr").context("these tests need the lab: run them with `cargo xtask test`")?;
    deploy::install(&facts).await?;
    Ok(facts)
}

/// The region that either copy shows as active.
async fn holder(clusters: &Clusters) -> Result<Option<Region>> {
    for region in Region::ALL {
        let Ok(status) = clusters.status(region).await else { continue };
        if let Some(active) = status.active_region {
            return Ok(active.as_str().parse().ok());
        }
    }
    Ok(None)
}
