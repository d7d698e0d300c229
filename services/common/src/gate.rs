//! The gate: the only place that knows of regions.
//!
//! It reads the lease row in its own region's database, compares it with the configured region, and tells the
//! stages through a watch channel whether they may work and under which grant. It only saves work: what makes a
//! late writer harmless is the guard in every transaction, not the gate.

use std::sync::Arc;
use std::time::Duration;

use region_lease::{Opened, Reading, read_lease};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::postgres::{Database, DbError, Grant};
use crate::telemetry::chain;

/// Shortest time between two reads of the lease.
pub const READ_INTERVAL: Duration = Duration::from_millis(100);
/// A read that takes longer has failed.
const READ_DEADLINE: Duration = Duration::from_secs(1);

/// Whether the stages of this process may work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// They may not. The reason is for people.
    Closed {
        /// What was read, or why nothing could be read.
        reason: String,
    },
    /// Stages behind the intake may: what was taken in earlier is finished and replayed.
    Core(Grant),
    /// All stages may.
    Open(Grant),
    /// The process is ending: nothing new is taken, what was begun is finished.
    Draining,
}

/// What a stage needs in order to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Works as soon as the core may.
    Core,
    /// Works only when the intake is open too.
    Intake,
}

impl Gate {
    /// The grant under which a stage with these needs may work now.
    pub fn admits(&self, needs: Needs) -> Option<&Grant> {
        match (self, needs) {
            (Self::Open(grant), _) | (Self::Core(grant), Needs::Core) => Some(grant),
            (Self::Core(_), Needs::Intake) | (Self::Closed { .. } | Self::Draining, _) => None,
        }
    }

    /// One word for status and logs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Closed { .. } => "closed",
            Self::Core(_) => "core",
            Self::Open(_) => "open",
            Self::Draining => "draining",
        }
    }

    /// Number for the metric of the gate.
    pub fn number(&self) -> i64 {
        match self {
            Self::Closed { .. } => 0,
            Self::Core(_) => 1,
            Self::Open(_) => 2,
            Self::Draining => 3,
        }
    }

    /// The grant, whatever the stage.
    pub fn grant(&self) -> Option<&Grant> {
        self.admits(Needs::Core)
    }
}

/// What a reading of the lease means for a process in `region`.
pub fn judge(reading: &Reading, app: &str, region: &str) -> Gate {
    let closed = |reason: String| Gate::Closed { reason };
    let Some(row) = &reading.row else { return closed(format!("no lease of {app} in the database yet")) };
    match &row.holder {
        None => return closed(format!("nobody holds the lease (epoch {})", row.epoch)),
        Some(holder) if holder != region => return closed(format!("{holder} holds the lease")),
        Some(_) => {}
    }
    let Some(grant_id) = row.grant_id else { return closed("the lease has no grant yet".into()) };
    if reading.in_recovery {
        return closed("this region holds the lease, but its database is still a standby".into());
    }
    if !reading.accepts_writes() {
        let reason = "the lease has expired, or was not renewed since it was granted or the server started";
        return closed(format!("epoch {}: {reason}", row.epoch));
    }
    let grant = Grant::new(app, region, row.epoch, grant_id);
    match row.opened {
        Opened::None => closed(format!("epoch {} is granted here but not opened yet", row.epoch)),
        Opened::Core => Gate::Core(grant),
        Opened::Intake => Gate::Open(grant),
    }
}

async fn read(database: &Database, app: &str) -> Result<Reading, DbError> {
    let connection = database.connection().await?;
    Ok(read_lease(&connection, app).await?)
}

/// Reads and publishes the gate.
#[derive(Clone)]
pub struct GateKeeper {
    state: Arc<watch::Sender<Gate>>,
}

impl Default for GateKeeper {
    fn default() -> Self {
        let reason = "the lease was not read yet".to_owned();
        Self { state: Arc::new(watch::Sender::new(Gate::Closed { reason })) }
    }
}

impl GateKeeper {
    /// A channel with the present state and its changes.
    pub fn watch(&self) -> watch::Receiver<Gate> {
        self.state.subscribe()
    }

    /// The database refused a guard: close at once; the next read tells more.
    pub fn fenced(&self, grant: &Grant) {
        self.state.send_if_modified(|gate| {
            let same = gate.grant() == Some(grant);
            if same {
                let reason = format!("the database refused epoch {}", grant.epoch());
                *gate = Gate::Closed { reason };
            }
            same
        });
    }

