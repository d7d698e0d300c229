//! The lease row, through one connection that is made anew whenever it is in doubt.

use std::time::Duration;

use region_lease::{
    Clock, ConnectOptions, Guard, LeaseError, LeaseErrorKind, Reading, Retry, ValidUntil, WayBack,
};
use tokio::time::timeout;
use tokio_postgres::Client;

use crate::config;
use crate::decide::{LeaseView, Permission, Remaining};

/// One call, connecting not included. Well below the lease's 20 s, so that several tries fit in.
const CALL_LIMIT: Duration = Duration::from_secs(2);
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// The database of one application.
#[derive(Debug)]
pub(crate) struct Database {
    app: String,
    region: String,
    settings: config::Database,
    client: Option<Client>,
}

/// Why the database gave no answer or refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DatabaseError {
    /// The call failed; the text says where and why.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// The keeper's own limit ran out.
    #[error("the database {host} did not answer {call} within {CALL_LIMIT:?}")]
    Silent {
        /// Who was asked.
        host: String,
        /// For what.
        call: &'static str,
    },
    /// A mounted file cannot be read.
    #[error("cannot read {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// Why.
        reason: std::io::Error,
    },
}

impl DatabaseError {
    /// The word used in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Silent { .. } => "database_timeout",
            Self::File { .. } => "database_error",
            Self::Lease(error) => match error.kind {
                LeaseErrorKind::Deadline => "database_timeout",
                LeaseErrorKind::Fenced | LeaseErrorKind::ServerRestarted => "refused",
                _ => "database_error",
            },
        }
    }

    /// True when the connection may be what is wrong, or its state is unknown.
    fn spoils_connection(&self) -> bool {
        match self {
            Self::Silent { .. } => true,
            Self::File { .. } => false,
            Self::Lease(error) => !matches!(error.retry(), Retry::Later | Retry::AfterReading),
        }
    }
}

impl Database {
    /// The database of `app` in `region`; connects at the first call.
    pub(crate) fn new(settings: config::Database, app: &str, region: &str) -> Self {
        Self { app: app.to_owned(), region: region.to_owned(), settings, client: None }
    }

    /// The lease row; `None` where the application has none yet.
    pub(crate) async fn read_lease(&mut self) -> Result<Option<LeaseView>, DatabaseError> {
        let app = self.app.clone();
        let reading = self
            .call("reading the lease", async |client| region_lease::read_lease(client, &app).await)
            .await?;
        Ok(view(&reading))
    }

    /// The database's clock, to be read before permission is asked for.
    pub(crate) async fn clock(&mut self) -> Result<Clock, DatabaseError> {
        self.call("reading the clock", async |client| region_lease::clock(client).await).await
    }

    /// Renews the permitted grant from `clock` on; says what is left as of that clock.
    pub(crate) async fn renew(
        &mut self,
        permission: Permission,
        clock: Clock,
    ) -> Result<Remaining, DatabaseError> {
        let claim = Guard::new(&self.app, &self.region, permission.epoch, permission.grant_id);
        let until = self
            .call("renewing the lease", async |client| region_lease::renew(client, &claim, clock).await)
            .await?;
        Ok(remaining(until, clock))
    }

    async fn call<T>(
        &mut self,
        call: &'static str,
        ask: impl AsyncFnOnce(&Client) -> Result<T, LeaseError>,
    ) -> Result<T, DatabaseError> {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => self.connect().await?,
        };
        let result = match timeout(CALL_LIMIT, ask(&client)).await {
            Ok(result) => result.map_err(DatabaseError::from),
            Err(_) => Err(DatabaseError::Silent { host: self.settings.host.clone(), call }),
        };
        let keep = result.as_ref().err().is_none_or(|error| !error.spoils_connection());
        self.client = keep.then_some(client);
        result
    }

    async fn connect(&self) -> Result<Client, DatabaseError> {
        let settings = &self.settings;
        let mut options = ConnectOptions::new(&settings.host, settings.port, &settings.name, &settings.user);
        options.connect_timeout = CONNECT_LIMIT;
        options.statement_timeout = CALL_LIMIT;
        options.application_name = format!("region-keeper {}", self.app);
        // Read each time, so that rotated files need no restart.
        options.password = Some(read(&settings.password_file).await?.trim_end().to_owned());
        if let Some(ca_file) = &settings.ca_file {
            options.ca_pem = Some(read(ca_file).await?);
        }
        Ok(region_lease::connect(&options).await?)
    }
}

async fn read(path: &std::path::Path) -> Result<String, DatabaseError> {
    let file = |reason| DatabaseError::File { path: path.display().to_string(), reason };
    tokio::fs::read_to_string(path).await.map_err(file)
}

fn view(reading: &Reading) -> Option<LeaseView> {
    let row = reading.row.as_ref()?;
    let other_start = row.server_start != Some(reading.clock.server_start);
    let remaining = match remaining(row.valid_until, reading.clock) {
        Remaining::For(_) if other_start => Remaining::Closed,
        Remaining::Unlimited if row.way_back == WayBack::Asked => Remaining::EndAsked,
        remaining => remaining,
    };
    Some(LeaseView {
        epoch: row.epoch,
        grant_id: row.grant_id,
        holder: row.holder.clone(),
        standby: reading.in_recovery,
        remaining,
    })
}

fn remaining(until: ValidUntil, clock: Clock) -> Remaining {
    match until {
        ValidUntil::NegInfinity => Remaining::Closed,
        ValidUntil::Infinity => Remaining::Unlimited,
        ValidUntil::At(end) => {
            let left = end.duration_since(clock.now);
            Remaining::For(if left.is_negative() { Duration::ZERO } else { left.unsigned_abs() })
        }
    }
}
