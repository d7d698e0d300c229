//! Expiry: ends the wait of trades whose other party has not reported within some days after the trade date, and tells their
//! senders.
//!
//! It decides as the stage does: under the locks of the trades' reports, by the book, with the answers in the same transaction.
//! So a counterpart that comes at the same moment finds the trade either waiting or expired, and nothing in between.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use matching::{Book, Digester, Identity, Known, Reason, Status, last_day};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use services_common::clock;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, admitted};
use services_common::telemetry::chain;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Answer, Changes, Report, Subject, Update, tables, told};
use crate::message::Trade;
use crate::trace;

/// Trades in one transaction at most.
const ROUND_LIMIT: i64 = 200;
/// Pause between two looks: a wait ends at midnight, and then within this time.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Pause between two rounds of one look: the stage takes its turn.
const ROUND_PAUSE: Duration = Duration::from_millis(50);

/// No trade is older.
const FIRST_DAY: Date = Date::constant(1, 1, 1);

/// How many trades have expired since the process began.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expired(Counter);

impl Expired {
    /// Registers the metric.
    pub(crate) fn register(&self, registry: &mut Registry) {
        registry.register(
            "trades_expired",
            "Trades whose wait for the other party was ended",
            self.0.clone(),
        );
    }
}

/// What ends waits.
pub(crate) struct Expiry {
    pub(crate) deps: StageDeps,
    /// Days after the trade date on which a trade still waits.
    pub(crate) after: NonZeroU16,
    /// Tells the relay that there are answers to send.
    pub(crate) answers_written: Arc<Notify>,
    pub(crate) expired: Expired,
}

/// How far a look has come: the trade date and id of the last trade that was looked at.
type Place = (Date, String);

