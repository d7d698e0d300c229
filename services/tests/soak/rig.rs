//! Both applications at work.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use trading::names::Application;

use crate::lease::Lease;
use crate::side::Side;

/// All stages have ended within this time of being told.
const END_LIMIT: Duration = Duration::from_secs(60);

pub(crate) struct Rig {
    pub(crate) trading: Arc<Side>,
    pub(crate) settlement: Arc<Side>,
    /// What works in the background.
    tasks: Vec<JoinHandle<()>>,
}

impl Rig {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        std::fs::write(folder.join("password"), "guest")?;
        let (trading, settlement) = tokio::try_join!(
            Side::start(Application::TradeMatching, folder),
            Side::start(Application::Settlement, folder)
        )?;
        let (trading, settlement) = (Arc::new(trading), Arc::new(settlement));
        let tasks = vec![Lease::keep(trading.clone()), Lease::keep(settlement.clone())];
        Ok(Self { trading, settlement, tasks })
    }

    pub(crate) fn side(&self, application: Application) -> &Arc<Side> {
        match application {
            Application::TradeMatching => &self.trading,
            Application::Settlement => &self.settlement,
        }
    }

    pub(crate) fn sides(&self) -> [&Arc<Side>; 2] {
        [&self.trading, &self.settlement]
    }

    /// Starts one process of each stage of both.
    pub(crate) fn start_stages(&self) -> Result<Vec<JoinHandle<()>>> {
        let mut supervising = self.trading.start_stages(&self.settlement)?;
        supervising.extend(self.settlement.start_stages(&self.trading)?);
        Ok(supervising)
    }

    /// Ends all stages in order; gives what they did that must not be.
    pub(crate) async fn end_stages(&self, supervising: Vec<JoinHandle<()>>) -> Result<Vec<String>> {
        let stages = || self.sides().into_iter().flat_map(|side| side.stages());
        stages().for_each(|(_, stage)| stage.stop());
        let ended = timeout(END_LIMIT, futures::future::join_all(supervising)).await;
        ended.context("stages do not end")?;
        Ok(stages().flat_map(|(_, stage)| stage.faults()).collect())
    }

    /// The logs of the servers, beside those of the stages.
    pub(crate) async fn keep_logs(&self) {
        for side in self.sides() {
            if let Err(error) = side.keep_logs().await {
                eprintln!("soak: a log is lost: {error:#}");
            }
        }
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
