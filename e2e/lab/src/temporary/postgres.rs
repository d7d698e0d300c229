//! Throw-away PostgreSQL 17 servers, and streaming standbys of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Mutex;

use super::contained::Contained;

const SCRIPT: &str = include_str!("postgres.sh");
/// `initdb` once a machine; takes some seconds on a busy one.
const TEMPLATE_LIMIT: Duration = Duration::from_secs(60);
/// From process start until connections are accepted; a standby copies its primary first.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Times another port is tried when somebody else took the one that was free.
const PORT_TRIES: usize = 5;
/// The template's name. A change of what `postgres.sh` writes into it needs a new one.
const TEMPLATE: &str = "temporary-postgres-17-v1";

/// A running PostgreSQL 17 on 127.0.0.1 without TLS. Every role logs in without a password; the superuser is
/// `postgres`. `max_prepared_transactions` is 10. Dropping it ends the server and forgets its data.
pub struct Postgres {
    server: Mutex<Contained>,
    port: u16,
}

impl Postgres {
    /// Starts a primary with an empty database `postgres`.
    ///
    /// # Errors
    /// When the root folder is missing, this is not root, or the server does not come up; with its log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::run("primary", None, None).await
    }

    /// Starts a primary whose data lies in an empty `folder`, which outlives it, with further `options` of the server
    /// (`-c name=value …`, words without quotes): for measuring, where memory is too small or too quick.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn start_in(folder: &Path, options: &str) -> anyhow::Result<Self> {
        Self::run("primary", None, Some((folder, options))).await
    }

    /// Starts a hot standby of `primary` and waits until it streams.
    ///
    /// # Errors
    /// As [`Postgres::start`].
    pub async fn standby(primary: &Self) -> anyhow::Result<Self> {
        let standby = Self::run("standby", Some(primary.port), None).await?;
        let streams = |log: &str| log.contains("started streaming WAL from primary");
        standby.server.lock().await.until("stream from the primary", START_LIMIT, streams).await?;
        Ok(standby)
    }

    /// Always 127.0.0.1.
    #[must_use]
    pub fn host(&self) -> &'static str {
        "127.0.0.1"
    }

    /// The TCP port, the same for the server's life, restarts included.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// A connection string for tokio-postgres or psql.
    #[must_use]
    pub fn url(&self, user: &str, database: &str) -> String {
        format!("postgresql://{user}@{}:{}/{database}", self.host(), self.port)
    }

    /// What the server has logged so far.
    pub async fn log(&self) -> String {
        self.server.lock().await.log()
    }

    /// Ends the server as a crash would (no checkpoint, connections broken) and starts it again.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.again("restart").await
    }

    /// Ends the server as people do (sessions ended, standbys given everything, a checkpoint) and starts it again.
    ///
    /// # Errors
    /// When it does not come up again.
    pub async fn restart_fast(&self) -> anyhow::Result<()> {
        self.again("fast").await
    }

    async fn again(&self, command: &str) -> anyhow::Result<()> {
        let mut server = self.server.lock().await;
        let before = server.log_end();
        server.command(command)?;
        server.until_since(before, "accept connections again", START_LIMIT, |log| starts(log) > 0).await
    }

    async fn run(
        role: &str,
        primary_port: Option<u16>,
        on_disk: Option<(&Path, &str)>,
    ) -> anyhow::Result<Self> {
        let root = super::rootfs().await?;
        let template = template(&root).await?.display().to_string();
        let mut last = None;
        for _ in 0..PORT_TRIES {
            let port = super::free_ports(1)?[0];
            let (folder, options) = on_disk
                .map_or((String::new(), ""), |(folder, options)| (folder.display().to_string(), options));
            let ports = [port, primary_port.unwrap_or(0)].map(|port| port.to_string());
            let arguments = [&root, &template, role, &ports[0], &ports[1], &folder, options];
            let mut server = Contained::start(SCRIPT, &arguments)?;
            let up = |log: &str| starts(log) > 0 || log.contains("Address already in use");
            server.until("accept connections", START_LIMIT, up).await.context("temporary PostgreSQL")?;
            if starts(&server.log()) > 0 {
                return Ok(Self { server: Mutex::new(server), port });
            }
            last = Some(port);
        }
        anyhow::bail!("temporary PostgreSQL: no port stayed free in {PORT_TRIES} tries, the last {last:?}")
    }
}

/// How many times the server has begun to accept connections.
fn starts(log: &str) -> usize {
    log.matches("database system is ready to accept").count()
}

/// The folder of a freshly initialised database, made at the first call on this machine.
async fn template(root: &str) -> anyhow::Result<PathBuf> {
    let folder = crate::cache::folder()?.join(TEMPLATE);
    if !folder.exists() {
        let arguments = [root, &folder.display().to_string(), "template"];
        Contained::start(SCRIPT, &arguments)?
            .finished(TEMPLATE_LIMIT)
            .await
            .context("temporary PostgreSQL: initdb")?;
    }
    Ok(folder)
}
