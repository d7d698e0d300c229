//! RDS on the wire: the query protocol, a form in and XML out.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::cluster::{Cluster, MemberIndex, Record, Running, Step};
use super::xml::{self, Xml};
use crate::faults::{ErrorKind, Faults};
use crate::world::Inner;

/// The only version of the API there is.
const VERSION: &str = "2014-10-31";

/// A query protocol error.
#[derive(Debug)]
pub(crate) struct RdsError {
    pub(crate) code: String,
    pub(crate) status: u16,
    message: String,
}

impl RdsError {
    pub(crate) fn new(code: &str, status: u16, message: impl Into<String>) -> Self {
        Self { code: code.to_owned(), status, message: message.into() }
    }

    /// The error that a mode plays.
    pub(crate) fn played(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable => Self::new("ServiceUnavailable", 503, "The service is not available."),
            ErrorKind::Internal => Self::new("InternalFailure", 500, "Something failed inside the service."),
            ErrorKind::Throttling => Self::new("Throttling", 400, "Rate exceeded"),
            ErrorKind::AccessDenied => Self::new("AccessDenied", 403, "The caller may not do this."),
            ErrorKind::Conflict => Self::new(
                "InvalidGlobalClusterStateFault",
                400,
                "The global cluster is in no state for this.",
            ),
        }
    }

    pub(crate) fn body(&self, request_id: &str) -> String {
        let kind = if self.status < 500 { "Sender" } else { "Receiver" };
        xml::error(kind, &self.code, &self.message, request_id)
    }
}

/// A switchover that the API has accepted and that now has to be carried out.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) cluster_id: String,
}

/// The form of a request.
pub(crate) type Form = BTreeMap<String, String>;

/// Reads a request's form.
pub(crate) fn parse_form(body: &[u8]) -> Form {
    form_urlencoded::parse(body).into_owned().collect()
}

/// The form as the call log shows it.
pub(crate) fn form_for_log(form: &Form) -> Value {
    let shown = form.iter().filter(|(name, _)| !matches!(name.as_str(), "Action" | "Version"));
    shown.map(|(name, value)| (name.clone(), Value::String(value.clone()))).collect()
}

/// Does one operation in one region. Gives the XML and, where it accepted one, the switchover to carry out.
///
/// # Errors
/// The API's error; nothing has changed then.
pub(crate) fn call(
    world: &mut Inner,
    faults: &Faults,
    region: &str,
    form: &Form,
    request_id: &str,
    now: Instant,
) -> Result<(String, Option<Accepted>), RdsError> {
    let action = form.get("Action").map_or("", String::as_str);
    if form.get("Version").is_some_and(|version| version != VERSION) {
        return Err(unknown_action(action));
    }
    let lag = Duration::from_millis(faults.rds_lag_ms.get(region).copied().unwrap_or(0));
    match action {
        "DescribeGlobalClusters" => {
            check_page(form)?;
            let clusters = global_clusters(world, form.get("GlobalClusterIdentifier"))?;
            let body = xml::answer(action, request_id, |xml| {
                xml.element("GlobalClusters", |xml| {
                    for cluster in clusters {
                        // In this list too, AWS names the items GlobalClusterMember.
                        xml.element("GlobalClusterMember", |xml| {
                            global_cluster(xml, cluster, cluster.seen(lag, now), &world.account);
                        });
                    }
                });
            });
            Ok((body, None))
        }
        "DescribeDBClusters" => {
            check_page(form)?;
            let members = db_clusters(world, region, form.get("DBClusterIdentifier"))?;
            let body = xml::answer(action, request_id, |xml| {
                xml.element("DBClusters", |xml| {
                    for (cluster, member) in members {
                        xml.element("DBCluster", |xml| {
                            db_cluster(xml, cluster, member, cluster.seen(lag, now));
                        });
                    }
                });
            });
            Ok((body, None))
        }
        "SwitchoverGlobalCluster" => switchover(world, faults, region, form, request_id, now),
        // FailoverGlobalCluster and RemoveFromGlobalCluster are not served yet: said in the API's own words.
        _ => Err(unknown_action(action)),
    }
}

fn unknown_action(action: &str) -> RdsError {
    RdsError::new("InvalidAction", 400, format!("Could not find operation {action} for version {VERSION}"))
}

