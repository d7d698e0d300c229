//! What the two applications have stored of settlements, compared: each that one has sent lies at the other, with the
//! same content, and nothing else does.

use std::collections::BTreeSet;
use std::fmt;

use anyhow::{Context as _, Result};
use lab::Application;
use lab::database::Database;
use tokio::task::spawn_blocking;

use crate::clusters::Clusters;
use crate::timeouts::{NOTICE, POLL_STORES};
use crate::wait::{Look, until_every};

/// An id and the digest of its content.
type Contents = BTreeSet<String>;

/// What the stores of both applications hold, read one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stores {
    made: Contents,
    taken: Contents,
    answered: Contents,
    returned: Contents,
    /// Made by trade matching, and no answer was applied.
    open: u64,
}

impl Stores {
    /// Reads both applications' stores, each where it is active.
    ///
    /// # Errors
    /// When an application is active nowhere, or its database does not answer.
    pub async fn read(clusters: &Clusters) -> Result<Self> {
        const SENT: &str = "SELECT id || ' ' || md5(body) FROM trading.outgoing_settlements";
        let [matching, settlement] = Application::ALL;
        let store = |name: &str| format!("SELECT correlation_id || ' ' || md5(body) FROM trading.{name}");
        let open = lines(clusters, matching, "SELECT count(*) FROM trading.unreturned".to_owned()).await?;
        Ok(Self {
            made: lines(clusters, matching, SENT.to_owned()).await?,
            taken: lines(clusters, settlement, store("inbound_raw")).await?,
            answered: lines(clusters, settlement, SENT.to_owned()).await?,
            returned: lines(clusters, matching, store("returned_raw")).await?,
            open: open.first().context("no count")?.parse()?,
        })
    }

    /// Waits until every settlement has come back and the stores agree.
    ///
    /// # Errors
    /// At the bound, with what differed last.
    pub async fn agree(clusters: &Clusters) -> Result<Self> {
        let what = "every settlement to come back and the stores to agree";
        until_every(POLL_STORES, what, NOTICE, async || {
            let stores = Self::read(clusters).await?;
            let agree = stores.made == stores.taken && stores.answered == stores.returned && stores.open == 0;
            Ok(if agree { Look::Seen(stores) } else { Look::NotYet(stores.to_string()) })
        })
        .await
    }

    /// How many settlements were made.
    pub fn made(&self) -> usize {
        self.made.len()
    }

    /// Whether everything of before is still there.
    pub fn contain(&self, before: &Self) -> bool {
        let pairs = [
            (&before.made, &self.made),
            (&before.taken, &self.taken),
            (&before.answered, &self.answered),
            (&before.returned, &self.returned),
        ];
        pairs.into_iter().all(|(before, now)| before.is_subset(now))
    }
}

impl fmt::Display for Stores {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "settlements: made {}, taken by settlement {}, answered {}, returned {}, open {}",
            self.made.len(),
            self.taken.len(),
            self.answered.len(),
            self.returned.len(),
            self.open
        )
    }
}

/// The rows of a query at an application's primary.
async fn lines(clusters: &Clusters, application: Application, sql: String) -> Result<Contents> {
    let region = clusters.of(application).active().await;
    let region = region.with_context(|| format!("{application} is active nowhere"))?;
    let facts = clusters.facts.clone();
    let run = move || Database::new(&facts.lab(), application, region, &facts.credentials)?.sql(&sql);
    let answer = spawn_blocking(run).await?;
    let answer = answer.with_context(|| format!("asking the database of {application} in {region}"))?;
    Ok(answer.lines().map(str::to_owned).collect())
}
