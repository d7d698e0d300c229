//! Both charts in both clusters, installed with Helm as a user would.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use futures::future::try_join_all;
use lab::{Application, Facts, Region};
use serde_json::{Value, json};

use crate::clusters::{NAMESPACE, OPERATOR_NAMESPACE};
use crate::helm::Release;
use crate::kubectl;

/// The repository's root.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// How long new pods have to be ready before ingress closes elsewhere: on one machine they are what the old side waits for
/// while they start. Tests do not wait.
pub const SETTLE_SECONDS: u32 = 3;

/// Installs or upgrades the operator and these applications in both clusters, side by side, and any other that is there
/// already: an operator that was told of fewer would lose its secrets. A pod of an application counts once it was ready for
/// `min_ready_seconds`.
///
/// # Errors
/// When Helm fails; its own words are in the error.
pub async fn install(facts: &Facts, applications: &[Application], min_ready_seconds: u32) -> Result<()> {
    let applications = &with_installed(facts, applications).await?;
    // The migrations run where the database is the primary; the other region's job waits until they have arrived.
    // They come first: a keeper is ready when it can read the lease.
    let each = applications.iter().flat_map(|one| Region::ALL.map(|region| (*one, region)));
    try_join_all(each.map(|(one, region)| {
        let peer = applications.contains(&one.peer().0);
        application(facts, one, region, Setup { peer, min_ready_seconds })
    }))
    .await?;
    try_join_all(Region::ALL.map(|region| operator(facts, applications, region))).await?;
    Ok(())
}

/// These applications and those that either cluster has.
async fn with_installed(facts: &Facts, wanted: &[Application]) -> Result<Vec<Application>> {
    let mut all = Vec::new();
    for one in Application::ALL {
        let mut there = wanted.contains(&one);
        for region in Region::ALL {
            there = there || release(facts, region, NAMESPACE, one.secret_prefix()).installed().await?;
        }
        all.extend(there.then_some(one));
    }
    Ok(all)
}

fn release<'a>(facts: &'a Facts, region: Region, namespace: &'a str, name: &'a str) -> Release<'a> {
    Release { helm: &facts.programs["helm"], kubeconfig: &facts.regions[&region].kubeconfig, namespace, name }
}

/// Installs or upgrades the operator and its keeper in one cluster, for these applications.
///
/// # Errors
/// As [`install`].
pub async fn operator(facts: &Facts, applications: &[Application], region: Region) -> Result<()> {
    let pods = annotations(facts, region, "localhost/trading-region-operator:dev").await?;
    let values = operator_values(facts, applications, region, &pods);
    let name = "trading-region-operator";
    Install { region, namespace: OPERATOR_NAMESPACE, name, chart: name, shared: "operator.yaml" }
        .with(facts, &values)
        .await?;
    // Helm installs definitions and never upgrades them.
    kubectl::apply(facts, region, &repository().join("charts").join(name).join("crds")).await
}

/// How an application is installed.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    /// Whether the application that it sends settlements to is there too.
    pub peer: bool,
    /// A pod counts once it was ready for so long.
    pub min_ready_seconds: u32,
}

/// Installs or upgrades an application in one cluster.
///
/// # Errors
/// As [`install`].
pub async fn application(
    facts: &Facts,
    application: Application,
    region: Region,
    Setup { peer, min_ready_seconds }: Setup,
) -> Result<()> {
    let place = &facts.regions[&region];
    let database = place.databases[&application];
    let prefix = application.secret_prefix();
    let (other, _) = application.peer();
    let names = &facts.aws.applications[&other];
    let (broker, writer) = if peer {
        (format!("amqps://{}:5671", names.broker_name), names.writer_name.clone())
    } else {
        (String::new(), String::new())
    };
    let stage =
        json!({"podAnnotations": annotations(facts, region, "localhost/trading-services:dev").await?});
    let values = json!({
        "app": application,
        "fullnameOverride": application,
        "region": region.name(),
        "minReadySeconds": min_ready_seconds,
        "database": {
            "host": database.ip(),
            "port": database.port(),
            "name": application.database_name(),
            "secretPrefix": format!("{prefix}-database"),
        },
        "broker": {
            "url": place.broker_url,
            "secretPrefix": format!("{prefix}-broker"),
            "peerUrl": broker,
        },
        "reconciliation": {
            "peerDatabase": {"host": writer, "port": other.database_port(), "name": other.database_name()},
        },
        "stages": {"inbound": stage, "ingestion": stage, "core": stage, "egress": stage, "outbound": stage},
    });
    Install { region, namespace: NAMESPACE, name: prefix, chart: "trading", shared: "trading.yaml" }
        .with(facts, &values)
        .await
}

fn operator_values(facts: &Facts, applications: &[Application], region: Region, pods: &Value) -> Value {
    let both = Region::ALL.map(|region| (region.name().to_owned(), json!(facts.aws.rds_url)));
    let peer = |one: &Application| format!("{one}-peer-{}", region.peer());
    let mut secrets: Vec<String> =
        applications.iter().flat_map(|one| [format!("{one}-database"), format!("{one}-broker")]).collect();
    // The chart has one place for a peer's secret; others are secrets like any.
    secrets.extend(applications.iter().skip(1).map(peer));
    let keeper = |application: &Application| {
        let database = facts.regions[&region].databases[application];
        json!({
            "app": application,
            "control": facts.aws.applications[application].control("app", region),
            "database": {"host": database.ip(), "port": database.port(), "name": application.database_name()},
            "secret": {"name": format!("{application}-database"), "passwordKey": "keeper-password"},
        })
    };
    json!({
        "region": region.name(),
        "applications": [{
            "namespace": NAMESPACE,
            "secrets": secrets,
            "peerSecret": applications.first().map(peer),
        }],
        "aws": {"rdsEndpoints": serde_json::Map::from_iter(both), "arcConfigEndpoint": facts.aws.rds_url},
        "operator": {"podAnnotations": pods},
        "keeper": {
            "podAnnotations": pods,
            "arcEndpoints": facts.aws.arc_endpoints,
            "apps": applications.iter().map(keeper).collect::<Vec<_>>(),
        },
    })
}

/// One chart in one cluster.
struct Install<'a> {
    region: Region,
    namespace: &'a str,
    /// The release.
    name: &'a str,
    /// Folder of the chart.
    chart: &'a str,
    /// File of `e2e/values` that both regions share.
    shared: &'a str,
}

impl Install<'_> {
    /// Installs or upgrades with the shared values and this region's own.
    async fn with(&self, facts: &Facts, values: &Value) -> Result<()> {
        let Self { region, name, chart, .. } = *self;
        let own = facts.lab().folder().join(format!("values-{name}-{region}.json"));
        tokio::fs::write(&own, values.to_string())
            .await
            .with_context(|| format!("writing {}", own.display()))?;
        let root = repository();
        let release = release(facts, region, self.namespace, name);
        let shared = root.join("e2e/values").join(self.shared);
        let installed = release.upgrade(&root.join("charts").join(chart), &[&shared, &own]).await;
        installed.with_context(|| format!("installing {name} in {region}"))
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
