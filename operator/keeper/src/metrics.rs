//! Prometheus metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use region_aws::EndpointHealth;
use tokio::time::Instant;

use crate::status::AppStatus;

/// Outcomes of a renewal that appear from the start, so that a rate exists before the first one.
const OUTCOMES: [&str; 8] = [
    "opened",
    "renewed",
    "not_holder",
    "stale_answers",
    "too_few_on",
    "refused",
    "database_timeout",
    "database_error",
];

type Number = Gauge<f64, AtomicU64>;

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AppLabel {
    app: String,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RenewalLabel {
    app: String,
    outcome: &'static str,
}

#[derive(Debug, Clone, Hash, PartialEq, Eq, EncodeLabelSet)]
struct EndpointLabel {
    app: String,
    endpoint: String,
}

/// All metrics of the keeper. Cheap to clone; clones share their numbers.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    holder: Family<AppLabel, Gauge>,
    remaining: Family<AppLabel, Number>,
    renewal_age: Family<AppLabel, Number>,
    missed: Family<AppLabel, Gauge>,
    renewals: Family<RenewalLabel, Counter>,
    endpoint_latency: Family<EndpointLabel, Number>,
    endpoint_age: Family<EndpointLabel, Number>,
    endpoint_successes: Family<EndpointLabel, Counter>,
    endpoint_failures: Family<EndpointLabel, Counter>,
}

impl Metrics {
    /// Metrics for the given applications.
    pub(crate) fn new<'a>(apps: impl IntoIterator<Item = &'a str>) -> Self {
        let mut metrics = Self {
            registry: Arc::default(),
            holder: Family::default(),
            remaining: Family::default(),
            renewal_age: Family::default(),
            missed: Family::default(),
            renewals: Family::default(),
            endpoint_latency: Family::default(),
            endpoint_age: Family::default(),
            endpoint_successes: Family::default(),
            endpoint_failures: Family::default(),
        };
        metrics.registry = Arc::new(metrics.register());
        for app in apps {
            for outcome in OUTCOMES {
                let app = app.to_owned();
                drop(metrics.renewals.get_or_create(&RenewalLabel { app, outcome }));
            }
        }
        metrics
    }

    fn register(&self) -> Registry {
        let mut all = Registry::with_prefix("region_keeper");
        all.register("holder", "1 when this region holds the lease, 0 when not", self.holder.clone());
        all.register(
            "lease_remaining_seconds",
            "What is left of this region's lease; absent when it is not the holder",
            self.remaining.clone(),
        );
        all.register(
            "last_renewal_age_seconds",
            "Since this replica last renewed; absent before the first time",
            self.renewal_age.clone(),
        );
        all.register(
            "missed_renewals",
            "Renewals missed in a row while holding; alarm on the first",
            self.missed.clone(),
        );
        all.register("renewals", "Renewals by outcome", self.renewals.clone());
        all.register(
            "endpoint_latency_seconds",
            "Duration of the last successful call to an ARC endpoint",
            self.endpoint_latency.clone(),
        );
        all.register(
            "endpoint_last_success_age_seconds",
            "Since an ARC endpoint last answered; absent before the first time",
            self.endpoint_age.clone(),
        );
        all.register(
            "endpoint_calls_succeeded",
            "Calls to an ARC endpoint that were answered",
            self.endpoint_successes.clone(),
        );
        all.register(
            "endpoint_calls_failed",
            "Calls to an ARC endpoint that failed",
            self.endpoint_failures.clone(),
        );
        all
    }

    /// Counts one renewal or one miss.
    pub(crate) fn renewal(&self, app: &str, outcome: &'static str) {
        let app = app.to_owned();
        self.renewals.get_or_create(&RenewalLabel { app, outcome }).inc();
    }

    /// Brings everything but the count of renewals up to `now` for one application.
    pub(crate) fn refresh(&self, status: &AppStatus, endpoints: &[EndpointHealth], now: Instant) {
        let app = AppLabel { app: status.app.clone() };
        if let Some(holder) = status.holder {
            self.holder.get_or_create(&app).set(i64::from(holder));
        }
        self.missed.get_or_create(&app).set(i64::from(status.missed));
        match status.left(now) {
            Some(left) => {
                self.remaining.get_or_create(&app).set(left.as_secs_f64());
            }
            // No number is better than an old or invented one.
            None => {
                self.remaining.remove(&app);
            }
        }
        if let Some(renewed) = status.renewed {
            let age = now.saturating_duration_since(renewed);
            self.renewal_age.get_or_create(&app).set(age.as_secs_f64());
        }
        for endpoint in endpoints {
            self.refresh_endpoint(&status.app, endpoint, now);
        }
    }

    fn refresh_endpoint(&self, app: &str, health: &EndpointHealth, now: Instant) {
        let label = EndpointLabel { app: app.to_owned(), endpoint: health.region.clone() };
        // The client counts; these only show its totals.
        self.endpoint_successes.get_or_create(&label).inner().store(health.successes, Ordering::Relaxed);
        self.endpoint_failures.get_or_create(&label).inner().store(health.failures, Ordering::Relaxed);
        if let Some(latency) = health.latency {
            let gauge = self.endpoint_latency.get_or_create(&label);
            gauge.set(latency.as_secs_f64());
        }
        if let Some(success) = health.last_success {
            let age = now.saturating_duration_since(success);
            let gauge = self.endpoint_age.get_or_create(&label);
            gauge.set(age.as_secs_f64());
        }
    }

    /// The text that Prometheus scrapes.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if let Err(error) = encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics could not be written");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::decide::Remaining;
    use crate::status::SharedStatus;

    /// Also what the tests of the alerts take for a healthy keeper (`e2e/tests/alerts.rs`).
    const HOLDING: &str = include_str!("../tests/golden/holding.txt");

    #[test]
    fn a_keeper_that_holds_shows_what_alerts_are_made_from() {
        let now = Instant::now();
        let status = SharedStatus::new("trade-matching", now);
        status.update(|status| {
            status.holder = Some(true);
            status.remaining = Some((Remaining::For(Duration::from_secs(19)), now));
            status.renewed = Some(now);
        });
        let endpoint = EndpointHealth {
            region: "us-east-1".to_owned(),
            latency: Some(Duration::from_millis(250)),
            last_success: Some(now),
            last_error: None,
            successes: 7,
            failures: 1,
        };
        let metrics = Metrics::new(["trade-matching"]);
        metrics.renewal("trade-matching", "renewed");
        metrics.refresh(&status.snapshot(), &[endpoint], now);
        let text = metrics.text();
        // Series of one name come in no order.
        let lines = |text: &str| text.lines().map(str::to_owned).collect::<BTreeSet<_>>();
        assert_eq!(lines(&text), lines(HOLDING), "{text}");
    }
}
