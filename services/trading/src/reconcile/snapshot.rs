//! One snapshot of one primary: both sides of a boundary are read as of the same moment, in pages.

use std::collections::HashSet;
use std::time::Duration;

use region_lease::ConnectOptions;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, IsolationLevel, Portal, Row, Transaction};
use uuid::Uuid;

use super::{ANSWERED_SINCE, Job, ReconcileError, Window};

/// Rows that are in memory at one time.
const PAGE: i32 = 500;
/// Longest comparison of one boundary. A snapshot keeps the server from cleaning up, so it must end.
const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The plans of these few large queries: joins of whole stores by hashes in memory, and no time for compiling.
const PLANS: &str = "set local work_mem = '64MB'; set local jit = off";

/// The mark never lies in the earliest day that is kept after others were dropped: what is behind a boundary there may follow
/// from what is no more. Queries look one day further back than the mark for what something since the mark follows from.
const KEPT: &str = "select case when since_ms = 0 then 0 else since_ms + 86400000 end from trading.kept";

/// Connects for reading; such a session writes nothing.
pub(super) async fn connect(mut options: ConnectOptions) -> Result<Client, ReconcileError> {
    options.statement_timeout = LONGEST;
    options.transaction_timeout = Some(LONGEST);
    Ok(region_lease::connect(&options).await?)
}

/// A read-only transaction that sees one moment.
pub(super) struct Snapshot<'a> {
    job: Job,
    transaction: Transaction<'a>,
    since_ms: i64,
    grace_seconds: f64,
}

/// Sorts what the server said while a boundary was read.
fn failed(job: Job) -> impl Fn(tokio_postgres::Error) -> ReconcileError {
    move |source| ReconcileError::Read { job, source }
}

