//! Reconciliation: for each boundary of the pipeline, whether the stage behind it has what the stage before it stored,
//! with the same content and status; and, on demand, sending again what is missing.
//!
//! Both sides are read in one snapshot of one primary, so traffic makes no findings. Without a replay nothing is changed.

mod audit;
mod core_egress;
mod egress_outbound;
mod finding;
mod inbound_ingress;
mod ingress_core;
mod options;
mod replay;
mod report;
mod snapshot;

use std::time::Duration;

use region_lease::{ConnectOptions, LeaseError, read_lease};
use serde::Serialize;
use services_common::amqp::{AmqpError, Broker, BrokerConfig};
use services_common::config::ConfigError;
use services_common::gate::{Gate, Needs, judge};
use services_common::postgres::{Database, DbError, Grant};
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use audit::Audit;
use replay::Replayer;
use snapshot::Snapshot;

use crate::envelope::Record;
use crate::ids;
use crate::message::json;

pub use finding::{Comparison, Finding, Findings};
pub use options::{Output, ReconcileArgs, Since, from_args};
pub use report::{Boundary, Outcome, Replayed, Report};

/// Connections of a replay: one to write, one to look.
const POOL_SIZE: usize = 2;

/// A boundary between two stages; the names are those of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Job {
    /// Inbound's raw messages → ingestion's trades and refusals.
    InboundIngress,
    /// Ingestion's trades and refusals → core's trades, refused reports and answers.
    IngressCore,
    /// Core's decisions → egress's answers.
    CoreEgress,
    /// Egress's answers → what outbound has sent.
    EgressOutbound,
}

impl Job {
    /// All of them, in the order in which a trade passes them.
    pub const ALL: [Self; 4] =
        [Self::InboundIngress, Self::IngressCore, Self::CoreEgress, Self::EgressOutbound];

    /// The name on the command line and in audit rows.
    pub fn word(self) -> &'static str {
        match self {
            Self::InboundIngress => "InboundIngress",
            Self::IngressCore => "IngressCore",
            Self::CoreEgress => "CoreEgress",
            Self::EgressOutbound => "EgressOutbound",
        }
    }
}

/// Which records are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// How far back; `None` is everything that is stored.
    pub since: Option<Duration>,
    /// What is younger may be on its way and is not called missing.
    pub grace: Duration,
}

/// What is needed to send again.
#[derive(Clone, Debug)]
pub struct Replaying {
    /// The region's broker, as core's user.
    pub broker: BrokerConfig,
    /// How long one round waits for what it sent to arrive.
    pub wait: Duration,
    /// Who runs it, for the audit row.
    pub by: String,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Application whose lease allows a replay.
    pub app: String,
    /// Region whose stores are compared.
    pub region: String,
    /// The region's own database, as core's role.
    pub database: ConnectOptions,
    /// The boundaries.
    pub jobs: Vec<Job>,
    /// The records.
    pub window: Window,
    /// Whether what is missing is sent again.
    pub replay: Option<Replaying>,
}

