//! Deployments and autoscalers of the own cluster, kept in a form of a few hundred bytes each.
//!
//! A write's answer is merged in at once, so a decision never rests on an older copy than the last own write. What is read
//! carries the time at which the API server was last heard on both watches: a broken watch grows old, a quiet one does not.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crds::ACTIVE_REPLICAS_ANNOTATION;
use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource};
use serde::Deserialize;
use std::borrow::Cow;
use tokio::sync::watch as signal;

use crate::clock;
use crate::follow::{News, follow};

/// What is kept of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deployment {
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// Version of this copy.
    pub version: u64,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The annotation `regions.trading.dev/active-replicas`, as it stands.
    pub active_replicas: Option<String>,
    /// `metadata.generation`.
    pub generation: i64,
    /// The generation that its controller has seen.
    pub observed_generation: i64,
    /// `spec.replicas`.
    pub replicas: i32,
    /// Available replicas of the current template.
    pub ready: i32,
    /// When it was created.
    pub created: Option<Timestamp>,
}

/// A Deployment as it comes from the API server; everything that is not named here is skipped while decoding.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct WireDeployment {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: WireSpec,
    #[serde(default)]
    status: WireStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct WireSpec {
    replicas: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStatus {
    #[serde(default)]
    observed_generation: i64,
    #[serde(default)]
    available_replicas: i32,
    #[serde(default)]
    updated_replicas: i32,
}

/// An autoscaler as it comes from the API server.
#[derive(Clone, Debug, Deserialize)]
struct WireAutoscaler {
    metadata: ObjectMeta,
    spec: WireAutoscalerSpec,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireAutoscalerSpec {
    scale_target_ref: WireTarget,
}

#[derive(Clone, Debug, Deserialize)]
struct WireTarget {
    kind: String,
    name: String,
}

macro_rules! resource {
    ($name:ident, $kind:literal, $group:literal, $version:literal, $plural:literal) => {
        impl Resource for $name {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }
            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }
            fn version((): &()) -> Cow<'_, str> {
                $version.into()
            }
            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }
            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }
            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}
resource!(WireDeployment, "Deployment", "apps", "v1", "deployments");
resource!(WireAutoscaler, "HorizontalPodAutoscaler", "autoscaling", "v2", "horizontalpodautoscalers");

impl From<WireDeployment> for Deployment {
    fn from(wire: WireDeployment) -> Self {
        let WireDeployment { metadata, spec, status } = wire;
        let mut annotations = metadata.annotations.unwrap_or_default();
        Self {
            name: metadata.name.unwrap_or_default(),
            uid: metadata.uid.unwrap_or_default(),
            version: version_number(metadata.resource_version.as_deref()),
            labels: metadata.labels.unwrap_or_default(),
            active_replicas: annotations.remove(ACTIVE_REPLICAS_ANNOTATION),
            generation: metadata.generation.unwrap_or_default(),
            observed_generation: status.observed_generation,
            replicas: spec.replicas.unwrap_or(1),
            // Available: ready for the Deployment's minReadySeconds. Pods of an older template do not serve the wanted version.
            ready: status.available_replicas.min(status.updated_replicas),
            created: metadata.creation_timestamp.map(|time| time.0),
        }
    }
}

/// Kubernetes promises since 1.35 that resource versions of one kind are numbers that grow.
fn version_number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

type ByNamespace<T> = HashMap<String, BTreeMap<String, T>>;

/// Objects of one kind. A new listing replaces the old one when it is complete, not before.
struct Table<T> {
    live: ByNamespace<T>,
    arriving: Option<ByNamespace<T>>,
    life: Life,
}

/// Whether a table is still told of changes.
#[derive(Default)]
struct Life {
    /// When it was last known to be complete.
    heard: Option<Timestamp>,
    /// Why nothing was heard since.
    broken: Option<String>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { live: HashMap::new(), arriving: None, life: Life::default() }
    }
}

impl<T: Clone> Table<T> {
    fn put(&mut self, namespace: &str, name: &str, object: T, newer: impl Fn(&T) -> bool) {
        for side in std::iter::once(&mut self.live).chain(self.arriving.as_mut()) {
            let all = side.entry(namespace.to_owned()).or_default();
            if all.get(name).is_none_or(&newer) {
                all.insert(name.to_owned(), object.clone());
            }
        }
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        for side in std::iter::once(&mut self.live).chain(self.arriving.as_mut()) {
            if let Some(all) = side.get_mut(namespace) {
                all.remove(name);
            }
        }
    }

    fn begin_listing(&mut self) {
        self.arriving = Some(HashMap::new());
    }

    fn end_listing(&mut self) {
        self.live = self.arriving.take().unwrap_or_default();
    }

    fn of(&self, namespace: &str) -> impl Iterator<Item = &T> {
        self.live.get(namespace).into_iter().flat_map(BTreeMap::values)
    }
}

#[derive(Default)]
struct Kept {
    deployments: Table<Arc<Deployment>>,
    /// The Deployment that each autoscaler scales.
    autoscalers: Table<String>,
}

