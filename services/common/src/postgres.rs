//! PostgreSQL: a pool that follows a moved writer, and the guarded transaction that every write of a stage is.

use std::time::{Duration, Instant};

use deadpool_postgres::{
    ConfigConnectImpl, Connect, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime,
    Timeouts,
};
use futures::future::BoxFuture;
use region_lease::{ConnectOptions, LONGEST_TRANSACTION, LeaseError, TlsConnector};
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls};

use crate::config::{ConfigError, DatabaseArgs, read_file};
use crate::telemetry::chain;

/// The right to write: application, region of this process, epoch and id of the grant.
pub use region_lease::Guard as Grant;

/// Time to get a connection, a new one included.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);

/// Why the database did not take a piece of work.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// This process no longer has the right to write. The gate closes; no person needs to act.
    #[error("fenced by the database ({code})")]
    Fenced {
        /// SQLSTATE of class TR.
        code: String,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// The server is read-only or gone. The pool has been emptied; the next try connects anew.
    #[error("database connection lost or read-only; reconnecting")]
    Lost {
        /// The driver's error.
        source: tokio_postgres::Error,
    },
    /// No connection could be had.
    #[error("database {database} could not be reached; retrying")]
    Unreachable {
        /// host:port/name
        database: String,
        /// Why.
        source: PoolError,
    },
    /// The data itself was refused; trying it again cannot help.
    #[error("the database refused the data ({code})")]
    Data {
        /// SQLSTATE of class 22, 23 or 54.
        code: String,
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// The lease could not be read.
    #[error(transparent)]
    Lease(#[from] LeaseError),
    /// Anything else: a deadlock, a timeout, a missing privilege. Tried again.
    #[error("the database failed; retrying")]
    Other {
        /// The server's answer.
        source: tokio_postgres::Error,
    },
    /// The commit went through, but so late that the right to act on it may have passed.
    #[error(
        "the commit took {took_ms} ms, longer than the {limit_ms} ms that a grant's last write may take; requeued"
    )]
    TooLate {
        /// Time since the second guard was sent.
        took_ms: u128,
        /// The limit.
        limit_ms: u128,
    },
}

impl DbError {
    fn class(source: tokio_postgres::Error) -> Self {
        let Some(state) = source.code() else { return Self::Lost { source } };
        let code = state.code().to_owned();
        match code.get(..2) {
            Some("TR") => Self::Fenced { code, source },
            // 54 is a limit of the server, such as the longest key of an index.
            Some("22" | "23" | "54") => Self::Data { code, source },
            Some("08" | "57") => Self::Lost { source },
            _ if *state == SqlState::READ_ONLY_SQL_TRANSACTION => Self::Lost { source },
            _ => Self::Other { source },
        }
    }

    /// Whether connections of the pool may be stuck to a server that is no longer the writer.
    fn empties_pool(&self) -> bool {
        match self {
            Self::Fenced { .. } | Self::Lost { .. } | Self::TooLate { .. } => true,
            Self::Lease(error) => error.retry() == region_lease::Retry::AfterReconnecting,
            Self::Unreachable { .. } | Self::Data { .. } | Self::Other { .. } => false,
        }
    }
}

impl From<tokio_postgres::Error> for DbError {
    fn from(source: tokio_postgres::Error) -> Self {
        Self::class(source)
    }
}

/// A pool of connections to the region's own database.
#[derive(Clone)]
pub struct Database {
    pool: Pool,
    name: String,
    origin: Origin,
}

impl Database {
    /// A pool for a stage; does not connect yet. Each connection is made with what the files hold at that moment.
    ///
    /// # Errors
    /// A configured file cannot be read or holds no certificate.
    pub async fn from_args(
        args: &DatabaseArgs,
        application_name: &str,
        size: usize,
    ) -> Result<Self, ConfigError> {
        let options = options(args, application_name).await?.writer();
        Self::pool(&options, Some((args.clone(), application_name.to_owned())), size)
    }

    /// A pool of at most `size` connections.
    ///
    /// # Errors
    /// The CA of the options is missing or holds no certificate.
    pub fn new(options: &ConnectOptions, size: usize) -> Result<Self, ConfigError> {
        Self::pool(options, None, size)
    }

    fn pool(
        options: &ConnectOptions,
        files: Option<(DatabaseArgs, String)>,
        size: usize,
    ) -> Result<Self, ConfigError> {
        let name = format!("{options:?}");
        let origin = Origin { files, at_start: Access::of(options.clone())? };
        let connector = Connector(origin.clone());
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Verified };
        let manager = Manager::from_connect(options.pg_config(), connector, recycling);
        let deadline = Some(CONNECT_DEADLINE);
        let pool = Pool::builder(manager)
            .max_size(size)
            .timeouts(Timeouts { wait: deadline, create: deadline, recycle: deadline })
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|error| ConfigError::Value { option: "--database-host", reason: error.to_string() })?;
        Ok(Self { pool, name, origin })
    }

    /// Where and how it connects, with what the files hold now, or else held at the start: for a connection with limits of
    /// its own.
    pub async fn options(&self) -> ConnectOptions {
        self.origin.access().await.options
    }

    /// A connection from the pool.
    ///
    /// # Errors
    /// [`DbError::Unreachable`] after at most a few seconds.
    pub async fn connection(&self) -> Result<Object, DbError> {
        let unreachable = |source| DbError::Unreachable { database: self.name.clone(), source };
        self.pool.get().await.map_err(unreachable)
    }

    /// After an error that says that the writer may have moved: forget all idle connections.
    pub fn note(&self, error: &DbError) {
        if error.empties_pool() {
            self.pool.retain(|_, _| false);
        }
    }
}

