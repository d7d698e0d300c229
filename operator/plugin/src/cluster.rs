//! The only part that talks to API servers. Every call has a deadline; hidden retries are off.

use std::time::Duration;

use crds::{TradingRegion, TradingRegionSpec, TransitionMode};
use futures::future::join_all;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use serde_json::{Value, json};

/// Longest wait for an answer of one API server.
pub(crate) const READ_DEADLINE: Duration = Duration::from_secs(2);
/// Longest wait for a change to be accepted.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Name under which this plugin owns the fields that it changes.
const FIELD_MANAGER: &str = "kubectl-region";

/// One region's cluster as the kubeconfig names it.
#[derive(Clone)]
pub struct Cluster {
    /// The context's name.
    pub context: String,
    pub(crate) namespace: String,
    client: Result<Client, CopyError>,
}

/// One copy of the object.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// The context that it was read from.
    pub context: String,
    /// The region whose copy it is, where that is known.
    pub region: Option<String>,
    /// The copy, or why it is not known.
    pub object: Result<Box<TradingRegion>, CopyError>,
}

/// Why a copy is not known, or was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CopyError {
    /// No file tells where clusters are.
    #[error("no kubeconfig could be read: {why}; set KUBECONFIG, or name the file with --kubeconfig FILE")]
    Kubeconfig {
        /// What is wrong with it.
        why: String,
    },
    /// The kubeconfig does not say where to begin.
    #[error(
        "no context is chosen: name one with --context, or those of both regions with --contexts A,B; \
         kubectl config get-contexts lists them"
    )]
    NoContext,
    /// No usable way to the cluster.
    #[error("context {context}: {why}; name the contexts of both regions with --contexts A,B")]
    Config {
        /// The context.
        context: String,
        /// What is wrong with it.
        why: String,
    },
    /// The API server did not answer in time, or not at all.
    #[error("context {context}: {why}")]
    Unreachable {
        /// The context.
        context: String,
        /// What happened.
        why: String,
    },
    /// The API server answered that it will not.
    #[error("context {context}: the API server refused: {why}")]
    Refused {
        /// The context.
        context: String,
        /// Its words.
        why: String,
    },
    /// The object was changed by somebody else between reading and changing it.
    #[error("context {context}: the object changed in the meantime")]
    Changed {
        /// The context.
        context: String,
    },
    /// No such object, or several to choose from.
    #[error("context {context}: {why}")]
    Which {
        /// The context.
        context: String,
        /// What there is.
        why: String,
    },
    /// The object is of a version that this plugin does not understand.
    #[error(
        "context {context}: this plugin does not understand the object: {why}; use the plugin of the operator's version"
    )]
    Skew {
        /// The context.
        context: String,
        /// The first difference.
        why: String,
    },
}

impl Cluster {
    /// The cluster of a context. A context that cannot be used is kept as such: the other region is still shown.
    pub async fn of_context(kubeconfig: &Kubeconfig, context: &str, namespace: Option<&str>) -> Self {
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let config = Config::from_custom_kubeconfig(kubeconfig.clone(), &options).await;
        let unusable = |why: String| CopyError::Config { context: context.to_owned(), why };
        let config = config.map_err(|why: KubeconfigError| unusable(why.to_string())).map(bounded);
        let default_namespace =
            config.as_ref().map_or_else(|_| "default".to_owned(), |c| c.default_namespace.clone());
        let client =
            config.and_then(|config| Client::try_from(config).map_err(|why| unusable(why.to_string())));
        Self {
            context: context.to_owned(),
            namespace: namespace.map_or(default_namespace, str::to_owned),
            client,
        }
    }

    /// Reads the object: the named one, or the only one of the namespace. Ends within two seconds.
    pub async fn read(&self, name: Option<&str>) -> Result<Box<TradingRegion>, CopyError> {
        let api = self.api()?;
        let raw = match name {
            Some(name) => self.bounded(READ_DEADLINE, api.get(name)).await?,
            None => self
                .only(self.bounded(READ_DEADLINE, api.list(&ListParams::default().limit(10))).await?.items)?,
        };
        let skew =
            |why: serde_json::Error| CopyError::Skew { context: self.context.clone(), why: why.to_string() };
        let value = serde_json::to_value(&raw).map_err(skew)?;
        serde_json::from_value(value).map(Box::new).map_err(skew)
    }

    /// Sets the wished region, if the object is still the one that was read.
    pub async fn wish(&self, read: &TradingRegion, wish: &Wish<'_>) -> Result<i64, CopyError> {
        let name = read.metadata.name.as_deref().unwrap_or_default();
        let patch = wish.patch(read.metadata.resource_version.as_deref());
        let params = PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let api = self.api()?;
        let changed = self.bounded(WRITE_DEADLINE, api.patch(name, &params, &Patch::Merge(&patch))).await?;
        Ok(changed.metadata.generation.unwrap_or_default())
    }

    fn api(&self) -> Result<Api<DynamicObject>, CopyError> {
        let resource = ApiResource::erase::<TradingRegion>(&());
        Ok(Api::namespaced_with(self.client.clone()?, &self.namespace, &resource))
    }

