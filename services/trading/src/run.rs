//! One process of the pipeline: gate, stage, relay, HTTP; from start to drained end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use clap::Args;
use services_common::amqp::{Broker, BrokerConfig};
use services_common::config::{BrokerArgs, ConfigError, DatabaseArgs, HttpArgs, RegionArgs};
use services_common::gate::GateKeeper;
use services_common::health::{self, Health};
use services_common::metrics::Metrics;
use services_common::postgres::Database;
use services_common::stage::{self, StageDeps};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::core::{self, Core, hooks};
use crate::egress::Egress;
use crate::figures::{self, Figures};
use crate::inbound::Inbound;
use crate::ingestion::Ingestion;
use crate::outbound::Outbound;

/// Connections of one process: stage, relay, gate, hooks, and one to spare.
const POOL_SIZE: usize = 6;
/// Longest time that a process takes to finish what it has begun.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

/// Which stage a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StageName {
    /// Takes customers' messages.
    Inbound,
    /// Validates them.
    Ingestion,
    /// Matches them and decides.
    Core,
    /// Makes the answers.
    Egress,
    /// Sends them to customers.
    Outbound,
}

impl StageName {
    /// All stages, in the order in which a trade passes them.
    pub const ALL: [Self; 5] = [Self::Inbound, Self::Ingestion, Self::Core, Self::Egress, Self::Outbound];

    /// The word in names of roles, users and Deployments.
    pub fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Ingestion => "ingestion",
            Self::Core => "core",
            Self::Egress => "egress",
            Self::Outbound => "outbound",
        }
    }
}

/// Options of every stage.
#[derive(Args, Clone, Debug)]
pub struct StageArgs {
    #[command(flatten)]
    region: RegionArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: BrokerArgs,
    #[command(flatten)]
    http: HttpArgs,
    /// Broker user whose messages on the first queue are probes, not business
    #[arg(long, env = "PROBE_USER", default_value = "tm-core")]
    probe_user: String,
}

/// Why a process could not start or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Wrong configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The listener of `--http-listen`.
    #[error("--http-listen {address} cannot be used; choose another port")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP server failed.
    #[error("the HTTP server failed")]
    Http(#[from] std::io::Error),
}

/// What a stage is given; tests build it by hand.
#[derive(Clone)]
pub struct Deps {
    /// Application.
    pub app: String,
    /// Region of this process.
    pub region: String,
    /// The region's own database.
    pub database: Database,
    /// The region's own broker.
    pub broker: BrokerConfig,
    /// User at the broker.
    pub broker_user: String,
    /// User whose messages are probes.
    pub probe_user: String,
}

/// Runs a stage as configured until `shutdown`.
///
/// # Errors
/// Wrong configuration, or the HTTP address cannot be used.
pub async fn from_args(
    name: StageName,
    args: StageArgs,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let identity = format!("{}-{} {}", args.region.app, name.word(), args.region.region);
    let deps = Deps {
        app: args.region.app.clone(),
        region: args.region.region.clone(),
        database: Database::from_args(&args.database, &identity, POOL_SIZE).await?,
        broker: BrokerConfig::from_args(&args.broker, &identity).await?,
        broker_user: args.broker.broker_user.clone(),
        probe_user: args.probe_user,
    };
    let address = args.http.http_listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    run(name, deps, listener, shutdown).await
}

/// Runs a stage until `shutdown`, then drains it within a bound.
///
/// # Errors
/// The HTTP server failed.
pub async fn run(
    name: StageName,
    deps: Deps,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let (metrics, figures) = metrics(name);
    let stage_deps = StageDeps {
        database: deps.database.clone(),
        broker: Arc::new(Broker::new(deps.broker.clone())),
        gate: GateKeeper::default(),
        metrics,
    };
    let router = router(name, &deps, &stage_deps);
    let gate = stage_deps.gate.clone();
    let (database, app, region) = (deps.database.clone(), deps.app.clone(), deps.region.clone());
    let stop = shutdown.clone();
    let gate = tokio::spawn(async move { gate.run(&database, &app, &region, stop).await });
    let work = tokio::spawn(work(name, deps, stage_deps.clone(), figures, shutdown.clone()));
    let served = health::serve(listener, router, shutdown.clone()).await;
    // Serving ends at shutdown, or because it failed: then the rest must end too.
    shutdown.cancel();
    if timeout(DRAIN_DEADLINE, work).await.is_err() {
        tracing::warn!(
            seconds = DRAIN_DEADLINE.as_secs(),
            "not drained in time; the broker redelivers what is left"
        );
    }
    gate.abort();
    stage_deps.broker.close().await;
    Ok(served?)
}

/// The metrics of a process; the application's own are those of the last stage and of core.
fn metrics(name: StageName) -> (Metrics, Figures) {
    let figures = Figures::default();
    let metrics = Metrics::with(name.word(), |registry| match name {
        StageName::Inbound | StageName::Ingestion | StageName::Egress => {}
        StageName::Core => figures.register_backlog(registry),
        StageName::Outbound => figures.register_answers(registry),
    });
    (metrics, figures)
}

fn router(name: StageName, deps: &Deps, stage_deps: &StageDeps) -> Router {
    let health = health::router(Health {
        stage: name.word(),
        app: deps.app.clone(),
        region: deps.region.clone(),
        gate: stage_deps.gate.watch(),
        broker: stage_deps.broker.clone(),
        metrics: stage_deps.metrics.clone(),
    });
    match name {
        StageName::Inbound | StageName::Ingestion | StageName::Egress | StageName::Outbound => health,
        StageName::Core => {
            health.merge(figures::router(deps.database.clone())).merge(hooks::router(hooks::Hooks {
                app: deps.app.clone(),
                region: deps.region.clone(),
                broker_user: deps.broker_user.clone(),
                deps: stage_deps.clone(),
            }))
        }
    }
}

async fn work(
    name: StageName,
    deps: Deps,
    stage_deps: StageDeps,
    figures: Figures,
    shutdown: CancellationToken,
) {
    match name {
        StageName::Inbound => stage::run(Inbound { probe_user: deps.probe_user }, stage_deps, shutdown).await,
        StageName::Ingestion => stage::run(Ingestion, stage_deps, shutdown).await,
        StageName::Egress => stage::run(Egress, stage_deps, shutdown).await,
        StageName::Outbound => stage::run(Outbound { figures }, stage_deps, shutdown).await,
        StageName::Core => {
            let answers_written = Arc::new(Notify::new());
            let core = Core { answers_written: answers_written.clone() };
            tokio::join!(
                stage::run(core, stage_deps.clone(), shutdown.clone()),
                core::relay::run(stage_deps, answers_written, shutdown.clone()),
                figures::watch_backlog(deps.database, figures, shutdown),
            );
        }
    }
}