/// Why it could not be told whether the stores agree.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// Wrong options or configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database is a standby.
    #[error(
        "this database is a standby: what it does not have yet would look missing. Run it in the region that holds the lease"
    )]
    Standby,
    /// The gate is closed.
    #[error(
        "--replay is refused, this region may not write now: {reason}. Run it in the region that holds the lease"
    )]
    Closed {
        /// What the lease says.
        reason: String,
    },
    /// The database could not be reached, or the lease could not be read.
    #[error("reconciliation could not ask the database; run it again")]
    Lease(#[from] LeaseError),
    /// A comparison broke off.
    #[error("{job:?} could not be compared; run it again, over a shorter --since if it took too long")]
    Read {
        /// The boundary.
        job: Job,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// A replay could not read or write; what was sent is harmless.
    #[error("the replay broke off; run it again")]
    Write(#[from] DbError),
    /// A replay could not send; what was sent is harmless.
    #[error("the replay broke off; run it again")]
    Broker(#[from] AmqpError),
}

/// Compares, and replays if that is planned, one boundary after the other.
///
/// # Errors
/// It is not known whether the stores agree.
pub async fn run(plan: &Plan) -> Result<Report, ReconcileError> {
    let mut client = snapshot::connect(plan.database.clone()).await?;
    let mut boundaries = Vec::new();
    match &plan.replay {
        None => {
            for job in &plan.jobs {
                let comparison = compare(&mut client, *job, plan.window).await?;
                boundaries.push(Boundary { comparison, replay: None });
            }
        }
        Some(replaying) => {
            let grant = grant(&client, plan).await?;
            let database = Database::new(&plan.database.clone().writer(), POOL_SIZE)?;
            let broker = Broker::new(replaying.broker.clone());
            let replayer =
                Replayer { database: &database, broker: &broker, grant: &grant, wait: replaying.wait };
            for job in &plan.jobs {
                boundaries.push(repair(&mut client, *job, plan.window, &replayer, &replaying.by).await?);
            }
            broker.close().await;
        }
    }
    let agrees = boundaries.iter().all(Boundary::agrees);
    Ok(Report { app: plan.app.clone(), region: plan.region.clone(), agrees, boundaries })
}

async fn compare(client: &mut Client, job: Job, window: Window) -> Result<Comparison, ReconcileError> {
    let snapshot = Snapshot::begin(client, job, window).await?;
    match job {
        Job::InboundIngress => inbound_ingress::compare(&snapshot).await,
        Job::IngressCore => ingress_core::compare(&snapshot).await,
        Job::CoreEgress => core_egress::compare(&snapshot).await,
        Job::EgressOutbound => egress_outbound::compare(&snapshot).await,
    }
}

/// The grant under which this region may write now.
async fn grant(client: &Client, plan: &Plan) -> Result<Grant, ReconcileError> {
    let reading = read_lease(client, &plan.app).await?;
    let gate = judge(&reading, &plan.app, &plan.region);
    if let Some(grant) = gate.admits(Needs::Core) {
        return Ok(grant.clone());
    }
    let reason = match gate {
        Gate::Closed { reason } => reason,
        Gate::Core(_) | Gate::Open(_) | Gate::Draining => gate.word().to_owned(),
    };
    Err(ReconcileError::Closed { reason })
}

/// Sends again what is missing and compares anew, as long as that brings something downstream.
async fn repair(
    client: &mut Client,
    job: Job,
    window: Window,
    replayer: &Replayer<'_>,
    by: &str,
) -> Result<Boundary, ReconcileError> {
    let mut comparison = compare(client, job, window).await?;
    let (found, clean) = (comparison.missing.count, comparison.clean());
    let audit = Audit::begin(replayer.database, replayer.grant, by, &comparison).await?;
    let (mut replayed, mut left) = (0, found);
    while !comparison.replayable.is_empty() {
        let sent = replayer.send(job, &comparison.replayable).await?;
        replayed += sent.len() as u64;
        let not_arrived = replayer.arrived(job, &sent).await?;
        comparison = compare(client, job, window).await?;
        // What was put on its way again may look young.
        let now = comparison.missing.count.max(not_arrived);
        let progress = now < left;
        left = now;
        if !progress {
            break;
        }
    }
    let outcome = match (clean, comparison.clean() && left == 0) {
        (true, _) => Outcome::Clean,
        (false, true) => Outcome::Repaired,
        (false, false) => Outcome::Differences,
    };
    audit.end(replayed, left, outcome).await?;
    Ok(Boundary { comparison, replay: Some(Replayed { found, replayed, left, outcome }) })
}

/// Notes records that a stage's store lacks: set apart, if the database refused the stage's copy of this very record, so that
/// quarantine has it, and its sender was told; else missing.
async fn note_absent<C: Serialize>(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    stage: &str,
    absent: Vec<Record<C>>,
    what: impl Fn(&str) -> String,
) -> Result<(), ReconcileError> {
    let digest = |record: &Record<C>| ids::quarantined(stage, json(record).as_bytes());
    let digests: Vec<Uuid> = absent.iter().map(digest).collect();
    let set_apart = snapshot.set_apart(&digests).await?;
    for (record, digest) in absent.into_iter().zip(digests) {
        if set_apart.contains(&digest) {
            comparison.set_apart += 1;
        } else {
            comparison.missing(record.record, || what(&record.id));
        }
    }
    Ok(())
}

/// Record, customer's id, and where it is or why.
fn placed_row(row: &Row) -> Result<(Uuid, &str, &str), tokio_postgres::Error> {
    Ok((row.try_get("record")?, row.try_get("id")?, row.try_get("place")?))
}

/// Message id, customer's id and status of an answer.
fn answer_row(row: &Row) -> Result<(Uuid, &str, &str), tokio_postgres::Error> {
    Ok((row.try_get("message_id")?, row.try_get("id")?, row.try_get("status")?))
}
