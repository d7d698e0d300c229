//! Continuous mode: the comparison again and again, with what it finds as metrics. What is not known is NaN.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use services_common::health;
use services_common::telemetry::chain;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::finding::Comparison;
use super::{Job, ReconcileError, Report};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    boundary: &'static str,
    kind: &'static str,
}

type Number = Gauge<f64, AtomicU64>;

/// Kinds of findings.
const KINDS: [&str; 3] = ["missing", "ahead", "differs"];

/// What the latest round told, as metrics.
#[derive(Clone)]
pub struct Watched {
    jobs: Vec<Job>,
    registry: Arc<Registry>,
    findings: Family<Labels, Number>,
    age: Number,
    active: Number,
    /// When the latest round ended that could compare every boundary, or else the first one that was to compare any.
    complete: Arc<Mutex<Option<Instant>>>,
}

impl Watched {
    /// Nothing is known before the first round.
    pub fn new(app: &str, region: &str, jobs: Vec<Job>) -> Self {
        let labels =
            [("app".into(), app.to_owned().into()), ("region".into(), region.to_owned().into())].into_iter();
        let mut registry = Registry::with_prefix_and_labels("services_reconcile", labels);
        let (findings, age, active) =
            (Family::<Labels, Number>::default(), Number::default(), Number::default());
        registry.register(
            "findings",
            "Records that the latest round found, by boundary and kind; NaN where it could not be told",
            findings.clone(),
        );
        registry.register(
            "last_complete_age_seconds",
            "Since the latest round that could compare every boundary, or else since the first round here; NaN on standby",
            age.clone(),
        );
        registry.register(
            "active",
            "1 where this region's stores are compared, 0 on standby; NaN where that is not known",
            active.clone(),
        );
        let watched =
            Self { jobs, registry: Arc::new(registry), findings, age, active, complete: Arc::default() };
        watched.unknown(f64::NAN);
        watched
    }

    fn unknown(&self, active: f64) {
        for job in &self.jobs {
            for kind in KINDS {
                self.findings.get_or_create(&Labels { boundary: job.word(), kind }).set(f64::NAN);
            }
        }
        self.active.set(active);
    }

    /// Takes over what a round told.
    pub fn tell(&self, round: &Result<Report, ReconcileError>, now: Instant) {
        let mut complete = self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        match round {
            Ok(report) => {
                self.unknown(if report.boundaries.is_empty() { f64::NAN } else { 1.0 });
                for one in &report.boundaries {
                    let Comparison { job, ahead, differs, .. } = &one.comparison;
                    for (kind, count) in KINDS.into_iter().zip([one.missing(), ahead.count, differs.count]) {
                        #[expect(clippy::cast_precision_loss, reason = "no store has 2^52 records")]
                        let count = count as f64;
                        self.findings.get_or_create(&Labels { boundary: job.word(), kind }).set(count);
                    }
                }
                if report.untold.is_empty() || complete.is_none() {
                    *complete = Some(now);
                }
            }
            // Nothing is to be compared here.
            Err(ReconcileError::Standby | ReconcileError::Elsewhere { .. }) => {
                self.unknown(0.0);
                *complete = None;
            }
            Err(_) => {
                self.unknown(f64::NAN);
                complete.get_or_insert(now);
            }
        }
    }

    /// In the text format of OpenMetrics, with the ages of this moment.
    pub fn text(&self, now: Instant) -> String {
        let complete = *self.complete.lock().unwrap_or_else(PoisonError::into_inner);
        let age = complete.map_or(f64::NAN, |at| now.saturating_duration_since(at).as_secs_f64());
        self.age.set(age);
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(error) => format!("# metrics could not be written: {error}\n"),
        }
    }
}

/// Round after round, `every` after the end of the one before, until shutdown.
pub(super) async fn rounds(
    watched: Watched,
    every: Duration,
    mut round: impl AsyncFnMut() -> Result<Report, ReconcileError>,
    shutdown: CancellationToken,
) {
    loop {
        let outcome = tokio::select! {
            () = shutdown.cancelled() => return,
            outcome = round() => outcome,
        };
        match &outcome {
            Ok(report) if report.agrees => tracing::info!("the stores agree"),
            Ok(report) => tracing::warn!(%report, "docs/reconciliation.md"),
            Err(error @ (ReconcileError::Standby | ReconcileError::Elsewhere { .. })) => {
                tracing::info!(reason = chain(error), "nothing compared");
            }
            Err(error) => tracing::warn!(error = chain(error), "not known whether the stores agree"),
        }
        watched.tell(&outcome, Instant::now());
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(every) => {}
        }
    }
}

