//! Options of the other application's broker.

use std::path::PathBuf;

use clap::Args;
use services_common::amqp::BrokerConfig;
use services_common::config::{BrokerArgs, ConfigError};

/// The other application's message broker; only outbound uses it.
#[derive(Args, Clone, Debug)]
pub(crate) struct PeerArgs {
    /// Address of the other application's broker, by the name that moves with its region
    #[arg(long, env = "PEER_BROKER_URL")]
    peer_broker_url: Option<String>,
    /// User there
    #[arg(long, env = "PEER_BROKER_USER")]
    peer_broker_user: Option<String>,
    /// File with that user's password; read again at each connect
    #[arg(long, env = "PEER_BROKER_PASSWORD_FILE")]
    peer_broker_password_file: Option<PathBuf>,
    /// File with the CA certificate (PEM) that that broker's certificate must come from; needed for amqps
    #[arg(long, env = "PEER_BROKER_CA_FILE")]
    peer_broker_ca_file: Option<PathBuf>,
}

impl PeerArgs {
    /// Where settlements are sent to.
    pub(crate) async fn broker(self, identity: &str) -> Result<BrokerConfig, ConfigError> {
        let absent = |option| ConfigError::Value {
            option,
            reason: "outbound needs it to send settlements to the other application".to_owned(),
        };
        let args = BrokerArgs {
            broker_url: self.peer_broker_url.ok_or_else(|| absent("--peer-broker-url"))?,
            broker_user: self.peer_broker_user.ok_or_else(|| absent("--peer-broker-user"))?,
            broker_password_file: self
                .peer_broker_password_file
                .ok_or_else(|| absent("--peer-broker-password-file"))?,
            broker_ca_file: self.peer_broker_ca_file,
        };
        BrokerConfig::from_args(&args, identity).await.map_err(of_peer)
    }
}

/// The same error, by the option that was meant.
fn of_peer(error: ConfigError) -> ConfigError {
    let peer = |option| match option {
        "--broker-url" => "--peer-broker-url",
        "--broker-password-file" => "--peer-broker-password-file",
        "--broker-ca-file" => "--peer-broker-ca-file",
        other => other,
    };
    match error {
        ConfigError::File { option, path, source } => {
            ConfigError::File { option: peer(option), path, source }
        }
        ConfigError::Value { option, reason } => ConfigError::Value {
            option: peer(option),
            reason: reason.replace("--broker-ca-file", "--peer-broker-ca-file"),
        },
    }
}

#[cfg(test)]
mod tests {
    use services_common::telemetry::chain;

    use super::*;

    #[tokio::test]
    async fn what_is_missing_or_wrong_about_the_other_broker_is_named_by_its_own_option() {
        let all = PeerArgs {
            peer_broker_url: Some("amqps://mq.settlement.trading.lab:5671".to_owned()),
            peer_broker_user: Some("settlement-submit".to_owned()),
            peer_broker_password_file: Some(PathBuf::from("/nowhere/password")),
            peer_broker_ca_file: Some(PathBuf::from("/nowhere/ca.crt")),
        };
        let cases = [
            (PeerArgs { peer_broker_url: None, ..all.clone() }, "--peer-broker-url cannot be used: "),
            (PeerArgs { peer_broker_user: None, ..all.clone() }, "--peer-broker-user cannot be used: "),
            (
                PeerArgs { peer_broker_password_file: None, ..all.clone() },
                "--peer-broker-password-file cannot be used: ",
            ),
            (PeerArgs { peer_broker_ca_file: None, ..all.clone() }, "amqps needs --peer-broker-ca-file"),
            (all, "cannot read --peer-broker-password-file /nowhere/password"),
        ];
        for (args, expected) in cases {
            let error = chain(&args.broker("a test").await.unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
