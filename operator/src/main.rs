//! `region-operator`: arguments, logs, the TLS provider, and the run until a signal.

use std::process::ExitCode;

use clap::Parser;
use region_operator::args::Args;
use region_operator::error::chain;
use region_operator::{RunError, run, telemetry};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let args = Args::parse();
    if let Err(error) = telemetry::start(&args.log) {
        eprintln!("{}", chain(&error));
        return ExitCode::from(2);
    }
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        tracing::warn!("a TLS provider was installed before");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the runtime could not be started");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(until_signal(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&error), "ended");
            ExitCode::FAILURE
        }
    }
}

async fn until_signal(args: Args) -> Result<(), RunError> {
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        // The first signal lets passes end; the second ends the process.
        if wait_for_signal().await.is_ok() {
            tracing::info!("shutting down");
            stop.cancel();
        }
        if wait_for_signal().await.is_ok() {
            std::process::exit(130);
        }
    });
    run(args, shutdown).await
}

async fn wait_for_signal() -> std::io::Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(())
}
