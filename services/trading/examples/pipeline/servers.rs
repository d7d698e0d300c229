//! The servers, and a pipeline of real processes on them: a database and a virtual host of the broker for each.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use lab::temporary::{Postgres, RabbitMq};
use region_lease::{ConnectOptions, Guard, NewGrant, Opened};
use services_common::amqp::{Broker, BrokerConfig};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use trading::generate::Target;
use trading::names::Application;
use trading::run::StageName;
use uuid::Uuid;

pub(crate) const REGION: &str = "us-east-1";
/// What the server is told beside its defaults: durable, as in production, with room for what it writes.
pub(crate) const POSTGRES_OPTIONS: &str = "-c fsync=on -c shared_buffers=1GB -c max_wal_size=4GB \
    -c max_prepared_transactions=0 -c shared_preload_libraries=pg_stat_statements";
/// Starting and draining end within this time.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);
/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
const RENEWALS: Duration = Duration::from_secs(2);

/// Waits until `condition` gives a value.
pub(crate) async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// PostgreSQL and RabbitMQ with their data on disk.
pub(crate) struct Servers {
    pub(crate) postgres: Postgres,
    pub(crate) broker: RabbitMq,
    /// Gone after the servers: fields are dropped in their order.
    files: TempDir,
}

impl Servers {
    pub(crate) async fn start() -> Self {
        let files = tempfile::tempdir().unwrap();
        let folder = |name: &str| {
            let folder = files.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            folder
        };
        // The servers have no passwords to check, and the stages want a file.
        std::fs::write(files.path().join("password"), "guest").unwrap();
        let postgres = Postgres::start_in(&folder("postgres"), POSTGRES_OPTIONS).await.unwrap();
        let broker = RabbitMq::start_in(&folder("rabbitmq")).await.unwrap();
        Self { postgres, broker, files }
    }

    pub(crate) fn database(&self, name: &str, user: &str) -> ConnectOptions {
        ConnectOptions::new(self.postgres.host(), self.postgres.port(), name, user)
    }

    fn password(&self) -> PathBuf {
        self.files.path().join("password")
    }

    fn broker_url(&self, vhost: &str) -> String {
        format!("amqp://127.0.0.1:{}/{vhost}", self.broker.amqp_port())
    }

    pub(crate) fn broker_config(&self, vhost: &str, name: &str) -> BrokerConfig {
        BrokerConfig::new(&self.broker_url(vhost), "guest", "guest", None, name).unwrap()
    }

    /// Calls the broker's management.
    pub(crate) async fn management(&self, method: &str, path: &str) -> String {
        let address = self.broker.management_url().trim_start_matches("http://").parse().unwrap();
        // guest:guest
        http(address, method, path, "authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n").await.unwrap_or_default()
    }
}

/// One process of a stage.
pub(crate) struct Process {
    /// Application and stage.
    pub(crate) name: String,
    pub(crate) http: SocketAddr,
    /// Ends with this value.
    child: Child,
}

impl Process {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    pub(crate) async fn metrics(&self) -> Option<String> {
        http(self.http, "GET", "/metrics", "").await
    }
}

/// How the stages of a pipeline are started.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    /// Names database and virtual host.
    pub(crate) name: &'static str,
    pub(crate) settlements: bool,
    /// One message in a transaction.
    pub(crate) one_by_one: bool,
}

/// One application's database, and who renews its lease.
struct Home {
    database: String,
    keeper: JoinHandle<()>,
    sql: Client,
}

impl Drop for Home {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// All stages of trade matching and, with settlements, of the settlement application, open for work.
pub(crate) struct Pipeline {
    pub(crate) processes: Vec<Process>,
    vhost: String,
    homes: Vec<Home>,
}

impl Pipeline {
    pub(crate) async fn start(servers: &Servers, form: Form) -> Self {
        let vhost = form.name.to_owned();
        servers.management("PUT", &format!("/api/vhosts/{vhost}")).await;
        let mut applications = vec![(Application::TradeMatching, "trading", "trade-matching")];
        if form.settlements {
            applications.push((Application::Settlement, "settlement", "settlement"));
        }
        let (mut homes, mut processes) = (Vec::new(), Vec::new());
        for (application, word, app) in applications {
            let database = format!("{}_{word}", form.name);
            homes.push(home(servers, application, app, &vhost, &database).await);
            for stage in StageName::ALL {
                processes.push(process(servers, form, word, stage, &vhost, &database));
            }
        }
        let pipeline = Self { processes, vhost, homes };
        eventually("all stages open", async || {
            for process in &pipeline.processes {
                let text = process.metrics().await?;
                text.lines()
                    .any(|line| line.starts_with("services_gate{") && line.ends_with(" 2"))
                    .then_some(())?;
            }
            Some(())
        })
        .await;
        pipeline
    }