fn check_page(form: &Form) -> Result<(), RdsError> {
    let valid = |records: &String| records.parse::<u32>().is_ok_and(|n| (20..=100).contains(&n));
    if form.get("MaxRecords").is_some_and(|records| !valid(records)) {
        return Err(RdsError::new("InvalidParameterValue", 400, "MaxRecords must be between 20 and 100"));
    }
    // All there is fits on the first page, so no marker was ever given out.
    if form.contains_key("Marker") {
        return Err(RdsError::new("InvalidParameterValue", 400, "Marker was not given by this service"));
    }
    if form.keys().any(|name| name.starts_with("Filters.")) {
        return Err(RdsError::new("InvalidParameterValue", 400, "Filters are not supported here"));
    }
    Ok(())
}

fn required<'f>(form: &'f Form, name: &str) -> Result<&'f str, RdsError> {
    form.get(name)
        .map(String::as_str)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| RdsError::new("MissingParameter", 400, format!("The parameter {name} is missing")))
}

fn global_clusters<'w>(world: &'w Inner, id: Option<&String>) -> Result<Vec<&'w Cluster>, RdsError> {
    let Some(id) = id else { return Ok(world.clusters.iter().collect()) };
    Ok(vec![find_global(world, id)?])
}

fn find_global<'w>(world: &'w Inner, id: &str) -> Result<&'w Cluster, RdsError> {
    let found = world.clusters.iter().find(|cluster| cluster.config.id == id);
    found.ok_or_else(|| {
        RdsError::new("GlobalClusterNotFoundFault", 404, format!("Global cluster {id} not found"))
    })
}

/// Clusters of one region; by name or ARN if `id` is given.
fn db_clusters<'w>(
    world: &'w Inner,
    region: &str,
    id: Option<&String>,
) -> Result<Vec<(&'w Cluster, MemberIndex)>, RdsError> {
    let wanted = |arn: &str| id.is_none_or(|id| id == arn || id == name_of(arn));
    let found: Vec<_> = world
        .clusters
        .iter()
        .flat_map(|cluster| (0..cluster.config.members.len()).map(move |member| (cluster, member)))
        .filter(|(cluster, member)| {
            cluster.member(*member).region == region && wanted(&cluster.member(*member).arn)
        })
        .collect();
    match id {
        Some(id) if found.is_empty() => {
            Err(RdsError::new("DBClusterNotFoundFault", 404, format!("DBCluster {id} not found.")))
        }
        _ => Ok(found),
    }
}

fn switchover(
    world: &mut Inner,
    faults: &Faults,
    region: &str,
    form: &Form,
    request_id: &str,
    now: Instant,
) -> Result<(String, Option<Accepted>), RdsError> {
    let id = required(form, "GlobalClusterIdentifier")?.to_owned();
    let target = required(form, "TargetDbClusterIdentifier")?;
    let cluster = find_global(world, &id)?;
    let Some(to) = cluster.find_member(target) else {
        return Err(RdsError::new("DBClusterNotFoundFault", 404, format!("DBCluster {target} not found.")));
    };
    let script = faults.switchover_of(&id);
    if let Some(refusal) = script.refuse {
        let status = if refusal.code.contains("NotFound") { 404 } else { 400 };
        return Err(RdsError::new(&refusal.code, status, refusal.message));
    }
    check_switchover(cluster, to, region)?;
    let running = Running {
        from: cluster.current().writer,
        to,
        step: Step::Accepted,
        status_word: script.status_word.unwrap_or_else(|| "switching-over".to_owned()),
        position: None,
    };
    let account = world.account.clone();
    let Some(cluster) = world.cluster_mut(&id) else { return Err(unknown_action("SwitchoverGlobalCluster")) };
    cluster.record(now, |record| record.running = Some(running));
    let body = xml::answer("SwitchoverGlobalCluster", request_id, |xml| {
        xml.element("GlobalCluster", |xml| global_cluster(xml, cluster, cluster.current(), &account));
    });
    Ok((body, Some(Accepted { cluster_id: id })))
}

