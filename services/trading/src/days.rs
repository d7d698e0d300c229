//! Stores by day: core makes the partitions of the days to come, drops days that are kept no longer, and tells how it stands.
//!
//! What is done is in the database's own functions, which run as the owner and take no more than a number of days; here is
//! when. Each look is one short guarded transaction or a few: what is locked by others is tried again at the next look.

use std::num::NonZeroU16;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use services_common::clock;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, admitted, withdrawn};
use services_common::telemetry::chain;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Milliseconds of a day of UTC.
pub(crate) const DAY_MS: i64 = 86_400_000;
/// Days that are kept at least: the database's functions refuse less.
pub(crate) const KEEP_DAYS_MIN: u16 = 7;
/// Pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a look that failed, such as where a store was locked for too long.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// Transactions of one kind in one look at most. The next look goes on.
const ROUNDS_MAX: usize = 16;

type Number = Gauge<f64, AtomicU64>;

/// How the days stand, as metrics.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    oldest_kept_age_seconds: Number,
    made_ahead_seconds: Number,
    outside_rows: Number,
    overdue_days: Number,
}

impl Standing {
    /// Registers them, unknown until they were read.
    pub(crate) fn register(&self, registry: &mut Registry) {
        self.tell(None);
        registry.register(
            "store_oldest_day_age_seconds",
            "Age of the beginning of the earliest day that the stores keep; NaN where that is not known",
            self.oldest_kept_age_seconds.clone(),
        );
        registry.register(
            "store_days_made_ahead_seconds",
            "How far ahead there are partitions for days to come; NaN where that is not known",
            self.made_ahead_seconds.clone(),
        );
        registry.register(
            "store_rows_outside_days",
            "Rows in no partition of a day, at most 10000 of each store; NaN where that is not known",
            self.outside_rows.clone(),
        );
        registry.register(
            "store_days_overdue",
            "Days that are to be dropped and are kept because something of them is open; NaN where that is not known",
            self.overdue_days.clone(),
        );
    }

    #[expect(clippy::cast_precision_loss, reason = "milliseconds since 1970 are far below 2^52")]
    fn tell(&self, look: Option<Look>) {
        let Some(look) = look else {
            for number in [
                &self.oldest_kept_age_seconds,
                &self.made_ahead_seconds,
                &self.outside_rows,
                &self.overdue_days,
            ] {
                number.set(f64::NAN);
            }
            return;
        };
        self.oldest_kept_age_seconds.set((look.now_ms - look.oldest_ms) as f64 / 1000.0);
        self.made_ahead_seconds.set((look.made_until_ms - look.now_ms) as f64 / 1000.0);
        self.outside_rows.set(look.outside as f64);
        self.overdue_days.set(look.overdue_days() as f64);
    }
}

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    now_ms: i64,
    oldest_ms: i64,
    made_until_ms: i64,
    outside: i64,
    keep: Option<NonZeroU16>,
    /// Whether the earliest day waits for something that is open.
    held_up: bool,
}

impl Look {
    fn overdue_days(self) -> i64 {
        let kept = |keep: NonZeroU16| self.now_ms / DAY_MS - i64::from(keep.get());
        let limit = self.keep.filter(|_| self.held_up).map_or(i64::MIN, kept);
        limit.saturating_sub(self.oldest_ms / DAY_MS).max(0)
    }
}

/// Keeps the days of an application's stores.
pub(crate) struct Days {
    pub(crate) deps: StageDeps,
    /// How many whole days are kept beside today; `None` keeps all.
    pub(crate) keep: Option<NonZeroU16>,
    pub(crate) standing: Standing,
}

