//! A pipeline on throw-away servers: one PostgreSQL and one RabbitMQ for the whole test program, a database and a
//! virtual host for each test.

#![allow(dead_code, unreachable_pub, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests: failing is how they report"
)]

pub mod both;
mod conserved;
pub mod days;
mod raw_amqp;
pub mod reconciling;
pub mod reports;
pub mod stores;
pub mod traces;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use futures::StreamExt;
use lab::temporary::{Postgres, RabbitMq};
use lapin::BasicProperties;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueuePurgeOptions,
};
use lapin::types::FieldTable;
use region_lease::{ConnectOptions, Fence, Guard, NewGrant, Opened};
use services_common::amqp::{Broker, BrokerConfig};
use services_common::postgres::Database;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use trading::generate::Target;
use trading::message::Response;
use trading::names::{self, Application};
use trading::run::{Deps, Settlements, StageName, run};
use uuid::Uuid;

pub const APP: &str = "trade-matching";
pub const REGION: &str = "us-east-1";
/// Everything that is waited for happens within this time, also on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

static SERVERS: OnceCell<(Postgres, RabbitMq)> = OnceCell::const_new();
static NEXT: AtomicU32 = AtomicU32::new(1);
/// Roles belong to the whole server, so only one database is migrated at a time.
pub static MIGRATING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Waits until `condition` gives a value.
pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition().await {
            return value;
        }
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A connection of a user of the broker, which under the load of tests beside it may take more than one attempt.
pub async fn connected(virtual_host: &str, name: &str) -> lapin::Connection {
    let config = broker_config(virtual_host, name);
    eventually("the broker takes a connection", async || config.connect().await.ok()).await
}

/// A stage in a runtime of its own, so that it can be killed as a process would be.
pub struct Process {
    runtime: Option<tokio::runtime::Runtime>,
    shutdown: CancellationToken,
    pub http: SocketAddr,
}

impl Process {
    /// Ends it without any good-bye.
    pub fn kill(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

pub struct World {
    pub name: String,
    pub application: Application,
    /// What its stages are told about settlements.
    pub settlements: Settlements,
    /// When its outbound sends settlements again.
    pub resend_after: Duration,
    /// What its core is told about days.
    pub keep_days: Option<NonZeroU16>,
    /// How long its trades wait.
    pub expire_after: Option<NonZeroU16>,
    keeper: CancellationToken,
    /// A superuser's connection.
    pub sql: Client,
}

impl World {
    /// Servers with everything of trade matching migrated and declared, and a lease that nobody holds.
    pub async fn start() -> Self {
        Self::of(Application::TradeMatching).await
    }

    /// The same for either application.
    pub async fn of(application: Application) -> Self {
        Self::prepared(application, async |_| {}).await
    }

    /// The same on a database in which something was done before the migrations.
    pub async fn prepared(application: Application, prepare: impl AsyncFnOnce(ConnectOptions)) -> Self {
        services_common::telemetry::start("warn,trading=info,services_common=info").unwrap();
        let (postgres, _) = SERVERS
            .get_or_init(|| async { (Postgres::start().await.unwrap(), RabbitMq::start().await.unwrap()) })
            .await;
        let name = format!("world_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let admin = region_lease::connect(&ConnectOptions::new(
            postgres.host(),
            postgres.port(),
            "postgres",
            "postgres",
        ))
        .await
        .unwrap();
        admin.batch_execute(&format!("create database {name}")).await.unwrap();
        management("PUT", &format!("/api/vhosts/{name}"), "").await;
        let options = database_options(&name, "postgres");
        let migrating = MIGRATING.lock().await;
        prepare(options.clone()).await;
        trading::migrate::database(application, &options, Instant::now() + PATIENCE).await.unwrap();
        drop(migrating);
        let broker = Broker::new(broker_config(&name, "migrator"));
        trading::migrate::declare(application, &broker).await.unwrap();
        broker.close().await;
        let sql = region_lease::connect(&options).await.unwrap();
        let settlements = Settlements::Off;
        let resend_after = Duration::from_secs(600);
        let keeper = CancellationToken::new();
        let (keep_days, expire_after) = (None, None);
        Self { name, application, settlements, resend_after, keep_days, expire_after, keeper, sql }
    }

    /// The same, with the lease granted to this region, renewed, and open.
    pub async fn open() -> Self {
        Self::open_of(Application::TradeMatching).await
    }

    /// The same for either application.
    pub async fn open_of(application: Application) -> Self {
        let world = Self::of(application).await;
        world.grant(0, 1).await;
        world
    }

    /// The name of its lease.
    pub fn app(&self) -> &'static str {
        match self.application {
            Application::TradeMatching => APP,
            Application::Settlement => "settlement",
        }
    }

