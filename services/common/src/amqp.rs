//! RabbitMQ: one supervised connection of a process, channels on it, and a publisher that knows when a message
//! has really arrived. Auto-recovery of the client is off: whoever uses a channel opens a new one after an error,
//! and the connection is made again here, with a capped backoff.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use futures::future::try_join_all;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::{AMQPScheme, AMQPUri, AMQPUserInfo};
use lapin::{
    AsyncTcpStream, BasicProperties, Channel, Confirmation, Connection, ConnectionProperties,
    ConnectionStatus,
};
use tokio::sync::Mutex;
use tokio::time::{sleep, sleep_until, timeout};

use crate::backoff::Backoff;
use crate::config::{BrokerArgs, ConfigError, read_file};
use crate::postgres::Grant;
use crate::wire::{self, Repaired};

/// Time to connect, or to open a channel.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
/// Time for the broker to confirm what was published together.
const CONFIRM_DEADLINE: Duration = Duration::from_secs(10);
/// Longest pause between two attempts to connect.
const RECONNECT_CAP: Duration = Duration::from_secs(2);
/// Seconds between heartbeats: a dead connection is noticed within twice this.
const HEARTBEAT_SECONDS: u16 = 5;
/// Between two looks at whether a channel is open.
const LOOK: Duration = Duration::from_secs(1);
/// Messages that may be unconfirmed at one time.
const PUBLISH_WINDOW: usize = 500;

/// What can go wrong between a service and its broker. Everything here passes by itself or by the named act.
#[derive(Debug, thiserror::Error)]
pub enum AmqpError {
    /// A file with a secret cannot be read at this moment.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A step with the broker did not end within its deadline.
    #[error("broker {broker}: {what} took longer than {seconds} s; retrying")]
    ConnectDeadline {
        /// host:port
        broker: String,
        /// The operation.
        what: &'static str,
        /// The deadline.
        seconds: u64,
    },
    /// The broker could not be reached or refused us.
    #[error("broker {broker}: {what} failed; retrying")]
    Broker {
        /// host:port
        broker: String,
        /// The operation.
        what: &'static str,
        /// What the client library said.
        source: lapin::Error,
    },
    /// The broker confirmed a message that it could not put into any queue.
    #[error(
        "message for {exchange} reached no queue: run `services trading migrate` to declare the topology"
    )]
    Unroutable {
        /// The exchange it was sent to.
        exchange: String,
    },
    /// The broker refused a message (a full queue).
    #[error("broker refused a message for {exchange}: the queue is full; retrying")]
    Refused {
        /// The exchange it was sent to.
        exchange: String,
    },
    /// Published, but not confirmed in time: it may or may not be in the queue.
    #[error("broker {broker} did not confirm {messages} messages within {seconds} s; retrying")]
    ConfirmDeadline {
        /// host:port
        broker: String,
        /// How many were waited for.
        messages: usize,
        /// The deadline.
        seconds: u64,
    },
}

/// Where the broker is and who we are to it.
#[derive(Clone, Debug)]
pub struct BrokerConfig {
    uri: AMQPUri,
    /// Whose content takes the place of the password in `uri`.
    password_file: Option<PathBuf>,
    ca_file: Option<PathBuf>,
    /// Shown in the broker's list of connections.
    connection_name: String,
    /// Connect to this address instead of resolving the host; TLS still verifies the host's name.
    address: Option<SocketAddr>,
}

impl BrokerConfig {
    /// The password and the CA are read from their files at each connect, so that they can be rotated; and now, so
    /// that a wrong path is told at once.
    ///
    /// # Errors
    /// A file cannot be read, or the URL is not amqp(s)://host:port, or amqps comes without a CA.
    pub async fn from_args(args: &BrokerArgs, connection_name: &str) -> Result<Self, ConfigError> {
        let ca = args.broker_ca_file.as_deref();
        let mut config = Self::new(&args.broker_url, &args.broker_user, "", ca, connection_name)?;
        config.password_file = Some(args.broker_password_file.clone());
        config.access().await?;
        Ok(config)
    }

