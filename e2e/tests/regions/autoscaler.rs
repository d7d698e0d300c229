//! Where an autoscaler scales a Deployment, the operator raises it from zero and then leaves the count alone.

use anyhow::Result;
use e2e::clusters::NAMESPACE;
use e2e::run;
use e2e::timeouts::NOTICE;
use e2e::wait::{Look, until};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use region_operator::apply::REPLICAS_MANAGER;
use serde_json::json;

use crate::rig::Rig;

const DEPLOYMENT: &str = "trade-matching-core";

#[tokio::test(flavor = "multi_thread")]
async fn the_count_is_the_autoscalers_once_the_region_is_active() -> Result<()> {
    let rig = Rig::ready().await?;
    let target = rig.active.peer();
    let client = rig.clusters.client(target);
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::namespaced(client.clone(), NAMESPACE);
    let deployments: Api<Deployment> = Api::namespaced(client, NAMESPACE);
    autoscalers.create(&PostParams::default(), &autoscaler()?).await?;

    run::switch(&rig.clusters, &rig.there("an autoscaler there")).await?;
    let owners = deployments.get(DEPLOYMENT).await?;
    let ours = owners.managed_fields().iter().any(|entry| entry.manager.as_deref() == Some(REPLICAS_MANAGER));
    assert!(!ours, "the operator still owns the count: {:?}", owners.managed_fields());

    // What the autoscaler does when load grows.
    let grown = json!({"spec": {"replicas": 3}});
    deployments.patch_scale(DEPLOYMENT, &PatchParams::default(), &Patch::Merge(grown)).await?;
    ready(&deployments, 3).await?;
    rig.sees(target, "steady beside the autoscaler", |status| {
        status.phase == Some(region_plan::Phase::Steady) && status.findings.is_empty()
    })
    .await?;
    assert_eq!(deployments.get(DEPLOYMENT).await?.spec.and_then(|spec| spec.replicas), Some(3));

    autoscalers.delete(DEPLOYMENT, &DeleteParams::default()).await?;
    ready(&deployments, 2).await
}

async fn ready(deployments: &Api<Deployment>, wanted: i32) -> Result<()> {
    until(&format!("{wanted} ready pods of {DEPLOYMENT}"), NOTICE, async || {
        let status = deployments.get(DEPLOYMENT).await?.status.unwrap_or_default();
        let seen = (status.replicas, status.ready_replicas);
        Ok(if seen == (Some(wanted), Some(wanted)) {
            Look::Seen(())
        } else {
            Look::NotYet(format!("{seen:?}"))
        })
    })
    .await
}

/// Without a source of metrics it changes nothing by itself: its presence is what the operator sees.
fn autoscaler() -> Result<HorizontalPodAutoscaler> {
    Ok(serde_json::from_value(json!({
        "metadata": {"name": DEPLOYMENT, "namespace": NAMESPACE},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": DEPLOYMENT},
            "minReplicas": 1,
            "maxReplicas": 4,
        },
    }))?)
}