/// Password, settings and trust of one connection.
#[derive(Clone)]
struct Access {
    options: ConnectOptions,
    tls: Option<TlsConnector>,
}

impl Access {
    fn of(options: ConnectOptions) -> Result<Self, ConfigError> {
        let tls = options.tls_connector().map_err(|error| ConfigError::Value {
            option: "--database-ca-file",
            reason: error.to_string(),
        })?;
        Ok(Self { options, tls })
    }
}

/// Where the access of a connection comes from.
#[derive(Clone)]
struct Origin {
    /// Options that name the files, and the name to show; `None` where there are no files.
    files: Option<(DatabaseArgs, String)>,
    at_start: Access,
}

impl Origin {
    /// With what the files hold now, or else held at the start.
    async fn access(&self) -> Access {
        let Some((args, application_name)) = &self.files else { return self.at_start.clone() };
        let now = options(args, application_name).await.and_then(|options| Access::of(options.writer()));
        now.unwrap_or_else(|error| {
            // The driver's error has no room for this one; what the server says to the older password follows.
            tracing::warn!(
                reason = chain(&error),
                "connecting with the password and CA of the process's start"
            );
            self.at_start.clone()
        })
    }
}

/// Makes the pool's connections.
struct Connector(Origin);

impl Connect for Connector {
    fn connect(
        &self,
        _at_start: &Config,
    ) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), tokio_postgres::Error>> {
        Box::pin(async {
            let Access { options, tls } = self.0.access().await;
            let config = options.pg_config();
            match tls {
                Some(tls) => ConfigConnectImpl { tls }.connect(&config).await,
                None => ConfigConnectImpl { tls: NoTls }.connect(&config).await,
            }
        })
    }
}

/// Where and how to connect, from the command line and the files as they are now; without a transaction timeout.
///
/// # Errors
/// A configured file cannot be read.
pub async fn options(args: &DatabaseArgs, application_name: &str) -> Result<ConnectOptions, ConfigError> {
    let (host, name) = (args.database_host.as_str(), args.database_name.as_str());
    let mut options = ConnectOptions::new(host, args.database_port, name, args.database_user.as_str());
    options.password = Some(read_file("--database-password-file", &args.database_password_file).await?);
    if let Some(path) = &args.database_ca_file {
        options.ca_pem = Some(read_file("--database-ca-file", path).await?);
    }
    options.connect_timeout = CONNECT_DEADLINE;
    application_name.clone_into(&mut options.application_name);
    Ok(options)
}

/// A transaction between two guards: what it writes is taken only while the grant holds.
pub struct Guarded<'a> {
    transaction: deadpool_postgres::Transaction<'a>,
    grant: &'a Grant,
}

impl<'a> Guarded<'a> {
    /// Begins, and asks for the first guard.
    ///
    /// # Errors
    /// [`DbError::Fenced`] when the grant does not hold.
    pub async fn begin(connection: &'a mut Object, grant: &'a Grant) -> Result<Self, DbError> {
        let transaction = connection.transaction().await?;
        let guarded = Self { transaction, grant };
        guarded.guard().await?;
        Ok(guarded)
    }

    async fn guard(&self) -> Result<(), DbError> {
        let statement = self.transaction.prepare_cached(Grant::SQL).await?;
        self.transaction.execute(&statement, &self.grant.parameters()).await?;
        Ok(())
    }

    /// The transaction, for the statements between the guards.
    pub fn transaction(&self) -> &deadpool_postgres::Transaction<'a> {
        &self.transaction
    }

    /// Number of the grant, as the database stores it.
    pub fn epoch(&self) -> i64 {
        i64::try_from(self.grant.epoch()).unwrap_or(i64::MAX)
    }

    /// The grant that guards it.
    pub fn grant(&self) -> &Grant {
        self.grant
    }

    /// Asks for the second guard, commits, and checks on the own clock that the commit was not late.
    ///
    /// # Errors
    /// After any error the caller must neither publish nor acknowledge what the transaction did. With
    /// [`DbError::TooLate`] and [`DbError::Lost`] it may have been committed: a repeat finds its rows and is harmless.
    pub async fn commit(self) -> Result<(), DbError> {
        let sent = Instant::now();
        self.guard().await?;
        self.transaction.commit().await?;
        in_time(sent.elapsed())
    }
}

fn in_time(took: Duration) -> Result<(), DbError> {
    if took > LONGEST_TRANSACTION {
        return Err(DbError::TooLate {
            took_ms: took.as_millis(),
            limit_ms: LONGEST_TRANSACTION.as_millis(),
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_later_than_the_limit_counts_for_nothing() {
        assert!(in_time(LONGEST_TRANSACTION).is_ok());
        assert!(matches!(
            in_time(LONGEST_TRANSACTION + Duration::from_millis(1)),
            Err(DbError::TooLate { .. })
        ));
    }
}
