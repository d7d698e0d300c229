//! A database with a synchronous standby, under one address.

use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use lab::temporary::Postgres;
use region_lease::ConnectOptions;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use crate::Struck;
use crate::gateway::Gateway;
use crate::wait::until;

/// A standby takes everything that happened meanwhile within this time.
const CATCH_UP: Duration = Duration::from_secs(60);

pub(crate) struct Database {
    pub(crate) gateway: Gateway,
    /// The name of the database in it.
    pub(crate) name: &'static str,
    servers: Mutex<Servers>,
}

struct Servers {
    primary: Option<Postgres>,
    standby: Option<Postgres>,
}

impl Database {
    pub(crate) async fn start(name: &'static str) -> Result<Self> {
        let primary = Postgres::start().await?;
        let gateway = Gateway::start(primary.port()).await?;
        direct(&primary, "postgres").await?.batch_execute(&format!("create database {name}")).await?;
        let standby = Some(standby(&primary).await?);
        Ok(Self { gateway, name, servers: Mutex::new(Servers { primary: Some(primary), standby }) })
    }

    /// As a superuser, by the address that everybody uses.
    pub(crate) fn options(&self) -> ConnectOptions {
        ConnectOptions::new("127.0.0.1", self.gateway.port(), self.name, "postgres")
    }

    /// As a superuser, by the address that everybody uses.
    pub(crate) async fn connect(&self) -> Result<Client> {
        Ok(region_lease::connect(&self.options()).await?)
    }

    /// Ends the primary as a crash would, or as people do, and starts it again.
    pub(crate) async fn restart(&self, crash: bool) -> Result<Struck> {
        let Ok(servers) = self.servers.try_lock() else { return Ok(Err("it is away already")) };
        let primary = servers.primary.as_ref().context("no primary")?;
        if crash {
            primary.restart().await?
        } else {
            primary.restart_fast().await?
        }
        Ok(Ok(()))
    }

    /// Ends the primary for good, as a crash would, makes the standby the primary and gives it a standby of its own.
    pub(crate) async fn switch(&self) -> Result<Struck> {
        let Ok(mut servers) = self.servers.try_lock() else { return Ok(Err("it is away already")) };
        let primary = servers.primary.as_ref().context("no primary")?;
        // A commit that ended its wait for an absent standby is in no promise: only one that streams takes over.
        if !streams(primary).await {
            return Ok(Err("its standby is not up to date"));
        }
        let (primary, promoted) = (servers.primary.take(), servers.standby.take());
        let promoted = promoted.context("no standby")?;
        tokio::task::spawn_blocking(|| drop(primary)).await?;
        let client = direct(&promoted, "postgres").await?;
        let done: bool = client.query_one("select pg_promote(true, 30)", &[]).await?.try_get(0)?;
        ensure!(done, "the standby was not promoted within 30 s");
        self.gateway.lead_to(promoted.port());
        servers.standby = Some(standby(&promoted).await?);
        servers.primary = Some(promoted);
        Ok(Ok(()))
    }

    /// What both servers have logged.
    pub(crate) async fn log(&self) -> String {
        let servers = self.servers.lock().await;
        let mut text = String::new();
        for (role, server) in [("primary", &servers.primary), ("standby", &servers.standby)] {
            if let Some(server) = server {
                text.push_str(&format!("=== {role}\n{}\n", server.log().await));
            }
        }
        text
    }
}

async fn direct(server: &Postgres, database: &str) -> Result<Client> {
    let options = ConnectOptions::new(server.host(), server.port(), database, "postgres");
    Ok(region_lease::connect(&options).await?)
}

/// A standby for which the primary waits with each commit.
async fn standby(primary: &Postgres) -> Result<Postgres> {
    let standby = Postgres::standby(primary).await?;
    let client = direct(&standby, "postgres").await?;
    // Copied from the primary: once promoted it would wait for a standby that it does not have.
    configure(&client, "alter system reset synchronous_standby_names").await?;
    configure(&client, "alter system set wal_retrieve_retry_interval = '500ms'").await?;
    configure(&direct(primary, "postgres").await?, "alter system set synchronous_standby_names = '*'")
        .await?;
    until(CATCH_UP, "the standby streams", async || streams(primary).await.then_some(())).await?;
    Ok(standby)
}

async fn configure(client: &Client, statement: &str) -> Result<()> {
    client.batch_execute(statement).await?;
    client.batch_execute("select pg_reload_conf()").await?;
    Ok(())
}

async fn streams(primary: &Postgres) -> bool {
    let asked = async {
        let client = direct(primary, "postgres").await?;
        let sql =
            "select count(*) from pg_stat_replication where state = 'streaming' and sync_state = 'sync'";
        let standbys: i64 = client.query_one(sql, &[]).await?.try_get(0)?;
        if standbys == 1 { Ok(()) } else { bail!("{standbys} standbys stream") }
    };
    asked.await.is_ok()
}
