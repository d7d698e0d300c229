//! The application's own numbers: how long answers take, how much is on its way, and how many reports have which status.

use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use matching::Status;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use serde::Serialize;
use services_common::postgres::{Database, DbError};
use services_common::telemetry::chain;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;

use crate::breakdown::{self, Breakdown};
use crate::core::expiry::Expired;
use crate::days::Standing;
use crate::message::NACK;
use crate::names::Application;
use crate::overview::{self, Look, Overview, Reconciliation};
use crate::reconcile::Job;

/// How often the database is asked for the metrics and for `/status`.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// One question.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    /// As the answers write it.
    status: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabel {
    part: &'static str,
}

type Number = Gauge<f64, AtomicU64>;

/// Metrics of one process.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    answer_seconds: Family<StatusLabel, Histogram, fn() -> Histogram>,
    backlog_records: Family<PartLabel, Number>,
    backlog_oldest_seconds: Family<PartLabel, Number>,
    settlements_unreturned: Number,
    settlements_unreturned_oldest_seconds: Number,
    /// How the days of the stores stand.
    pub(crate) days: Standing,
    /// Trades whose wait was ended.
    pub(crate) expired: Expired,
    breakdown: breakdown::Gauges,
}

/// What is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Backlog {
    /// Stored by inbound, not decided by core.
    undecided: u64,
    /// Decided, and the answer is not in the customers' queue.
    unanswered: u64,
    /// Both.
    total: u64,
    /// Age of the oldest of them; absent when there is none.
    oldest_seconds: Option<f64>,
}

/// The statuses of answers.
fn statuses() -> [&'static str; 6] {
    let [matched, mismatched, settled, cancelled, expired] =
        [Status::Matched, Status::Mismatched, Status::Settled, Status::Cancelled, Status::Expired]
            .map(Status::word);
    [matched, mismatched, settled, cancelled, expired, NACK]
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            answer_seconds: Family::new_with_constructor(|| {
                Histogram::new(exponential_buckets(0.005, 2.0, 16))
            }),
            backlog_records: Family::default(),
            backlog_oldest_seconds: Family::default(),
            settlements_unreturned: Number::default(),
            settlements_unreturned_oldest_seconds: Number::default(),
            days: Standing::default(),
            expired: Expired::default(),
            breakdown: breakdown::Gauges::default(),
        }
    }
}

impl Figures {
    /// The metrics of the last stage: answers.
    pub(crate) fn register_answers(&self, registry: &mut Registry) {
        for status in statuses() {
            let _ = self.answer_seconds.get_or_create(&StatusLabel { status });
        }
        registry.register(
            "answer_seconds",
            "From inbound's taking of the message that an answer follows from to the customers' broker having the answer",
            self.answer_seconds.clone(),
        );
    }

    /// The metrics of core, unknown until they were read.
    pub(crate) fn register_core(&self, application: Application, registry: &mut Registry) {
        self.register_backlog(registry);
        if application == Application::TradeMatching {
            self.register_unreturned(registry);
            self.expired.register(registry);
        }
        self.days.register(registry);
        self.breakdown.register(application, registry);
    }

    /// The backlog of the whole pipeline.
    fn register_backlog(&self, registry: &mut Registry) {
        self.tell_backlog(None);
        registry.register(
            "backlog_records",
            "Records on their way, of the whole pipeline; NaN where that is not known",
            self.backlog_records.clone(),
        );
        registry.register(
            "backlog_oldest_seconds",
            "Age of the oldest of them, 0 when there is none; NaN where that is not known",
            self.backlog_oldest_seconds.clone(),
        );
    }

    /// Settlements that wait for an answer.
    fn register_unreturned(&self, registry: &mut Registry) {
        self.tell_unreturned(None);
        registry.register(
            "settlements_unreturned",
            "Settlements that were made and have not come back; NaN where that is not known",
            self.settlements_unreturned.clone(),
        );
        registry.register(
            "settlements_unreturned_oldest_seconds",
            "Age of the oldest of them, 0 when there is none; NaN where that is not known",
            self.settlements_unreturned_oldest_seconds.clone(),
        );
    }

    /// An answer is in the customers' queue. A clock that was set back counts as no time.
    pub(crate) fn answered(&self, status: &str, caused_ms: i64, now_ms: i64) {
        let status = statuses().into_iter().find(|word| *word == status).unwrap_or(NACK);
        let took = Duration::from_millis(u64::try_from(now_ms.saturating_sub(caused_ms)).unwrap_or_default());
        self.answer_seconds.get_or_create(&StatusLabel { status }).observe(took.as_secs_f64());
    }