fn check_switchover(cluster: &Cluster, to: MemberIndex, region: &str) -> Result<(), RdsError> {
    let now = cluster.current();
    if now.running.is_some() {
        let message = format!("Global cluster {} is already switching over", cluster.config.id);
        return Err(RdsError::new("InvalidGlobalClusterStateFault", 400, message));
    }
    if now.writer == to {
        let message = format!("{} is the writer already", cluster.member(to).arn);
        return Err(RdsError::new("InvalidDBClusterStateFault", 400, message));
    }
    if now.out_of_sync.contains(&to) {
        let message = format!("{} is not in sync with the writer", cluster.member(to).arn);
        return Err(RdsError::new("InvalidDBClusterStateFault", 400, message));
    }
    let primary = &cluster.member(now.writer).region;
    if primary != region {
        let message =
            format!("A switchover must be asked for in the region of the primary cluster, {primary}");
        return Err(RdsError::new("InvalidGlobalClusterStateFault", 400, message));
    }
    Ok(())
}

/// The last part of a cluster's ARN.
fn name_of(arn: &str) -> &str {
    arn.rsplit(':').next().unwrap_or(arn)
}

fn status(record: &Record) -> &str {
    if record.running.is_some() { "switching-over" } else { "available" }
}

fn global_cluster(xml: &mut Xml, cluster: &Cluster, record: &Record, account: &str) {
    let config = &cluster.config;
    xml.text("GlobalClusterIdentifier", &config.id)
        .text("GlobalClusterResourceId", &format!("cluster-{}", config.id))
        .text("GlobalClusterArn", &format!("arn:aws:rds::{account}:global-cluster:{}", config.id))
        .text("Status", status(record))
        .text("Engine", "aurora-postgresql")
        .text("EngineVersion", &config.engine_version)
        .text("StorageEncrypted", "true")
        .text("DeletionProtection", "false")
        .text("Endpoint", &config.writer_endpoint);
    xml.element("GlobalClusterMembers", |xml| {
        for (index, member) in config.members.iter().enumerate() {
            xml.element("GlobalClusterMember", |xml| member_of(xml, cluster, record, index, &member.arn));
        }
    });
    if let Some(running) = &record.running {
        xml.element("FailoverState", |xml| {
            xml.text("Status", &running.status_word)
                .text("FromDbClusterArn", &cluster.member(running.from).arn)
                .text("ToDbClusterArn", &cluster.member(running.to).arn)
                .text("IsDataLossAllowed", "false");
        });
    }
}

fn member_of(xml: &mut Xml, cluster: &Cluster, record: &Record, index: MemberIndex, arn: &str) {
    let writer = record.writer == index;
    xml.text("DBClusterArn", arn);
    xml.element("Readers", |xml| {
        if writer {
            for (other, member) in cluster.config.members.iter().enumerate() {
                if other != index {
                    xml.text("member", &member.arn);
                }
            }
        }
    });
    xml.text("IsWriter", if writer { "true" } else { "false" })
        .text("GlobalWriteForwardingStatus", "disabled")
        .text(
            "SynchronizationStatus",
            if record.out_of_sync.contains(&index) { "pending-resync" } else { "connected" },
        );
}

fn db_cluster(xml: &mut Xml, cluster: &Cluster, index: MemberIndex, record: &Record) {
    let member = cluster.member(index);
    let name = name_of(&member.arn);
    let endpoint = member.endpoint.clone().unwrap_or_else(|| member.address.ip().to_string());
    let port = member.address.port().to_string();
    xml.text("DBClusterIdentifier", name)
        .text("DBClusterArn", &member.arn)
        .text("DbClusterResourceId", &format!("cluster-{name}"))
        .text("Status", status(record))
        .text("Endpoint", &endpoint)
        .text("ReaderEndpoint", &endpoint)
        .text("Port", &port)
        .text("Engine", "aurora-postgresql")
        .text("EngineVersion", &cluster.config.engine_version)
        .text("EngineMode", "provisioned")
        .text("MultiAZ", "false")
        .text("StorageEncrypted", "true")
        .text("GlobalClusterIdentifier", &cluster.config.id);
    if record.writer != index {
        xml.text("ReplicationSourceIdentifier", &cluster.member(record.writer).arn);
    }
    xml.element("DBClusterMembers", |xml| {
        xml.element("DBClusterMember", |xml| {
            xml.text("DBInstanceIdentifier", &format!("{name}-instance-1"))
                .text("IsClusterWriter", if record.writer == index { "true" } else { "false" })
                .text("DBClusterParameterGroupStatus", "in-sync")
                .text("PromotionTier", "1");
        });
    });
}
