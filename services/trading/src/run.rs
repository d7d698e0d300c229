//! One process of the pipeline: gate, stage, relay, HTTP; from start to drained end.

mod options;
mod peer;

use std::future::pending;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use services_common::amqp::{Broker, BrokerConfig};
use services_common::config::ConfigError;
use services_common::gate::GateKeeper;
use services_common::health::{self, Health, Own};
use services_common::metrics::Metrics;
use services_common::postgres::Database;
use services_common::stage::{self, Stage, StageDeps};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::core::expiry::Expiry;
use crate::core::reconciling::Reconciling;
use crate::core::relay::{self, Relay};
use crate::core::replay::Whose;
use crate::core::returns::Returns;
use crate::core::{Core, Subject, hooks};
use crate::days::Days;
use crate::egress::Egress;
use crate::figures::{self, Figures};
use crate::inbound::Inbound;
use crate::ingestion::Ingestion;
use crate::message::Trade;
use crate::names::{self, Application};
use crate::outbound::Outbound;
use crate::overview::Overview;
use crate::settlement::returning::Returning;
use crate::settlement::{Back, Settlement, outgoing, probing, resend};

pub use options::{StageArgs, TradingArgs};
pub use peer::PeerArgs;

/// Connections of one process: two lines, relay, gate, hooks, days, expiry, and one to spare.
const POOL_SIZE: usize = 8;
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

/// Whether settlements flow, and where outbound sends them.
#[derive(Clone, Debug)]
pub enum Settlements {
    /// Matched trades stay matched.
    Off,
    /// They flow. Only outbound has the other application's broker.
    On(Option<Box<BrokerConfig>>),
}

impl Settlements {
    fn on(&self) -> bool {
        matches!(self, Self::On(_))
    }
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
    /// A part of the process has ended before its shutdown: a panic, which the log has.
    #[error("{part} has ended by itself, which is a bug; the process ends too, so that it is started anew")]
    Ended {
        /// What has ended.
        part: &'static str,
    },
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
    /// Which application the stage is of.
    pub application: Application,
    /// Always on in the settlement application.
    pub settlements: Settlements,
    /// How long trade matching waits for a settlement to come back before it sends it again.
    pub resend_after: Duration,
    /// Messages in one transaction at most; `None` leaves it to the stages.
    pub batch_limit: Option<NonZeroU16>,
    /// Days that core lets the stores keep, at least 7; `None` is all.
    pub keep_days: Option<NonZeroU16>,
    /// Days after the trade date for which core lets a trade wait; `None` is for ever.
    pub expire_after: Option<NonZeroU16>,
}

/// Runs a stage of trade matching as configured until `shutdown`.
///
/// # Errors
/// Wrong configuration, or the HTTP address cannot be used.
pub async fn from_args(
    name: StageName,
    args: TradingArgs,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    let resend_after = Duration::from_secs(args.resend_after_seconds);
    let settlements = args.settlements.then_some(resend_after);
    let expire_after = NonZeroU16::new(args.expire_after_days);
    let deps = configured(Application::TradeMatching, name, &args.stage, settlements).await?;
    listening(name, Deps { expire_after, ..deps }, &args.stage, shutdown).await
}

/// Runs a stage of the settlement application as configured until `shutdown`.
///
/// # Errors
/// As [`from_args`].
pub async fn settlement_from_args(
    name: StageName,
    args: StageArgs,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
    // It sends nothing again by itself: it answers what comes again.
    let deps = configured(Application::Settlement, name, &args, Some(Duration::MAX)).await?;
    listening(name, deps, &args, shutdown).await
}

async fn configured(
    application: Application,
    name: StageName,
    args: &StageArgs,
    settlements: Option<Duration>,
) -> Result<Deps, RunError> {
    let identity = format!("{}-{} {}", args.region.app, name.word(), args.region.region);
    Ok(Deps {
        app: args.region.app.clone(),
        region: args.region.region.clone(),
        database: Database::from_args(&args.database, &identity, POOL_SIZE).await?,
        broker: BrokerConfig::from_args(&args.broker, &identity).await?,
        broker_user: args.broker.broker_user.clone(),
        probe_user: args.probe_user.clone(),
        application,
        settlements: match (settlements, name) {
            (None, _) => Settlements::Off,
            (Some(_), StageName::Outbound) => {
                Settlements::On(Some(Box::new(args.peer.clone().broker(&identity).await?)))
            }
            (Some(_), _) => Settlements::On(None),
        },
        resend_after: settlements.unwrap_or(Duration::MAX),
        batch_limit: args.batch_limit,
        keep_days: args.keep_days.0,
        expire_after: None,
    })
}

