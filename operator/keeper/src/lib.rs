//! The keeper renews the leases of this region's applications, so that they may write.
//!
//! It is small on purpose: no leader (any number of replicas is harmless), no Kubernetes API, all
//! configuration from one mounted file. A lease is renewed only on the word of three of five ARC
//! endpoints, asked after the database's clock was read; without them it runs out and writing
//! stops by itself.

pub mod config;
mod database;
mod decide;
mod http;
mod metrics;
mod renewer;
mod status;

use std::time::Duration;

use region_aws::{AccessError, ArcClient, ArcConfigError, AwsAccess, CallTimeouts, CredentialSource};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

pub use config::{Config, ConfigError};

use crate::database::Database;
use crate::http::{AppView, Views, router};
use crate::metrics::Metrics;
use crate::renewer::Renewer;
use crate::status::SharedStatus;

/// Scrapes in flight get this long when the keeper ends.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why the keeper could not start, or ended unasked.
#[derive(Debug, thiserror::Error)]
pub enum KeeperError {
    /// The file is missing or wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A file named by the configuration cannot be read.
    #[error("cannot read {path}, which the configuration names")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// AWS cannot be reached with this configuration.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The endpoints of an application make no sense.
    #[error("application {app}: {source}")]
    Arc {
        /// The application.
        app: String,
        /// What is wrong.
        source: ArcConfigError,
    },
    /// Health and metrics have no address.
    #[error("cannot listen on {address}; is another process using it?")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A loop ended by a panic; the process must be started anew.
    #[error("a part of the keeper ended unasked")]
    Ended,
}

/// Renews until `shutdown`, and serves health and metrics beside it.
///
/// # Errors
/// [`KeeperError`] at the start, for mistakes in the configuration; later only if a loop panics.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), KeeperError> {
    let access = access(&config).await?;
    let metrics = Metrics::new(config.apps.iter().map(|app| app.app.as_str()));
    let address = config.listen;
    let listener =
        TcpListener::bind(address).await.map_err(|source| KeeperError::Listen { address, source })?;
    let mut apps = Vec::new();
    let mut parts = JoinSet::new();
    // Also ends the parts that still run when this function returns early.
    let stop = shutdown.child_token();
    let _stop_parts = stop.clone().drop_guard();
    for app in &config.apps {
        let arc = ArcClient::new(&app.arc.endpoints, &access)
            .map_err(|source| KeeperError::Arc { app: app.app.clone(), source })?;
        let status = SharedStatus::new(&app.app, Instant::now());
        let renewer = Renewer::new(
            (&app.app, &app.region, &app.arc.control),
            app.period(),
            arc.clone(),
            Database::new(app.database.clone(), &app.app, &app.region),
            status.clone(),
            metrics.clone(),
        );
        parts.spawn(renewer.run(stop.clone()));
        apps.push(AppView { status, arc });
    }
    let serving = axum::serve(listener, router(Views { apps, metrics }));
    let serving = serving.with_graceful_shutdown(stop.clone().cancelled_owned());
    parts.spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "health and metrics ended");
        }
    });
    tracing::info!(%address, apps = config.apps.len(), "keeper started");
    tokio::select! {
        // In this order: shutdown also ends the parts, and that is not a fault.
        biased;
        () = shutdown.cancelled() => {}
        // Nothing ends before shutdown unless it is broken.
        _ = parts.join_next() => return Err(KeeperError::Ended),
    }
    let ended = timeout(FAREWELL, async { while parts.join_next().await.is_some() {} }).await;
    tracing::info!(cleanly = ended.is_ok(), "keeper ended");
    Ok(())
}

async fn access(config: &Config) -> Result<AwsAccess, KeeperError> {
    let source = match &config.aws.credentials_folder {
        Some(folder) => CredentialSource::Folder(folder.clone()),
        None => CredentialSource::Chain,
    };
    let ca = match &config.aws.ca_file {
        None => None,
        Some(path) => {
            let text = tokio::fs::read(path).await;
            Some(text.map_err(|source| KeeperError::File { path: path.clone(), source })?)
        }
    };
    Ok(AwsAccess::new(source, ca.as_deref(), CallTimeouts::default()).await?)
}

/// The error and its causes in one line, each once.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
