//! Sends settlements again that have not come back.
//!
//! A broker that was lost may have held a settlement on its way there, or its answer on the way back. Only who waits for
//! the answer can tell; the settlement application answers a repeat as it did before.
//!
//! The sender notes with each confirm when the settlement is due again ([`delays`]). What is due becomes unsent here, and has
//! no time any more until it is confirmed anew: while the other broker is away nothing is due and nothing is counted.

use std::time::Duration;

use services_common::gate::Needs;
use services_common::postgres::{DbError, Grant, Guarded};
use services_common::stage::{StageDeps, admitted};
use services_common::telemetry::chain;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

/// Settlements in one round at most.
const ROUND_LIMIT: i64 = 500;
/// A party may report an allocation that the other one does not have: its settlement never comes back. Twelve repetitions at
/// doubling distances, of ten minutes at first, end after four weeks.
const REPETITIONS_MAX: usize = 12;
/// Longest pause between two looks.
pub(crate) const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(30);
/// Pause after a round that left something behind.
const FULL_ROUND_PAUSE: Duration = Duration::from_secs(1);

/// `now()` stands still within the statement, so that the index tells where to stop. Arrays, not joins: a join of so many
/// rows would rather read the whole table.
const AGAIN: &str = "with old as ( \
        select message_id from trading.unreturned where due <= now() order by due limit $1 \
        for update skip locked), \
     again as ( \
        update trading.unreturned set due = null where message_id = any(array(select message_id from old)) \
        returning message_id), \
     unsent as ( \
        update trading.outgoing_settlements set sent_at = null \
        where message_id = any(array(select message_id from again)) and sent_at is not null returning 1) \
     select (select count(*) from again) as due, (select count(*) from unsent) as unsent";

/// What one look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Round {
    /// Settlements that were due.
    due: i64,
    /// Of these, sent before: the sender takes them again.
    unsent: i64,
}

impl Round {
    /// How long to wait before the next look.
    fn pause(self, after: Duration) -> Duration {
        let usual = (after / 4).min(LOOK_INTERVAL_MAX);
        if self.due < ROUND_LIMIT { usual } else { usual.min(FULL_ROUND_PAUSE) }
    }
}

/// Seconds after each confirm until a settlement that has not come back is due again: `after`, then twice as long, and so
/// on. After the last one it is not sent again.
pub(crate) fn delays(after: Duration) -> Vec<f64> {
    std::iter::successors(Some(after.as_secs_f64()), |seconds| Some(seconds * 2.0))
        .take(REPETITIONS_MAX)
        .collect()
}

/// Marks what is due as unsent, until shutdown. What is due is so for the first time `after` its first confirm.
pub(crate) async fn run(deps: StageDeps, after: Duration, shutdown: CancellationToken) {
    let mut gate = deps.gate.watch();
    while let Some(grant) = admitted(&mut gate, Needs::Core, &shutdown).await {
        let found = round(&deps, &grant).await.unwrap_or_else(|error| {
            deps.note(&error, &grant);
            tracing::warn!(error = chain(&error), "settlements that have not come back are not known");
            Round::default()
        });
        if found.unsent > 0 {
            tracing::warn!(settlements = found.unsent, "not come back: sent again");
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = sleep(found.pause(after)) => {}
        }
    }
}

async fn round(deps: &StageDeps, grant: &Grant) -> Result<Round, DbError> {
    let mut connection = deps.database.connection().await?;
    let unit = Guarded::begin(&mut connection, grant).await?;
    let statement = unit.transaction().prepare_cached(AGAIN).await?;
    let row = unit.transaction().query_one(&statement, &[&ROUND_LIMIT]).await?;
    let round = Round { due: row.try_get("due")?, unsent: row.try_get("unsent")? };
    unit.commit().await?;
    Ok(round)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_until_the_next_sending_doubles_and_ends_after_twelve_repetitions() {
        let delays = delays(Duration::from_secs(600));
        assert_eq!((delays[0], delays[1], delays.len()), (600.0, 1_200.0, REPETITIONS_MAX));
        let weeks = delays.iter().sum::<f64>() / (7.0 * 86_400.0);
        assert!((4.0..4.5).contains(&weeks), "{weeks}");
    }

    #[test]
    fn after_a_full_round_the_next_one_is_soon_and_otherwise_the_usual_time_passes() {
        let after = Duration::from_secs(600);
        let found = |due| Round { due, unsent: due };
        assert_eq!(found(ROUND_LIMIT).pause(after), FULL_ROUND_PAUSE);
        assert_eq!(found(ROUND_LIMIT - 1).pause(after), LOOK_INTERVAL_MAX);
        assert_eq!(found(0).pause(Duration::from_secs(60)), Duration::from_secs(15));
        assert_eq!(found(ROUND_LIMIT).pause(Duration::from_secs(2)), Duration::from_millis(500));
    }
}