impl Expiry {
    /// Looks until shutdown, while the gate admits core.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut gate = self.deps.gate.watch();
        while let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await {
            if let Err(error) = self.look(&grant, day_of(clock::now()), &shutdown).await {
                self.deps.note(&error, &grant);
                tracing::warn!(error = chain(&error), "waits that are over are not ended yet");
            }
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Ends all waits that were over before `today`. A trade of which the database refuses that keeps no other one waiting.
    async fn look(&self, grant: &Grant, today: Date, shutdown: &CancellationToken) -> Result<(), DbError> {
        let mut after = Some((FIRST_DAY, String::new()));
        let mut limit = ROUND_LIMIT;
        while let Some(from) = after.clone().filter(|_| !shutdown.is_cancelled()) {
            match self.round(grant, today, from, limit).await {
                Ok(next) => {
                    after = next;
                    limit = (limit * 2).min(ROUND_LIMIT);
                }
                // Somewhere among these: one by one from here.
                Err(DbError::Data { .. }) if limit > 1 => limit = 1,
                Err(error) => return Err(error),
            }
            sleep(ROUND_PAUSE).await;
        }
        Ok(())
    }

    /// Looks at the next trades; where to go on, if there may be more.
    async fn round(
        &self,
        grant: &Grant,
        today: Date,
        from: Place,
        limit: i64,
    ) -> Result<Option<Place>, DbError> {
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let (overdue, last) = overdue(&unit, self.after, today, from, limit).await?;
        if overdue.is_empty() {
            return Ok(last);
        }
        match self.end(unit, &overdue, today).await {
            Ok(0) => {}
            Ok(expired) => {
                tracing::info!(trades = expired, "expired: the other party has not reported");
                self.expired.0.inc_by(expired as u64);
                self.answers_written.notify_one();
            }
            Err(error @ DbError::Data { .. }) if limit == 1 => {
                let ids: Vec<Uuid> = overdue.iter().map(|report| report.record).collect();
                tracing::error!(records = ?ids, error = chain(&error), "the database refuses that this trade expires: it waits on");
            }
            Err(error) => return Err(error),
        }
        Ok(last)
    }

    /// Ends the waits of these; of how many.
    async fn end(&self, unit: Guarded<'_>, overdue: &[Report<Trade>], today: Date) -> Result<usize, DbError> {
        let locks: BTreeSet<i32> = overdue.iter().map(|report| report.content.lock()).collect();
        tables::lock(&unit, &locks.into_iter().collect::<Vec<_>>()).await?;
        // As they stand now that nobody else decides them.
        let known = Trade::known(&unit, overdue).await?;
        let changes = expired(known, self.after, today);
        tables::write(&unit, &changes).await?;
        unit.commit().await?;
        Ok(changes.updated.len())
    }
}

const OVERDUE: &str = "select record, received_ms, trade_date, id, trade, traceparent from trading.trades \
     where status = 'UNMATCHED' and trade_date < $1 and (trade_date, id) > ($2, $3) \
     order by trade_date, id limit $4";

/// The day of UTC in which a moment lies.
fn day_of(now: Timestamp) -> Date {
    now.to_zoned(TimeZone::UTC).date()
}

/// The earliest trade date of which trades still wait.
fn first_that_waits(today: Date, days: NonZeroU16) -> Date {
    today.saturating_sub(i64::from(days.get()).days())
}

/// Trades that wait and seem to have waited long enough, and where to go on after a full page.
async fn overdue(
    unit: &Guarded<'_>,
    days: NonZeroU16,
    today: Date,
    (date, id): Place,
    limit: i64,
) -> Result<(Vec<Report<Trade>>, Option<Place>), DbError> {
    let before = first_that_waits(today, days);
    let statement = unit.transaction().prepare_cached(OVERDUE).await?;
    let rows = unit.transaction().query(&statement, &[&before, &date, &id, &limit]).await?;
    let (mut reports, mut last) = (Vec::new(), None);
    for row in &rows {
        last = Some((row.try_get("trade_date")?, row.try_get("id")?));
        let record: Uuid = row.try_get("record")?;
        match serde_json::from_str(row.try_get("trade")?) {
            Ok(content) => {
                let (received_ms, traceparent) = (row.try_get("received_ms")?, trace::read(row)?);
                reports.push(Report { record, received_ms, content, traceparent });
            }
            Err(error) => {
                tracing::error!(%record, %error, "a stored trade is not readable: it does not expire")
            }
        }
    }
    let full = rows.len() as u64 == limit.unsigned_abs();
    Ok((reports, last.filter(|_| full)))
}

/// What the end of waits changes, given trades as they stand.
pub(super) fn expired(known: Vec<(Report<Trade>, Status)>, days: NonZeroU16, today: Date) -> Changes<Trade> {
    let mut digester = Digester::new(Uuid::new_v4().as_u128());
    let mut reports: HashMap<Identity, Report<Trade>> = HashMap::new();
    let mut entries = Vec::new();
    for (report, status) in known {
        // A stored report was validated before: its sender is a party.
        let Ok(side) = report.content.side(&mut digester) else { continue };
        let side = side.waiting_until(last_day(report.content.trade_date, days.get()));
        reports.insert(side.identity(), report);
        entries.push(Known { side, status });
    }
    let mut changes = Changes::default();
    for identity in Book::new(entries).expire(today) {
        let Some(report) = reports.get(&identity) else { continue };
        let (trade_date, id) = report.content.key();
        changes.updated.push(Update { trade_date, id, status: Status::Expired.word(), counterpart: None });
        changes.answers.push(answer(report, last_day(trade_date, days.get())));
    }
    changes.updated.sort();
    changes
}

/// It follows from the end of the last day, or from a report that came after that.
fn answer(report: &Report<Trade>, last_day: Date) -> Answer<Trade> {
    let code = Reason::Expired.codes().concat();
    let description = format!("{code}: the other party had not reported by the end of {last_day}");
    let over = last_day.tomorrow().ok().and_then(|day| TimeZone::UTC.to_timestamp(day.at(0, 0, 0, 0)).ok());
    let over_ms = over.map_or(report.received_ms, |over| over.as_millisecond());
    Answer { caused_ms: over_ms.max(report.received_ms), ..told(report, Status::Expired, description) }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    fn days(days: u16) -> NonZeroU16 {
        NonZeroU16::new(days).unwrap()
    }

    #[test]
    fn a_wait_ends_with_the_midnight_of_utc_after_its_last_day_and_not_a_moment_before() {
        let traded = date(2026, 2, 9);
        let over = |now: &str| traded < first_that_waits(day_of(now.parse().unwrap()), days(2));
        let moments = ["2026-02-11T23:59:59.999Z", "2026-02-12T00:00:00Z"];
        assert_eq!(moments.map(over), [false, true]);
        let elsewhere = ["2026-02-12T08:59:59.999+09:00", "2026-02-11T16:00:00-08:00"];
        assert_eq!(elsewhere.map(over), [false, true], "the same moments, as other clocks write them");
    }

    #[test]
    fn the_trades_that_are_looked_for_are_those_whose_wait_the_book_ends() {
        for traded in [date(2026, 2, 9), date(2028, 2, 28), date(2026, 12, 31)] {
            for waits in [1, 2, 365].map(days) {
                let last = last_day(traded, waits.get());
                let around = [last.yesterday().unwrap(), last, last.tomorrow().unwrap()];
                let looked_for = around.map(|today| traded < first_that_waits(today, waits));
                assert_eq!(looked_for, around.map(|today| last < today), "{traded} for {waits} days");
                assert_eq!(looked_for, [false, false, true], "{traded} for {waits} days");
            }
        }
    }
}