/// Serves `/livez`, `/readyz` and `/metrics` until shutdown.
pub(super) async fn serve(
    watched: Watched,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let metrics = |State(watched): State<Watched>| async move { watched.text(Instant::now()) };
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(|| async { "ok\n" }))
        .route("/metrics", get(metrics))
        .with_state(watched);
    health::serve(listener, router, shutdown).await
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::reconcile::{Boundary, Outcome, Replayed, Untold};

    fn watched() -> (Watched, Instant) {
        (Watched::new("trade-matching", "us-east-1", Job::TRADES.to_vec()), Instant::now())
    }

    fn report(untold: bool) -> Report {
        let mut comparison = Comparison::new(Job::CoreEgress);
        comparison.missing(Uuid::nil(), || "gone".to_owned());
        let untold = untold.then(|| Untold { job: Job::EgressOutbound, reason: "away".to_owned() });
        Report {
            app: "trade-matching".into(),
            region: "us-east-1".into(),
            agrees: false,
            boundaries: vec![Boundary { comparison, replay: None }],
            untold: untold.into_iter().collect(),
        }
    }

    fn value<'a>(text: &'a str, begin: &str) -> &'a str {
        let labels = "app=\"trade-matching\",region=\"us-east-1\"";
        let begin = begin.replace("LABELS", labels);
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("services_reconcile_{begin} ")));
        line.unwrap_or_else(|| panic!("no {begin} in {text}"))
    }

    const MISSING: &str = "findings{LABELS,boundary=\"CoreEgress\",kind=\"missing\"}";
    const SENT: &str = "findings{LABELS,boundary=\"EgressOutbound\",kind=\"missing\"}";
    const AGE: &str = "last_complete_age_seconds{LABELS}";
    const ACTIVE: &str = "active{LABELS}";

    #[test]
    fn nothing_is_known_before_the_first_round_and_after_one_that_failed() {
        let (watched, now) = watched();
        let unknown = |text: &str| [MISSING, AGE, ACTIVE].map(|name| value(text, name).to_owned());
        assert_eq!(unknown(&watched.text(now)), ["NaN"; 3]);
        watched.tell(&Ok(report(false)), now);
        let later = now + Duration::from_secs(90);
        let failed = ReconcileError::NotPrimary { app: "settlement".into(), reason: "away".into() };
        watched.tell(&Err(failed), later);
        let text = watched.text(later);
        assert_eq!((value(&text, MISSING), value(&text, ACTIVE), value(&text, AGE)), ("NaN", "NaN", "90.0"));
    }

    #[test]
    fn an_incomplete_round_tells_what_it_knows_and_does_not_count_as_complete() {
        let (watched, now) = watched();
        watched.tell(&Ok(report(true)), now);
        let text = watched.text(now);
        assert_eq!((value(&text, MISSING), value(&text, SENT)), ("1.0", "NaN"));
        let later = now + Duration::from_secs(300);
        watched.tell(&Ok(report(true)), later);
        let age = value(&watched.text(later), AGE).to_owned();
        assert_eq!(age, "300.0", "as old as the watch, where no round was ever complete");
        watched.tell(&Ok(report(false)), later);
        let text = watched.text(later + Duration::from_secs(5));
        assert_eq!((value(&text, AGE), value(&text, ACTIVE)), ("5.0", "1.0"));
    }

    #[test]
    fn what_was_sent_again_and_has_not_arrived_is_missing() {
        let (watched, now) = watched();
        let mut report = report(false);
        report.boundaries[0].replay =
            Some(Replayed { found: 50, replayed: 50, left: 50, outcome: Outcome::Differences });
        watched.tell(&Ok(report), now);
        assert_eq!(value(&watched.text(now), MISSING), "50.0");
    }

    #[test]
    fn where_no_boundary_could_be_told_it_is_not_known_whether_this_region_is_active() {
        let (watched, now) = watched();
        let reason = "no lease".to_owned();
        watched.tell(&Err(ReconcileError::Closed { reason }), now);
        assert_eq!(value(&watched.text(now), ACTIVE), "NaN");
        watched.tell(&Ok(Report { boundaries: Vec::new(), ..report(true) }), now);
        assert_eq!(value(&watched.text(now), ACTIVE), "NaN");
        watched.tell(&Err(ReconcileError::Elsewhere { holder: "us-west-2".into() }), now);
        assert_eq!(value(&watched.text(now), ACTIVE), "0.0");
    }

    #[test]
    fn a_standby_compares_nothing_and_has_nothing_that_could_be_late() {
        let (watched, now) = watched();
        watched.tell(&Ok(report(false)), now);
        watched.tell(&Err(ReconcileError::Standby), now);
        let text = watched.text(now);
        assert_eq!((value(&text, MISSING), value(&text, ACTIVE), value(&text, AGE)), ("NaN", "0.0", "NaN"));
    }
}
