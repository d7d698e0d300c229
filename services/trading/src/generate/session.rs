//! Where the customer's broker is at the moment. The name moves in a switch; this follows it.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use services_common::amqp::BrokerConfig;
use services_common::config::{ConfigError, read_file};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::{GenerateArgs, dns};

/// How often the name is looked up.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(1);
/// A look-up that takes longer has failed.
const LOOKUP_DEADLINE: Duration = Duration::from_secs(2);

/// A broker under a name, and how the name is resolved.
#[derive(Clone, Debug)]
pub struct Target {
    /// The broker.
    pub broker: BrokerConfig,
    /// DNS server to ask; without it the system is asked.
    pub dns: Option<SocketAddr>,
}

impl Target {
    /// The target of one of the customer's users, with the option that names its password file.
    ///
    /// # Errors
    /// A file cannot be read, or the URL is absent or makes no sense.
    pub async fn from_args(
        args: &GenerateArgs,
        user: &str,
        (option, password_file): (&'static str, &Path),
        connection_name: &str,
    ) -> Result<Self, ConfigError> {
        let password = read_file(option, password_file).await?;
        let ca_file = args.broker_ca_file.as_deref();
        let url = args.broker_url.as_deref().unwrap_or_default();
        let broker = BrokerConfig::new(url, user, &password, ca_file, connection_name)?;
        Ok(Self { broker, dns: args.dns })
    }

    /// The address of the name, followed until `stop`. `None` until it was resolved once; afterwards the last known
    /// address, because a name that cannot be resolved for a moment does not mean that the broker moved.
    pub fn follow(&self, stop: CancellationToken) -> watch::Receiver<Option<IpAddr>> {
        let (sender, receiver) = watch::channel(None);
        let (dns, host) = (self.dns, self.broker.host().to_owned());
        tokio::spawn(async move {
            loop {
                if let Ok(Some(address)) = timeout(LOOKUP_DEADLINE, resolve(dns, &host)).await {
                    sender.send_if_modified(|known| {
                        let moved = *known != Some(address);
                        if moved {
                            tracing::info!(%address, host, "broker's address");
                            *known = Some(address);
                        }
                        moved
                    });
                }
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = sleep(LOOKUP_INTERVAL) => {}
                }
            }
        });
        receiver
    }
}

async fn resolve(dns: Option<SocketAddr>, host: &str) -> Option<IpAddr> {
    if let Ok(address) = host.parse() {
        return Some(address);
    }
    match dns {
        Some(server) => dns::query(server, host).await.map(IpAddr::V4).ok(),
        None => tokio::net::lookup_host((host, 0)).await.ok()?.map(|address| address.ip()).next(),
    }
}
