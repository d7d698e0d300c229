//! An application's TradingRegion: the same for both clusters, made from the lab's facts.

use anyhow::{Context as _, Result};
use crds::TradingRegion;
use lab::{Application, Facts, Queue, Region};
use serde_json::{Value, json};

use crate::clusters::NAMESPACE;

/// What a caller may choose; the rest follows from the lab.
#[derive(Clone, Debug)]
pub struct Choices {
    /// Whose object.
    pub application: Application,
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
    /// Trade matching's object as the demo applies it first.
    pub fn active(active: Region) -> Self {
        Self::of(Application::TradeMatching, active)
    }

    /// An application's object as it is applied first.
    pub fn of(application: Application, active: Region) -> Self {
        Self {
            application,
            active,
            reason: "first start".to_owned(),
            hold: "1s",
            managed: "Manage",
            hooks: application_hooks(application),
        }
    }
}

/// Where an application's core answers on a path, in either cluster.
fn core(application: Application, path: &str) -> String {
    format!("http://{application}-core.{NAMESPACE}.svc:8080/{path}")
}

/// An application's own hooks, all HTTP.
pub fn application_hooks(application: Application) -> Value {
    let hook = |name: &str, at: &str, path: &str| {
        json!({
            "name": name,
            "at": at,
            "http": {"url": core(application, &format!("hooks/{path}")), "timeout": "5s"},
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
    let application = choices.application;
    let regions = Region::ALL.map(|region| region_spec(facts, application, region));
    let object = json!({
        "apiVersion": "regions.trading.dev/v1alpha1",
        "kind": "TradingRegion",
        "metadata": {"name": application, "namespace": NAMESPACE},
        "spec": {
            "activeRegion": choices.active.name(),
            "transition": {"mode": "Planned", "reason": choices.reason},
            "managed": choices.managed,
            "regions": regions,
            "workloads": {
                "selector": {"matchLabels": {"app.kubernetes.io/part-of": application}},
                "active": {"floor": 1},
                "standby": {"replicas": 0},
            },
            "drain": {"checks": drain_checks(application), "holdFor": choices.hold, "deadline": "60s", "onDeadline": "Abort"},
            "routing": routing(facts, application),
            "database": database(facts, application),
            "hooks": choices.hooks,
        },
    });
    serde_json::from_value(object).context("building the TradingRegion from the lab's facts")
}

fn region_spec(facts: &Facts, application: Application, region: Region) -> Value {
    let place = &facts.regions[&region];
    json!({
        "name": region.name(),
        "peer": {"secretRef": {"name": format!("{application}-peer-{region}"), "key": "kubeconfig"}},
        "broker": {
            "managementUrl": place.broker_management_url,
            "amqpUrl": place.broker_url,
            "secretRef": {"name": format!("{application}-broker")},
            "caSecretRef": {"name": format!("{application}-broker"), "key": "ca.crt"},
            "customerUsers": application.submitters(),
            "answerUsers": application.answer_readers(),
        },
        "database": {"instance": place.databases[&application].to_string()},
    })
}

/// All queues of the pipeline, what the other application left at the door, and what the database and core still have on
/// its way.
fn drain_checks(application: Application) -> Value {
    let lines = application.queues();
    let name = |stage: &'static str| match stage {
        "in" => "inbound",
        "out" => "answers",
        stage => stage,
    };
    let check = |name: &str, queue: &Queue| json!({"name": name, "rabbitmq": {"queue": queue.name}});
    let pipeline = lines.iter().take(1).flatten().map(|queue| check(name(queue.stage), queue));
    // What inbound has stored of another line goes along in the database; what it has not stays in this broker.
    let doors = lines.iter().skip(1).filter_map(|line| line.first()).map(|queue| check("returns", queue));
    let mut checks: Vec<Value> = pipeline.chain(doors).collect();
    checks.extend([
        json!({"name": "in-flight", "sql": {"query": "SELECT * FROM trading.in_flight"}}),
        json!({"name": "backlog", "http": {"url": core(application, "backlog"), "jsonPointer": "/total"}}),
    ]);
    checks.into()
}

fn routing(facts: &Facts, application: Application) -> Value {
    let names = &facts.aws.applications[&application];
    let controls = |region: Region| {
        let arn = |role: &str| names.control(role, region);
        json!({"ingress": arn("ingress"), "intake": arn("intake"), "app": arn("app")})
    };
    let [first, second] = Region::ALL;
    json!({
        "arc": {
            "endpoints": facts.aws.arc_endpoints,
            "controls": {first.name(): controls(first), second.name(): controls(second)},
        },
        "dns": {"name": names.broker_name, "server": facts.aws.dns.to_string()},
    })
}

fn database(facts: &Facts, application: Application) -> Value {
    let names = &facts.aws.applications[&application];
    let cluster =
        |region: Region| json!({"arn": names.database_clusters[&region], "endpoint": facts.aws.rds_url});
    let [first, second] = Region::ALL;
    json!({
        "auroraGlobal": {
            "globalCluster": names.global_cluster,
            "clusters": {first.name(): cluster(first), second.name(): cluster(second)},
        },
        "connection": {"database": application.database_name(), "secretRef": {"name": format!("{application}-database")}},
        "lease": {"onWitnessLoss": "Stop"},
    })
}
