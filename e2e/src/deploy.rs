//! Both charts in both clusters, installed with Helm as a user would.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use futures::future::try_join_all;
use lab::{Facts, Region};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clusters::{APPLICATION, NAMESPACE, OPERATOR_NAMESPACE};
use crate::timeouts::{INSTALL, stretched};

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Installs or upgrades the operator and the application in both clusters, side by side.
///
/// # Errors
/// When Helm fails; its own words are in the error.
pub async fn install(facts: &Facts) -> Result<()> {
    // The migrations run where the database is the primary; the other region's job waits until they have arrived.
    // They come first: a keeper is ready when it can read the lease.
    try_join_all(Region::ALL.map(|region| application(facts, region))).await?;
    try_join_all(Region::ALL.map(|region| operator(facts, region))).await?;
    Ok(())
}

/// Installs or upgrades the operator and its keeper in one cluster.
///
/// # Errors
/// As [`install`].
pub async fn operator(facts: &Facts, region: Region) -> Result<()> {
    let values = operator_values(facts, region);
    helm_install(facts, region, OPERATOR_NAMESPACE, "trading-region-operator", "operator.yaml", &values).await
}

/// Installs or upgrades the application in one cluster.
///
/// # Errors
/// As [`install`].
pub async fn application(facts: &Facts, region: Region) -> Result<()> {
    let place = &facts.regions[&region];
    let values = json!({
        "region": region.name(),
        "database": {"host": place.address.to_string()},
        "broker": {"url": place.broker_url},
    });
    helm_install(facts, region, NAMESPACE, "trading", "trading.yaml", &values).await
}

fn operator_values(facts: &Facts, region: Region) -> Value {
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
        "keeper": {
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

async fn helm_install(
    facts: &Facts,
    region: Region,
    namespace: &str,
    chart: &str,
    shared_values: &str,
    values: &Value,
) -> Result<()> {
    let file = facts.lab().folder().join(format!("values-{chart}-{region}.json"));
    tokio::fs::write(&file, values.to_string())
        .await
        .with_context(|| format!("writing {}", file.display()))?;
    let root = repository();
    let timeout = format!("{}s", stretched(INSTALL).as_secs());
    let output = Command::new(&facts.programs["helm"])
        .args(["upgrade", "--install", chart])
        .arg(root.join("charts").join(chart))
        .args(["--namespace", namespace, "--wait", "--timeout", &timeout])
        .arg("--kubeconfig")
        .arg(&facts.regions[&region].kubeconfig)
        .arg("--values")
        .arg(root.join("e2e/values").join(shared_values))
        .arg("--values")
        .arg(&file)
        .stdin(Stdio::null())
        .output()
        .await
        .context("running helm")?;
    if !output.status.success() {
        bail!(
            "helm could not install {chart} in {region}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
