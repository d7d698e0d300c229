//! Reconciliation: for each boundary of a pipeline, and of the two applications, whether the stage behind it has what the
//! stage before it stored, with the same content and status; and, on demand, sending again what is missing.
//!
//! Both sides are read in one snapshot of one primary, and what lies in two databases is looked at until it is sure, so
//! traffic makes no findings. Without a replay nothing is changed.

mod audit;
mod between;
mod continuous;
mod core_egress;
mod egress_outbound;
mod finding;
mod inbound_ingress;
mod ingress_core;
mod job;
mod made;
mod options;
mod peer;
mod replay;
mod report;
mod return_core;
mod snapshot;
mod sums;

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
use between::Between;
use replay::Replayer;
use snapshot::Snapshot;

use crate::envelope::Record;
use crate::ids;
use crate::message::Trade;
use crate::names::Application;
use crate::settlement::{Back, Settlement};

pub use continuous::Watched;
pub use finding::{Comparison, Finding, Findings};
pub use job::Job;
pub use options::{Output, ReconcileArgs, Since, from_args};
pub use peer::Peer;
pub use report::{Boundary, Outcome, Replayed, Report, Untold};

/// Connections of a replay: one to write, one to look.
const POOL_SIZE: usize = 2;

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
    /// How long a replay goes on in which nothing of what it sent arrives.
    pub wait: Duration,
    /// Who runs it, for the audit row.
    pub by: String,
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Which of the two pipelines it is.
    pub application: Application,
    /// Application whose lease allows a replay.
    pub app: String,
    /// Region whose stores are compared.
    pub region: String,
    /// The region's own database, as core's role.
    pub database: ConnectOptions,
    /// The other application; needed for a boundary between the two.
    pub peer: Option<Peer>,
    /// The boundaries, all of this application.
    pub jobs: Vec<Job>,
    /// The records.
    pub window: Window,
    /// When trade matching sends a settlement again that has not come back.
    pub resend_after: Duration,
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
    /// This region does not hold the lease.
    #[error("--replay is refused: {holder} holds the lease. Run it in the region that does")]
    Elsewhere {
        /// The region that holds it, or nobody.
        holder: String,
    },
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
    /// The other application's database could not be reached, or its lease could not be read.
    #[error(
        "the database of {app} could not be asked; run it again, and check the options --peer-database-*"
    )]
    Peer {
        /// The other application.
        app: String,
        /// Why.
        source: LeaseError,
    },
    /// One of two databases is not the one that counts.
    #[error(
        "the database of {app} is not known to be the primary of the region that holds its lease: {reason}. \
         Run it again when nothing is being moved"
    )]
    NotPrimary {
        /// The application.
        app: String,
        /// What its lease says.
        reason: String,
    },
    /// More differs than fits in memory.
    #[error("{job:?}: more than {limit} records seem to differ; run it again over a shorter --since")]
    TooDifferent {
        /// The boundary.
        job: Job,
        /// How many are looked at.
        limit: usize,
    },
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

/// Compares, and replays if that is planned, one boundary after the other. One that could not be compared, or not to its end,
/// is told as such in the report.
///
/// # Errors
/// Of no boundary it is known whether the stores agree: a standby, no connection, a replay that is not allowed or broke off.
pub async fn run(plan: &Plan) -> Result<Report, ReconcileError> {
    let Some(replaying) = &plan.replay else {
        return each(plan, snapshot::connect(plan.database.clone()).await?, None).await;
    };
    let database = Database::new(&plan.database.clone().writer(), POOL_SIZE)?;
    let broker = Broker::new(replaying.broker.clone());
    let place = Place { database: &database, broker: &broker };
    let report = run_within(plan, place, replaying.wait, &replaying.by).await;
    broker.close().await;
    report
}

/// Where a replay writes and publishes.
#[derive(Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) database: &'a Database,
    pub(crate) broker: &'a Broker,
}

/// The same with a replay that uses what its process has.
pub(crate) async fn run_within(
    plan: &Plan,
    Place { database, broker }: Place<'_>,
    wait: Duration,
    by: &str,
) -> Result<Report, ReconcileError> {
    let client = snapshot::connect(plan.database.clone()).await?;
    let grant = grant(&client, plan).await?;
    let replayer = Replayer { database, broker, grant: &grant, wait, plan };
    each(plan, client, Some((&replayer, by))).await
}