    pub(crate) fn target(&self, servers: &Servers, name: &str) -> Target {
        Target { broker: servers.broker_config(&self.vhost, name), dns: None }
    }

    /// Trade matching's database, as a superuser.
    pub(crate) fn sql(&self) -> &Client {
        &self.homes[0].sql
    }

    pub(crate) fn database(&self) -> &str {
        &self.homes[0].database
    }

    /// A single number from trade matching's database.
    pub(crate) async fn number(&self, query: &str) -> i64 {
        self.sql().query_one(query, &[]).await.unwrap().get(0)
    }

    /// Ends the stages, and forgets what they stored.
    pub(crate) async fn end(self, servers: &Servers) {
        let Self { processes, vhost, homes } = self;
        for mut process in processes {
            process.child.kill().await.unwrap();
        }
        let names: Vec<String> = homes.iter().map(|home| home.database.clone()).collect();
        drop(homes);
        let admin = region_lease::connect(&servers.database("postgres", "postgres")).await.unwrap();
        for name in names {
            admin.batch_execute(&format!("drop database {name} with (force)")).await.unwrap();
        }
        servers.management("DELETE", &format!("/api/vhosts/{vhost}")).await;
    }
}

/// A migrated database and declared queues, with the lease granted to this region, renewed and open.
async fn home(servers: &Servers, application: Application, app: &str, vhost: &str, database: &str) -> Home {
    let admin = region_lease::connect(&servers.database("postgres", "postgres")).await.unwrap();
    admin.batch_execute(&format!("create database {database}")).await.unwrap();
    let options = servers.database(database, "postgres");
    trading::migrate::database(application, &options, Instant::now() + PATIENCE).await.unwrap();
    let broker = Broker::new(servers.broker_config(vhost, "migrator"));
    trading::migrate::declare(application, &broker).await.unwrap();
    broker.close().await;
    let sql = region_lease::connect(&options).await.unwrap();
    sql.batch_execute("create extension pg_stat_statements").await.unwrap();
    let (grant_id, run) = (Uuid::new_v4(), Uuid::new_v4());
    let new = NewGrant { app, from_epoch: 0, epoch: 1, grant_id, region: REGION, run };
    region_lease::grant(&sql, new).await.unwrap();
    let guard = Guard::new(app, REGION, 1, grant_id);
    let renewing = region_lease::connect(&options).await.unwrap();
    let observed = region_lease::clock(&renewing).await.unwrap();
    region_lease::renew(&renewing, &guard, observed).await.unwrap();
    let keeper = tokio::spawn(async move {
        loop {
            tokio::time::sleep(RENEWALS).await;
            let observed = region_lease::clock(&renewing).await.unwrap();
            region_lease::renew(&renewing, &guard, observed).await.unwrap();
        }
    });
    region_lease::open(&sql, app, 1, grant_id, Opened::Intake).await.unwrap();
    Home { database: database.to_owned(), keeper, sql }
}

/// This very program as one stage, with the role that it has in production.
fn process(
    servers: &Servers,
    form: Form,
    word: &str,
    stage: StageName,
    vhost: &str,
    database: &str,
) -> Process {
    let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let http = free.local_addr().unwrap();
    drop(free);
    let (stage, url, password) = (stage.word(), servers.broker_url(vhost), servers.password());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([&format!("stage-of-{word}"), stage, "--region", REGION, "--probe-user", "nobody"]);
    command.args(["--app", if word == "trading" { "trade-matching" } else { word }]);
    command.args(["--database-host", servers.postgres.host(), "--database-name", database]);
    command.args(["--database-port", &servers.postgres.port().to_string()]);
    command.args(["--database-user", &format!("trading_{stage}")]);
    command.arg("--database-password-file").arg(&password);
    command
        .args(["--broker-url", &url, "--broker-user", "guest"])
        .arg("--broker-password-file")
        .arg(&password);
    command.args(["--http-listen", &http.to_string()]);
    if form.settlements {
        command.args(["--peer-broker-url", &url, "--peer-broker-user", "guest"]);
        command.arg("--peer-broker-password-file").arg(&password);
        if word == "trading" {
            command.arg("--settlements");
        }
    }
    if form.one_by_one {
        command.args(["--batch-limit", "1"]);
    }
    let child = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    let name = if word == "trading" { stage.to_owned() } else { format!("{word} {stage}") };
    Process { name, http, child }
}

/// The body of an answer to one request, by hand: enough for local servers.
async fn http(address: SocketAddr, method: &str, path: &str, headers: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).await.ok()?;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-length: 0\r\nconnection: close\r\n{headers}\r\n"
    );
    stream.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}