    /// A configuration from its parts; `ca_file` holds PEM certificates and is read at each connect.
    ///
    /// # Errors
    /// The URL is not amqp(s)://host:port, or amqps comes without a CA.
    pub fn new(
        url: &str,
        user: &str,
        password: &str,
        ca_file: Option<&Path>,
        connection_name: &str,
    ) -> Result<Self, ConfigError> {
        let value = |reason: String| ConfigError::Value { option: "--broker-url", reason };
        let mut uri: AMQPUri = url.parse().map_err(|reason: String| value(reason))?;
        uri.authority.userinfo = AMQPUserInfo { username: user.to_owned(), password: password.to_owned() };
        uri.query.heartbeat = Some(HEARTBEAT_SECONDS);
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        if uri.scheme == AMQPScheme::AMQPS && ca_file.is_none() {
            return Err(value("amqps needs --broker-ca-file, the CA of the broker's certificate".into()));
        }
        let ca_file = ca_file.map(Path::to_owned);
        Ok(Self {
            uri,
            password_file: None,
            ca_file,
            connection_name: connection_name.to_owned(),
            address: None,
        })
    }

    /// Who we are and whom we believe, as the files say now.
    async fn access(&self) -> Result<(AMQPUri, Option<String>), ConfigError> {
        let mut uri = self.uri.clone();
        if let Some(path) = &self.password_file {
            uri.authority.userinfo.password = read_file("--broker-password-file", path).await?;
        }
        let ca_pem = match &self.ca_file {
            Some(path) => Some(read_file("--broker-ca-file", path).await?),
            None => None,
        };
        Ok((uri, ca_pem))
    }

    /// The same broker reached at a given address.
    #[must_use]
    pub fn at(mut self, address: std::net::IpAddr) -> Self {
        self.address = Some(SocketAddr::new(address, self.uri.authority.port));
        self
    }

    /// Name that the broker is reached by.
    pub fn host(&self) -> &str {
        &self.uri.authority.host
    }

