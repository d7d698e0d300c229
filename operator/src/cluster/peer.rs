//! The other cluster: its TradingRegion objects are read live, in each pass that decides by them, and a watch in its own
//! backoff tells of changes.
//! A peer that does not answer is asked in the background from then on, so that it never slows a pass down.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use crds::TradingRegion;
use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use kube::api::{ApiResource, DynamicObject};
use kube::core::PartialObjectMeta;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use region_plan::Fact;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::client::{ClientLimits, from_kubeconfig_text};
use super::secrets::Secrets;
use crate::clock;
use crate::deadline::within;
use crate::error::chain;

/// One read of the other side's object.
const CALL: Duration = Duration::from_millis(1000);
/// A copy that is older is not handed out while the next one is read.
const LAST_COPY: SignedDuration = SignedDuration::from_secs(3);
/// Pauses between reads of a peer that does not answer.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The server ends a watch after this time, so a silently dropped connection is noticed soon after.
const WATCH_SECONDS: u32 = 30;

/// Asks for a pass over all objects. Wishes that come while one waits are one wish.
pub type Wish = mpsc::Sender<()>;

/// The other side's object as it was read; `None`: it does not exist there.
pub type PeerCopy = Option<Arc<TradingRegion>>;

/// Whether a pass waits for the other side's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadPeer {
    /// It is read now: something is decided by it.
    Now,
    /// The last copy will do, with its age, while the next one is read.
    Beside,
}

/// Namespace, name and key of a secret.
type SecretKey = (String, String, String);
/// The secret's resourceVersion that a reader was made from.
type SecretVersion = String;

/// Readers of other clusters, one for each secret.
pub struct Peers {
    secrets: Arc<Secrets>,
    wish: Wish,
    readers: Mutex<HashMap<SecretKey, (SecretVersion, Arc<PeerReader>)>>,
}

impl Peers {
    /// `wish` is told when an object of a peer changed.
    pub fn new(secrets: Arc<Secrets>, wish: Wish) -> Self {
        Self { secrets, wish, readers: Mutex::default() }
    }

    /// The copy of `namespace/name` in the cluster whose kubeconfig is in that secret.
    pub async fn read(
        &self,
        (namespace, name): (&str, &str),
        (secret, key): (&str, &str),
        when: ReadPeer,
    ) -> Fact<PeerCopy> {
        match (self.reader(namespace, secret, key).await, when) {
            (Ok(reader), ReadPeer::Now) => reader.read(name).await,
            (Ok(reader), ReadPeer::Beside) => reader.read_beside(name).await,
            (Err(why), _) => Fact::unknown(why),
        }
    }

    async fn reader(&self, namespace: &str, secret: &str, key: &str) -> Result<Arc<PeerReader>, String> {
        let data = self.secrets.get(namespace, secret).await.map_err(|error| error.to_string())?;
        let mut readers = self.readers.lock().await;
        let at = (namespace.to_owned(), secret.to_owned(), key.to_owned());
        if let Some((version, reader)) = readers.get(&at)
            && version == data.version()
        {
            return Ok(Arc::clone(reader));
        }
        let text = data.text(key).map_err(|error| error.to_string())?;
        let whose = format!("the cluster of secret {namespace}/{secret}");
        let client = from_kubeconfig_text(&whose, text, ClientLimits::default())
            .await
            .map_err(|error| error.to_string())?;
        let reader = PeerReader::start(client, namespace, &whose, self.wish.clone());
        readers.insert(at, (data.version().to_owned(), Arc::clone(&reader)));
        Ok(reader)
    }
}

/// Reads the TradingRegions of one namespace of one other cluster.
pub struct PeerReader {
    whose: String,
    api: Api<DynamicObject>,
    wish: Wish,
    state: std::sync::Mutex<State>,
    /// Ends with the reader.
    tasks: std::sync::Mutex<JoinSet<()>>,
}

#[derive(Default)]
struct State {
    /// Why the last read failed; while set, passes do not wait for this peer.
    down: Option<String>,
    last_seen: Option<Timestamp>,
    /// The last copy of each object.
    copies: HashMap<String, Fact<PeerCopy>>,
    /// Objects that are being read beside the passes, and since when.
    asking: HashMap<String, Instant>,
}

impl PeerReader {
    /// Starts the watch.
    pub fn start(client: Client, namespace: &str, whose: &str, wish: Wish) -> Arc<Self> {
        let kind = ApiResource::erase::<TradingRegion>(&());
        let reader = Arc::new(Self {
            whose: whose.to_owned(),
            api: Api::namespaced_with(client.clone(), namespace, &kind),
            wish: wish.clone(),
            state: std::sync::Mutex::default(),
            tasks: std::sync::Mutex::default(),
        });
        let metadata: Api<PartialObjectMeta<TradingRegion>> = Api::namespaced(client, namespace);
        reader.spawn(tell_of_changes(metadata, wish));
        reader
    }