    /// Grants an epoch to this region, keeps it renewed and opens it fully.
    pub async fn grant(&self, from_epoch: u64, epoch: u64) {
        let grant_id = self.grant_core(from_epoch, epoch).await;
        region_lease::open(&self.sql, self.app(), epoch, grant_id, Opened::Intake).await.unwrap();
    }

    /// Grants an epoch to this region, keeps it renewed and opens it for core stages alone.
    pub async fn grant_core(&self, from_epoch: u64, epoch: u64) -> Uuid {
        let (grant_id, run) = (Uuid::new_v4(), Uuid::new_v4());
        let new = NewGrant { app: self.app(), from_epoch, epoch, grant_id, region: REGION, run };
        region_lease::grant(&self.sql, new).await.unwrap();
        let guard = Guard::new(self.app(), REGION, epoch, grant_id);
        let options = database_options(&self.name, "postgres");
        let client = region_lease::connect(&options).await.unwrap();
        let observed = region_lease::clock(&client).await.unwrap();
        region_lease::renew(&client, &guard, observed).await.unwrap();
        let stop = self.keeper.clone();
        tokio::spawn(async move {
            // Ends by itself once the grant is fenced.
            while let Ok(observed) = region_lease::clock(&client).await {
                if stop.is_cancelled() || region_lease::renew(&client, &guard, observed).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(2)).await;
            }
        });
        grant_id
    }

    /// Ends the present grant, as a planned switch does.
    pub async fn fence(&self) -> u64 {
        let row = region_lease::read_lease(&self.sql, self.app()).await.unwrap().row.unwrap();
        let fence = Fence {
            app: self.app(),
            epoch: row.epoch,
            grant_id: row.grant_id.unwrap(),
            run: Uuid::new_v4(),
            to_region: "us-west-2",
        };
        region_lease::fence(&self.sql, fence).await.unwrap();
        row.epoch
    }

    /// Starts a stage of this region, with the role that it has in production.
    pub async fn stage(&self, stage: StageName) -> Process {
        let role = format!("trading_{}", stage.word());
        let deps = Deps {
            app: self.app().into(),
            region: REGION.into(),
            database: Database::new(&database_options(&self.name, &role).writer(), 6).unwrap(),
            broker: broker_config(&self.name, &role),
            broker_user: "guest".into(),
            probe_user: "guest".into(),
            application: self.application,
            settlements: self.settlements.clone(),
            resend_after: self.resend_after,
            batch_limit: None,
            keep_days: self.keep_days,
            expire_after: self.expire_after,
        };
        let shutdown = CancellationToken::new();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let http = listener.local_addr().unwrap();
        let stop = shutdown.clone();
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            run(stage, deps, listener, stop).await.unwrap();
        });
        Process { runtime: Some(runtime), shutdown, http }
    }

    /// One process of each stage.
    pub async fn pipeline(&self) -> Vec<Process> {
        let mut processes = Vec::new();
        for stage in StageName::ALL {
            processes.push(self.stage(stage).await);
        }
        processes
    }

    /// The broker as the customer reaches it.
    pub fn target(&self, name: &str) -> Target {
        Target { broker: broker_config(&self.name, name), dns: None }
    }

    /// The number that the operator's drain check reads, with the operator's role.
    pub async fn in_flight(&self) -> i64 {
        let client = region_lease::connect(&database_options(&self.name, "region_operator")).await.unwrap();
        client.query_one("select in_flight from trading.in_flight", &[]).await.unwrap().get(0)
    }

    /// Waits for that number to be zero: an answer may be there before the relay has noted that it sent it.
    pub async fn nothing_is_on_its_way(&self) {
        eventually("nothing is on its way", async || (self.in_flight().await == 0).then_some(())).await;
    }

    /// A count or any other single number.
    pub async fn number(&self, query: &str) -> i64 {
        self.sql.query_one(query, &[]).await.unwrap().get(0)
    }

    /// The first column of a query, in the order of its text.
    pub async fn texts(&self, query: &str) -> Vec<String> {
        let rows = self.sql.query(query, &[]).await.unwrap();
        let mut texts: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        texts.sort_unstable();
        texts
    }

    /// Publishes as a customer who writes each message by hand, confirmed.
    pub async fn publish(&self, correlation_id: Option<&str>, body: &[u8]) {
        self.publish_to(names::IN, correlation_id, body).await;
    }

    pub async fn publish_to(&self, exchange: &str, correlation_id: Option<&str>, body: &[u8]) {
        let connection = connected(&self.name, "by hand").await;
        let channel = connection.create_channel().await.unwrap();
        channel.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
        let mut properties = BasicProperties::default();
        if let Some(id) = correlation_id {
            properties = properties.with_correlation_id(id.into());
        }
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let confirmed = channel
            .basic_publish(exchange.into(), "".into(), options, body, properties)
            .await
            .unwrap()
            .await
            .unwrap();
        assert!(matches!(confirmed, lapin::Confirmation::Ack(None)), "{confirmed:?}");
        connection.close(200, "".into()).await.unwrap();
    }

    /// Publishes as a customer whose client library is careless: `properties` are the bytes after the flags.
    pub async fn publish_bytes(&self, flags: u16, properties: &[u8], body: &[u8]) {
        let (_, broker) = servers();
        raw_amqp::publish(broker.amqp_port(), &self.name, names::IN, (flags, properties), body).await;
    }

    /// Throws away what waits in a queue, as the loss of its broker would; answers how many messages there were.
    pub async fn purge(&self, queue: &str) -> u32 {
        let broker = Broker::new(broker_config(&self.name, "purge"));
        let channel = broker.channel().await.unwrap();
        channel.queue_purge(queue.into(), QueuePurgeOptions::default()).await.unwrap()
    }

    /// Reads answers until there are `count` different ids.
    pub async fn answers(&self, count: usize) -> HashMap<String, Response> {
        let connection = connected(&self.name, "answers").await;
        let channel = connection.create_channel().await.unwrap();
        let options = BasicConsumeOptions::default();
        let mut consumer = channel
            .basic_consume(names::OUT.into(), "".into(), options, FieldTable::default())
            .await
            .unwrap();
        let mut answers = HashMap::new();
        while answers.len() < count {
            let next = tokio::time::timeout(PATIENCE, consumer.next()).await;
            let delivery = next.unwrap_or_else(|_| panic!("only {answers:?}")).unwrap().unwrap();
            let response: Response = serde_json::from_slice(&delivery.data).unwrap();
            answers.insert(response.id.clone(), response);
            delivery.ack(BasicAckOptions::default()).await.unwrap();
        }
        answers
    }

    /// Calls a hook; gives the status code and the answer.
    pub async fn hook(&self, core: &Process, name: &str, epoch: u64) -> (u16, serde_json::Value) {
        let call = serde_json::json!({ "run": "run-1", "epoch": epoch, "app": self.app(), "region": REGION })
            .to_string();
        let (status, body) = http(core.http, "POST", &format!("/hooks/{name}"), "", &call).await;
        (status, serde_json::from_str(&body).unwrap_or(serde_json::Value::String(body)))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.keeper.cancel();
    }
}

