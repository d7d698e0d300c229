//! The relay: sends on what was written to be sent. Each row keeps its bytes and its id for ever, so sending one again is a
//! repeat and nothing else.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use services_common::amqp::{Broker, Outgoing, Publisher};
use services_common::backoff::Backoff;
use services_common::gate::{Gate, Needs};
use services_common::metrics::Part;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, StageError, admitted, withdrawn};
use services_common::telemetry::chain;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Subject;
use crate::envelope::{Decided, Record, pack};
use crate::trace;

/// Looks for what other instances or stages left, when nobody says that there is something new.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The name of another application's broker is asked again after this time: its region may have changed, and the broker of
/// the region that was left takes messages all the same.
const FOREIGN_CONNECTION: Duration = Duration::from_secs(30);

/// A table of rows to be sent, and where to.
#[derive(Clone)]
pub(crate) struct Route {
    /// Where to, for messages about errors.
    pub(crate) queue: &'static str,
    /// Unsent rows, locked.
    pub(crate) take: Take,
    /// Marks the rows with the numbers $1 as sent.
    pub(crate) mark: &'static str,
    /// As $2 of `mark`, where an answer is awaited: after how many seconds a row is due again, by how often it was sent.
    pub(crate) due_after: Option<Vec<f64>>,
    /// Rows as messages.
    pub(crate) messages: fn(&[Row], &Grant) -> Result<Unsent, DbError>,
    /// Whether the broker is another application's, whose name may lead elsewhere by now.
    pub(crate) foreign: bool,
}

/// How a round gets its rows.
#[derive(Clone, Copy)]
pub(crate) enum Take {
    /// By one query; $1 is how many at most.
    Rows(&'static str),
    /// From a list of numbers and moments, of which $1 is how many at most; then those with the numbers $1, between the
    /// moments $2 and $3. Two queries, because only what is known before it begins keeps a query from looking into each day.
    Listed {
        /// The list.
        list: &'static str,
        /// The rows.
        rows: &'static str,
    },
}

impl Take {
    async fn rows(self, unit: &Guarded<'_>, limit: i64) -> Result<Vec<Row>, DbError> {
        let transaction = unit.transaction();
        let (list, rows) = match self {
            Self::Rows(rows) => {
                let statement = transaction.prepare_cached(rows).await?;
                return Ok(transaction.query(&statement, &[&limit]).await?);
            }
            Self::Listed { list, rows } => (list, rows),
        };
        let statement = transaction.prepare_cached(list).await?;
        let listed = transaction.query(&statement, &[&limit]).await?;
        let listed: Vec<(i64, i64)> = listed
            .iter()
            .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
            .collect::<Result<_, DbError>>()?;
        let moments = || listed.iter().map(|(_, moment)| *moment);
        let (Some(first), Some(last)) = (moments().min(), moments().max()) else { return Ok(Vec::new()) };
        let numbers: Vec<i64> = listed.iter().map(|(number, _)| *number).collect();
        let statement = transaction.prepare_cached(rows).await?;
        Ok(transaction.query(&statement, &[&numbers, &first, &last]).await?)
    }
}

/// How much is sent inside one transaction, and for how long: a fence waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Round {
    rows: i64,
    deadline: Duration,
}

impl Round {
    /// Most rows of a round.
    const ROWS_MAX: i64 = 500;
    /// The first round of a connection to a broker that may be slow.
    const ROWS_FIRST: i64 = 100;

    /// The next one, after this one did not end in time.
    fn shorter(self) -> Self {
        Self { rows: (self.rows / 2).max(1), ..self }
    }

    /// The next one, after this one took so long: twice as many rows while there is time to spare, half as many before
    /// there is none.
    fn after(self, took: Duration) -> Self {
        let rows = if took < self.deadline / 8 {
            self.rows * 2
        } else if took > self.deadline / 2 {
            self.rows / 2
        } else {
            self.rows
        };
        Self { rows: rows.clamp(1, Self::ROWS_MAX), ..self }
    }
}