async fn listening(
    name: StageName,
    deps: Deps,
    args: &StageArgs,
    shutdown: CancellationToken,
) -> Result<(), RunError> {
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
    let (metrics, figures) = metrics(name, deps.application);
    let stage_deps = StageDeps {
        database: deps.database.clone(),
        broker: Arc::new(Broker::new(deps.broker.clone())),
        gate: GateKeeper::default(),
        metrics,
        batch_limit: deps.batch_limit,
    };
    let overview = Overview::default();
    let router = router(name, &deps, &stage_deps, &overview);
    let gate = stage_deps.gate.clone();
    let (database, app, region) = (deps.database.clone(), deps.app.clone(), deps.region.clone());
    let stop = shutdown.clone();
    let mut gate = tokio::spawn(async move { gate.run(&database, &app, &region, stop).await });
    let shared = stage_deps.clone();
    let doing = Work { deps, stage_deps: shared, figures, overview, shutdown: shutdown.clone() };
    let mut work = tokio::spawn(work(name, doing));
    // Serving ends at shutdown. If anything ends before, the rest must end too: what answers as healthy and does nothing is
    // never started anew.
    let served = tokio::select! {
        served = health::serve(listener, router, shutdown.clone()) => served.map_err(RunError::from),
        ended = ended_by_itself("the stage", &mut work, &shutdown) => Err(ended),
        ended = ended_by_itself("the gate", &mut gate, &shutdown) => Err(ended),
    };
    shutdown.cancel();
    if !work.is_finished() && timeout(DRAIN_DEADLINE, work).await.is_err() {
        tracing::warn!(
            seconds = DRAIN_DEADLINE.as_secs(),
            "not drained in time; the broker redelivers what is left"
        );
    }
    gate.abort();
    stage_deps.broker.close().await;
    served
}

/// Resolves when a task ends without having been asked to.
async fn ended_by_itself(
    part: &'static str,
    task: &mut JoinHandle<()>,
    shutdown: &CancellationToken,
) -> RunError {
    let end = task.await;
    if shutdown.is_cancelled() {
        return pending().await;
    }
    tracing::error!(part, panicked = end.is_err(), "has ended by itself");
    RunError::Ended { part }
}

/// What `/metrics` of a stage shows before it has done anything: every metric that it will ever have.
pub fn metrics_at_start(name: StageName, application: Application) -> String {
    metrics(name, application).0.text()
}

/// The metrics of a process; the application's own are those of the last stage and of core.
fn metrics(name: StageName, application: Application) -> (Metrics, Figures) {
    let figures = Figures::default();
    let metrics = Metrics::with(name.word(), |registry| match name {
        StageName::Inbound | StageName::Ingestion | StageName::Egress => {}
        StageName::Core => figures.register_core(application, registry),
        StageName::Outbound if application == Application::Settlement => {}
        StageName::Outbound => figures.register_answers(registry),
    });
    (metrics, figures)
}

fn router(name: StageName, deps: &Deps, stage_deps: &StageDeps, overview: &Overview) -> Router {
    let own: Option<Own> = (name == StageName::Core).then(|| {
        let overview = overview.clone();
        Arc::new(move || overview.json(Instant::now())) as Own
    });
    let health = health::router(Health {
        stage: name.word(),
        app: deps.app.clone(),
        region: deps.region.clone(),
        gate: stage_deps.gate.watch(),
        broker: stage_deps.broker.clone(),
        metrics: stage_deps.metrics.clone(),
        started: Instant::now(),
        own,
    });
    match name {
        StageName::Inbound | StageName::Ingestion | StageName::Egress | StageName::Outbound => health,
        StageName::Core => {
            health.merge(figures::router(deps.database.clone())).merge(hooks::router(hooks::Hooks {
                app: deps.app.clone(),
                region: deps.region.clone(),
                broker_user: deps.broker_user.clone(),
                deps: stage_deps.clone(),
                whose: match deps.application {
                    Application::TradeMatching => Whose::TradeMatching { settlements: deps.settlements.on() },
                    Application::Settlement => Whose::Settlement,
                },
                reconciling: Reconciling::default(),
            }))
        }
    }
}

/// The work of one process.
#[derive(Clone)]
struct Work {
    deps: Deps,
    stage_deps: StageDeps,
    figures: Figures,
    overview: Overview,
    shutdown: CancellationToken,
}

async fn work(name: StageName, work: Work) {
    match work.deps.application {
        Application::TradeMatching => work.trade_matching(name).await,
        Application::Settlement => work.settlement(name).await,
    }
}