impl Kept {
    /// When both tables were last known to be complete; `None` before both listings.
    fn heard(&self) -> Option<Timestamp> {
        Some(self.deployments.life.heard?.min(self.autoscalers.life.heard?))
    }

    fn broken(&self) -> Option<String> {
        self.deployments.life.broken.clone().or_else(|| self.autoscalers.life.broken.clone())
    }
}

/// Deployments that a selector matches, as the cache knows them.
#[derive(Clone, Debug)]
pub struct Selected {
    /// They, by name.
    pub deployments: Vec<Arc<Deployment>>,
    /// When this was last known to be complete.
    pub at: Timestamp,
    /// Why nothing was heard since, if the watch is broken.
    pub broken: Option<String>,
}

/// The cache.
#[derive(Clone, Default)]
pub struct Workloads {
    kept: Arc<Mutex<Kept>>,
}

impl Workloads {
    /// Starts the two watches. They end with the runtime. The receiver turns true once both listings have arrived.
    pub fn start(client: &Client) -> (Self, signal::Receiver<bool>) {
        Self::start_by(client, clock::now)
    }

    /// The same by another clock than the machine's.
    pub fn start_by(
        client: &Client,
        now: impl Fn() -> Timestamp + Clone + Send + Sync + 'static,
    ) -> (Self, signal::Receiver<bool>) {
        let cache = Self::default();
        let (synced, when_synced) = signal::channel(false);
        let synced = Arc::new(synced);
        let (kept, both, by) = (cache.clone(), Arc::clone(&synced), now.clone());
        let deployments: Api<WireDeployment> = Api::all(client.clone());
        tokio::spawn(async move {
            let tell = |news| match news {
                News::Event(event) => kept.note_deployment(event, None),
                life => kept.note_life(|kept| &mut kept.deployments.life, life, &both),
            };
            follow(&deployments, by, tell).await
        });
        let (kept, both) = (cache.clone(), synced);
        let autoscalers: Api<WireAutoscaler> = Api::all(client.clone());
        tokio::spawn(async move {
            let tell = |news| match news {
                News::Event(event) => kept.note_autoscaler(event),
                life => kept.note_life(|kept| &mut kept.autoscalers.life, life, &both),
            };
            follow(&autoscalers, now, tell).await
        });
        (cache, when_synced)
    }

    /// The Deployments of a namespace whose labels contain all of `selector`.
    ///
    /// # Errors
    /// Why they are not known.
    pub fn selected(&self, namespace: &str, selector: &BTreeMap<String, String>) -> Result<Selected, String> {
        let kept = self.lock();
        let broken = kept.broken();
        let Some(at) = kept.heard() else {
            let why = broken.unwrap_or_else(|| "the first listing is on its way".to_owned());
            return Err(format!("Deployments and autoscalers of the own cluster are not listed: {why}"));
        };
        let matches =
            |d: &&Arc<Deployment>| selector.iter().all(|(key, value)| d.labels.get(key) == Some(value));
        let deployments = kept.deployments.of(namespace).filter(matches).cloned().collect();
        Ok(Selected { deployments, at, broken })
    }

    /// Whether an autoscaler scales that Deployment.
    pub fn autoscaled(&self, namespace: &str, name: &str) -> bool {
        self.lock().autoscalers.of(namespace).any(|target| target == name)
    }

    /// Merges the answer of an own write in, unless something newer is known.
    pub(crate) fn wrote(&self, namespace: &str, written: WireDeployment) {
        self.note_deployment(Event::Apply(written), Some(namespace));
    }

    fn note_deployment(&self, event: Event<WireDeployment>, namespace: Option<&str>) {
        let mut kept = self.lock();
        match event {
            Event::Init => kept.deployments.begin_listing(),
            Event::InitApply(object) | Event::Apply(object) => {
                let (own_namespace, name) = place(&object.metadata);
                let new = Arc::new(Deployment::from(object));
                let newer = |known: &Arc<Deployment>| known.uid != new.uid || known.version <= new.version;
                kept.deployments.put(namespace.unwrap_or(&own_namespace), &name, Arc::clone(&new), newer);
            }
            Event::Delete(object) => {
                let (namespace, name) = place(&object.metadata);
                kept.deployments.remove(&namespace, &name);
            }
            Event::InitDone => kept.deployments.end_listing(),
        }
    }

    fn note_autoscaler(&self, event: Event<WireAutoscaler>) {
        let mut kept = self.lock();
        match event {
            Event::Init => kept.autoscalers.begin_listing(),
            Event::InitApply(object) | Event::Apply(object) => {
                let (namespace, name) = place(&object.metadata);
                let target = object.spec.scale_target_ref;
                if target.kind == "Deployment" {
                    kept.autoscalers.put(&namespace, &name, target.name, |_| true);
                }
            }
            Event::Delete(object) => {
                let (namespace, name) = place(&object.metadata);
                kept.autoscalers.remove(&namespace, &name);
            }
            Event::InitDone => kept.autoscalers.end_listing(),
        }
    }

