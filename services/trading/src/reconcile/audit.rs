//! The audit row of a run that may change something, written under the guard like everything else.

use services_common::postgres::{Database, DbError, Grant, Guarded};
use uuid::Uuid;

use super::Outcome;
use super::finding::Comparison;

/// The row of one boundary in one run.
pub(super) struct Audit<'a> {
    id: Uuid,
    database: &'a Database,
    grant: &'a Grant,
}

impl<'a> Audit<'a> {
    /// Written before anything is sent: a run that breaks off leaves a row that says so.
    pub(super) async fn begin(
        database: &'a Database,
        grant: &'a Grant,
        by: &str,
        found: &Comparison,
    ) -> Result<Self, DbError> {
        let id = Uuid::new_v4();
        let mut connection = database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let insert = "insert into trading.reconciliations (id, job, performed_by, region, epoch, missing, ahead, differs) \
            values ($1, $2, $3, $4, $5, $6, $7, $8)";
        let (missing, ahead) = (number(found.missing.count), number(found.ahead.count));
        let (job, epoch, differs) = (found.job.word(), unit.epoch(), number(found.differs.count));
        let values: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
            [&id, &job, &by, &grant.region, &epoch, &missing, &ahead, &differs];
        unit.transaction().execute(insert, &values).await?;
        unit.commit().await?;
        Ok(Self { id, database, grant })
    }

    /// Says how it ended.
    pub(super) async fn end(self, replayed: u64, remaining: u64, outcome: Outcome) -> Result<(), DbError> {
        let mut connection = self.database.connection().await?;
        let unit = Guarded::begin(&mut connection, self.grant).await?;
        let update = "update trading.reconciliations \
            set finished = clock_timestamp(), replayed = $2, remaining = $3, outcome = $4 where id = $1";
        let (replayed, remaining, outcome) = (number(replayed), number(remaining), outcome.word());
        unit.transaction().execute(update, &[&self.id, &replayed, &remaining, &outcome]).await?;
        unit.commit().await
    }
}

fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
