//! What a writer says at the beginning and at the end of each transaction.

use std::time::Duration;

use tokio_postgres::GenericClient;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::error::{LeaseError, Result};

/// The longest that a guarded transaction may last (S of the protocol). The server refuses the guard when
/// `transaction_timeout` is longer or 0; [`crate::ConnectOptions::writer`] sets it.
pub const LONGEST_TRANSACTION: Duration = Duration::from_secs(5);

/// A claim: this region holds the lease by this grant.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard {
    /// The application.
    pub app: String,
    /// The caller's own region, from its configuration; never from the row.
    pub region: String,
    /// Identity of the grant.
    pub grant_id: Uuid,
    epoch: i64,
}

impl Guard {
    /// The statement that begins a writing transaction, and that is its last before COMMIT; parameters are
    /// [`Guard::parameters`]. Prepare it once a connection, and pipeline it with its neighbours.
    pub const SQL: &'static str = "SELECT region.guard($1, $2, $3, $4)";

    /// A claim by the grant `grant_id` of `epoch`.
    #[must_use]
    pub fn new(app: impl Into<String>, region: impl Into<String>, epoch: u64, grant_id: Uuid) -> Self {
        Self { app: app.into(), region: region.into(), grant_id, epoch: database_epoch(epoch) }
    }

    /// Number of the grant.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.unsigned_abs()
    }

    /// The parameters of [`Guard::SQL`].
    #[must_use]
    pub fn parameters(&self) -> [&(dyn ToSql + Sync); 4] {
        [&self.app, &self.region, &self.epoch, &self.grant_id]
    }

    /// Runs the guard in the present transaction of `client`.
    ///
    /// # Errors
    /// Everything that [`crate::LeaseErrorKind`] lists for writers; the transaction is then aborted.
    pub async fn check(&self, client: &impl GenericClient) -> Result<()> {
        client
            .execute(Self::SQL, &self.parameters())
            .await
            .map(drop)
            .map_err(|error| LeaseError::from_postgres("guard", &error))
    }
}

/// Epochs are counted up by ones, so a number beyond the database's range is never a real one: the largest
/// stands for it and is refused like any other that is not present.
pub(crate) fn database_epoch(epoch: u64) -> i64 {
    i64::try_from(epoch).unwrap_or(i64::MAX)
}
