//! `cargo xtask aws-simulator`: the process that the lab runs in its AWS namespace.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use tracing_subscriber::EnvFilter;

/// What the simulator serves.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Its configuration, JSON.
    #[arg(long)]
    config: PathBuf,
    /// What is logged, in the syntax of `tracing`.
    #[arg(long, default_value = "info,hickory_server=warn")]
    log: String,
}

/// Serves until told to end.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(EnvFilter::new(&arguments.log)).with_ansi(false).init();
    let file = &arguments.config;
    let text = std::fs::read(file).with_context(|| format!("read {}", file.display()))?;
    let config = serde_json::from_slice(&text).with_context(|| format!("understand {}", file.display()))?;
    let runtime = tokio::runtime::Runtime::new().context("start the runtime")?;
    runtime.block_on(async {
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .context("listen for SIGTERM")?;
        aws_simulator::serve(config, async move {
            terminate.recv().await;
        })
        .await
        .context("serve")
    })
}
