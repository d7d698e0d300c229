//! RabbitMQ's management API of the own region: what customers may do, who is connected, how full queues are.
//!
//! Taking a permission must be reversible without a memory of our own: the closed pattern is one that matches nothing and
//! still carries the open one, `(?!)(OPEN)`.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use http::{Method, StatusCode};
use region_plan::Broker;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::caller::{BasicAuth, Call, CallError, Caller};

/// Begins a pattern that matches nothing.
const CLOSED_PREFIX: &str = "(?!)(";
/// What customers get who never had a pattern here: publishing by queue name, as on a fresh standby.
const DEFAULT_OPEN: &str = "^amq\\.default$";
/// RabbitMQ's own patterns for "nothing".
const NOTHING: [&str; 2] = ["", "^$"];

/// Access to the management API.
#[derive(Clone, Debug)]
pub struct Management {
    caller: Caller,
    base: String,
    auth: BasicAuth,
    customers: Vec<String>,
    readers: Vec<String>,
    vhost: String,
    deadline: Duration,
    old: OldConnections,
}

/// Connections that may be older than the taking of the permission, by name. A customer who tries again and again is connected
/// at most moments; a connection that was made without the permission is not waited for.
#[derive(Clone, Debug, Default)]
struct OldConnections(Arc<Mutex<Option<HashSet<String>>>>);

impl OldConnections {
    /// These were open after the permission had been taken; later ones are not, until it was given again.
    fn taken(&self, names: impl Iterator<Item = String>) {
        self.lock().get_or_insert_with(|| names.collect());
    }

    /// Whether that connection may have been made with the permission. Who does not know when it was taken takes each for one.
    fn has(&self, name: &str) -> bool {
        self.lock().as_ref().is_none_or(|old| old.contains(name))
    }

    /// The permission is given, or is about to be taken: whoever is connected then counts.
    fn given(&self) {
        *self.lock() = None;
    }

    fn lock(&self) -> MutexGuard<'_, Option<HashSet<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one user may do in one virtual host.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Permission {
    vhost: String,
    configure: String,
    write: String,
    read: String,
}

#[derive(Clone, Debug, Deserialize)]
struct Connection {
    name: String,
    vhost: Option<String>,
}

/// Counts of one queue; absent while the node has not reported yet.
#[derive(Debug, Deserialize)]
struct QueueCounts {
    messages_ready: Option<u64>,
    messages_unacknowledged: Option<u64>,
}

/// Where and as whom.
#[derive(Clone, Debug)]
pub struct ManagementOptions {
    /// `https://host:port`.
    pub url: String,
    /// An administrator.
    pub auth: BasicAuth,
    /// Who submits.
    pub customers: Vec<String>,
    /// Who only reads answers.
    pub readers: Vec<String>,
    /// The virtual host of the application.
    pub vhost: String,
    /// Bound of one call.
    pub deadline: Duration,
}

impl Management {
    /// No call is made yet.
    pub fn new(caller: Caller, options: ManagementOptions) -> Self {
        let ManagementOptions { url, auth, customers, readers, vhost, deadline } = options;
        let (base, old) = (url.trim_end_matches('/').to_owned(), OldConnections::default());
        Self { caller, base, auth, customers, readers, vhost, deadline, old }
    }

    /// What customers may do and how many are connected.
    ///
    /// # Errors
    /// [`CallError`] of the first question that was not answered.
    pub async fn observe(&self) -> Result<Broker, CallError> {
        let may_write = try_join_all(self.customers.iter().map(|user| self.may_write(user)));
        let customers = try_join_all(self.customers.iter().map(|user| self.connections(user)));
        let readers = try_join_all(self.readers.iter().map(|user| self.connections(user)));
        let (may_write, customers, readers) =
            futures::future::try_join3(may_write, customers, readers).await?;
        let customers_may_write = may_write.iter().any(|may| *may);
        if customers_may_write {
            self.old.given();
        }
        let old = customers.iter().flatten().filter(|connection| self.old.has(&connection.name)).count();
        Ok(Broker {
            customers_may_write,
            all_customers_may_write: may_write.iter().all(|may| *may),
            customer_connections: number(customers.iter().map(Vec::len).sum()),
            old_customer_connections: number(old),
            answer_connections: number(readers.iter().map(Vec::len).sum()),
        })
    }

    async fn may_write(&self, user: &str) -> Result<bool, CallError> {
        Ok(self
            .permissions(user)
            .await?
            .iter()
            .any(|permission| open_pattern(&permission.write) == Pattern::Open))
    }

    /// The user's connections to the application's virtual host.
    async fn connections(&self, user: &str) -> Result<Vec<Connection>, CallError> {
        let path = format!("connections/username/{}", segment(user));
        let mut open: Vec<Connection> = self.get(&path).await?;
        // A connection that is just being made names none yet.
        open.retain(|connection| connection.vhost.as_ref().is_none_or(|vhost| *vhost == self.vhost));
        Ok(open)
    }

    /// What the user may do in the application's virtual host; those of other applications are none of ours.
    async fn permissions(&self, user: &str) -> Result<Vec<Permission>, CallError> {
        let mut all: Vec<Permission> = self.get(&format!("users/{}/permissions", segment(user))).await?;
        all.retain(|permission| permission.vhost == self.vhost);
        Ok(all)
    }

    /// Messages of a queue, ready and unacknowledged. `None`: the node has not counted yet.
    ///
    /// # Errors
    /// [`CallError`]; a queue that does not exist is one.
    pub async fn messages(&self, queue: &str) -> Result<Option<u64>, CallError> {
        // Without statistics the node gives its own counters, which are newer and cost it less.
        let query = "disable_stats=true&enable_queue_totals=true";
        let path = format!("queues/{}/{}?{query}", segment(&self.vhost), segment(queue));
        let counts: QueueCounts = self.get(&path).await?;
        Ok(counts
            .messages_ready
            .zip(counts.messages_unacknowledged)
            .map(|(ready, unacked)| ready.saturating_add(unacked)))
    }