    /// Reads the lease until shutdown; then the gate says draining.
    pub async fn run(&self, database: &Database, app: &str, region: &str, shutdown: CancellationToken) {
        while !shutdown.is_cancelled() {
            let gate = match timeout(READ_DEADLINE, read(database, app)).await {
                Ok(Ok(reading)) => judge(&reading, app, region),
                Ok(Err(error)) => {
                    database.note(&error);
                    Gate::Closed { reason: format!("the lease cannot be read: {}", chain(&error)) }
                }
                Err(_) => {
                    Gate::Closed { reason: format!("no answer about the lease within {READ_DEADLINE:?}") }
                }
            };
            self.set(gate);
            tokio::select! {
                () = shutdown.cancelled() => {}
                () = sleep(READ_INTERVAL) => {}
            }
        }
        self.set(Gate::Draining);
    }

    fn set(&self, gate: Gate) {
        self.state.send_if_modified(|present| {
            if *present == gate {
                return false;
            }
            match (&gate, gate.grant()) {
                (Gate::Closed { reason }, _) => tracing::info!(gate = gate.word(), reason, "gate"),
                (_, grant) => {
                    tracing::info!(gate = gate.word(), epoch = grant.map(|grant| grant.epoch()), "gate")
                }
            }
            *present = gate;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use region_lease::{Clock, LeaseRow, ValidUntil, WayBack};
    use uuid::Uuid;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// A reading at second 100 of a lease that is valid until 110.
    fn reading(change: impl FnOnce(&mut LeaseRow)) -> Reading {
        let mut row = LeaseRow {
            app: "trade-matching".into(),
            epoch: 4,
            grant_id: Some(Uuid::from_u128(7)),
            granted_run: None,
            holder: Some("us-east-1".into()),
            opened: Opened::Intake,
            valid_until: ValidUntil::At(at(110)),
            way_back: WayBack::None,
            server_start: Some(at(5)),
            renewed_at: Some(at(90)),
            lease_duration: Duration::from_secs(20),
            released: None,
            aborted_run: None,
        };
        change(&mut row);
        Reading { row: Some(row), in_recovery: false, clock: Clock { now: at(100), server_start: at(5) } }
    }

    fn judged(reading: &Reading) -> Gate {
        judge(reading, "trade-matching", "us-east-1")
    }

    #[test]
    fn a_valid_lease_of_this_region_opens_as_far_as_the_row_says() {
        assert!(matches!(judged(&reading(|_| {})), Gate::Open(grant) if grant.epoch() == 4));
        assert!(matches!(judged(&reading(|row| row.opened = Opened::Core)), Gate::Core(_)));
        assert!(matches!(judged(&reading(|row| row.opened = Opened::None)), Gate::Closed { .. }));
    }

    #[test]
    fn core_stages_run_before_the_intake_does() {
        let gate = judged(&reading(|row| row.opened = Opened::Core));
        assert!(gate.admits(Needs::Core).is_some());
        assert!(gate.admits(Needs::Intake).is_none());
    }

    #[test]
    fn a_lease_left_without_an_end_stays_open_after_a_restart_of_the_server() {
        let unlimited = reading(|row| {
            row.valid_until = ValidUntil::Infinity;
            row.server_start = Some(at(1));
        });
        assert!(matches!(judged(&unlimited), Gate::Open(_)));
    }

    #[test]
    fn anything_but_a_valid_lease_of_this_region_closes() {
        let doubtful = [
            reading(|row| row.holder = None),
            reading(|row| row.holder = Some("us-west-2".into())),
            reading(|row| row.valid_until = ValidUntil::At(at(100))),
            reading(|row| row.valid_until = ValidUntil::NegInfinity),
            reading(|row| row.server_start = Some(at(4))),
            reading(|row| row.grant_id = None),
            Reading { in_recovery: true, ..reading(|_| {}) },
            Reading { row: None, ..reading(|_| {}) },
        ];
        for reading in doubtful {
            assert!(matches!(judged(&reading), Gate::Closed { .. }), "{reading:?}");
        }
    }

    #[test]
    fn a_refused_guard_closes_the_gate_for_that_grant_only() {
        let keeper = GateKeeper::default();
        keeper.set(judged(&reading(|_| {})));
        let Gate::Open(grant) = judged(&reading(|_| {})) else { panic!("open") };
        let other = Grant::new(grant.app.clone(), grant.region.clone(), 3, grant.grant_id);
        keeper.fenced(&other);
        assert!(matches!(*keeper.watch().borrow(), Gate::Open(_)));
        keeper.fenced(&grant);
        assert!(matches!(*keeper.watch().borrow(), Gate::Closed { .. }));
    }
}