    fn tell_backlog(&self, backlog: Option<&[Part]>) {
        for part in PARTS {
            let known = backlog.and_then(|parts| parts.iter().find(|known| known.part == part));
            let (records, oldest) = numbers(known);
            self.backlog_records.get_or_create(&PartLabel { part }).set(records);
            self.backlog_oldest_seconds.get_or_create(&PartLabel { part }).set(oldest);
        }
    }

    fn tell_unreturned(&self, unreturned: Option<&Part>) {
        let (records, oldest) = numbers(unreturned);
        self.settlements_unreturned.set(records);
        self.settlements_unreturned_oldest_seconds.set(oldest);
    }
}

/// How many there are and how old the oldest one is. What is not known is not zero.
fn numbers(known: Option<&Part>) -> (f64, f64) {
    #[expect(clippy::cast_precision_loss, reason = "far fewer than 2^52 records are on their way")]
    let records = known.map_or(f64::NAN, |known| known.records as f64);
    (records, known.map_or(f64::NAN, |known| known.oldest_seconds.unwrap_or(0.0)))
}

const UNDECIDED: &str = "undecided";
const UNANSWERED: &str = "unanswered";
/// Waits for the other application, or came back from it and is not applied: no part of what a drain waits for.
const SETTLEMENTS: &str = "settlements";
const PARTS: [&str; 3] = [UNDECIDED, UNANSWERED, SETTLEMENTS];

/// One row of `trading.backlog`, or the like.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Part {
    #[serde(skip)]
    pub(crate) part: String,
    pub(crate) records: u64,
    /// Age of the oldest one; `None` when there is none.
    pub(crate) oldest_seconds: Option<f64>,
}

/// Reads what core tells about its application.
pub(crate) struct Watch {
    pub(crate) database: Database,
    pub(crate) figures: Figures,
    pub(crate) overview: Overview,
    /// Only trade matching waits for settlements to come back.
    pub(crate) application: Application,
}

impl Watch {
    /// Reads until shutdown. What cannot be read is not known, and not zero.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut ticks = interval(LOOK_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let look = self.look().await;
            self.figures.tell_backlog(look.on_its_way.as_deref());
            self.figures.tell_unreturned(look.unreturned.as_ref());
            self.figures.breakdown.tell(self.application, look.breakdown.as_ref());
            self.overview.tell(look, Instant::now());
        }
    }

    async fn look(&self) -> Look {
        let unreturned = match self.application {
            Application::TradeMatching => self.known(UNRETURNED, &[], parts).await,
            Application::Settlement => None,
        };
        let all = Job::within(self.application, true).into_iter().chain([Job::between(self.application)]);
        let boundaries = Reconciliation::boundaries(&all.collect::<Vec<_>>());
        let runs = |rows: &[Row]| rows.iter().map(Reconciliation::read).collect();
        Look {
            on_its_way: self.known(ALL, &[], parts).await,
            unreturned: unreturned.and_then(|parts| parts.into_iter().next()),
            breakdown: self.known(breakdown::COUNTED, &[], Breakdown::read).await.flatten(),
            reconciliations: self.known(overview::RECONCILIATIONS, &[&boundaries], runs).await,
        }
    }

    async fn known<T>(
        &self,
        query: &'static str,
        values: &[&(dyn ToSql + Sync)],
        of: impl FnOnce(&[Row]) -> Result<T, DbError>,
    ) -> Option<T> {
        let known = read(&self.database, query, values, of).await;
        known.inspect_err(|reason| tracing::debug!(reason, query, "not known")).ok()
    }
}

const ALL: &str = "select part, records, oldest_seconds from trading.backlog";
const ON_ITS_WAY: &str = "select part, records, oldest_seconds from trading.on_its_way";
const UNRETURNED: &str = "select 'unreturned' as part, count(*) as records, \
        extract(epoch from clock_timestamp() - min(since))::double precision as oldest_seconds \
     from trading.unreturned";

