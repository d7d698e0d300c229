//! What core says of its application in `/status`: what is on its way, how many reports have which status, and how each
//! boundary was last reconciled. Looked at every few seconds, not for each question; what could not be read is `null`.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::Serialize;
use serde_json::{Map, Value, json};
use services_common::postgres::DbError;
use tokio_postgres::Row;

use crate::breakdown::Breakdown;
use crate::figures::Part;
use crate::reconcile::Job;

/// One look. A part that could not be read is not known, and not zero.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// Of the whole pipeline.
    pub(crate) on_its_way: Option<Vec<Part>>,
    /// Of trade matching: settlements that have not come back.
    pub(crate) unreturned: Option<Part>,
    /// Reports by status.
    pub(crate) breakdown: Option<Breakdown>,
    /// The latest run at each boundary that had one, the latest of all first.
    pub(crate) reconciliations: Option<Vec<Reconciliation>>,
}

/// The audit row of the latest run with a replay at one boundary.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Reconciliation {
    boundary: String,
    /// `clean`, `repaired`, `differences`, or `running`.
    outcome: String,
    /// Since its begin.
    seconds_ago: f64,
    by: String,
    region: String,
    epoch: i64,
    /// Found at its begin.
    missing: i64,
    ahead: i64,
    differs: i64,
    /// Records sent again.
    replayed: i64,
    /// Missing at its end; `None` while it runs, or after it broke off.
    remaining: Option<i64>,
}

/// One look into the index for each boundary, so that it does not matter how many runs there were.
pub(crate) const RECONCILIATIONS: &str = "select latest.job, latest.outcome, latest.performed_by, latest.region, latest.epoch, latest.missing, latest.ahead, \
        latest.differs, latest.replayed, latest.remaining, \
        extract(epoch from clock_timestamp() - started)::double precision as seconds_ago \
     from unnest($1::text[]) as boundary (job) \
     cross join lateral (select * from trading.reconciliations as one where one.job = boundary.job \
        order by started desc limit 1) as latest \
     order by started desc";

impl Reconciliation {
    /// The boundaries that are asked for.
    pub(crate) fn boundaries(jobs: &[Job]) -> Vec<&'static str> {
        jobs.iter().map(|job| job.word()).collect()
    }

    /// # Errors
    /// The row has not the columns that it should.
    pub(crate) fn read(row: &Row) -> Result<Self, DbError> {
        Ok(Self {
            boundary: row.try_get("job")?,
            outcome: row.try_get("outcome")?,
            seconds_ago: row.try_get("seconds_ago")?,
            by: row.try_get("performed_by")?,
            region: row.try_get("region")?,
            epoch: row.try_get("epoch")?,
            missing: row.try_get("missing")?,
            ahead: row.try_get("ahead")?,
            differs: row.try_get("differs")?,
            replayed: row.try_get("replayed")?,
            remaining: row.try_get("remaining")?,
        })
    }
}

/// The latest look of this process.
#[derive(Clone, Default)]
pub(crate) struct Overview(Arc<Mutex<Option<(Instant, Look)>>>);

impl Overview {
    /// Takes over a look.
    pub(crate) fn tell(&self, look: Look, now: Instant) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, look));
    }

    /// For `/status`. The ages are those of the look.
    pub(crate) fn json(&self, now: Instant) -> Map<String, Value> {
        let latest = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let at = latest.as_ref().map(|(at, _)| now.saturating_duration_since(*at).as_secs_f64());
        let look = latest.map(|(_, look)| look).unwrap_or_default();
        let on_its_way = look.on_its_way.map(|parts| {
            let all = parts.iter().chain(&look.unreturned);
            all.map(|part| (part.part.clone(), json!(part))).collect::<Map<_, _>>()
        });
        let mut told = Map::new();
        told.insert("looked_seconds_ago".to_owned(), json!(at));
        told.insert("on_its_way".to_owned(), json!(on_its_way));
        told.insert("breakdown".to_owned(), json!(look.breakdown.map(|breakdown| breakdown.json())));
        told.insert("reconciliations".to_owned(), json!(look.reconciliations));
        told
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_was_never_looked_at_is_null_and_neither_zero_nor_absent() {
        let told = Overview::default().json(Instant::now());
        let names = ["looked_seconds_ago", "on_its_way", "breakdown", "reconciliations"];
        assert_eq!(names.map(|name| told.get(name)), [Some(&Value::Null); 4]);
    }

    #[test]
    fn a_look_has_its_age_and_a_part_that_could_not_be_read_stays_unknown() {
        let (overview, now) = (Overview::default(), Instant::now());
        let part = |name: &str, records| Part { part: name.to_owned(), records, oldest_seconds: None };
        let look = Look {
            on_its_way: Some(vec![part("undecided", 3)]),
            unreturned: Some(part("unreturned", 2)),
            ..Look::default()
        };
        overview.tell(look, now);
        let told = overview.json(now + Duration::from_millis(1_500));
        assert_eq!(told["looked_seconds_ago"], 1.5);
        assert_eq!(told["on_its_way"]["undecided"], json!({ "records": 3, "oldest_seconds": null }));
        assert_eq!(told["on_its_way"]["unreturned"]["records"], 2);
        assert_eq!((&told["breakdown"], &told["reconciliations"]), (&Value::Null, &Value::Null));
    }
}