impl Route {
    /// Well below the limit of a transaction; less where another application's broker decides how long it takes.
    fn first_round(&self) -> Round {
        if self.foreign {
            Round { rows: Round::ROWS_FIRST, deadline: Duration::from_secs(1) }
        } else {
            Round { rows: Round::ROWS_MAX, deadline: Duration::from_secs(3) }
        }
    }
}

/// Messages, and the numbers of their rows.
#[derive(Default)]
pub(crate) struct Unsent {
    pub(crate) numbers: Vec<i64>,
    pub(crate) messages: Vec<Outgoing>,
}

/// What is decided and not sent. An array, not a join: a join would rather read whole days.
const TAKE: Take = Take::Listed {
    list: "select seq, caused_ms from trading.unsent order by seq limit $1 for update skip locked",
    rows: "select seq, message_id, id, received_ms, caused_ms, body, traceparent from trading.outbox \
        where seq = any($1) and caused_ms >= $2 and caused_ms <= $3 order by seq",
};
const MARK: &str = "delete from trading.unsent where seq = any($1)";

/// The way from core's outbox to egress.
pub(crate) fn outbox<C: Subject>() -> Route {
    Route {
        queue: C::EGRESS,
        take: TAKE,
        mark: MARK,
        due_after: None,
        messages: decisions::<C>,
        foreign: false,
    }
}

/// What sends the rows of one route.
#[derive(Clone)]
pub(crate) struct Relay {
    pub(crate) deps: StageDeps,
    /// The broker that they go to.
    pub(crate) broker: Arc<Broker>,
    pub(crate) route: Route,
    /// Told of new rows.
    pub(crate) written: Arc<Notify>,
}

impl Relay {
    /// Sends until shutdown, while the gate admits core.
    pub(crate) async fn run(self, shutdown: CancellationToken) {
        let mut gate = self.deps.gate.watch();
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
        let mut round = self.route.first_round();
        while let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await {
            let relayed = self.relay(&grant, &mut gate, &shutdown, &mut backoff, &mut round).await;
            let Err(error) = relayed else { continue };
            if matches!(error, StageError::Deadline { .. }) {
                round = round.shorter();
            }
            if let StageError::Database(error) = &error {
                self.deps.note(error, &grant);
            } else if self.route.foreign {
                // It may be the broker of a region that was left: the next connection asks for its name again.
                self.broker.close().await;
            }
            let wait = backoff.next_wait();
            tracing::warn!(queue = self.route.queue, error = chain(&error), ?wait, "not sent yet");
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    async fn relay(
        &self,
        grant: &Grant,
        gate: &mut watch::Receiver<Gate>,
        shutdown: &CancellationToken,
        backoff: &mut Backoff,
        round: &mut Round,
    ) -> Result<(), StageError> {
        let publisher = tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            publisher = self.broker.publisher() => publisher?,
        };
        let connected = Instant::now();
        loop {
            if self.route.foreign && connected.elapsed() > FOREIGN_CONNECTION {
                self.broker.close().await;
                return Ok(());
            }
            let began = Instant::now();
            let sent = self.round(*round, grant, &publisher).await?;
            backoff.reset();
            if sent > 0 {
                *round = round.after(began.elapsed());
                continue;
            }
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                () = withdrawn(gate, Needs::Core, grant) => return Ok(()),
                () = self.written.notified() => {}
                () = sleep(LOOK_INTERVAL) => {}
            }
        }
    }