    /// The copy of the object `name`, read now, or why it is not known.
    pub async fn read(self: &Arc<Self>, name: &str) -> Fact<PeerCopy> {
        if let Some(why) = self.down() {
            return Fact::unknown(why);
        }
        let copy = match self.ask(name).await {
            Ok(found) => Fact::known(found, clock::now()),
            Err(Failure::Undecodable(why)) => Fact::unknown(why),
            Err(Failure::Unreachable(why)) => {
                self.went_down(name, why);
                Fact::unknown(self.down().unwrap_or_default())
            }
        };
        let mut state = self.lock();
        match copy.get() {
            Some(None) => state.copies.remove(name),
            _ => state.copies.insert(name.to_owned(), copy.clone()),
        };
        copy
    }

    /// The copy that was read last; the next one is read beside. Waits only if there is none yet, or an old one.
    pub async fn read_beside(self: &Arc<Self>, name: &str) -> Fact<PeerCopy> {
        if let Some(why) = self.down() {
            return Fact::unknown(why);
        }
        let copy = self.lock().copies.get(name).cloned();
        let young = |at: Timestamp| clock::now().duration_since(at) < LAST_COPY;
        let Some(copy) = copy.filter(|copy| matches!(copy, Fact::Known { at, .. } if young(*at))) else {
            return self.read(name).await;
        };
        if self.may_ask(name) {
            let (reader, name) = (Arc::clone(self), name.to_owned());
            self.spawn(async move {
                reader.read(&name).await;
                reader.lock().asking.remove(&name);
            });
        }
        copy
    }

    /// Whether nobody reads that object beside the passes now. Who was at it for longer than a call may take is gone.
    fn may_ask(&self, name: &str) -> bool {
        let (mut state, now) = (self.lock(), Instant::now());
        let under_way = state.asking.get(name).is_some_and(|since| now.duration_since(*since) < CALL * 2);
        if !under_way {
            state.asking.insert(name.to_owned(), now);
        }
        !under_way
    }

    async fn ask(&self, name: &str) -> Result<PeerCopy, Failure> {
        let found = match within(CALL, &self.whose, self.api.get_opt(name)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                return Err(Failure::Unreachable(format!("{}: {}", self.whose, refused(&error))));
            }
            Err(late) => return Err(Failure::Unreachable(late.to_string())),
        };
        self.lock().last_seen = Some(clock::now());
        found.map(decode).transpose().map_err(|why| Failure::Undecodable(format!("{}: {why}", self.whose)))
    }

    fn down(&self) -> Option<String> {
        let state = self.lock();
        let why = state.down.as_ref()?;
        let seen = state.last_seen.map_or("never seen".to_owned(), |at| format!("last seen {at:.0}"));
        Some(format!("{why} ({seen})"))
    }

    /// From now on the background asks, until an answer comes.
    fn went_down(self: &Arc<Self>, name: &str, why: String) {
        if self.lock().down.replace(why).is_some() {
            return;
        }
        let (reader, name) = (Arc::downgrade(self), name.to_owned());
        self.spawn(async move {
            let mut pause = FIRST_PAUSE;
            loop {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
                let Some(reader) = reader.upgrade() else { return };
                match reader.ask(&name).await {
                    Err(Failure::Unreachable(why)) => reader.lock().down = Some(why),
                    Ok(_) | Err(Failure::Undecodable(_)) => {
                        reader.lock().down = None;
                        // A full queue holds a wish already.
                        let _ = reader.wish.try_send(());
                        return;
                    }
                }
            }
        });
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Failure {
    Unreachable(String),
    Undecodable(String),
}

/// Only the metadata is watched: what counts is read.
async fn tell_of_changes(api: Api<PartialObjectMeta<TradingRegion>>, wish: Wish) {
    let config = watcher::Config::default().timeout(WATCH_SECONDS);
    let mut changes = watcher(api, config).default_backoff().touched_objects().boxed();
    while let Some(change) = changes.next().await {
        match change {
            // A full queue holds a wish already.
            Ok(_) => drop(wish.try_send(())),
            Err(error) => {
                tracing::debug!(%error, "the peer's watch failed; it is tried again in its own backoff")
            }
        }
    }
}

/// An object that is not there is an answer; a 404 of everything else means that this version of the kind is not served.
fn refused(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if status.code == 404 => format!(
            "its API server does not serve TradingRegion as {}; \
             bring both clusters to the same version of the operator",
            TradingRegion::api_version(&())
        ),
        kube::Error::Api(status) => format!("its API server answered {}: {}", status.code, status.message),
        other => chain(other),
    }
}

fn decode(object: DynamicObject) -> Result<Arc<TradingRegion>, String> {
    let version = object.types.as_ref().map_or_else(String::new, |types| types.api_version.clone());
    let expected = TradingRegion::api_version(&());
    let value = serde_json::to_value(object).map_err(|error| error.to_string())?;
    serde_json::from_value(value).map(Arc::new).map_err(|error| {
        format!(
            "its TradingRegion ({version}) is not understood by this version ({expected}): {error}; \
             bring both clusters to the same version of the operator"
        )
    })
}
