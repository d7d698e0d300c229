//! One throw-away PostgreSQL for the tests of a binary, with a database of its own for each test.

#![allow(dead_code, unreachable_pub, missing_docs, reason = "shared by test binaries that each use a part")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use lab::temporary::Postgres;
use region_lease::{Clock, ConnectOptions, Fence, Guard, LeaseError, NewGrant, Opened, connect};
use tokio::sync::OnceCell;
use tokio_postgres::Client;
use uuid::Uuid;

pub const APP: &str = "trade-matching";
pub const EAST: &str = "us-east-1";
pub const WEST: &str = "us-west-2";
/// Bound of every wait for a value in these tests.
pub const SOON: Duration = Duration::from_secs(20);

static SERVER: OnceCell<Postgres> = OnceCell::const_new();
static DATABASES: AtomicUsize = AtomicUsize::new(0);

/// The shared server, its database `template` migrated and given a business table and its roles.
async fn server() -> &'static Postgres {
    SERVER
        .get_or_init(|| async {
            let server = Postgres::start().await.unwrap();
            let root = client(&server, "postgres", "postgres").await;
            root.batch_execute("CREATE DATABASE prepared").await.unwrap();
            prepare(&server, "prepared").await;
            server
        })
        .await
}

/// Migrates a database and adds table `trade`, owned by `trading_owner` and written by `trading_core`.
pub async fn prepare(server: &Postgres, database: &str) {
    let mut root = client(server, "postgres", database).await;
    region_lease::migrate(&mut root).await.unwrap();
    root.batch_execute(
        "CREATE ROLE trading_owner;
         CREATE ROLE trading_core LOGIN;
         GRANT region_writer TO trading_core;
         CREATE TABLE trade (id bigint, epoch bigint);
         ALTER TABLE trade OWNER TO trading_owner;
         GRANT SELECT, INSERT, UPDATE, DELETE, TRUNCATE ON trade TO trading_core;
         CREATE TABLE unprotected (id bigint);
         GRANT INSERT ON unprotected TO trading_core;
         SELECT region.protect('trade');",
    )
    .await
    .unwrap();
}

pub async fn client(server: &Postgres, user: &str, database: &str) -> Client {
    connect(&options(server, user, database)).await.unwrap()
}

pub fn options(server: &Postgres, user: &str, database: &str) -> ConnectOptions {
    let options = ConnectOptions::new(server.host(), server.port(), database, user);
    if user == "trading_core" { options.writer() } else { options }
}

/// A database of one test.
pub struct Database {
    name: String,
    server: &'static Postgres,
}

impl Database {
    /// A fresh copy of the prepared one.
    pub async fn new() -> Self {
        let server = server().await;
        let name = format!("test_{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        let root = client(server, "postgres", "postgres").await;
        // Copying a template fails while another test copies it too.
        let _turn = COPYING.lock().await;
        root.batch_execute(&format!("CREATE DATABASE {name} TEMPLATE prepared")).await.unwrap();
        Self { name, server }
    }

    pub async fn as_user(&self, user: &str) -> Client {
        client(self.server, user, &self.name).await
    }

    pub fn options(&self, user: &str) -> ConnectOptions {
        options(self.server, user, &self.name)
    }

    /// A client of each role that the protocol has, `trading_core` standing for the writers.
    pub async fn roles(&self) -> Roles {
        Roles {
            root: self.as_user("postgres").await,
            operator: self.as_user("region_operator").await,
            keeper: self.as_user("region_keeper").await,
            writer: self.as_user("trading_core").await,
        }
    }
}

static COPYING: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

pub struct Roles {
    pub root: Client,
    pub operator: Client,
    pub keeper: Client,
    pub writer: Client,
}

impl Roles {
    /// Grants `region` the lease after `from_epoch`, without renewing it.
    pub async fn granted(&self, from_epoch: u64, region: &str) -> Guard {
        let claim = Guard::new(APP, region, from_epoch + 1, Uuid::new_v4());
        region_lease::grant(
            &self.operator,
            NewGrant {
                app: APP,
                from_epoch,
                epoch: claim.epoch(),
                grant_id: claim.grant_id,
                region,
                run: Uuid::new_v4(),
            },
        )
        .await
        .unwrap();
        claim
    }

    /// A first grant to the east, renewed.
    pub async fn holding(&self) -> Guard {
        let claim = self.granted(0, EAST).await;
        self.renewed(&claim).await;
        claim
    }

    pub async fn renewed(&self, claim: &Guard) {
        let observed = region_lease::clock(&self.keeper).await.unwrap();
        region_lease::renew(&self.keeper, claim, observed).await.unwrap();
    }

    pub async fn fenced(&self, claim: &Guard, run: Uuid) -> Result<(), LeaseError> {
        region_lease::fence(&self.operator, to_west(claim, run)).await
    }

    pub async fn opened(&self, claim: &Guard, opened: Opened) -> Result<(), LeaseError> {
        region_lease::open(&self.operator, APP, claim.epoch(), claim.grant_id, opened).await
    }

    /// Moves the row's end into the past, which no function can do.
    pub async fn expire(&self) {
        let sql = "UPDATE region.lease SET valid_until = clock_timestamp() - interval '1 ms'";
        self.root.execute(sql, &[]).await.unwrap();
    }

    pub async fn trades(&self) -> i64 {
        self.root.query_one("SELECT count(*) FROM trade", &[]).await.unwrap().get(0)
    }
}

pub fn to_west(claim: &Guard, run: Uuid) -> Fence<'_> {
    Fence { app: &claim.app, epoch: claim.epoch(), grant_id: claim.grant_id, run, to_region: WEST }
}

/// One guarded transaction with one row, the guard first and last.
pub async fn write(client: &Client, claim: &Guard, begin: &str) -> Result<(), LeaseError> {
    let run = async {
        client.batch_execute(begin).await.map_err(sorted)?;
        claim.check(client).await?;
        client.execute(INSERT, &[&1_i64, &i64::try_from(claim.epoch()).unwrap()]).await.map_err(sorted)?;
        claim.check(client).await?;
        client.batch_execute("COMMIT").await.map_err(sorted)
    };
    let result = run.await;
    if result.is_err() && !client.is_closed() {
        let _ = client.batch_execute("ROLLBACK").await;
    }
    result
}

pub const INSERT: &str = "INSERT INTO trade (id, epoch) VALUES ($1, $2)";

#[expect(clippy::needless_pass_by_value, reason = "for map_err")]
pub fn sorted(error: tokio_postgres::Error) -> LeaseError {
    LeaseError::from_postgres("write", &error)
}

pub fn later(clock: Clock, by: Duration) -> Clock {
    Clock { now: clock.now + by, ..clock }
}