    /// Takes unsent rows, sends them, marks them as sent. Rows that another instance has taken are passed over.
    ///
    /// The rows were committed before this transaction began and the guard held when it did, so what is sent was
    /// written under a grant that reached this database. A crash before the commit sends them again.
    async fn round(
        &self,
        mut limit: Round,
        grant: &Grant,
        publisher: &Publisher,
    ) -> Result<usize, StageError> {
        if let Some(rows) = self.deps.batch_limit {
            limit.rows = limit.rows.min(i64::from(rows.get()));
        }
        let began = Instant::now();
        let mut connection = self.deps.database.connection().await?;
        let unit = Guarded::begin(&mut connection, grant).await?;
        let rows = self.route.take.rows(&unit, limit.rows).await?;
        let Unsent { numbers, messages } = (self.route.messages)(&rows, unit.grant())?;
        if numbers.is_empty() {
            return Ok(0);
        }
        let published = Instant::now();
        timeout(limit.deadline, publisher.publish_all(&messages)).await.map_err(|_| {
            StageError::Deadline { queue: self.route.queue.to_owned(), seconds: limit.deadline.as_secs() }
        })??;
        let publishing = published.elapsed();
        let statement = unit.transaction().prepare_cached(self.route.mark).await.map_err(DbError::from)?;
        let mut facts: Vec<&(dyn ToSql + Sync)> = vec![&numbers];
        if let Some(due_after) = &self.route.due_after {
            facts.push(due_after);
        }
        unit.transaction().execute(&statement, &facts).await.map_err(DbError::from)?;
        unit.commit().await?;
        self.deps.metrics.published.inc_by(messages.len() as u64);
        self.deps.metrics.spent(Part::RelayPublish, publishing);
        self.deps.metrics.spent(Part::RelayStore, began.elapsed().saturating_sub(publishing));
        Ok(numbers.len())
    }
}

fn decisions<C: Subject>(rows: &[Row], grant: &Grant) -> Result<Unsent, DbError> {
    let (mut numbers, mut decided) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        if let Some(record) = read::<C>(row)? {
            numbers.push(row.try_get("seq")?);
            decided.push(record);
        }
    }
    Ok(Unsent { numbers, messages: pack(C::EGRESS, &decided, grant) })
}

/// A row of the outbox as the record that travels, with its trace. One that this program cannot read, an older one's perhaps, is left where
/// it is and stops no other: it counts as on its way until a person has looked.
///
/// # Errors
/// The row has not the columns that it should.
pub(crate) fn read<C: DeserializeOwned>(row: &Row) -> Result<Option<Record<Decided<C>>>, DbError> {
    match decision(row)? {
        Ok(decided) => Ok(Some(Record { traceparent: trace::read(row)?, ..decided })),
        Err(error) => {
            let message_id: Uuid = row.try_get("message_id")?;
            tracing::error!(%message_id, %error, "a decision in the outbox is not readable: it is not sent");
            Ok(None)
        }
    }
}

/// The same without the trace, and without a word about what cannot be read.
///
/// # Errors
/// The row has not the columns that it should; inside: the decision is not readable.
pub(crate) fn decision<C: DeserializeOwned>(
    row: &Row,
) -> Result<serde_json::Result<Record<Decided<C>>>, tokio_postgres::Error> {
    let (record, id, received_ms) =
        (row.try_get("message_id")?, row.try_get("id")?, row.try_get("received_ms")?);
    let (caused_ms, content) = (row.try_get("caused_ms")?, serde_json::from_str(row.try_get("body")?));
    let traceparent = None;
    Ok(content.map(|content| Record { record, id, received_ms, caused_ms, content, traceparent }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_grows_while_there_is_time_to_spare_and_shrinks_before_there_is_none() {
        let first = Round { rows: 100, deadline: Duration::from_secs(1) };
        let rows = |round: Round, millis| round.after(Duration::from_millis(millis)).rows;
        assert_eq!([rows(first, 50), rows(first, 300), rows(first, 600)], [200, 100, 50]);
        let (most, least) = (Round { rows: 400, ..first }, Round { rows: 1, ..first });
        assert_eq!((rows(most, 50), rows(least, 900)), (Round::ROWS_MAX, 1));
        assert_eq!((first.shorter().rows, least.shorter().rows), (50, 1), "after a deadline");
    }
}
