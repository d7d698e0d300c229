//! Queue lengths by AMQP: a passive declare asks the queue itself, while the management API may lag behind.

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::runtime::default_runtime;
use lapin::tcp::OwnedTLSConfig;
use lapin::types::FieldTable;
use lapin::uri::{AMQPUri, AMQPUserInfo};
use lapin::{Channel, Connect, Connection, ConnectionProperties};
use tokio::sync::Mutex;

use crate::deadline::within;

/// A connection to the broker that is made when it is needed and made anew when it broke.
pub struct Queues {
    uri: AMQPUri,
    ca_pem: Option<String>,
    deadline: Duration,
    open: Mutex<Option<(Connection, Channel)>>,
}

impl Queues {
    /// No connection is made yet.
    ///
    /// # Errors
    /// What is wrong with the URL.
    pub fn new(
        url: &str,
        user: &str,
        password: &str,
        ca_pem: Option<String>,
        deadline: Duration,
    ) -> Result<Self, String> {
        let mut uri: AMQPUri =
            url.parse().map_err(|error| format!("amqpUrl {url:?} is not understood: {error}"))?;
        uri.authority.userinfo = AMQPUserInfo { username: user.to_owned(), password: password.to_owned() };
        Ok(Self { uri, ca_pem, deadline, open: Mutex::default() })
    }

    /// The virtual host that the URL names.
    pub fn vhost(&self) -> &str {
        &self.uri.vhost
    }

    /// The broker's host name.
    pub fn host(&self) -> &str {
        &self.uri.authority.host
    }

    /// Ready messages of each queue, in the given order; one that gives no answer does not hide the others.
    pub async fn ready(&self, queues: &[&str]) -> Vec<Result<u64, String>> {
        let who = format!("the broker {}", self.uri.authority.host);
        let mut answers = Vec::with_capacity(queues.len());
        let asked = within(self.deadline, &who, async {
            for queue in queues {
                answers.push(self.ask(queue).await);
            }
        });
        let late = asked.await.err();
        let why = late.map_or_else(|| "not asked".to_owned(), |late| late.to_string());
        answers.resize(queues.len(), Err(why));
        answers
    }

    async fn ask(&self, queue: &str) -> Result<u64, String> {
        let channel = self.channel().await?;
        let declared = channel.queue_declare(
            queue.into(),
            QueueDeclareOptions::default().passive(),
            FieldTable::default(),
        );
        match declared.await {
            Ok(queue) => Ok(u64::from(queue.message_count())),
            // A failed declare closes the channel; the next question opens another one.
            Err(error) => Err(format!("queue {queue}: {error}")),
        }
    }

    async fn channel(&self) -> Result<Channel, String> {
        let mut open = self.open.lock().await;
        if let Some((connection, channel)) = open.as_ref()
            && connection.status().connected()
        {
            if channel.status().connected() {
                return Ok(channel.clone());
            }
            let again = connection.create_channel().await.map_err(|error| error.to_string())?;
            if let Some((_, channel)) = open.as_mut() {
                *channel = again.clone();
            }
            return Ok(again);
        }
        let (connection, channel) =
            self.connect().await.map_err(|error| format!("broker {}: {error}", self.uri.authority.host))?;
        *open = Some((connection, channel.clone()));
        Ok(channel)
    }

    async fn connect(&self) -> lapin::Result<(Connection, Channel)> {
        let tls = OwnedTLSConfig { identity: None, cert_chain: self.ca_pem.clone() };
        let properties =
            ConnectionProperties::default().with_connection_name("region-operator drain checks".into());
        let connection = self.uri.clone().connect_with_config(properties, tls, default_runtime()?).await?;
        let channel = connection.create_channel().await?;
        Ok((connection, channel))
    }
}
