//! The relay: sends on what core has decided. Each decision is a row, and keeps its bytes and its id for
//! ever, so sending one again is a repeat and nothing else.

use std::sync::Arc;
use std::time::Duration;

use services_common::amqp::Publisher;
use services_common::backoff::Backoff;
use services_common::gate::{Gate, Needs};
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, StageError, admitted, withdrawn};
use services_common::telemetry::chain;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::envelope::{Decided, Record, pack};
use crate::names;

/// Decisions in one round at most.
const ROUND_LIMIT: i64 = 500;
/// Looks for what other instances left, when nobody says that there is something new.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Sending happens inside a transaction, so it must be well below the transaction's limit.
const SEND_DEADLINE: Duration = Duration::from_secs(3);

/// Sends until shutdown, while the gate admits core.
pub(crate) async fn run(deps: StageDeps, answers_written: Arc<Notify>, shutdown: CancellationToken) {
    let mut gate = deps.gate.watch();
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(2));
    while let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await {
        let Err(error) = relay(&deps, &grant, &mut gate, &answers_written, &shutdown, &mut backoff).await
        else {
            continue;
        };
        if let StageError::Database(error) = &error {
            deps.database.note(error);
            if matches!(error, DbError::Fenced { .. }) {
                deps.gate.fenced(&grant);
            }
        }
        let wait = backoff.next_wait();
        tracing::warn!(error = chain(&error), ?wait, "answers not sent yet");
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(wait) => {}
        }
    }
}

async fn relay(
    deps: &StageDeps,
    grant: &Grant,
    gate: &mut watch::Receiver<Gate>,
    answers_written: &Notify,
    shutdown: &CancellationToken,
    backoff: &mut Backoff,
) -> Result<(), StageError> {
    let publisher = deps.broker.publisher().await?;
    loop {
        let sent = round(deps, grant, &publisher).await?;
        backoff.reset();
        if sent > 0 {
            continue;
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = withdrawn(gate, Needs::Core, grant) => return Ok(()),
            () = answers_written.notified() => {}
            () = sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Takes unsent decisions, sends them, marks them as sent. Rows that another instance has taken are passed over.
///
/// The rows were committed before this transaction began and the guard held when it did, so what is sent was
/// written under a grant that reached this database. A crash before the commit sends them again.
async fn round(deps: &StageDeps, grant: &Grant, publisher: &Publisher) -> Result<usize, StageError> {
    let mut connection = deps.database.connection().await?;
    let unit = Guarded::begin(&mut connection, grant).await?;
    let (numbers, decided) = take_unsent(&unit).await?;
    if decided.is_empty() {
        return Ok(0);
    }
    let messages = pack(names::EGRESS, &decided, unit.grant());
    timeout(SEND_DEADLINE, publisher.publish_all(&messages)).await.map_err(|_| StageError::Deadline {
        queue: names::EGRESS.to_owned(),
        seconds: SEND_DEADLINE.as_secs(),
    })??;
    mark_sent(&unit, &numbers).await?;
    unit.commit().await?;
    deps.metrics.published.inc_by(messages.len() as u64);
    Ok(decided.len())
}

/// Unsent decisions with their numbers, locked until the transaction ends.
async fn take_unsent(unit: &Guarded<'_>) -> Result<(Vec<i64>, Vec<Record<Decided>>), DbError> {
    let take = "select seq, message_id, id, received_ms, body from trading.outbox where sent_at is null \
                order by seq limit $1 for update skip locked";
    let statement = unit.transaction().prepare_cached(take).await?;
    let rows = unit.transaction().query(&statement, &[&ROUND_LIMIT]).await?;
    let (mut numbers, mut decided) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        if let Some(record) = read(row)? {
            numbers.push(row.try_get("seq")?);
            decided.push(record);
        }
    }
    Ok((numbers, decided))
}

/// A row of the outbox as the record that travels. One that this program cannot read, an older one's perhaps, is left where
/// it is and stops no other: it counts as on its way until a person has looked.
///
/// # Errors
/// The row has not the columns that it should.
pub(crate) fn read(row: &Row) -> Result<Option<Record<Decided>>, DbError> {
    match decision(row)? {
        Ok(decided) => Ok(Some(decided)),
        Err(error) => {
            let message_id: Uuid = row.try_get("message_id")?;
            tracing::error!(%message_id, %error, "a decision in the outbox is not readable: it is not sent");
            Ok(None)
        }
    }
}

/// The same without a word about what cannot be read.
///
/// # Errors
/// The row has not the columns that it should; inside: the decision is not readable.
pub(crate) fn decision(row: &Row) -> Result<serde_json::Result<Record<Decided>>, tokio_postgres::Error> {
    let (record, id, received_ms) =
        (row.try_get("message_id")?, row.try_get("id")?, row.try_get("received_ms")?);
    let content = serde_json::from_str(row.try_get("body")?);
    Ok(content.map(|content| Record { record, id, received_ms, content }))
}

async fn mark_sent(unit: &Guarded<'_>, numbers: &[i64]) -> Result<(), DbError> {
    let mark = "update trading.outbox set sent_at = clock_timestamp() where seq = any($1)";
    let statement = unit.transaction().prepare_cached(mark).await?;
    unit.transaction().execute(&statement, &[&numbers]).await?;
    Ok(())
}
