//! One application: its broker, its database, its lease, its stages.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use lab::temporary::RabbitMq;
use services_common::amqp::BrokerConfig;
use tokio::process::Command;
use tokio::sync::{Mutex, OnceCell};
use tokio::task::JoinHandle;
use trading::names::{self, Application};
use trading::run::StageName;

use crate::Struck;
use crate::database::Database;
use crate::gateway::Gateway;
use crate::lease::Lease;
use crate::plan::short;
use crate::stage::Stage;

pub(crate) const REGION: &str = "us-east-1";
/// Migrating an empty database and declaring the queues.
const MIGRATION_LIMIT: Duration = Duration::from_secs(120);

pub(crate) struct Side {
    pub(crate) application: Application,
    pub(crate) broker: Broker,
    pub(crate) database: Database,
    pub(crate) lease: Lease,
    /// In the order in which a trade passes them.
    stages: OnceCell<Vec<(StageName, Arc<Stage>)>>,
    /// Logs, and the one password of everything.
    folder: PathBuf,
}

/// A broker under an address of its own.
pub(crate) struct Broker {
    pub(crate) gateway: Gateway,
    server: Mutex<RabbitMq>,
    port: u16,
    /// Its management pages, for people.
    pub(crate) management: String,
}

impl Broker {
    async fn start() -> Result<Self> {
        let server = RabbitMq::start().await?;
        let (port, management) = (server.amqp_port(), server.management_url());
        Ok(Self { gateway: Gateway::start(port).await?, server: Mutex::new(server), port, management })
    }

    /// The address that everybody uses.
    pub(crate) fn url(&self) -> String {
        format!("amqp://127.0.0.1:{}/", self.gateway.port())
    }

    /// For those who are no part of what is tested: past the gateway.
    pub(crate) fn direct(&self, name: &str) -> Result<BrokerConfig> {
        Ok(BrokerConfig::new(&format!("amqp://127.0.0.1:{}/", self.port), "guest", "guest", None, name)?)
    }

    /// Ends it and starts it again with its data.
    pub(crate) async fn restart(&self, crash: bool) -> Result<Struck> {
        let Ok(server) = self.server.try_lock() else { return Ok(Err("it is away already")) };
        if crash {
            server.crash().await?
        } else {
            server.restart().await?
        }
        Ok(Ok(()))
    }

    pub(crate) async fn log(&self) -> String {
        self.server.lock().await.log().await
    }
}

impl Side {
    /// Servers with everything migrated and declared, and the lease granted.
    pub(crate) async fn start(application: Application, folder: &Path) -> Result<Self> {
        let (app, name) = match application {
            Application::TradeMatching => ("trade-matching", "trading"),
            Application::Settlement => ("settlement", "settlement"),
        };
        let (database, broker) = tokio::try_join!(Database::start(name), Broker::start())?;
        let (lease, folder) = (Lease::new(app), folder.to_owned());
        let side = Self { application, broker, database, lease, stages: OnceCell::new(), folder };
        let mut arguments = vec![short(application).to_owned(), "migrate".to_owned()];
        arguments.extend(side.servers("postgres"));
        arguments.extend(["--lease-seconds".to_owned(), "10".to_owned()]);
        side.run(&arguments).await?;
        side.lease.grant(&side).await?;
        Ok(side)
    }