impl Work {
    async fn trade_matching(self, name: StageName) {
        let on = self.deps.settlements.on();
        match name {
            StageName::Inbound => {
                let probe_user = Some(self.deps.probe_user.clone());
                let returned = Inbound { line: &names::RETURNED, probe_user: None };
                let trades = self.stage(Inbound { line: &names::TRADES, probe_user });
                tokio::join!(trades, self.second_line(returned));
            }
            StageName::Ingestion => {
                let trades = self.stage(Ingestion::<Trade>::default());
                tokio::join!(trades, self.second_line(Ingestion::<Back>::default()));
            }
            StageName::Core => {
                let written = Arc::new(Notify::new());
                let returns = Returns { answers_written: written.clone() };
                let expiry = self.expire(written.clone());
                tokio::join!(self.core::<Trade>(written), self.second_line(returns), expiry);
            }
            StageName::Egress => self.stage(Egress { settlements: on }).await,
            StageName::Outbound => {
                let answers = self.stage(Outbound { figures: self.figures.clone() });
                tokio::join!(answers, self.send_settlements(), self.resend_settlements());
            }
        }
    }

    async fn settlement(self, name: StageName) {
        match name {
            StageName::Inbound => {
                let probe_user = Some(self.deps.probe_user.clone());
                self.stage(Inbound { line: &names::SETTLEMENTS, probe_user }).await;
            }
            StageName::Ingestion => self.stage(Ingestion::<Settlement>::default()).await,
            StageName::Core => self.core::<Settlement>(Arc::new(Notify::new())).await,
            StageName::Egress => self.stage(Returning).await,
            StageName::Outbound => {
                let probes = probing::run(self.stage_deps.clone(), self.shutdown.clone());
                tokio::join!(self.send_settlements(), probes);
            }
        }
    }

    /// What comes back from the settlement application, if anything does.
    async fn second_line(&self, stage: impl Stage) {
        if self.deps.settlements.on() {
            self.stage(stage).await;
        }
    }

    async fn stage(&self, stage: impl Stage) {
        stage::run(stage, self.stage_deps.clone(), self.shutdown.clone()).await;
    }

    async fn core<C: Subject>(&self, written: Arc<Notify>) {
        let relay = Relay {
            deps: self.stage_deps.clone(),
            broker: self.stage_deps.broker.clone(),
            route: relay::outbox::<C>(),
            written: written.clone(),
        };
        let watch = figures::Watch {
            database: self.deps.database.clone(),
            figures: self.figures.clone(),
            overview: self.overview.clone(),
            application: self.deps.application,
        };
        let core = Core::<C>::new(written, self.deps.settlements.on());
        let days = Days {
            deps: self.stage_deps.clone(),
            keep: self.deps.keep_days,
            standing: self.figures.days.clone(),
        };
        let stop = || self.shutdown.clone();
        tokio::join!(self.stage(core), relay.run(stop()), watch.run(stop()), days.run(stop()));
    }

    async fn expire(&self, answers_written: Arc<Notify>) {
        let Some(after) = self.deps.expire_after else { return };
        let (deps, expired) = (self.stage_deps.clone(), self.figures.expired.clone());
        Expiry { deps, after, answers_written, expired }.run(self.shutdown.clone()).await;
    }

    async fn resend_settlements(&self) {
        if self.deps.settlements.on() {
            let (stage_deps, after) = (self.stage_deps.clone(), self.deps.resend_after);
            resend::run(stage_deps, after, self.shutdown.clone()).await;
        }
    }

    /// On a connection and in a task of its own: the answers do not wait for the other application.
    async fn send_settlements(&self) {
        let Settlements::On(Some(peer)) = &self.deps.settlements else { return };
        let relay = Relay {
            deps: self.stage_deps.clone(),
            broker: Arc::new(Broker::new(peer.as_ref().clone())),
            route: outgoing::route(self.deps.application, self.deps.resend_after),
            // Egress, another process, writes the rows: they are looked for.
            written: Arc::new(Notify::new()),
        };
        let broker = relay.broker.clone();
        relay.run(self.shutdown.clone()).await;
        broker.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    #[allow(clippy::panic, reason = "the panic is what is tested")]
    async fn a_part_that_panics_ends_the_process_and_one_that_was_told_to_stop_does_not() {
        let shutdown = CancellationToken::new();
        let mut panics = tokio::spawn(async { panic!("a bug") });
        let ended = ended_by_itself("the stage", &mut panics, &shutdown).await;
        assert!(ended.to_string().starts_with("the stage has ended by itself"), "{ended}");

        let mut stops = tokio::spawn(shutdown.clone().cancelled_owned());
        shutdown.cancel();
        let told = timeout(Duration::from_millis(50), ended_by_itself("the stage", &mut stops, &shutdown));
        assert!(told.await.is_err(), "shutdown is no failure");
    }
}