/// One boundary after the other.
async fn each(
    plan: &Plan,
    client: Client,
    replay: Option<(&Replayer<'_>, &str)>,
) -> Result<Report, ReconcileError> {
    let mut run = Run { plan, client, doubtful: false };
    let (mut boundaries, mut untold) = (Vec::new(), Vec::new());
    for job in &plan.jobs {
        let outcome = match replay {
            None => run.compare(*job).await.map(|comparison| Boundary { comparison, replay: None }),
            Some((replayer, by)) => run.repair(*job, replayer, by).await,
        };
        match outcome {
            Ok(boundary) => boundaries.push(boundary),
            Err(error) => {
                run.doubtful = true;
                let first = boundaries.is_empty() && untold.is_empty();
                untold.push(Untold::of(*job, error, first)?);
            }
        }
    }
    let agrees = untold.is_empty() && boundaries.iter().all(Boundary::agrees);
    Ok(Report { app: plan.app.clone(), region: plan.region.clone(), agrees, boundaries, untold })
}

/// A run with its connection for reading.
struct Run<'a> {
    plan: &'a Plan,
    client: Client,
    /// A boundary could not be read: the server may have ended the session, and the driver may not know it yet.
    doubtful: bool,
}

/// The grant under which this region may write now.
async fn grant(client: &Client, plan: &Plan) -> Result<Grant, ReconcileError> {
    let reading = read_lease(client, &plan.app).await?;
    if let Some(row) = reading.row.as_ref().filter(|row| row.holder.as_ref() != Some(&plan.region)) {
        let holder = row.holder.clone().unwrap_or_else(|| "nobody".to_owned());
        return Err(ReconcileError::Elsewhere { holder });
    }
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

impl Run<'_> {
    async fn compare(&mut self, job: Job) -> Result<Comparison, ReconcileError> {
        // What ended the connection at one boundary is no reason not to look at the next.
        if self.doubtful || self.client.is_closed() {
            self.client = snapshot::connect(self.plan.database.clone()).await?;
            self.doubtful = false;
        }
        if job.is_between() {
            let needed = || ConfigError::Value {
                option: "--peer-database-host",
                reason: format!("{} reads the other application's database too", job.word()),
            };
            let peer = self.plan.peer.as_ref().ok_or_else(needed)?;
            return Between { plan: self.plan, peer, job }.compare(&mut self.client).await;
        }
        let snapshot = Snapshot::begin(&mut self.client, job, self.plan.window).await?;
        match job {
            Job::InboundIngress => inbound_ingress::compare::<Trade>(&snapshot, job).await,
            Job::ReturnInboundIngress => inbound_ingress::compare::<Back>(&snapshot, job).await,
            Job::SettlementInboundIngress => inbound_ingress::compare::<Settlement>(&snapshot, job).await,
            Job::IngressCore => ingress_core::compare::<Trade>(&snapshot, job).await,
            Job::SettlementIngressCore => ingress_core::compare::<Settlement>(&snapshot, job).await,
            Job::ReturnIngressCore => return_core::compare(&snapshot).await,
            Job::CoreEgress => core_egress::compare(&snapshot).await,
            Job::CoreSettlements => made::compare::<Trade>(&snapshot, job).await,
            Job::SettlementCoreEgress => made::compare::<Settlement>(&snapshot, job).await,
            Job::EgressOutbound
            | Job::OutboundSettlementInbound
            | Job::SettlementOutboundSettlementInbound => egress_outbound::compare(&snapshot).await,
        }
    }

    /// Sends again what is missing, in rounds, and compares anew after the last one, as long as that brings something
    /// downstream.
    async fn repair(
        &mut self,
        job: Job,
        replayer: &Replayer<'_>,
        by: &str,
    ) -> Result<Boundary, ReconcileError> {
        let mut comparison = self.compare(job).await?;
        let (found, clean) = (comparison.missing.count, comparison.clean());
        let audit = Audit::begin(replayer.database, replayer.grant, by, &comparison).await?;
        let (mut replayed, mut left) = (0, found);
        while !comparison.replayable.is_empty() {
            let sent = replayer.send(job, std::mem::take(&mut comparison.replayable)).await?;
            replayed += sent.records;
            comparison = self.compare(job).await?;
            // What was put on its way again may look young.
            let now = comparison.missing.count.max(sent.not_arrived);
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
}

/// Earliest `caused_ms` of what a window looks at: a day before the mark ($1), or that of the oldest answer on its way.
const ANSWERED_SINCE: &str = "least($1::bigint - 86400000, (select caused_ms from trading.oldest_answer))";

/// Of `trading.outbox`: what the relay was given since the mark ($1), and what it has not sent, however old that is.
fn given_to_relay() -> String {
    format!(
        "(outbox.sent_at is null or outbox.seq = any(array(select seq from trading.unsent)) \
          or outbox.sent_at >= to_timestamp($1::bigint / 1000.0)) and outbox.caused_ms >= {ANSWERED_SINCE}"
    )
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
    let digest = |record: &Record<C>| ids::quarantined(stage, record.apart().as_bytes());
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