    /// Runs the program to its end; gives what it printed.
    pub(crate) async fn run(&self, arguments: &[String]) -> Result<String> {
        let mut command = Command::new(env!("CARGO_BIN_EXE_services"));
        let running = command.args(arguments).env_clear().kill_on_drop(true).output();
        let output = tokio::time::timeout(MIGRATION_LIMIT, running).await.context("no end")??;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(
            output.status.success(),
            "services {}: {}\n{}{}",
            arguments.join(" "),
            output.status,
            text(&output.stdout),
            text(&output.stderr)
        );
        Ok(text(&output.stdout))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// Options of a process that logs in with a role.
    fn servers(&self, role: &str) -> Vec<String> {
        let (port, password) = (self.database.gateway.port().to_string(), self.path("password"));
        let (name, url) = (self.database.name, self.broker.url());
        let options = [
            ["--database-host", "127.0.0.1"],
            ["--database-port", &port],
            ["--database-name", name],
            ["--database-user", role],
            ["--database-password-file", &password],
            ["--broker-url", &url],
            ["--broker-user", "guest"],
            ["--broker-password-file", &password],
        ];
        options.as_flattened().iter().map(|&word| word.to_owned()).collect()
    }

    /// Starts one process of each stage.
    pub(crate) fn start_stages(&self, peer: &Self) -> Result<Vec<JoinHandle<()>>> {
        let (mut stages, mut supervising) = (Vec::new(), Vec::new());
        for name in StageName::ALL {
            let application = short(self.application);
            let log = self.folder.join(format!("{application}-{}.log", name.word()));
            let called = format!("{application} {}", name.word());
            let (stage, task) = Stage::start(called, self.stage_arguments(name, peer), &log)?;
            stages.push((name, stage));
            supervising.push(task);
        }
        ensure!(self.stages.set(stages).is_ok(), "started twice");
        Ok(supervising)
    }

    fn stage_arguments(&self, name: StageName, peer: &Self) -> Vec<String> {
        let mut arguments = vec![short(self.application).to_owned(), name.word().to_owned()];
        arguments.extend(self.servers(&format!("trading_{}", name.word())));
        let (url, password) = (peer.broker.url(), self.path("password"));
        // Any port: nobody asks.
        let mut more = vec!["--region", REGION, "--http-listen", "127.0.0.1:0"];
        if self.application == Application::TradeMatching {
            more.push("--settlements");
        }
        if name == StageName::Outbound {
            more.extend(["--peer-broker-url", &url, "--peer-broker-user", "guest"]);
            more.extend(["--peer-broker-password-file", &password]);
        }
        arguments.extend(more.into_iter().map(str::to_owned));
        arguments
    }

    pub(crate) fn stages(&self) -> &[(StageName, Arc<Stage>)] {
        self.stages.get().map(Vec::as_slice).unwrap_or_default()
    }

    pub(crate) fn stage(&self, wanted: StageName) -> Result<&Arc<Stage>> {
        let found = self.stages().iter().find(|(name, _)| *name == wanted);
        Ok(&found.context("not started")?.1)
    }

    /// Compares its stores with each other and with those of the other application.
    pub(crate) async fn reconcile(&self, peer: &Self) -> Result<String> {
        let (port, password) = (peer.database.gateway.port().to_string(), self.path("password"));
        let mut arguments = match self.application {
            Application::TradeMatching => vec!["reconcile".to_owned()],
            Application::Settlement => vec!["settlement".to_owned(), "reconcile".to_owned()],
        };
        arguments.extend(self.servers("trading_core"));
        let more = [
            ["--region", REGION],
            ["--peer-database-host", "127.0.0.1"],
            ["--peer-database-port", &port],
            ["--peer-database-password-file", &password],
            ["--since", "all"],
            ["--grace", "0"],
        ];
        arguments.extend(more.as_flattened().iter().map(|&word| word.to_owned()));
        if self.application == Application::TradeMatching {
            arguments.push("--settlements".to_owned());
        }
        self.run(&arguments).await
    }

    /// Its queues, without the one that the customer reads.
    pub(crate) fn queues(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.application.queues().iter().copied().filter(|queue| *queue != names::OUT)
    }

    /// The logs of its servers, into the folder.
    pub(crate) async fn keep_logs(&self) -> Result<()> {
        let application = short(self.application);
        for (server, log) in [("broker", self.broker.log().await), ("database", self.database.log().await)] {
            std::fs::write(self.folder.join(format!("{application}-{server}.log")), log)?;
        }
        Ok(())
    }
}
