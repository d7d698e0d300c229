//! `region-keeper`: renews the leases of the applications that write in this region.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use region_keeper::{Config, KeeperError};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Renews the database leases of this region's applications as long as ARC permits.
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The configuration file (YAML or JSON).
    #[arg(long, env = "CONFIG")]
    config: PathBuf,
    /// What to log: a level, or directives such as `region_keeper=debug,info`.
    #[arg(long, env = "LOG", default_value = "info")]
    log: EnvFilter,
}

#[tokio::main]
async fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt().json().with_env_filter(options.log.clone()).init();
    match keep(&options).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = region_keeper::with_causes(&error), "ended");
            ExitCode::FAILURE
        }
    }
}

async fn keep(options: &Options) -> Result<(), KeeperError> {
    let config = Config::read(&options.config)?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        asked_to_end().await;
        stop.cancel();
    });
    region_keeper::run(config, shutdown).await
}

/// Returns at the first SIGTERM or SIGINT.
async fn asked_to_end() {
    let (Ok(mut terminate), Ok(mut interrupt)) =
        (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        // Without handlers the signals end the process themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
