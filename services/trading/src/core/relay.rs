//! The relay: sends the answers that core has written. Each answer is a row, and keeps its bytes and its id for
//! ever, so sending one again is a repeat and nothing else.

use std::sync::Arc;
use std::time::Duration;

use services_common::amqp::{Outgoing, Publisher, grant_headers};
use services_common::backoff::Backoff;
use services_common::gate::{Gate, Needs};
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, StageError, admitted, withdrawn};
use services_common::telemetry::chain;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::names;

/// Answers in one round at most.
const ROUND_LIMIT: i64 = 500;
/// Looks for answers that other instances left, when nobody says that there are new ones.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Sending happens inside a transaction, so it must be well below the transaction's limit.
const SEND_DEADLINE: Duration = Duration::from_secs(3);

/// Sends answers until shutdown, while the gate admits core.
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

/// Takes unsent answers, sends them, marks them as sent. Rows that another instance has taken are passed over.
///
/// The rows were committed before this transaction began and the guard held when it did, so what is sent was
/// written under a grant that reached this database. A crash before the commit sends them again.
async fn round(deps: &StageDeps, grant: &Grant, publisher: &Publisher) -> Result<usize, StageError> {
    let mut connection = deps.database.connection().await?;
    let unit = Guarded::begin(&mut connection, grant).await?;
    let (numbers, answers) = take_unsent(&unit).await?;
    if answers.is_empty() {
        return Ok(0);
    }
    timeout(SEND_DEADLINE, publisher.publish_all(&answers)).await.map_err(|_| StageError::Deadline {
        queue: names::OUT.to_owned(),
        seconds: SEND_DEADLINE.as_secs(),
    })??;
    mark_sent(&unit, &numbers).await?;
    unit.commit().await?;
    deps.metrics.published.inc_by(answers.len() as u64);
    Ok(answers.len())
}

/// Unsent answers with their numbers, locked until the transaction ends.
async fn take_unsent(unit: &Guarded<'_>) -> Result<(Vec<i64>, Vec<Outgoing>), DbError> {
    let take = "select seq, message_id, id, body from trading.outbox where sent_at is null \
                order by seq limit $1 for update skip locked";
    let statement = unit.transaction().prepare_cached(take).await?;
    let rows = unit.transaction().query(&statement, &[&ROUND_LIMIT]).await?;
    let headers = grant_headers(unit.grant());
    let (mut numbers, mut answers) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in &rows {
        let (message_id, body): (Uuid, String) = (row.try_get("message_id")?, row.try_get("body")?);
        numbers.push(row.try_get("seq")?);
        answers.push(Outgoing {
            exchange: names::OUT.to_owned(),
            body: body.into_bytes(),
            message_id: message_id.to_string(),
            correlation_id: Some(row.try_get("id")?),
            headers: headers.clone(),
            user_id: None,
        });
    }
    Ok((numbers, answers))
}

async fn mark_sent(unit: &Guarded<'_>, numbers: &[i64]) -> Result<(), DbError> {
    let mark = "update trading.outbox set sent_at = clock_timestamp() where seq = any($1)";
    let statement = unit.transaction().prepare_cached(mark).await?;
    unit.transaction().execute(&statement, &[&numbers]).await?;
    Ok(())
}
