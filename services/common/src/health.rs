//! What a process tells about itself over HTTP: `/livez`, `/readyz`, `/metrics`, `/status`.
//!
//! A process behind a closed gate is ready: it is warm and would work at once. Whether it works is a fact of its
//! own, in `/status` and in the gate's metric.

use std::future::IntoFuture;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::amqp::Broker;
use crate::gate::Gate;
use crate::metrics::{Counts, Metrics};
use crate::postgres::Grant;

/// What `/status` answers.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Stage of this process.
    pub stage: &'static str,
    /// Application.
    pub app: String,
    /// Configured region.
    pub region: String,
    /// closed, core, open or draining.
    pub gate: &'static str,
    /// Why the gate is closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Epoch under which the process works.
    pub epoch: Option<u64>,
    /// Random id of the grant.
    pub grant: Option<uuid::Uuid>,
    /// Whether the connection to the broker is up. It is made when it is first needed.
    pub broker_connected: bool,
    /// Seconds since this process started; what is counted began at zero then.
    pub uptime_seconds: f64,
    /// What it has done since.
    #[serde(flatten)]
    pub counts: Counts,
    /// What the application adds.
    #[serde(flatten)]
    pub own: Map<String, Value>,
}

/// Says what an application adds to `/status`. It is asked for each answer, so it must not wait for anything.
pub type Own = Arc<dyn Fn() -> Map<String, Value> + Send + Sync>;

/// What the health endpoints read.
#[derive(Clone)]
pub struct Health {
    /// Stage of this process.
    pub stage: &'static str,
    /// Application.
    pub app: String,
    /// Configured region.
    pub region: String,
    /// The gate.
    pub gate: watch::Receiver<Gate>,
    /// The broker connection.
    pub broker: Arc<Broker>,
    /// Counters.
    pub metrics: Metrics,
    /// When the process started.
    pub started: Instant,
    /// What the application adds to `/status`.
    pub own: Option<Own>,
}

/// The four endpoints; a stage merges its own into it.
pub fn router(health: Health) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(health)
}

async fn ready(State(health): State<Health>) -> (StatusCode, &'static str) {
    match *health.gate.borrow() {
        Gate::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        Gate::Closed { .. } | Gate::Core(_) | Gate::Open(_) => (StatusCode::OK, "ok\n"),
    }
}

async fn metrics(State(health): State<Health>) -> String {
    {
        let gate = health.gate.borrow();
        health.metrics.gate.set(gate.number());
        let epoch = gate.grant().map_or(0, Grant::epoch);
        health.metrics.epoch.set(i64::try_from(epoch).unwrap_or(i64::MAX));
    }
    health.metrics.text()
}

async fn status(State(health): State<Health>) -> Json<Status> {
    let gate = health.gate.borrow().clone();
    let reason = match &gate {
        Gate::Closed { reason } => Some(reason.clone()),
        Gate::Core(_) | Gate::Open(_) | Gate::Draining => None,
    };
    Json(Status {
        stage: health.stage,
        app: health.app,
        region: health.region,
        gate: gate.word(),
        reason,
        epoch: gate.grant().map(|grant| grant.epoch()),
        grant: gate.grant().map(|grant| grant.grant_id),
        broker_connected: health.broker.connected(),
        uptime_seconds: health.started.elapsed().as_secs_f64(),
        counts: health.metrics.counts(),
        own: health.own.map(|own| own()).unwrap_or_default(),
    })
}

/// Serves until shutdown; requests that are under way then have two seconds to finish.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let stop = shutdown.clone();
    let serving = axum::serve(listener, router).with_graceful_shutdown(async move { stop.cancelled().await });
    tokio::select! {
        result = serving.into_future() => result,
        () = async { shutdown.cancelled().await; tokio::time::sleep(std::time::Duration::from_secs(2)).await } => Ok(()),
    }
}
