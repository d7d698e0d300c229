//! Both charts in both clusters, installed with Helm as a user would.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use lab::{Facts, Region};
use serde_json::{Value, json};

use crate::clusters::{APPLICATION, NAMESPACE, OPERATOR_NAMESPACE};
use crate::helm::Release;
use crate::kubectl;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// How long new pods have to be ready before ingress closes elsewhere: on one machine they are what the old side waits for
/// while they start. Tests do not wait.
pub const SETTLE_SECONDS: u32 = 3;

/// Installs or upgrades the operator and the application in both clusters, side by side. A pod of the application counts
/// once it was ready for `min_ready_seconds`.
///
/// # Errors
/// When Helm fails; its own words are in the error.
pub async fn install(facts: &Facts, min_ready_seconds: u32) -> Result<()> {
    // The migrations run where the database is the primary; the other region's job waits until they have arrived.
    // They come first: a keeper is ready when it can read the lease.
    try_join_all(Region::ALL.map(|region| application(facts, region, min_ready_seconds))).await?;
    try_join_all(Region::ALL.map(|region| operator(facts, region))).await?;
    Ok(())
}

/// Installs or upgrades the operator and its keeper in one cluster.
///
/// # Errors
/// As [`install`].
pub async fn operator(facts: &Facts, region: Region) -> Result<()> {
    let pods = annotations(facts, region, "localhost/trading-region-operator:dev").await?;
    let values = operator_values(facts, region, &pods);
    let chart = "trading-region-operator";
    Install { region, namespace: OPERATOR_NAMESPACE, chart, shared: "operator.yaml" }
        .with(facts, &values)
        .await?;
    // Helm installs definitions and never upgrades them.
    kubectl::apply(facts, region, &repository().join("charts").join(chart).join("crds")).await
}

/// Installs or upgrades the application in one cluster.
///
/// # Errors
/// As [`install`].
pub async fn application(facts: &Facts, region: Region, min_ready_seconds: u32) -> Result<()> {
    let place = &facts.regions[&region];
    let stage =
        json!({"podAnnotations": annotations(facts, region, "localhost/trading-services:dev").await?});
    let values = json!({
        "region": region.name(),
        "minReadySeconds": min_ready_seconds,
        "database": {"host": place.address.to_string()},
        "broker": {"url": place.broker_url},
        "stages": {"inbound": stage, "ingestion": stage, "core": stage, "egress": stage, "outbound": stage},
    });
    Install { region, namespace: NAMESPACE, chart: "trading", shared: "trading.yaml" }
        .with(facts, &values)
        .await
}

fn operator_values(facts: &Facts, region: Region, pods: &Value) -> Value {
    let place = &facts.regions[&region];
    let both = Region::ALL.map(|region| (region.name().to_owned(), json!(facts.aws.rds_url)));
    json!({
        "region": region.name(),
        "applications": [{
            "namespace": NAMESPACE,
            "secrets": [format!("{APPLICATION}-database"), format!("{APPLICATION}-broker")],
            "peerSecret": format!("{APPLICATION}-peer-{}", region.peer()),
        }],
        "aws": {"rdsEndpoints": serde_json::Map::from_iter(both), "arcConfigEndpoint": facts.aws.rds_url},
        "operator": {"podAnnotations": pods},
        "keeper": {
            "podAnnotations": pods,
            "arcEndpoints": facts.aws.arc_endpoints,
            "apps": [{
                "app": APPLICATION,
                "control": facts.aws.names.routing_controls[&format!("{APPLICATION}-app-{region}")],
                "database": {"host": place.address.to_string(), "name": facts.database},
                "secret": {"name": format!("{APPLICATION}-database"), "passwordKey": "keeper-password"},
            }],
        },
    })
}

/// One chart in one cluster.
struct Install<'a> {
    region: Region,
    namespace: &'a str,
    /// Folder and release name.
    chart: &'a str,
    /// File of `e2e/values` that both regions share.
    shared: &'a str,
}

impl Install<'_> {
    /// Installs or upgrades with the shared values and this region's own.
    async fn with(&self, facts: &Facts, values: &Value) -> Result<()> {
        let Self { region, chart, .. } = *self;
        let own = facts.lab().folder().join(format!("values-{chart}-{region}.json"));
        tokio::fs::write(&own, values.to_string())
            .await
            .with_context(|| format!("writing {}", own.display()))?;
        let root = repository();
        let release = Release {
            helm: &facts.programs["helm"],
            kubeconfig: &facts.regions[&region].kubeconfig,
            namespace: self.namespace,
            name: chart,
        };
        let shared = root.join("e2e/values").join(self.shared);
        let installed = release.upgrade(&root.join("charts").join(chart), &[&shared, &own]).await;
        installed.with_context(|| format!("installing {chart} in {region}"))
    }
}

/// Annotations of pods that change with the content of an image: its name stays the same when its programs are built
/// anew, and pods of the old content would stay.
async fn annotations(facts: &Facts, region: Region, image: &'static str) -> Result<Value> {
    let lab = facts.lab();
    let key = tokio::task::spawn_blocking(move || lab::image_key(&lab, region, image)).await??;
    let key = key.with_context(|| format!("{region} has not loaded {image}; build the workspace first"))?;
    Ok(json!({"trading.lab/image": key}))
}
