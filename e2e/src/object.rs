//! The TradingRegion of the lab: the same for both clusters, made from the lab's facts.

use anyhow::{Context as _, Result};
use crds::TradingRegion;
use lab::{Facts, Region};
use serde_json::{Value, json};

use crate::clusters::{APPLICATION, NAMESPACE};

/// What a caller may choose; the rest follows from the lab.
#[derive(Clone, Debug)]
pub struct Choices {
    /// The region that should be active.
    pub active: Region,
    /// Why; shown in the history.
    pub reason: String,
    /// How long the drain checks must stay at zero.
    pub hold: &'static str,
    /// Whether the operator acts.
    pub managed: &'static str,
    /// Hooks of the object, as in its spec.
    pub hooks: Value,
}

impl Choices {
    /// The object as the demo applies it first.
    pub fn active(active: Region) -> Self {
        Self {
            active,
            reason: "first start".to_owned(),
            hold: "1s",
            managed: "Manage",
            hooks: application_hooks(),
        }
    }
}

/// Where core answers on a path, in either cluster.
fn core(path: &str) -> String {
    format!("http://trade-matching-core.{NAMESPACE}.svc:8080/{path}")
}

/// The application's own hooks, all HTTP.
pub fn application_hooks() -> Value {
    let hook = |name: &str, at: &str, path: &str| {
        json!({
            "name": name,
            "at": at,
            "http": {"url": core(&format!("hooks/{path}")), "timeout": "5s"},
            "deadline": "60s",
        })
    };
    json!([
        hook("warm-up", "PreWarm", "pre-warm"),
        hook("left-behind", "Drained", "drained"),
        hook("reconcile", "AfterGrant", "after-grant"),
        hook("probe", "Probe", "probe"),
        hook("settled-in", "AfterOpen", "after-open"),
    ])
}

/// Builds the object.
///
/// # Errors
/// When the facts do not give a valid object.
pub fn trading_region(facts: &Facts, choices: &Choices) -> Result<TradingRegion> {
    let regions: Vec<Value> = Region::ALL.iter().map(|region| region_spec(facts, *region)).collect();
    let object = json!({
        "apiVersion": "regions.trading.dev/v1alpha1",
        "kind": "TradingRegion",
        "metadata": {"name": APPLICATION, "namespace": NAMESPACE},
        "spec": {
            "activeRegion": choices.active.name(),
            "transition": {"mode": "Planned", "reason": choices.reason},
            "managed": choices.managed,
            "regions": regions,
            "workloads": {
                "selector": {"matchLabels": {"app.kubernetes.io/part-of": APPLICATION}},
                "active": {"floor": 1},
                "standby": {"replicas": 0},
            },
            "drain": {"checks": drain_checks(), "holdFor": choices.hold, "deadline": "60s", "onDeadline": "Abort"},
            "routing": routing(facts),
            "database": database(facts),
            "hooks": choices.hooks,
        },
    });
    serde_json::from_value(object).context("building the TradingRegion from the lab's facts")
}

fn region_spec(facts: &Facts, region: Region) -> Value {
    let place = &facts.regions[&region];
    json!({
        "name": region.name(),
        "peer": {"secretRef": {"name": format!("{APPLICATION}-peer-{region}"), "key": "kubeconfig"}},
        "broker": {
            "managementUrl": place.broker_management_url,
            "amqpUrl": place.broker_url,
            "secretRef": {"name": format!("{APPLICATION}-broker")},
            "caSecretRef": {"name": format!("{APPLICATION}-broker"), "key": "ca.crt"},
            "customerUsers": ["customer-submit"],
            "answerUsers": ["customer-answers"],
        },
        "database": {"instance": place.database.to_string()},
    })
}

fn drain_checks() -> Value {
    let queue = |name: &str, queue: &str| json!({"name": name, "rabbitmq": {"queue": format!("{APPLICATION}.{queue}.trades")}});
    json!([
        queue("inbound", "in"),
        queue("ingestion", "ingestion"),
        queue("core", "core"),
        queue("egress", "egress"),
        queue("outbound", "outbound"),
        queue("answers", "out"),
        {"name": "in-flight", "sql": {"query": "SELECT * FROM trading.in_flight"}},
        {"name": "backlog", "http": {"url": core("backlog"), "jsonPointer": "/total"}},
    ])
}

fn routing(facts: &Facts) -> Value {
    let controls = |region: Region| {
        let arn = |role: &str| &facts.aws.names.routing_controls[&format!("{APPLICATION}-{role}-{region}")];
        json!({"ingress": arn("ingress"), "intake": arn("intake"), "app": arn("app")})
    };
    let [first, second] = Region::ALL;
    json!({
        "arc": {
            "endpoints": facts.aws.arc_endpoints,
            "controls": {first.name(): controls(first), second.name(): controls(second)},
        },
        "dns": {"name": facts.aws.names.broker_name, "server": facts.aws.dns.to_string()},
    })
}

fn database(facts: &Facts) -> Value {
    let cluster = |region: Region| json!({"arn": facts.aws.names.database_clusters[&region], "endpoint": facts.aws.rds_url});
    let [first, second] = Region::ALL;
    json!({
        "auroraGlobal": {
            "globalCluster": facts.aws.names.global_cluster,
            "clusters": {first.name(): cluster(first), second.name(): cluster(second)},
        },
        "connection": {"database": facts.database, "secretRef": {"name": format!("{APPLICATION}-database")}},
        "lease": {"onWitnessLoss": "Stop"},
    })
}
