//! Serves a simulated AWS account from a configuration file until SIGINT or SIGTERM.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};

/// Simulator of ARC routing control, RDS global clusters and Route 53.
#[derive(Parser)]
#[command(version)]
struct Options {
    /// Configuration, JSON; see `aws_simulator::Config`.
    #[arg(long)]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into());
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(&Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            tracing::error!("{why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: &Options) -> Result<(), String> {
    let path = options.config.display();
    let text = std::fs::read(&options.config).map_err(|error| format!("{path}: {error}"))?;
    let config = serde_json::from_slice(&text).map_err(|error| format!("{path}: {error}"))?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let shutdown = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    aws_simulator::serve(config, shutdown).await.map_err(|error| error.to_string())
}