    fn note_life<K>(&self, of: fn(&mut Kept) -> &mut Life, news: News<K>, synced: &signal::Sender<bool>) {
        let mut kept = self.lock();
        match news {
            News::Heard(at) => *of(&mut kept) = Life { heard: Some(at), broken: None },
            News::Failed(why) => of(&mut kept).broken = Some(why),
            News::Event(_) => {}
        }
        if kept.heard().is_some() {
            synced.send_replace(true);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn place(meta: &ObjectMeta) -> (String, String) {
    (meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn deployment(name: &str, version: &str, replicas: i32) -> WireDeployment {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "trading", "uid": "u", "resourceVersion": version,
                         "labels": {"part": "x", "tier": "1"}, "annotations": {ACTIVE_REPLICAS_ANNOTATION: "3"}},
            "spec": {"replicas": replicas, "template": {"anything": ["goes", 1]}},
            "status": {"availableReplicas": 2, "updatedReplicas": 1, "observedGeneration": 4},
        }))
        .unwrap()
    }

    fn listed() -> Workloads {
        let cache = Workloads::default();
        cache.note_deployment(Event::Init, None);
        cache.note_autoscaler(Event::Init);
        cache.note_deployment(Event::InitApply(deployment("core", "7", 1)), None);
        cache.note_deployment(Event::InitDone, None);
        cache.note_autoscaler(Event::InitDone);
        hear(&cache, |kept| &mut kept.deployments.life, Ok(5));
        hear(&cache, |kept| &mut kept.autoscalers.life, Ok(7));
        cache
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn hear(cache: &Workloads, of: fn(&mut Kept) -> &mut Life, what: Result<i64, &str>) {
        let news: News<()> = match what {
            Ok(second) => News::Heard(at(second)),
            Err(why) => News::Failed(why.to_owned()),
        };
        cache.note_life(of, news, &signal::channel(false).0);
    }

    fn select(cache: &Workloads) -> Vec<Arc<Deployment>> {
        cache.selected("trading", &BTreeMap::from([("part".to_owned(), "x".to_owned())])).unwrap().deployments
    }

    #[test]
    fn nothing_is_concluded_before_both_listings_have_arrived() {
        let cache = Workloads::default();
        hear(&cache, |kept| &mut kept.deployments.life, Ok(5));
        hear(&cache, |kept| &mut kept.autoscalers.life, Err("forbidden"));
        let why = cache.selected("trading", &BTreeMap::new()).unwrap_err();
        assert!(why.ends_with("forbidden"), "{why}");
    }

    #[test]
    fn what_is_read_is_as_old_as_the_watch_that_was_heard_of_less_recently() {
        let cache = listed();
        let read = || cache.selected("trading", &BTreeMap::new()).unwrap();
        assert_eq!((read().at, read().broken), (at(5), None));
        hear(&cache, |kept| &mut kept.deployments.life, Ok(9));
        hear(&cache, |kept| &mut kept.autoscalers.life, Err("gone"));
        assert_eq!((read().at, read().broken), (at(7), Some("gone".to_owned())));
        hear(&cache, |kept| &mut kept.autoscalers.life, Ok(8));
        assert_eq!((read().at, read().broken), (at(8), None));
    }

    #[test]
    fn an_own_write_is_seen_at_once_and_an_older_copy_does_not_hide_it() {
        let cache = listed();
        cache.wrote("trading", deployment("core", "9", 5));
        cache.note_deployment(Event::Apply(deployment("core", "8", 1)), None);
        assert_eq!(select(&cache)[0].replicas, 5);
        cache.note_deployment(Event::Apply(deployment("core", "10", 2)), None);
        assert_eq!(select(&cache)[0].replicas, 2);
    }

    #[test]
    fn ready_pods_of_an_older_template_do_not_count() {
        assert_eq!(select(&listed())[0].ready, 1);
    }

    #[test]
    fn a_relisting_forgets_what_is_gone_once_it_is_complete() {
        let cache = listed();
        cache.note_deployment(Event::Init, None);
        assert_eq!(select(&cache).len(), 1);
        cache.note_deployment(Event::InitDone, None);
        assert!(select(&cache).is_empty());
    }

    #[test]
    fn only_an_autoscaler_of_that_deployment_counts() {
        let cache = listed();
        let scaler = |kind: &str, name: &str| {
            serde_json::from_value::<WireAutoscaler>(json!({
                "metadata": {"name": "hpa", "namespace": "trading"},
                "spec": {"scaleTargetRef": {"kind": kind, "name": name, "apiVersion": "apps/v1"}, "maxReplicas": 3},
            }))
            .unwrap()
        };
        cache.note_autoscaler(Event::Apply(scaler("StatefulSet", "core")));
        assert!(!cache.autoscaled("trading", "core"));
        cache.note_autoscaler(Event::Apply(scaler("Deployment", "core")));
        assert!(cache.autoscaled("trading", "core"));
        assert!(!cache.autoscaled("other", "core"));
    }
}
