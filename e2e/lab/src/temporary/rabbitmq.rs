//! Throw-away RabbitMQ 4 servers.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use tokio::sync::Mutex;

use super::contained::Contained;

const SCRIPT: &str = include_str!("rabbitmq.sh");
/// From process start until all plugins run; 5 s on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(90);
/// Times other ports are tried when somebody else took one that was free.
const PORT_TRIES: usize = 5;

/// A running single-node RabbitMQ 4 on 127.0.0.1 without TLS, management plugin on, quorum queues usable.
/// User and password are `guest`, an administrator. Dropping it ends the broker and forgets its data.
pub struct RabbitMq {
    broker: Mutex<Contained>,
    amqp_port: u16,
    management_port: u16,
}

impl RabbitMq {
    /// Starts an empty broker.
    ///
    /// # Errors
    /// When the root folder is missing, this is not root, or the broker does not come up; with its log.
    pub async fn start() -> anyhow::Result<Self> {
        Self::run(None).await
    }

    /// Starts a broker whose data lies in an empty `folder`, which outlives it: for measuring.
    ///
    /// # Errors
    /// As [`RabbitMq::start`].
    pub async fn start_in(folder: &Path) -> anyhow::Result<Self> {
        Self::run(Some(folder)).await
    }

    async fn run(folder: Option<&Path>) -> anyhow::Result<Self> {
        let root = super::rootfs().await?;
        for _ in 0..PORT_TRIES {
            let ports = super::free_ports(4)?;
            let text: Vec<String> = ports.iter().map(u16::to_string).collect();
            let folder = folder.map(|folder| folder.display().to_string()).unwrap_or_default();
            let arguments = [&root, &text[0], &text[1], &text[2], &text[3], &folder].map(String::as_str);
            let mut broker = Contained::start(SCRIPT, &arguments)?;
            let up = |log: &str| {
                ready(log) || ["eaddrinuse", "dist_port_already_used"].iter().any(|taken| log.contains(taken))
            };
            broker.until("complete its start", START_LIMIT, up).await.context("temporary RabbitMQ")?;
            if ready(&broker.log()) {
                let broker = Mutex::new(broker);
                return Ok(Self { broker, amqp_port: ports[0], management_port: ports[1] });
            }
        }
        anyhow::bail!("temporary RabbitMQ: no four ports stayed free in {PORT_TRIES} tries")
    }

    /// Stops the broker in order and starts it again with its data, on the same ports.
    ///
    /// # Errors
    /// When it does not come up again; with its log.
    pub async fn restart(&self) -> anyhow::Result<()> {
        self.again("restart").await
    }

    /// Kills the broker and starts it again with its data, on the same ports.
    ///
    /// # Errors
    /// When it does not come up again; with its log.
    pub async fn crash(&self) -> anyhow::Result<()> {
        self.again("crash").await
    }

    async fn again(&self, command: &str) -> anyhow::Result<()> {
        let mut broker = self.broker.lock().await;
        let before = broker.log_end();
        broker.command(command)?;
        broker.until_since(before, "complete its start again", START_LIMIT, ready).await
    }

    /// What the broker has logged so far.
    pub async fn log(&self) -> String {
        self.broker.lock().await.log()
    }

    /// The AMQP address of virtual host `/`, user and password included.
    #[must_use]
    pub fn url(&self) -> String {
        format!("amqp://guest:guest@127.0.0.1:{}/%2f", self.amqp_port)
    }

    /// The TCP port of AMQP 0-9-1.
    #[must_use]
    pub fn amqp_port(&self) -> u16 {
        self.amqp_port
    }

    /// The base address of the management HTTP API, without a trailing slash.
    #[must_use]
    pub fn management_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.management_port)
    }
}

fn ready(log: &str) -> bool {
    log.contains("Server startup complete")
}
