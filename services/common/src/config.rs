//! Configuration: flags with an environment variable of the same name. Secrets are read from files.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

/// A configured file could not be read, or a setting makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file of an option could not be read.
    #[error("cannot read {option} {path}: check that the secret is mounted and readable")]
    File {
        /// The option's flag.
        option: &'static str,
        /// The file named by it.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The value of an option cannot be used.
    #[error("{option} cannot be used: {reason}")]
    Value {
        /// The option's flag.
        option: &'static str,
        /// What is wrong with it, and what would be right.
        reason: String,
    },
}

/// Which application this process belongs to, and where it runs.
#[derive(Args, Clone, Debug)]
pub struct RegionArgs {
    /// Application whose lease decides whether this process may work
    #[arg(long, env = "APP", default_value = "trade-matching")]
    pub app: String,
    /// Region that this process runs in; it works only while the lease names this region
    #[arg(long, env = "REGION")]
    pub region: String,
}

/// The database of this process's own region.
#[derive(Args, Clone, Debug)]
pub struct DatabaseArgs {
    /// Host of the region's own database endpoint
    #[arg(long, env = "DATABASE_HOST")]
    pub database_host: String,
    /// Port of the database
    #[arg(long, env = "DATABASE_PORT", default_value_t = 5432)]
    pub database_port: u16,
    /// Name of the database
    #[arg(long, env = "DATABASE_NAME", default_value = "trading")]
    pub database_name: String,
    /// Role to log in as
    #[arg(long, env = "DATABASE_USER")]
    pub database_user: String,
    /// File with the role's password; read again at each connect
    #[arg(long, env = "DATABASE_PASSWORD_FILE")]
    pub database_password_file: PathBuf,
    /// File with the CA certificate (PEM) that the database's certificate must come from; needed unless the database is
    /// on this very machine
    #[arg(long, env = "DATABASE_CA_FILE")]
    pub database_ca_file: Option<PathBuf>,
}

/// The message broker of this process's own region.
#[derive(Args, Clone, Debug)]
pub struct BrokerArgs {
    /// Address of the broker: amqps://host:5671, or amqp:// without TLS
    #[arg(long, env = "BROKER_URL")]
    pub broker_url: String,
    /// Broker user
    #[arg(long, env = "BROKER_USER")]
    pub broker_user: String,
    /// File with the broker user's password; read again at each connect
    #[arg(long, env = "BROKER_PASSWORD_FILE")]
    pub broker_password_file: PathBuf,
    /// File with the CA certificate (PEM) that the broker's certificate must come from; needed for amqps
    #[arg(long, env = "BROKER_CA_FILE")]
    pub broker_ca_file: Option<PathBuf>,
}

/// Where health, metrics, status and hooks are served.
#[derive(Args, Clone, Debug)]
pub struct HttpArgs {
    /// Address to listen on for /livez /readyz /metrics /status (and /hooks on core)
    #[arg(long, env = "HTTP_LISTEN", default_value = "0.0.0.0:8080")]
    pub http_listen: SocketAddr,
}

/// The text of a file, without the line end that editors leave behind.
///
/// # Errors
/// [`ConfigError::File`] names the option and the path.
pub async fn read_file(option: &'static str, path: &Path) -> Result<String, ConfigError> {
    tokio::fs::read_to_string(path)
        .await
        .map(|text| text.trim_end_matches(['\r', '\n']).to_owned())
        .map_err(|source| ConfigError::File { option, path: path.display().to_string(), source })
}