impl Days {
    /// Looks until shutdown, while the gate admits core. Where it does not, nothing is known.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut gate = self.deps.gate.watch();
        loop {
            self.standing.tell(None);
            let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await else { return };
            loop {
                let look = self.look(&grant).await;
                if let Err(error) = &look {
                    self.deps.note(error, &grant);
                    tracing::warn!(error = chain(error), "the days of the stores are not looked after yet");
                }
                let pause = if look.is_ok() { LOOK_INTERVAL } else { RETRY_INTERVAL };
                self.standing.tell(look.ok());
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = withdrawn(&mut gate, Needs::Core, &grant) => break,
                    () = sleep(pause) => {}
                }
            }
        }
    }

    async fn look(&self, grant: &Grant) -> Result<Look, DbError> {
        for _ in 0..ROUNDS_MAX {
            if self.make(grant).await? == 0 {
                break;
            }
        }
        let mut held_up = false;
        if let Some(keep) = self.keep {
            held_up = self.drop_old(grant, keep).await?;
            for _ in 0..ROUNDS_MAX {
                if self.delete_late(grant).await? == 0 {
                    break;
                }
            }
        }
        let connection = self.deps.database.connection().await?;
        let row = connection.query_one("select * from trading.days_standing()", &[]).await?;
        Ok(Look {
            now_ms: clock::now().as_millisecond(),
            oldest_ms: row.try_get("oldest_ms")?,
            made_until_ms: row.try_get("made_until_ms")?,
            outside: row.try_get("outside")?,
            keep: self.keep,
            held_up,
        })
    }

    /// Makes the next days; how many.
    async fn make(&self, grant: &Grant) -> Result<i32, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let made = unit.transaction().query_one("select trading.make_days()", &[]).await?.try_get(0)?;
        unit.commit().await?;
        if made > 0 {
            tracing::info!(days = made, "made partitions for days to come");
        }
        Ok(made)
    }

    /// Drops days that are kept no longer; whether something that is open keeps one.
    async fn drop_old(&self, grant: &Grant, keep: NonZeroU16) -> Result<bool, DbError> {
        for _ in 0..ROUNDS_MAX {
            match self.drop_one(grant, keep).await? {
                Dropped::One => {}
                Dropped::None => break,
                Dropped::StillOpen => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Drops the earliest day, if it is kept no longer.
    async fn drop_one(&self, grant: &Grant, keep: NonZeroU16) -> Result<Dropped, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let drop = "select from_ms, still_open from trading.drop_day($1)";
        let row = unit.transaction().query_opt(drop, &[&i32::from(keep.get())]).await?;
        // Also where nothing was dropped: a transaction that is only let go may hold its lock against the next one.
        unit.commit().await?;
        let Some(row) = row else { return Ok(Dropped::None) };
        let (from_ms, still_open): (i64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        if let Some(what) = still_open {
            tracing::warn!(from_ms, what, "a day is kept longer than wished: this is open");
            return Ok(Dropped::StillOpen);
        }
        tracing::info!(from_ms, keep_days = keep, "a day was dropped from all stores");
        Ok(Dropped::One)
    }

    /// Deletes rows that came for days that were dropped before; how many.
    async fn delete_late(&self, grant: &Grant) -> Result<i64, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let deleted =
            unit.transaction().query_one("select trading.delete_late_rows()", &[]).await?.try_get(0)?;
        unit.commit().await?;
        if deleted > 0 {
            tracing::warn!(rows = deleted, "rows that came for days that were dropped were deleted");
        }
        Ok(deleted)
    }
}

/// What became of the earliest day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    /// It was dropped.
    One,
    /// It is not old enough.
    None,
    /// Something of it is open.
    StillOpen,
}

#[cfg(test)]
mod tests {
    use services_common::metrics::Metrics;

    use super::*;

    const LOOK: Look = Look {
        now_ms: 100 * DAY_MS + 1_500,
        oldest_ms: 90 * DAY_MS,
        made_until_ms: 108 * DAY_MS,
        outside: 3,
        keep: NonZeroU16::new(7),
        held_up: true,
    };

    fn text(look: Option<Look>) -> String {
        let standing = Standing::default();
        let metrics = Metrics::with("core", |registry| standing.register(registry));
        if look.is_some() {
            standing.tell(look);
        }
        metrics.text()
    }

    #[test]
    fn what_was_not_read_of_the_days_is_not_zero() {
        let unknown = text(None);
        for name in ["oldest_day_age_seconds", "days_made_ahead_seconds", "rows_outside_days", "days_overdue"]
        {
            let line = format!("services_store_{name}{{stage=\"core\"}} NaN");
            assert!(unknown.contains(&line), "{line} is not in {unknown}");
        }
        let known = text(Some(LOOK));
        assert!(known.contains("services_store_oldest_day_age_seconds{stage=\"core\"} 864001.5"), "{known}");
        assert!(known.contains("services_store_rows_outside_days{stage=\"core\"} 3.0"), "{known}");
    }

    /// The alerts about it are tried over this file.
    #[test]
    fn what_core_tells_of_days_that_are_as_they_should_be_is_the_golden_file() {
        let told = text(Some(Look { outside: 0, held_up: false, ..LOOK }));
        let of_days = told.lines().filter(|line| line.contains("services_store_"));
        let of_days: String = of_days.map(|line| format!("{line}\n")).collect();
        assert_eq!(of_days, include_str!("../tests/golden/days.txt"));
    }

    #[test]
    fn a_day_is_overdue_only_where_days_are_dropped_and_something_is_open() {
        assert_eq!(LOOK.overdue_days(), 3);
        assert_eq!(Look { held_up: false, ..LOOK }.overdue_days(), 0);
        assert_eq!(Look { keep: None, ..LOOK }.overdue_days(), 0);
        assert_eq!(Look { oldest_ms: 95 * DAY_MS, ..LOOK }.overdue_days(), 0);
    }

    /// Seven whole days and today are kept: the day 92 is one too many when the day 100 begins.
    #[test]
    fn a_day_becomes_overdue_at_midnight() {
        let overdue = |now_ms| Look { now_ms, oldest_ms: 92 * DAY_MS, ..LOOK }.overdue_days();
        let around = [100 * DAY_MS - 1, 100 * DAY_MS, 101 * DAY_MS - 1, 101 * DAY_MS];
        assert_eq!(around.map(overdue), [0, 1, 1, 2]);
    }
}
