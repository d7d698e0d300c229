//! Secrets of the lab's clusters, spoiled or removed for a while.

use std::fmt;

use anyhow::{Context as _, Result};
use e2e::Clusters;
use e2e::clusters::{APPLICATION, NAMESPACE, OPERATOR_NAMESPACE};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use lab::Region;
use serde_json::json;

use crate::undo::Undo;

/// Name of one secret.
pub struct Named {
    namespace: &'static str,
    name: String,
}

impl fmt::Display for Named {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// The operator's login at the broker.
pub fn broker() -> Named {
    Named { namespace: NAMESPACE, name: format!("{APPLICATION}-broker") }
}

/// The operator's login at the database.
pub fn database() -> Named {
    Named { namespace: NAMESPACE, name: format!("{APPLICATION}-database") }
}

/// The way to the other region's cluster.
pub fn peer(region: Region) -> Named {
    Named { namespace: NAMESPACE, name: format!("{APPLICATION}-peer-{region}") }
}

/// The key that the operator signs AWS calls with.
pub fn aws() -> Named {
    Named { namespace: OPERATOR_NAMESPACE, name: "aws-credentials".to_owned() }
}

impl Named {
    /// Writes a value that nobody accepts under one key.
    pub async fn spoiled(&self, clusters: &Clusters, region: Region, key: &str) -> Result<Undo> {
        let (api, undo) = self.kept(clusters, region).await?;
        let patch = Patch::Merge(json!({"stringData": {key: "not-the-right-one"}}));
        api.patch(&self.name, &PatchParams::default(), &patch).await?;
        Ok(undo)
    }

    /// Deletes it.
    pub async fn removed(&self, clusters: &Clusters, region: Region) -> Result<Undo> {
        let (api, undo) = self.kept(clusters, region).await?;
        api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(undo)
    }

    async fn kept(&self, clusters: &Clusters, region: Region) -> Result<(Api<Secret>, Undo)> {
        let api: Api<Secret> = Api::namespaced(clusters.client(region), self.namespace);
        let secret = api.get(&self.name).await.with_context(|| format!("reading secret {self}"))?;
        let before = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "type": secret.type_,
            "data": secret.data,
        });
        let (name, writer) = (self.name.clone(), api.clone());
        let undo = Undo::new(format!("secret {self} of {region}"), async move {
            writer.patch(&name, &PatchParams::apply("e2e").force(), &Patch::Apply(before)).await?;
            Ok(())
        });
        Ok((api, undo))
    }
}