async fn read<T>(
    database: &Database,
    query: &'static str,
    values: &[&(dyn ToSql + Sync)],
    of: impl FnOnce(&[Row]) -> Result<T, DbError>,
) -> Result<T, String> {
    let rows = async {
        let connection = database.connection().await?;
        let statement = connection.prepare_cached(query).await?;
        Ok::<_, DbError>(connection.query(&statement, values).await?)
    };
    match timeout(LOOK_DEADLINE, rows).await {
        Ok(rows) => rows.and_then(|rows| of(&rows)).map_err(|error| chain(&error)),
        Err(_) => Err(format!("the database did not answer within {} s", LOOK_DEADLINE.as_secs())),
    }
}

fn parts(rows: &[Row]) -> Result<Vec<Part>, DbError> {
    let part = |row: &Row| -> Result<Part, DbError> {
        let records: i64 = row.try_get("records")?;
        Ok(Part {
            part: row.try_get("part")?,
            records: u64::try_from(records).unwrap_or_default(),
            oldest_seconds: row.try_get("oldest_seconds")?,
        })
    };
    rows.iter().map(part).collect()
}

/// `/backlog`, read anew for each question: an operator's drain check must not see an old number.
pub(crate) fn router(database: Database) -> Router {
    Router::new().route("/backlog", get(backlog)).with_state(database)
}

async fn backlog(State(database): State<Database>) -> Result<Json<Backlog>, (StatusCode, String)> {
    let not_known = |reason| (StatusCode::SERVICE_UNAVAILABLE, format!("not known: {reason}\n"));
    let parts = read(&database, ON_ITS_WAY, &[], parts).await.map_err(not_known)?;
    let of = |part| parts.iter().find(|known| known.part == part).map(|known| known.records);
    let (Some(undecided), Some(unanswered)) = (of(UNDECIDED), of(UNANSWERED)) else {
        return Err(not_known("trading.on_its_way lacks a part".to_owned()));
    };
    let oldest_seconds = parts.iter().filter_map(|part| part.oldest_seconds).reduce(f64::max);
    Ok(Json(Backlog { undecided, unanswered, total: undecided + unanswered, oldest_seconds }))
}

#[cfg(test)]
mod tests {
    use services_common::metrics::Metrics;

    use super::*;

    fn text(register: impl FnOnce(&Figures, &mut Registry), then: impl FnOnce(&Figures)) -> String {
        let figures = Figures::default();
        let metrics = Metrics::with("x", |registry| register(&figures, registry));
        then(&figures);
        metrics.text()
    }

    #[test]
    fn a_backlog_that_was_not_read_is_not_zero() {
        let before = text(Figures::register_backlog, |_| {});
        assert!(before.contains(r#"services_backlog_records{stage="x",part="undecided"} NaN"#), "{before}");
        let part = Part { part: UNANSWERED.to_owned(), records: 3, oldest_seconds: Some(1.5) };
        let known = text(Figures::register_backlog, |figures| figures.tell_backlog(Some(&[part])));
        assert!(known.contains(r#"services_backlog_records{stage="x",part="unanswered"} 3.0"#), "{known}");
        assert!(
            known.contains(r#"services_backlog_oldest_seconds{stage="x",part="unanswered"} 1.5"#),
            "{known}"
        );
        assert!(known.contains(r#"services_backlog_records{stage="x",part="undecided"} NaN"#), "{known}");
    }

    #[test]
    fn settlements_that_have_not_come_back_are_not_zero_before_they_were_counted() {
        let before = text(Figures::register_unreturned, |_| {});
        assert!(before.contains(r#"services_settlements_unreturned{stage="x"} NaN"#), "{before}");
        let part = Part { part: "unreturned".to_owned(), records: 2, oldest_seconds: Some(7.5) };
        let known = text(Figures::register_unreturned, |figures| figures.tell_unreturned(Some(&part)));
        assert!(known.contains(r#"services_settlements_unreturned{stage="x"} 2.0"#), "{known}");
        assert!(
            known.contains(r#"services_settlements_unreturned_oldest_seconds{stage="x"} 7.5"#),
            "{known}"
        );
    }

    #[test]
    fn an_answer_counts_from_the_message_that_it_follows_from() {
        let told = text(Figures::register_answers, |figures| {
            figures.answered("MATCHED", 1_000, 1_250);
            figures.answered("MATCHED", 2_000, 1_000);
        });
        assert!(told.contains(r#"services_answer_seconds_sum{stage="x",status="MATCHED"} 0.25"#), "{told}");
        assert!(told.contains(r#"services_answer_seconds_count{stage="x",status="MATCHED"} 2"#), "{told}");
        assert!(told.contains(r#"services_answer_seconds_count{stage="x",status="NACK"} 0"#), "{told}");
    }
}
