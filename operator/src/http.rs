//! /livez, /readyz and /metrics.

use std::future::IntoFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// How long open requests may take to end at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// What the probes tell.
#[derive(Debug, Default)]
pub struct Health {
    caches_synced: AtomicBool,
}

impl Health {
    /// The first listing of every watched kind has arrived: this replica could lead.
    pub fn caches_are_synced(&self) {
        self.caches_synced.store(true, Ordering::Release);
    }

    /// Whether this replica could lead at once.
    pub fn ready(&self) -> bool {
        self.caches_synced.load(Ordering::Acquire)
    }
}

#[derive(Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Serves until `shutdown`, then lets open requests end for a moment.
///
/// # Errors
/// The listener's I/O error.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(show_metrics))
        .with_state(Shared { health, metrics });
    let server =
        axum::serve(listener, app).with_graceful_shutdown(shutdown.clone().cancelled_owned()).into_future();
    tokio::select! {
        ended = server => ended,
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

async fn ready(State(shared): State<Shared>) -> Response {
    if shared.health.ready() {
        "ok".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "the first listing of Deployments or autoscalers has not arrived")
            .into_response()
    }
}

async fn show_metrics(State(shared): State<Shared>) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    match shared.metrics.text() {
        Ok(text) => (kind, text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
