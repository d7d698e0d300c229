//! Both applications installed, each active somewhere.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context as _, Result};
use e2e::object::Choices;
use e2e::{Clusters, deploy, run, timeline};
use futures::future::try_join_all;
use lab::{Application, Facts, Region};
use region_plan::{Epoch, Mark};
use tokio::sync::OnceCell;
use tokio::time::Instant;

static INSTALLED: OnceCell<(Facts, Instant)> = OnceCell::const_new();

pub(crate) struct Both {
    pub(crate) clusters: Clusters,
    active: BTreeMap<Application, Region>,
}

impl Both {
    /// Installs if need be, and waits until each application is steady in the region where it is, or in the first one.
    pub(crate) async fn ready() -> Result<Self> {
        let (facts, _) = INSTALLED.get_or_try_init(install).await?;
        let clusters = Clusters::connect(facts).await?;
        let active = run::started(&clusters, "test").await?;
        Ok(Self { clusters, active })
    }

    /// Moves these to the other region, all at once. What is not named stays where it is, in its run and its epoch.
    pub(crate) async fn moved(&mut self, which: &[Application], reason: &str) -> Result<()> {
        let stays: Vec<Application> =
            Application::ALL.into_iter().filter(|application| !which.contains(application)).collect();
        let before = self.epochs(&stays).await?;
        let clusters = &self.clusters;
        let runs = try_join_all(which.iter().map(async |application| {
            let to = self.active[application].peer();
            let choices = Choices { reason: reason.to_owned(), ..Choices::of(*application, to) };
            run::switch(clusters, &choices).await.with_context(|| format!("moving {application} to {to}"))
        }))
        .await?;
        for (application, parts) in which.iter().zip(runs) {
            println!("{application}: {}", timeline::text(&parts));
            assert_eq!(parts.each_ref().map(|part| part.mark), [Mark::Finished, Mark::Finished]);
            self.active.insert(*application, self.active[application].peer());
        }
        assert_eq!(self.epochs(&stays).await?, before, "what was to stay has moved");
        Ok(())
    }

    /// Where an application is active.
    pub(crate) fn active(&self, application: Application) -> Region {
        self.active[&application]
    }

    /// For how long settlements have flowed. What `regions` had matched before has none, and is told as missing them.
    pub(crate) fn installed_for(&self) -> Duration {
        INSTALLED.get().map_or(Duration::ZERO, |(_, installed)| installed.elapsed())
    }

    async fn epochs(&self, applications: &[Application]) -> Result<Vec<Option<Epoch>>> {
        let epoch = async |application: &Application| -> Result<Option<Epoch>> {
            let region = self.active[application];
            Ok(self.clusters.of(*application).status(region).await?.epoch)
        };
        try_join_all(applications.iter().map(epoch)).await
    }
}

async fn install() -> Result<(Facts, Instant)> {
    let facts = Facts::read("tr").context("these tests need the lab: run them with `cargo xtask test`")?;
    deploy::install(&facts, &Application::ALL, 0).await?;
    Ok((facts, Instant::now()))
}
