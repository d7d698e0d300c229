//! As much of keeper and operator as one region needs: the lease is granted, opened, renewed, and granted anew.

use std::time::Duration;

use anyhow::{Context as _, Result};
use region_lease::{Fence, Guard, NewGrant, Opened};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::side::{REGION, Side};
use crate::wait::until;

/// Pause between renewals.
const RENEWAL: Duration = Duration::from_secs(1);
/// A renewal that takes longer has failed.
const RENEWAL_LIMIT: Duration = Duration::from_secs(3);
/// A grant has gone through within this time, whatever the database does meanwhile.
const GRANT_LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Lease {
    app: &'static str,
    /// Held while it is being changed.
    present: Mutex<Option<Guard>>,
    paused: watch::Sender<bool>,
}

impl Lease {
    pub(crate) fn new(app: &'static str) -> Self {
        Self { app, present: Mutex::new(None), paused: watch::Sender::new(false) }
    }

    /// Grants a higher epoch to the region and opens it, whatever there is now.
    pub(crate) async fn grant(&self, side: &Side) -> Result<()> {
        let mut present = self.present.lock().await;
        let (grant_id, run) = (Uuid::new_v4(), Uuid::new_v4());
        let granted = until(GRANT_LIMIT, "a new grant", async || {
            let step = async {
                let client = side.database.connect().await?;
                self.step(&client, grant_id, run).await
            };
            // Tried again: the database may be away, and each step says what it believes.
            step.await.ok().flatten()
        });
        *present = Some(granted.await?);
        Ok(())
    }

    /// The next step of a grant; the guard once it is open.
    async fn step(&self, client: &Client, grant_id: Uuid, run: Uuid) -> Result<Option<Guard>> {
        let app = self.app;
        let row = region_lease::read_lease(client, app).await?.row.context("no lease")?;
        let guard = Guard::new(app, REGION, row.epoch, grant_id);
        if row.grant_id == Some(grant_id) {
            let observed = region_lease::clock(client).await?;
            region_lease::renew(client, &guard, observed).await?;
            region_lease::open(client, app, row.epoch, grant_id, Opened::Intake).await?;
            return Ok(Some(guard));
        }
        if let (Some(_), Some(older)) = (&row.holder, row.grant_id) {
            let fence = Fence { app, epoch: row.epoch, grant_id: older, run, to_region: "us-west-2" };
            region_lease::fence(client, fence).await?;
        }
        let epoch = row.epoch + 1;
        let new = NewGrant { app, from_epoch: row.epoch, epoch, grant_id, region: REGION, run };
        region_lease::grant(client, new).await?;
        Ok(None)
    }

    /// Renews the present grant until aborted.
    pub(crate) fn keep(side: std::sync::Arc<Side>) -> JoinHandle<()> {
        tokio::spawn(async move {
            let mut client = None;
            loop {
                let renewed = timeout(RENEWAL_LIMIT, side.lease.renew(&side, &mut client)).await;
                if !matches!(renewed, Ok(Ok(()))) {
                    client = None;
                }
                sleep(RENEWAL).await;
            }
        })
    }

    async fn renew(&self, side: &Side, client: &mut Option<Client>) -> Result<()> {
        let present = self.present.lock().await;
        let Some(guard) = present.as_ref().filter(|_| !*self.paused.borrow()) else { return Ok(()) };
        if client.is_none() {
            *client = Some(side.database.connect().await?);
        }
        if let Some(client) = client {
            let observed = region_lease::clock(client).await?;
            region_lease::renew(client, guard, observed).await?;
        }
        Ok(())
    }

    /// Renews nothing for so long.
    pub(crate) async fn lapse(&self, lasts: Duration) {
        self.paused.send_replace(true);
        sleep(lasts).await;
        self.paused.send_replace(false);
    }
}