    fn only(&self, mut items: Vec<DynamicObject>) -> Result<DynamicObject, CopyError> {
        let which = |why: String| CopyError::Which { context: self.context.clone(), why };
        match items.len() {
            0 => Err(which(format!(
                "no TradingRegion in namespace {}; choose another with -n",
                self.namespace
            ))),
            1 => Ok(items.remove(0)),
            _ => {
                let names: Vec<&str> =
                    items.iter().filter_map(|item| item.metadata.name.as_deref()).collect();
                Err(which(format!(
                    "several TradingRegions in namespace {}: name one of {}",
                    self.namespace,
                    names.join(", ")
                )))
            }
        }
    }

    async fn bounded<T>(
        &self,
        deadline: Duration,
        call: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, CopyError> {
        let context = self.context.clone();
        match tokio::time::timeout(deadline, call).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(kube::Error::Api(status))) => Err(refusal(context, &status)),
            Ok(Err(why)) => Err(CopyError::Unreachable { context, why: why.to_string() }),
            Err(_) => Err(CopyError::Unreachable {
                context,
                why: format!("no answer within {} s", deadline.as_secs()),
            }),
        }
    }
}

/// What an API server's refusal means for a person.
fn refusal(context: String, status: &kube::core::Status) -> CopyError {
    let of_an_object = status.details.as_ref().is_some_and(|details| !details.name.is_empty());
    if status.is_conflict() {
        CopyError::Changed { context }
    } else if status.code == 404 && !of_an_object {
        let why =
            "the cluster knows no TradingRegions: install the chart trading-region-operator there first";
        CopyError::Which { context, why: why.to_owned() }
    } else if status.is_not_found() {
        CopyError::Which { context, why: words(status) }
    } else {
        CopyError::Refused { context, why: words(status) }
    }
}

/// What an API server said; a proxy in between may say nothing but a number.
fn words(status: &kube::core::Status) -> String {
    if status.message.is_empty() { format!("HTTP status {}", status.code) } else { status.message.clone() }
}

/// The change that an act makes.
#[derive(Clone, Debug)]
pub struct Wish<'a> {
    /// The region that shall be active.
    pub region: &'a str,
    /// Why.
    pub reason: &'a str,
    /// Hash of the plan that was shown, if one was.
    pub plan_hash: Option<&'a str>,
}

impl Wish<'_> {
    /// Whether the spec is another one afterwards: operators answer to nothing else.
    pub(crate) fn changes(&self, spec: &TradingRegionSpec) -> bool {
        let now = &spec.transition;
        spec.active_region != self.region
            || now.mode != TransitionMode::Planned
            || now.reason.as_deref() != Some(self.reason)
            || now.accept_data_loss.is_some()
            || now.from_epoch.is_some()
    }

    fn patch(&self, resource_version: Option<&str>) -> Value {
        json!({
            "metadata": {
                "resourceVersion": resource_version,
                "annotations": { crds::PLAN_HASH_ANNOTATION: self.plan_hash },
            },
            "spec": {
                "activeRegion": self.region,
                "transition": { "mode": "Planned", "reason": self.reason, "acceptDataLoss": null, "fromEpoch": null },
            },
        })
    }
}

fn bounded(mut config: Config) -> Config {
    config.connect_timeout = Some(READ_DEADLINE);
    config.read_timeout = Some(WRITE_DEADLINE);
    config.write_timeout = Some(WRITE_DEADLINE);
    config.default_retry = false;
    config
}

/// Reads the object from all clusters at once.
pub async fn read_both(clusters: &[Cluster], name: Option<&str>) -> Vec<Copy> {
    join_all(clusters.iter().map(|cluster| async move {
        let object = cluster.read(name).await;
        Copy {
            context: cluster.context.clone(),
            region: region_of(&cluster.context, object.as_deref().ok()),
            object,
        }
    }))
    .await
}

/// The region whose copy this is: what its operator says of itself, else the context's name if it is a region's.
pub(crate) fn region_of(context: &str, object: Option<&TradingRegion>) -> Option<String> {
    let object = object?;
    let reported =
        object.status.as_ref().and_then(|status| status.side.as_ref()).map(|side| side.region.0.clone());
    reported.or_else(|| object.spec.region(context).map(|region| region.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(answer: Value) -> String {
        refusal("a".to_owned(), &serde_json::from_value(answer).unwrap_or_default()).to_string()
    }

    #[test]
    fn a_cluster_without_the_definition_is_told_apart_from_one_without_the_object() {
        let no_kind = refused(json!({"code": 404, "message": "404 page not found"}));
        assert!(no_kind.contains("install the chart"), "{no_kind}");
        let details = json!({"name": "trade-matching", "kind": "tradingregions"});
        let message = "tradingregions \"trade-matching\" not found";
        let no_object =
            refused(json!({"code": 404, "reason": "NotFound", "message": message, "details": details}));
        assert!(no_object.ends_with(message), "{no_object}");
    }
}