    fn broker(&self) -> String {
        match self.address {
            Some(address) => format!("{} ({address})", self.uri.authority.host),
            None => format!("{}:{}", self.uri.authority.host, self.uri.authority.port),
        }
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(lapin::Error) -> AmqpError {
        let broker = self.broker();
        move |source| AmqpError::Broker { broker, what, source }
    }

    /// One step with the broker, within a deadline: a connection that is cut at that moment may leave it without an end.
    ///
    /// # Errors
    /// [`AmqpError::ConnectDeadline`] or [`AmqpError::Broker`].
    pub async fn within<T>(
        &self,
        what: &'static str,
        step: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, AmqpError> {
        let seconds = CONNECT_DEADLINE.as_secs();
        let late = |_| AmqpError::ConnectDeadline { broker: self.broker(), what, seconds };
        timeout(CONNECT_DEADLINE, step).await.map_err(late)?.map_err(self.failed(what))
    }

    /// Opens a connection, within a deadline.
    ///
    /// # Errors
    /// [`AmqpError::Config`], [`AmqpError::ConnectDeadline`] or [`AmqpError::Broker`].
    pub async fn connect(&self) -> Result<Connection, AmqpError> {
        let properties =
            ConnectionProperties::default().with_connection_name(self.connection_name.as_str().into());
        let tokio = lapin::runtime::default_runtime().map_err(self.failed("connecting"))?;
        let (uri, ca_pem) = self.access().await?;
        let address = self.address;
        let connecting = Connection::connector(
            uri,
            wire::runtime(),
            async move |uri, _| {
                let tls = OwnedTLSConfig { identity: None, cert_chain: ca_pem.clone() };
                let stream = match address {
                    None => uri.connect_with_config_async(tls.as_ref(), &tokio).await?,
                    Some(address) => {
                        let stream = AsyncTcpStream::connect(&tokio, address).await?;
                        match uri.scheme {
                            AMQPScheme::AMQP => stream,
                            AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, tls.as_ref()).await?,
                        }
                    }
                };
                Ok(AsyncTcpStream::Plain(Repaired::new(stream)))
            },
            properties,
        );
        self.within("connecting", connecting).await
    }
}

struct Link {
    connection: Option<Connection>,
    backoff: Backoff,
    next_attempt: Option<Instant>,
}

/// The one connection of a process to its broker, made again whenever somebody needs it and it is gone.
pub struct Broker {
    config: BrokerConfig,
    link: Mutex<Link>,
    /// Of the newest connection. Apart from the link, which is locked for as long as connecting takes.
    status: std::sync::Mutex<Option<ConnectionStatus>>,
}

impl Broker {
    /// Does not connect yet.
    pub fn new(config: BrokerConfig) -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), RECONNECT_CAP);
        let link = Mutex::new(Link { connection: None, backoff, next_attempt: None });
        Self { config, link, status: std::sync::Mutex::default() }
    }

    /// A new channel; connects first if there is no connection.
    ///
    /// # Errors
    /// The broker cannot be reached or refuses. Calling again is right: a failed attempt makes the next one wait.
    pub async fn channel(&self) -> Result<Channel, AmqpError> {
        let mut link = self.link.lock().await;
        if !link.connection.as_ref().is_some_and(|connection| connection.status().connected()) {
            link.connection = None;
            if let Some(at) = link.next_attempt {
                sleep_until(at.into()).await;
            }
            match self.config.connect().await {
                Ok(connection) => {
                    link.backoff.reset();
                    link.next_attempt = None;
                    *self.status.lock().unwrap_or_else(PoisonError::into_inner) =
                        Some(connection.status().clone());
                    link.connection = Some(connection);
                }
                Err(error) => {
                    link.next_attempt = Some(Instant::now() + link.backoff.next_wait());
                    return Err(error);
                }
            }
        }
        let Some(connection) = &link.connection else { unreachable!("connected just above") };
        let opened = self.config.within("opening a channel", connection.create_channel()).await;
        if matches!(opened, Err(AmqpError::ConnectDeadline { .. })) {
            link.connection = None;
        }
        opened
    }

    /// A publisher on a channel of its own, with confirms.
    ///
    /// # Errors
    /// As for [`Broker::channel`].
    pub async fn publisher(&self) -> Result<Publisher, AmqpError> {
        Publisher::on(self.channel().await?, &self.config).await
    }

    /// Makes the next channel one of a new connection: this one is up and does not answer.
    pub async fn forget(&self) {
        self.link.lock().await.connection = None;
    }

    /// Whether the connection is up at this moment; waits for nobody.
    pub fn connected(&self) -> bool {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        status.as_ref().is_some_and(ConnectionStatus::connected)
    }

    /// Closes the connection politely; unacknowledged messages go back to their queues.
    pub async fn close(&self) {
        if let Some(connection) = self.link.lock().await.connection.take() {
            // The process is about to end: a connection that cannot be closed in time dies with it.
            let _ = timeout(CONNECT_DEADLINE, connection.close(200, "shutting down".into())).await;
        }
    }
}

/// Resolves when the channel is no longer open: neither a consumer nor a confirm always ends with its connection.
pub(crate) async fn lost(channel: &Channel) {
    while channel.status().connected() {
        sleep(LOOK).await;
    }
}

/// A message on its way out.
#[derive(Clone, Debug, PartialEq)]
pub struct Outgoing {
    /// Exchange (a fan-out of the same name as its queue).
    pub exchange: String,
    /// The body.
    pub body: Vec<u8>,
    /// Equal for every repetition of this message.
    pub message_id: String,
    /// The customer's id, where there is one.
    pub correlation_id: Option<String>,
    /// Headers; see [`grant_headers`].
    pub headers: FieldTable,
    /// The broker user that sends it; the broker refuses a message that names another one.
    pub user_id: Option<String>,
}

/// Headers that tell under which grant a message was sent.
pub fn grant_headers(grant: &Grant) -> FieldTable {
    let epoch = i64::try_from(grant.epoch()).unwrap_or(i64::MAX);
    let mut headers = FieldTable::default();
    headers.insert("epoch".into(), AMQPValue::LongLongInt(epoch));
    headers.insert("grant".into(), AMQPValue::LongString(grant.grant_id.to_string().into()));
    headers.insert("region".into(), AMQPValue::LongString(grant.region.as_str().into()));
    headers
}

/// Publishes with confirms and the mandatory flag.
pub struct Publisher {
    channel: Channel,
    broker: String,
}

