//! The one place where connections to PostgreSQL are configured.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::error::{LeaseError, Result};
use crate::guard::LONGEST_TRANSACTION;

/// The TLS connector that goes with [`ConnectOptions::pg_config`], for pools.
pub type TlsConnector = MakeRustlsConnect;

/// How long a silent peer is believed to live. A region's cut shows as silence, never as an error.
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(5);
const KEEPALIVE_IDLE: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_RETRIES: u32 = 3;
const WITHOUT_CA: &str = "a certificate authority must be given for a server on another machine: neither password nor data \
                          travels without TLS";

/// Where and how to connect.
#[derive(Clone)]
pub struct ConnectOptions {
    /// Name or address of the server; the certificate must be for it.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The database.
    pub dbname: String,
    /// The role.
    pub user: String,
    /// Its password; `None` where the server asks for none.
    pub password: Option<String>,
    /// The only certificate authority that is believed, in PEM. `None`: no TLS, which [`is_loopback`] alone may do.
    pub ca_pem: Option<String>,
    /// Limit for name, TCP, TLS and log-in together.
    pub connect_timeout: Duration,
    /// Limit that the server puts on each statement.
    pub statement_timeout: Duration,
    /// Limit that the server puts on each transaction; `None` for sessions that write nothing guarded.
    pub transaction_timeout: Option<Duration>,
    /// Shown in `pg_stat_activity`.
    pub application_name: String,
}

impl ConnectOptions {
    /// Options with the defaults: 3 s to connect, 20 s a statement, no TLS, no password.
    pub fn new(
        host: impl Into<String>,
        port: u16,
        dbname: impl Into<String>,
        user: impl Into<String>,
    ) -> Self {
        let user = user.into();
        Self {
            host: host.into(),
            port,
            dbname: dbname.into(),
            application_name: user.clone(),
            user,
            password: None,
            ca_pem: None,
            connect_timeout: Duration::from_secs(3),
            statement_timeout: Duration::from_secs(20),
            transaction_timeout: None,
        }
    }

    /// The same for a session that writes under the guard, which demands a transaction timeout.
    #[must_use]
    pub fn writer(mut self) -> Self {
        self.transaction_timeout = Some(LONGEST_TRANSACTION);
        self.statement_timeout = LONGEST_TRANSACTION;
        self
    }

    /// The options as tokio-postgres and its pools take them; TLS is in [`ConnectOptions::tls_connector`].
    #[must_use]
    pub fn pg_config(&self) -> Config {
        let mut settings = format!("-c statement_timeout={}", self.statement_timeout.as_millis());
        if let Some(limit) = self.transaction_timeout {
            settings.push_str(&format!(" -c transaction_timeout={}", limit.as_millis()));
        }
        let mut config = Config::new();
        config
            .host(&self.host)
            .port(self.port)
            .dbname(&self.dbname)
            .user(&self.user)
            .application_name(&self.application_name)
            .options(settings)
            .connect_timeout(self.connect_timeout)
            .tcp_user_timeout(TCP_USER_TIMEOUT)
            .keepalives(true)
            .keepalives_idle(KEEPALIVE_IDLE)
            .keepalives_interval(KEEPALIVE_INTERVAL)
            .keepalives_retries(KEEPALIVE_RETRIES)
            .ssl_mode(if self.clear() { SslMode::Disable } else { SslMode::Require });
        if let Some(password) = &self.password {
            config.password(password);
        }
        config
    }

    fn clear(&self) -> bool {
        self.ca_pem.is_none() && is_loopback(&self.host)
    }

    /// The connector that believes `ca_pem` alone; `None` on loopback without one.
    ///
    /// # Errors
    /// `Other` when there is no certificate authority for another machine, or the text holds no certificate.
    pub fn tls_connector(&self) -> Result<Option<TlsConnector>> {
        if self.clear() {
            return Ok(None);
        }
        let Some(pem) = &self.ca_pem else { return Err(LeaseError::other("connect", WITHOUT_CA)) };
        let wrong = |detail: &dyn fmt::Display| LeaseError::other("read the certificate authority", detail);
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong(&error))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"no certificate in it; expected PEM"));
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong(&error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Some(MakeRustlsConnect::new(config)))
    }
}

/// Whether `host` is this very machine: all others are reached by TLS, under a certificate authority that is given.
#[must_use]
pub fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl fmt::Debug for ConnectOptions {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}/{}", self.user, self.host, self.port, self.dbname)
    }
}

/// Connects. The connection is driven by a task of its own, which ends with the client.
///
/// # Errors
/// `Connection`, `Deadline`, `Denied`, or `Other` for a wrong certificate authority.
pub async fn connect(options: &ConnectOptions) -> Result<Client> {
    let config = options.pg_config();
    let tls = options.tls_connector().map_err(|error| error.about(format_args!("{options:?}")))?;
    let connecting = async {
        match tls {
            Some(tls) => config.connect(tls).await.map(|(client, connection)| {
                drive(options, connection);
                client
            }),
            None => config.connect(NoTls).await.map(|(client, connection)| {
                drive(options, connection);
                client
            }),
        }
    };
    match tokio::time::timeout(options.connect_timeout, connecting).await {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(error)) => {
            Err(LeaseError::from_postgres("connect", &error).about(format_args!("{options:?}")))
        }
        Err(_elapsed) => {
            Err(LeaseError::deadline("connect", options.connect_timeout).about(format_args!("{options:?}")))
        }
    }
}

fn drive<F>(options: &ConnectOptions, connection: F)
where
    F: Future<Output = std::result::Result<(), tokio_postgres::Error>> + Send + 'static,
{
    let whom = format!("{options:?}");
    tokio::spawn(async move {
        // Whoever uses the client gets the error too; this line is for connections that break while idle.
        if let Err(error) = connection.await {
            tracing::debug!(connection = %whom, %error, "PostgreSQL connection ended");
        }
    });
}