fn servers() -> &'static (Postgres, RabbitMq) {
    SERVERS.get().expect("started by the first world")
}

/// Port and virtual host of a world's broker.
pub fn broker_url(vhost: &str) -> String {
    let (_, broker) = servers();
    format!("amqp://127.0.0.1:{}/{vhost}", broker.amqp_port())
}

pub fn database_options(database: &str, user: &str) -> ConnectOptions {
    let (postgres, _) = servers();
    ConnectOptions::new(postgres.host(), postgres.port(), database, user)
}

/// A broker's virtual host that is reached at another address.
pub fn broker_config_at(address: SocketAddr, vhost: &str, name: &str) -> BrokerConfig {
    BrokerConfig::new(&format!("amqp://{address}/{vhost}"), "guest", "guest", None, name).unwrap()
}

pub fn broker_config(vhost: &str, name: &str) -> BrokerConfig {
    BrokerConfig::new(&broker_url(vhost), "guest", "guest", None, name).unwrap()
}

/// A standby of the test program's PostgreSQL.
pub async fn standby() -> Postgres {
    Postgres::standby(&servers().0).await.unwrap()
}

pub async fn management(method: &str, path: &str, body: &str) {
    let (_, broker) = servers();
    let address: SocketAddr = broker.management_url().trim_start_matches("http://").parse().unwrap();
    // guest:guest
    let (status, answer) =
        http(address, method, path, "authorization: Basic Z3Vlc3Q6Z3Vlc3Q=\r\n", body).await;
    assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
}

/// One HTTP request by hand: enough for local servers, and one dependency less.
pub async fn http(address: SocketAddr, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: test\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\
         connection: close\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or_default();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    (status, body)
}
