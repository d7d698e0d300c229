//! How many reports there are of each status: of trades in trade matching, of settlements in the settlement application.
//! The transactions that change them keep the counts, so asking costs the same whatever the store holds.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;

use matching::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use serde_json::{Map, Value, json};
use services_common::postgres::DbError;
use tokio_postgres::Row;

use crate::names::Application;

/// No row means that nobody has counted yet what was there before the first count.
pub(crate) const COUNTED: &str = "select status, reports from trading.breakdown";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    /// As the answers write it.
    status: &'static str,
}

/// Reports by status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Breakdown(BTreeMap<&'static str, i64>);

impl Breakdown {
    /// `None` where the counts are not complete.
    ///
    /// # Errors
    /// The rows have not the columns that they should.
    pub(crate) fn read(rows: &[Row]) -> Result<Option<Self>, DbError> {
        let mut counts = BTreeMap::new();
        for row in rows {
            // The tables' checks allow no other words.
            if let Some(status) = Status::from_word(row.try_get("status")?) {
                counts.insert(status.word(), row.try_get("reports")?);
            }
        }
        Ok((!counts.is_empty()).then_some(Self(counts)))
    }

    /// By status, and in total.
    pub(crate) fn json(&self) -> Map<String, Value> {
        let total = json!(self.0.values().sum::<i64>());
        let each = self.0.iter().map(|(status, count)| ((*status).to_owned(), json!(count)));
        std::iter::once(("total".to_owned(), total)).chain(each).collect()
    }
}

/// The same as metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauges(Family<StatusLabel, Gauge<f64, AtomicU64>>);

impl Gauges {
    /// Registers the application's metric, unknown until it is told.
    pub(crate) fn register(&self, application: Application, registry: &mut Registry) {
        let (name, help) = match application {
            Application::TradeMatching => (
                "trades",
                "Reports of trades in the store, one of each party, by status; NaN where not known",
            ),
            Application::Settlement => (
                "settlements",
                "Reports of settlements in the store, one of each party, by status; NaN where not known",
            ),
        };
        for status in statuses(application) {
            self.0.get_or_create(&StatusLabel { status: status.word() }).set(f64::NAN);
        }
        registry.register(name, help, self.0.clone());
    }

    /// Takes over what was counted; what is not known is not zero.
    pub(crate) fn tell(&self, application: Application, breakdown: Option<&Breakdown>) {
        for status in statuses(application).iter().map(|status| status.word()) {
            let count = breakdown.and_then(|breakdown| breakdown.0.get(status));
            #[expect(clippy::cast_precision_loss, reason = "no store has 2^52 records")]
            let count = count.map_or(f64::NAN, |count| *count as f64);
            self.0.get_or_create(&StatusLabel { status }).set(count);
        }
    }
}

/// The statuses that a stored report may have.
fn statuses(application: Application) -> &'static [Status] {
    match application {
        Application::TradeMatching => &[
            Status::Unmatched,
            Status::Matched,
            Status::Mismatched,
            Status::Settled,
            Status::Cancelled,
            Status::Expired,
        ],
        Application::Settlement => &[Status::Unmatched, Status::Mismatched, Status::Settled],
    }
}

#[cfg(test)]
mod tests {
    use services_common::metrics::Metrics;

    use super::*;

    fn text(application: Application, then: impl FnOnce(&Gauges)) -> String {
        let gauges = Gauges::default();
        let metrics = Metrics::with("core", |registry| gauges.register(application, registry));
        then(&gauges);
        metrics.text()
    }

    #[test]
    fn what_was_not_counted_is_not_zero() {
        let before = text(Application::Settlement, |_| {});
        for status in ["UNMATCHED", "MISMATCHED", "SETTLED"] {
            let line = format!(r#"services_settlements{{stage="core",status="{status}"}} NaN"#);
            assert!(before.contains(&line), "{before}");
        }
        let known = Breakdown(BTreeMap::from([("MATCHED", 4), ("UNMATCHED", 1)]));
        let told = text(Application::TradeMatching, |gauges| {
            gauges.tell(Application::TradeMatching, Some(&known));
            assert_eq!(Value::from(known.json()), json!({ "total": 5, "MATCHED": 4, "UNMATCHED": 1 }));
        });
        assert!(told.contains(r#"services_trades{stage="core",status="MATCHED"} 4.0"#), "{told}");
        assert!(told.contains(r#"services_trades{stage="core",status="SETTLED"} NaN"#), "{told}");
        let lost = text(Application::TradeMatching, |gauges| {
            gauges.tell(Application::TradeMatching, Some(&known));
            gauges.tell(Application::TradeMatching, None);
        });
        assert!(lost.contains(r#"services_trades{stage="core",status="MATCHED"} NaN"#), "{lost}");
    }
}