    /// Takes the customers' permission to publish and closes their connections.
    ///
    /// # Errors
    /// [`CallError`] of the first call that failed; all of it may be repeated.
    pub async fn close_customers(&self) -> Result<(), CallError> {
        for user in &self.customers {
            for permission in self.permissions(user).await? {
                if open_pattern(&permission.write) == Pattern::Open {
                    let closed = format!("{CLOSED_PREFIX}{})", permission.write);
                    self.old.given();
                    self.set_write(user, &permission, &closed).await?;
                }
            }
        }
        let open = try_join_all(self.customers.iter().map(|user| self.connections(user))).await?.concat();
        self.old.taken(open.iter().map(|connection| connection.name.clone()));
        self.close_connections(&open, "traffic moves to another region").await
    }

    /// Closes the connections of those who read answers.
    ///
    /// # Errors
    /// [`CallError`] of the first call that failed; all of it may be repeated.
    pub async fn close_readers(&self) -> Result<(), CallError> {
        let open = try_join_all(self.readers.iter().map(|user| self.connections(user))).await?.concat();
        self.close_connections(&open, "answers come from another region").await
    }

    /// Gives the customers' permission to publish back.
    ///
    /// # Errors
    /// [`CallError`] of the first call that failed; a user without any permission in the virtual host is one.
    pub async fn open_customers(&self) -> Result<(), CallError> {
        self.old.given();
        for user in &self.customers {
            let permissions = self.permissions(user).await?;
            if permissions.is_empty() {
                let why = format!(
                    "broker user {user} has no permission entry in virtual host {}; create it",
                    self.vhost
                );
                return Err(CallError::NotSent(why));
            }
            for permission in permissions {
                match open_pattern(&permission.write) {
                    Pattern::Open => {}
                    Pattern::Closed(open) => self.set_write(user, &permission, open).await?,
                    Pattern::Nothing => self.set_write(user, &permission, DEFAULT_OPEN).await?,
                }
            }
        }
        Ok(())
    }

    async fn set_write(&self, user: &str, permission: &Permission, write: &str) -> Result<(), CallError> {
        let body = json!({"configure": permission.configure, "write": write, "read": permission.read});
        let path = format!("permissions/{}/{}", segment(&permission.vhost), segment(user));
        self.send(Method::PUT, &path, Some(&body)).await
    }

    async fn close_connections(&self, open: &[Connection], reason: &str) -> Result<(), CallError> {
        tracing::info!(connections = open.len(), reason, "closing broker connections");
        try_join_all(open.iter().map(|connection| self.close_connection(connection))).await.map(drop)
    }

    async fn close_connection(&self, connection: &Connection) -> Result<(), CallError> {
        let path = format!("connections/{}", segment(&connection.name));
        match self.send(Method::DELETE, &path, None).await {
            // It has ended by itself.
            Err(CallError::Refused { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
            outcome => outcome,
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        let url = format!("{}/api/{path}", self.base);
        let call = Call {
            method: Method::GET,
            url: &url,
            auth: Some(&self.auth),
            json: None,
            deadline: self.deadline,
        };
        let body = self.caller.call(call).await?;
        serde_json::from_slice(&body)
            .map_err(|error| CallError::Unparsable { who: url, why: error.to_string() })
    }

    async fn send(&self, method: Method, path: &str, json: Option<&Value>) -> Result<(), CallError> {
        let url = format!("{}/api/{path}", self.base);
        let call = Call { method, url: &url, auth: Some(&self.auth), json, deadline: self.deadline };
        self.caller.call(call).await.map(drop)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// What a write pattern means.
#[derive(Debug, PartialEq, Eq)]
enum Pattern<'a> {
    Open,
    /// Closed by us; the open pattern is inside.
    Closed(&'a str),
    /// Closed by somebody else.
    Nothing,
}

fn open_pattern(pattern: &str) -> Pattern<'_> {
    if NOTHING.contains(&pattern) {
        return Pattern::Nothing;
    }
    match pattern.strip_prefix(CLOSED_PREFIX).and_then(|rest| rest.strip_suffix(')')) {
        Some(open) => Pattern::Closed(open),
        None => Pattern::Open,
    }
}

/// One segment of a path, percent-encoded.
fn segment(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pattern_gives_the_open_one_back() {
        let open = "^(amq\\.default|trade-matching\\.in\\.trades)$";
        let closed = format!("{CLOSED_PREFIX}{open})");
        assert_eq!(open_pattern(&closed), Pattern::Closed(open));
        assert_eq!(open_pattern(open), Pattern::Open);
        assert_eq!(open_pattern("^$"), Pattern::Nothing);
        assert_eq!(open_pattern(""), Pattern::Nothing);
    }

    #[test]
    fn a_customer_who_connects_again_without_the_permission_is_not_waited_for() {
        let old = OldConnections::default();
        let taken = |name: &str| old.taken([name.to_owned()].into_iter());
        assert!(old.has("before"), "nothing was taken by this process, so each connection counts");
        taken("before");
        taken("again");
        assert!(old.has("before") && !old.has("again"));
        old.given();
        assert!(old.has("again"), "the permission was given, or a call that takes it did not end well");
        taken("later");
        assert!(old.has("later") && !old.has("before"));
    }

    #[test]
    fn the_default_virtual_host_is_one_path_segment() {
        assert_eq!(segment("/"), "%2F");
        assert_eq!(segment("a b-c.d"), "a%20b-c.d");
    }
}
