//! A simulator of the parts of AWS that a region switch uses, behind AWS's own wire protocols.
//!
//! * ARC routing control data plane: five HTTPS endpoints, propagation delay, safety rules, limits, faults.
//! * RDS: describe and switch over Aurora global clusters; the servers behind them are real PostgreSQL servers,
//!   moved by commands that the configuration names.
//! * Route 53: a real DNS server with failover names that follow routing controls, and writer endpoints.
//! * A control port (plain HTTP, JSON): call log, settings and faults, state; see `README.md`.
//!
//! Signatures are checked; a client cannot tell that it is not talking to AWS.

mod arc;
mod calls;
mod clock;
mod config;
mod control;
mod dns;
mod faults;
mod https;
mod rds;
mod service;
mod sigv4;
mod simulator;
mod state_file;
mod world;

use std::path::PathBuf;

pub use config::{
    ArcEndpoint, Condition, ConditionKind, Config, ControlState, Credential, Dns, FailoverName,
    FailoverTarget, GlobalCluster, Member, RoutingControl, SafetyRule, Tls,
};
pub use faults::{
    BatchJudgement, DnsMode, EndpointMode, ErrorKind, Faults, Maintenance, Propagation, Refusal,
    SwitchoverScript,
};
pub use simulator::{Addresses, Simulator};

/// Why the simulator cannot serve. None is worth a retry without a change.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration contradicts itself.
    #[error("AWS simulator configuration: {0}")]
    Config(String),
    /// An address can't be listened on: taken, or not of this machine.
    #[error("AWS simulator can't listen on {address} for {what}: {source}; is another one running?")]
    Listen {
        /// Which of the simulator's services.
        what: String,
        /// Where.
        address: std::net::SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Certificate or key can't be used.
    #[error("AWS simulator can't use the certificate or key {path}: {why}")]
    Tls {
        /// File.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// The state file can't be read or written; if it is damaged, remove it to begin from the configuration.
    #[error("AWS simulator's state file {path}: {why}")]
    State {
        /// File.
        path: PathBuf,
        /// Reason.
        why: String,
    },
    /// One of the simulator's tasks broke.
    #[error("a task of the AWS simulator failed: {0}")]
    Task(String),
}

/// Serves until `shutdown` is ready.
///
/// # Errors
/// Any [`Error`]; whatever was started is stopped then.
pub async fn serve(config: Config, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
    Simulator::bind(config).await?.run(shutdown).await
}
