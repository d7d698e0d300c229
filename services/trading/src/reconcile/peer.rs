//! The other application's database: read, never written, and only while it is the primary of the region that holds that
//! application's lease. Anything else is no answer about what it has.

use region_lease::{ConnectOptions, read_lease};
use services_common::gate::{Gate, Needs, judge};
use services_common::postgres::Grant;
use tokio_postgres::Client;

use super::{ReconcileError, snapshot};

/// The other application, and where its database is.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Application whose lease tells which database is the one that counts.
    pub app: String,
    /// Its database, as the role that may read what this comparison needs.
    pub database: ConnectOptions,
}

impl Peer {
    pub(super) async fn connect(&self) -> Result<Client, ReconcileError> {
        snapshot::connect(self.database.clone()).await.map_err(|error| match error {
            ReconcileError::Lease(source) => ReconcileError::Peer { app: self.app.clone(), source },
            other => other,
        })
    }

    /// The grant by which the database behind this connection is the one that counts.
    pub(super) async fn holds(&self, client: &Client) -> Result<Grant, ReconcileError> {
        let reading = read_lease(client, &self.app)
            .await
            .map_err(|source| ReconcileError::Peer { app: self.app.clone(), source })?;
        let holder = reading.row.as_ref().and_then(|row| row.holder.clone()).unwrap_or_default();
        if reading.in_recovery {
            let reason = "it is a standby".to_owned();
            return Err(ReconcileError::NotPrimary { app: self.app.clone(), reason });
        }
        admitted(&judge(&reading, &self.app, &holder), &self.app)
    }
}

/// The grant by which a region's own database is the one that counts.
pub(super) async fn holds(client: &Client, app: &str, region: &str) -> Result<Grant, ReconcileError> {
    let reading = read_lease(client, app).await?;
    if reading.in_recovery {
        return Err(ReconcileError::Standby);
    }
    admitted(&judge(&reading, app, region), app)
}

fn admitted(gate: &Gate, app: &str) -> Result<Grant, ReconcileError> {
    let reason = match (gate.admits(Needs::Core), gate) {
        (Some(grant), _) => return Ok(grant.clone()),
        (None, Gate::Closed { reason }) => reason.clone(),
        (None, gate) => gate.word().to_owned(),
    };
    Err(ReconcileError::NotPrimary { app: app.to_owned(), reason })
}
