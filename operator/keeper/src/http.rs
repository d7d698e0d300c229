//! `/livez`, `/readyz`, `/metrics`.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use region_aws::ArcClient;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::status::{AppStatus, SharedStatus};

/// A turn of a loop is bounded by the deadlines of its calls, below 15 s together. A loop that is
/// silent for longer is stuck, and only then does a restart help.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// A replica that has not read the lease row for this long is no help to anyone.
const UNREAD_AFTER: Duration = Duration::from_secs(10);

/// What the HTTP side can see of one application.
#[derive(Debug, Clone)]
pub(crate) struct AppView {
    /// The loop's status.
    pub(crate) status: SharedStatus,
    /// The client whose endpoints' health is shown.
    pub(crate) arc: ArcClient,
}

/// What all handlers share.
#[derive(Debug, Clone)]
pub(crate) struct Views {
    /// One for each application.
    pub(crate) apps: Vec<AppView>,
    /// The metrics to serve.
    pub(crate) metrics: Metrics,
}

/// The routes.
pub(crate) fn router(views: Views) -> Router {
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(views)
}

/// Fails only when a loop is stuck: neither ARC nor the database can make it fail.
async fn livez(State(views): State<Views>) -> impl IntoResponse {
    report(&views, stuck)
}

async fn readyz(State(views): State<Views>) -> impl IntoResponse {
    report(&views, |status, now| stuck(status, now).or_else(|| unread(status, now)))
}

async fn metrics(State(views): State<Views>) -> impl IntoResponse {
    let now = Instant::now();
    for app in &views.apps {
        views.metrics.refresh(&app.status.snapshot(), &app.arc.health(), now);
    }
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], views.metrics.text())
}

fn report(views: &Views, problem: impl Fn(&AppStatus, Instant) -> Option<String>) -> (StatusCode, String) {
    let now = Instant::now();
    let problems: Vec<String> = views
        .apps
        .iter()
        .filter_map(|app| {
            let status = app.status.snapshot();
            problem(&status, now).map(|problem| format!("{}: {problem}", status.app))
        })
        .collect();
    if problems.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, problems.join("\n") + "\n")
}

fn stuck(status: &AppStatus, now: Instant) -> Option<String> {
    let silent = now.saturating_duration_since(status.turned);
    (silent > STUCK_AFTER).then(|| format!("the loop has not gone round for {silent:?}"))
}

fn unread(status: &AppStatus, now: Instant) -> Option<String> {
    let why = status.problem.as_deref().unwrap_or("no attempt has ended yet");
    let Some(read) = status.row_read else {
        return Some(format!("the lease row was never read: {why}"));
    };
    let age = now.saturating_duration_since(read);
    (age > UNREAD_AFTER).then(|| format!("the lease row was last read {age:?} ago: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stuck_loop_fails_liveness_and_an_unread_row_fails_readiness() {
        let start = Instant::now();
        let shared = SharedStatus::new("a", start);
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(stuck(&shared.snapshot(), at(29)).is_none());
        assert!(stuck(&shared.snapshot(), at(31)).is_some());
        assert!(unread(&shared.snapshot(), start).is_some());
        shared.update(|status| status.row_read = Some(start));
        assert!(unread(&shared.snapshot(), at(9)).is_none());
        assert!(unread(&shared.snapshot(), at(11)).is_some());
    }
}