impl Publisher {
    /// A publisher on an open channel.
    ///
    /// # Errors
    /// The channel could not be switched to confirms.
    pub async fn on(channel: Channel, config: &BrokerConfig) -> Result<Self, AmqpError> {
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        config.within("switching on confirms", confirms).await?;
        Ok(Self { channel, broker: config.broker() })
    }

    /// Resolves when its channel is no longer open.
    pub async fn lost(&self) {
        lost(&self.channel).await;
    }

    fn failed(&self, what: &'static str) -> impl FnOnce(lapin::Error) -> AmqpError {
        let broker = self.broker.clone();
        move |source| AmqpError::Broker { broker, what, source }
    }

    /// Publishes all and returns once each is confirmed and was put into a queue.
    ///
    /// # Errors
    /// Any error leaves open which of the messages arrived: repeat all, with the same ids.
    pub async fn publish_all(&self, messages: &[Outgoing]) -> Result<(), AmqpError> {
        // While the broker writes one half of the window, the other one is sent.
        let mut unconfirmed = None;
        for half in messages.chunks(PUBLISH_WINDOW / 2) {
            let sent = (half, self.within(half, self.send_all(half)).await?);
            if let Some((before, confirms)) = unconfirmed.replace(sent) {
                self.within(before, self.confirmed(before, confirms)).await?;
            }
        }
        match unconfirmed {
            Some((last, confirms)) => self.within(last, self.confirmed(last, confirms)).await,
            None => Ok(()),
        }
    }

    async fn within<T>(
        &self,
        messages: &[Outgoing],
        doing: impl Future<Output = Result<T, AmqpError>>,
    ) -> Result<T, AmqpError> {
        timeout(CONFIRM_DEADLINE, doing).await.map_err(|_| AmqpError::ConfirmDeadline {
            broker: self.broker.clone(),
            messages: messages.len(),
            seconds: CONFIRM_DEADLINE.as_secs(),
        })?
    }

    async fn send_all(&self, messages: &[Outgoing]) -> Result<Vec<lapin::PublisherConfirm>, AmqpError> {
        let mut confirms = Vec::with_capacity(messages.len());
        for message in messages {
            confirms.push(self.send(message).await.map_err(self.failed("publishing"))?);
        }
        Ok(confirms)
    }

    async fn confirmed(
        &self,
        messages: &[Outgoing],
        confirms: Vec<lapin::PublisherConfirm>,
    ) -> Result<(), AmqpError> {
        let confirmations = try_join_all(confirms).await.map_err(self.failed("waiting for confirms"))?;
        for (message, confirmation) in messages.iter().zip(confirmations) {
            match confirmation {
                Confirmation::Ack(None) => {}
                Confirmation::Ack(Some(_)) => {
                    return Err(AmqpError::Unroutable { exchange: message.exchange.clone() });
                }
                Confirmation::Nack(_) | Confirmation::NotRequested => {
                    return Err(AmqpError::Refused { exchange: message.exchange.clone() });
                }
            }
        }
        Ok(())
    }

    /// Closes the publisher's channel.
    ///
    /// # Errors
    /// The channel is closed already.
    pub async fn close(&self) -> Result<(), lapin::Error> {
        self.channel.close(200, "".into()).await
    }

    /// Sends one message; the returned future resolves when the broker has confirmed it.
    ///
    /// # Errors
    /// The channel is closed.
    pub async fn send(&self, message: &Outgoing) -> Result<lapin::PublisherConfirm, lapin::Error> {
        const PERSISTENT: u8 = 2;
        let mut properties = BasicProperties::default()
            .with_delivery_mode(PERSISTENT)
            .with_content_type("application/json".into())
            .with_message_id(message.message_id.as_str().into())
            .with_headers(message.headers.clone());
        if let Some(correlation_id) = &message.correlation_id {
            properties = properties.with_correlation_id(correlation_id.as_str().into());
        }
        if let Some(user_id) = &message.user_id {
            properties = properties.with_user_id(user_id.as_str().into());
        }
        let exchange = message.exchange.as_str();
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        self.channel.basic_publish(exchange.into(), exchange.into(), options, &message.body, properties).await
    }
}
