//! Puts the listeners together, starts and stops them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use rand::random;
use tokio::net::{TcpListener, UdpSocket};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::https::{Endpoint, tls_acceptor};
use crate::rds::switchover;
use crate::service::Service;
use crate::world::World;
use crate::{Error, control, dns};

/// Where a simulator listens: the configured addresses with the real ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// ARC endpoint by region.
    pub arc: BTreeMap<String, SocketAddr>,
    /// RDS API.
    pub rds: SocketAddr,
    /// DNS over UDP and TCP.
    pub dns: SocketAddr,
    /// Control port.
    pub control: SocketAddr,
}

/// A simulator whose addresses are bound, so that it answers as soon as it [runs](Self::run).
#[derive(Debug)]
pub struct Simulator {
    world: Arc<World>,
    tls: Arc<rustls::ServerConfig>,
    arc: Vec<TcpListener>,
    rds: TcpListener,
    dns: (UdpSocket, TcpListener),
    control: TcpListener,
    addresses: Addresses,
}

impl Simulator {
    /// Checks the configuration, reads certificate and state file, binds all addresses.
    ///
    /// # Errors
    /// Any [`Error`] but [`Error::Task`].
    pub async fn bind(config: Config) -> Result<Self, Error> {
        config.validate()?;
        let seed = config.seed.unwrap_or_else(random);
        tracing::info!(seed, "AWS simulator");
        let tls = tls_acceptor(&config.tls)?;
        let mut arc = Vec::new();
        let mut arc_addresses = BTreeMap::new();
        for endpoint in &config.arc_endpoints {
            let listener =
                listen(&format!("the ARC endpoint of {}", endpoint.region), endpoint.address).await?;
            arc_addresses.insert(endpoint.region.clone(), address_of(&listener)?);
            arc.push(listener);
        }
        let rds = listen("RDS", config.rds_listen).await?;
        let dns = dns_sockets(config.dns.listen).await?;
        let control = listen("control", config.control_listen).await?;
        let addresses = Addresses {
            arc: arc_addresses,
            rds: address_of(&rds)?,
            dns: address_of(&dns.1)?,
            control: address_of(&control)?,
        };
        let world = Arc::new(World::new(config, seed)?);
        Ok(Self { world, tls, arc, rds, dns, control, addresses })
    }

    /// Where it listens.
    #[must_use]
    pub fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    /// The seed of its random choices.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.world.lock().seed
    }

    /// Serves until `shutdown` is ready, then stops all that it started and saves its state.
    ///
    /// # Errors
    /// [`Error::Task`] if a listener broke, [`Error::State`] if the state can't be saved.
    pub async fn run(self, shutdown: impl Future<Output = ()> + Send) -> Result<(), Error> {
        let stop = CancellationToken::new();
        let _stop_whatever_happens = stop.clone().drop_guard();
        let tasks = TaskTracker::new();
        let mut broken = dns::serve(self.dns, &self.world);
        let tls = TlsAcceptor::from(self.tls);
        let services = (self.arc.into_iter().enumerate())
            .map(|(index, listener)| (Service::Arc(index), listener))
            .chain([(Service::Rds, self.rds)]);
        for (service, listener) in services {
            let address = address_of(&listener)?;
            let endpoint = Endpoint {
                world: Arc::clone(&self.world),
                service,
                address,
                tls: tls.clone(),
                stop: stop.clone(),
                tasks: tasks.clone(),
            };
            tasks.spawn(endpoint.serve(listener));
        }
        for cluster in self.world.unfinished() {
            tracing::warn!(cluster, "taking up an unfinished switchover");
            spawn_switchover(&tasks, &stop, &self.world, cluster);
        }
        tasks.spawn(control::serve(self.control, Arc::clone(&self.world), stop.clone()));
        let outcome = tokio::select! {
            () = shutdown => Ok(()),
            result = broken.block_until_done() => Err(Error::Task(format!("the DNS server ended: {result:?}"))),
        };
        stop.cancel();
        tasks.close();
        tasks.wait().await;
        if outcome.is_ok() {
            broken.shutdown_gracefully().await.map_err(|error| Error::Task(error.to_string()))?;
        }
        self.world.persist().await?;
        outcome
    }
}

/// Carries a switchover out in the background, until it is done or the simulator stops.
pub(crate) fn spawn_switchover(
    tasks: &TaskTracker,
    stop: &CancellationToken,
    world: &Arc<World>,
    cluster: String,
) {
    tasks.spawn(stop.clone().run_until_cancelled_owned(switchover::carry_out(Arc::clone(world), cluster)));
}

async fn listen(what: &str, address: SocketAddr) -> Result<TcpListener, Error> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| Error::Listen { what: what.to_owned(), address, source })
}

async fn dns_sockets(address: SocketAddr) -> Result<(UdpSocket, TcpListener), Error> {
    let tcp = listen("DNS over TCP", address).await?;
    let address = address_of(&tcp)?;
    let udp = UdpSocket::bind(address).await.map_err(|source| Error::Listen {
        what: "DNS over UDP".to_owned(),
        address,
        source,
    })?;
    Ok((udp, tcp))
}

fn address_of(listener: &TcpListener) -> Result<SocketAddr, Error> {
    listener.local_addr().map_err(|error| Error::Task(error.to_string()))
}