impl<'a> Snapshot<'a> {
    /// Begins. The mark is counted back from the server's clock.
    ///
    /// # Errors
    /// [`ReconcileError::Standby`]: what a standby does not have yet is not missing.
    pub(super) async fn begin(
        client: &'a mut Client,
        job: Job,
        window: Window,
    ) -> Result<Self, ReconcileError> {
        let failed = failed(job);
        let begin =
            client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).read_only(true);
        let transaction = begin.start().await.map_err(&failed)?;
        transaction.batch_execute(PLANS).await.map_err(&failed)?;
        let now = "select pg_is_in_recovery(), (extract(epoch from now()) * 1000)::bigint";
        let row = transaction.query_one(now, &[]).await.map_err(&failed)?;
        if row.try_get(0).map_err(&failed)? {
            return Err(ReconcileError::Standby);
        }
        let now_ms: i64 = row.try_get(1).map_err(&failed)?;
        let back_ms = |since: Duration| i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
        let since_ms = window.since.map_or(0, |since| now_ms.saturating_sub(back_ms(since)).max(0));
        let row = transaction.query_one(KEPT, &[]).await.map_err(&failed)?;
        let kept_ms: i64 = row.try_get(0).map_err(&failed)?;
        let since_ms = since_ms.max(kept_ms);
        Ok(Self { job, transaction, since_ms, grace_seconds: window.grace.as_secs_f64() })
    }

    /// The mark, in milliseconds since 1970.
    pub(super) fn since_ms(&self) -> i64 {
        self.since_ms
    }

    /// Looks no further back than to another mark.
    pub(super) fn not_before(&mut self, since_ms: i64) {
        self.since_ms = self.since_ms.max(since_ms);
    }

    /// The result of a query whose $1 is the mark in milliseconds since 1970 and, where `with_grace`, whose $2 is the
    /// grace in seconds.
    pub(super) async fn pages(&self, query: &str, with_grace: bool) -> Result<Pages<'_>, ReconcileError> {
        let values: [&(dyn ToSql + Sync); 2] = [&self.since_ms, &self.grace_seconds];
        let values = if with_grace { &values[..] } else { &values[..1] };
        let portal = self.transaction.bind(query, values).await.map_err(failed(self.job))?;
        Ok(Pages { snapshot: self, portal: Some(portal) })
    }

    /// The result of a query whose $1 is the mark, whose $2 are numbers of groups and, where `with_grace`, whose $3 is the
    /// grace in seconds.
    pub(super) async fn pages_in(
        &self,
        query: &str,
        groups: &[i32],
        with_grace: bool,
    ) -> Result<Pages<'_>, ReconcileError> {
        let values: [&(dyn ToSql + Sync); 3] = [&self.since_ms, &groups, &self.grace_seconds];
        let values = if with_grace { &values[..] } else { &values[..2] };
        let portal = self.transaction.bind(query, values).await.map_err(failed(self.job))?;
        Ok(Pages { snapshot: self, portal: Some(portal) })
    }

    /// Looks at each row of such a result.
    pub(super) async fn each(
        &self,
        query: &str,
        with_grace: bool,
        mut look: impl FnMut(&Row) -> Result<(), tokio_postgres::Error>,
    ) -> Result<(), ReconcileError> {
        let mut pages = self.pages(query, with_grace).await?;
        while let Some(page) = pages.next().await? {
            page.iter().try_for_each(&mut look).map_err(failed(self.job))?;
        }
        Ok(())
    }

    /// Two numbers of sums. $1 is the mark and $2 the earliest time of answers to look at: the server knows both before it
    /// plans.
    pub(super) async fn summed(&self, query: &str) -> Result<(i64, Vec<i32>), ReconcileError> {
        let failed = failed(self.job);
        let answered = format!("select {ANSWERED_SINCE}");
        let row = self.transaction.query_one(&answered, &[&self.since_ms]).await.map_err(&failed)?;
        let answered_ms: i64 = row.try_get(0).map_err(&failed)?;
        // There are few groups, which the planner cannot know: it would sort all rows.
        self.transaction.batch_execute("set local enable_sort = off").await.map_err(&failed)?;
        let row =
            self.transaction.query_one(query, &[&self.since_ms, &answered_ms]).await.map_err(&failed)?;
        self.transaction.batch_execute("set local enable_sort = on").await.map_err(&failed)?;
        Ok((row.try_get(0).map_err(&failed)?, row.try_get(1).map_err(&failed)?))
    }

    /// A count whose $1 is the mark.
    pub(super) async fn count(&self, query: &str) -> Result<u64, ReconcileError> {
        let row = self.rows(query, &[&self.since_ms]).await?;
        let count: i64 = self.column(row.first(), 0)?;
        Ok(count.unsigned_abs())
    }

    fn column(&self, row: Option<&Row>, index: usize) -> Result<i64, ReconcileError> {
        row.map_or(Ok(0), |row| row.try_get(index)).map_err(failed(self.job))
    }

    /// Rows about a bounded number of records.
    pub(super) async fn rows(
        &self,
        query: &str,
        values: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ReconcileError> {
        self.transaction.query(query, values).await.map_err(failed(self.job))
    }

    /// Which of these messages are in quarantine.
    pub(super) async fn set_apart(&self, digests: &[Uuid]) -> Result<HashSet<Uuid>, ReconcileError> {
        self.known("select digest from trading.quarantine where digest = any($1)", digests).await
    }

    /// The ids of which `query`, whose $1 they are, knows something.
    pub(super) async fn known(&self, query: &str, ids: &[Uuid]) -> Result<HashSet<Uuid>, ReconcileError> {
        if ids.is_empty() {
            return Ok(HashSet::new());
        }
        let rows = self.rows(query, &[&ids]).await?;
        rows.iter().map(|row| row.try_get(0).map_err(failed(self.job))).collect()
    }

    /// Names the boundary in an error about a row.
    pub(super) fn unreadable(&self) -> impl Fn(tokio_postgres::Error) -> ReconcileError {
        failed(self.job)
    }
}

/// A result that comes page by page.
pub(super) struct Pages<'s> {
    snapshot: &'s Snapshot<'s>,
    portal: Option<Portal>,
}

impl Pages<'_> {
    /// The next rows; `None` at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Row>>, ReconcileError> {
        let Some(portal) = &self.portal else { return Ok(None) };
        let page = self.snapshot.transaction.query_portal(portal, PAGE).await;
        let page = page.map_err(failed(self.snapshot.job))?;
        if page.is_empty() {
            self.portal = None;
            return Ok(None);
        }
        Ok(Some(page))
    }
}
