//! Replica counts of Deployments: server-side apply of `spec.replicas` and nothing else, under a field manager of its own.

use std::time::Duration;

use futures::future::join_all;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Api, Client};
use region_plan::{ScaleTarget, ScaleTo};
use serde_json::{Value, json};

use super::outcome::Outcome;
use crate::deadline::within;
use crate::workloads::{WireDeployment, Workloads};

/// Owner of `spec.replicas` while the operator sets it.
pub const FIELD_MANAGER: &str = "regions.trading.dev/replicas";
/// One Deployment, all calls.
const DEADLINE: Duration = Duration::from_secs(3);
/// How often it is tried to let go of a count that others write to at the same time.
const RELEASE_ATTEMPTS: u32 = 10;

/// Scales each target; those that an autoscaler owns are let go of again once they are active.
pub(super) async fn scale(
    client: &Client,
    cache: &Workloads,
    namespace: &str,
    to: ScaleTo,
    targets: &[ScaleTarget],
) -> Outcome {
    let each = targets.iter().map(async |target| {
        let let_go = to == ScaleTo::Active && cache.autoscaled(namespace, &target.name);
        let work = scale_one(client, cache, namespace, target, let_go);
        match within(DEADLINE, "the API server", work).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(error)) => Outcome::from(error),
            Err(late) => Outcome::from(late),
        }
    });
    join_all(each).await.into_iter().find(|outcome| *outcome != Outcome::Done).unwrap_or(Outcome::Done)
}

async fn scale_one(
    client: &Client,
    cache: &Workloads,
    namespace: &str,
    target: &ScaleTarget,
    let_go: bool,
) -> Result<(), kube::Error> {
    let api: Api<WireDeployment> = Api::namespaced(client.clone(), namespace);
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let written = api.patch(&target.name, &params, &Patch::Apply(body(target))).await?;
    cache.wrote(namespace, written);
    if let_go {
        release_field(client, namespace, &target.name).await?;
    }
    Ok(())
}

/// The uid makes the API server refuse a Deployment that was deleted and made anew.
fn body(target: &ScaleTarget) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": target.name, "uid": target.uid},
        "spec": {"replicas": target.replicas},
    })
}

/// Gives up ownership and leaves the value: applying without the field would reset it to 1 when nobody else owns it. The
/// Deployment's controller writes to it in these very moments, and nothing would bring the operator here a second time.
async fn release_field(client: &Client, namespace: &str, name: &str) -> Result<(), kube::Error> {
    for _ in 1..RELEASE_ATTEMPTS {
        match try_release_field(client, namespace, name).await {
            Err(kube::Error::Api(status)) if status.is_conflict() => {}
            outcome => return outcome,
        }
    }
    try_release_field(client, namespace, name).await
}

async fn try_release_field(client: &Client, namespace: &str, name: &str) -> Result<(), kube::Error> {
    let api: Api<PartialObjectMeta<WireDeployment>> = Api::namespaced(client.clone(), namespace);
    let seen = api.get(name).await?;
    let entries = seen.metadata.managed_fields.unwrap_or_default();
    let Some(others) = without_ours(&entries) else { return Ok(()) };
    let patch =
        json!({"metadata": {"resourceVersion": seen.metadata.resource_version, "managedFields": others}});
    let api: Api<WireDeployment> = Api::namespaced(client.clone(), namespace);
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
}

/// The entries of other managers; `None` when ours is not among them.
fn without_ours(entries: &[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>> {
    let ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    entries
        .iter()
        .any(|entry| ours(&entry))
        .then(|| entries.iter().filter(|entry| !ours(entry)).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_replicas_are_applied() {
        let target = ScaleTarget { name: "core".to_owned(), uid: "u".to_owned(), replicas: 3 };
        let body = body(&target);
        assert_eq!(body["spec"], json!({"replicas": 3}));
        let metadata: Vec<_> = body["metadata"].as_object().unwrap().keys().collect();
        assert_eq!(metadata, ["name", "uid"]);
    }

    #[test]
    fn letting_go_keeps_the_entries_of_others() {
        let entry =
            |manager: &str| ManagedFieldsEntry { manager: Some(manager.to_owned()), ..Default::default() };
        let kept = without_ours(&[entry("helm"), entry(FIELD_MANAGER), entry("argocd")]).unwrap();
        assert_eq!(kept, [entry("helm"), entry("argocd")]);
        assert_eq!(without_ours(&[entry("helm")]), None);
    }
}
