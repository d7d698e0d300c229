//! The global database of RDS, asked in one region.

use std::future::Future;
use std::time::Duration;

use aws_sdk_rds::Client;
use aws_sdk_rds::config::Config;
use aws_sdk_rds::config::retry::RetryConfig;
use aws_sdk_rds::types::GlobalCluster;
use tokio::time::{Instant, timeout};

use crate::access::AwsAccess;
use crate::error::{CallError, ErrorKind};
use crate::health::{EndpointHealth, HealthRecord};
use crate::outcome::Outcome;

/// How long calls to RDS may take. RDS answers slower than ARC, and an act cut off is `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RdsLimits {
    /// A describe call.
    pub describe: Duration,
    /// The call that starts a switchover; not the switchover itself.
    pub act: Duration,
}

impl Default for RdsLimits {
    fn default() -> Self {
        Self { describe: Duration::from_secs(3), act: Duration::from_secs(10) }
    }
}

/// A global cluster as one region's API describes it. Regions can lag each other: ask both, and
/// believe neither alone about who is the writer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalClusterView {
    /// The region whose API answered.
    pub asked: String,
    /// The global cluster's identifier.
    pub identifier: String,
    /// The service's own word, unparsed: `available`, `switching-over`, …
    pub status: Option<String>,
    /// ARN of the one member called writer; `None` when there is none or more than one.
    pub writer: Option<String>,
    /// All members.
    pub members: Vec<GlobalMember>,
    /// Present only while a switchover or failover is scheduled or running.
    pub change: Option<ChangeUnderWay>,
    /// DNS name that follows the writer.
    pub writer_endpoint: Option<String>,
    /// For example `17.5`.
    pub engine_version: Option<String>,
}

/// One regional cluster of a global cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GlobalMember {
    /// The cluster's ARN.
    pub arn: String,
    /// What the service says about it; `None` when it says nothing.
    pub is_writer: Option<bool>,
    /// `connected`, `pending-resync`, or a word this version does not know.
    pub synchronization: Option<String>,
}

/// A switchover or failover that is scheduled or running.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeUnderWay {
    /// The service's own word: `pending`, `switching-over`, `failing-over`, `cancelling`, or new.
    pub status: Option<String>,
    /// The cluster that is losing the role.
    pub from: Option<String>,
    /// The cluster that is getting it.
    pub to: Option<String>,
    /// Whether the change may lose data.
    pub data_loss_allowed: Option<bool>,
}

/// A client of one region's RDS API. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RdsClient {
    region: String,
    /// As it appears in errors: `RDS us-east-1`.
    name: String,
    client: Client,
    limits: RdsLimits,
    health: HealthRecord,
}

impl RdsClient {
    /// A client for `region`; no call is made. `endpoint_url` replaces the public endpoint.
    pub fn new(region: &str, endpoint_url: Option<&str>, access: &AwsAccess, limits: RdsLimits) -> Self {
        // The attempt limit made for ARC is too short here: each call brings its own deadline.
        let longest = limits.describe.max(limits.act);
        let timeouts = access.timeout_config(longest).to_builder().operation_attempt_timeout(longest).build();
        let mut config = Config::builder()
            .behavior_version_latest()
            .region(AwsAccess::region(region))
            .credentials_provider(access.credentials.clone())
            .identity_cache(access.identity_cache.clone())
            .http_client(access.http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(AwsAccess::no_stall_watch());
        config.set_endpoint_url(endpoint_url.map(str::to_owned));
        Self {
            region: region.to_owned(),
            name: format!("RDS {region}"),
            client: Client::from_conf(config.build()),
            limits,
            health: HealthRecord::new(region),
        }
    }

    /// The region whose API is asked.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Numbers about this endpoint.
    pub fn health(&self) -> EndpointHealth {
        self.health.snapshot()
    }

    /// Describes the global cluster `global`.
    ///
    /// # Errors
    /// [`CallError`]; `NotFound` when this region knows no such global cluster.
    pub async fn describe(&self, global: &str) -> Result<GlobalClusterView, CallError> {
        const OPERATION: &str = "DescribeGlobalClusters";
        let call = async {
            let answer = self
                .client
                .describe_global_clusters()
                .global_cluster_identifier(global)
                .send()
                .await
                .map_err(|error| CallError::from_sdk(&self.name, OPERATION, &error))?;
            answer
                .global_clusters()
                .iter()
                .find(|cluster| cluster.global_cluster_identifier() == Some(global))
                .map(|cluster| view(&self.region, global, cluster))
                .ok_or_else(|| CallError {
                    endpoint: self.name.clone(),
                    operation: OPERATION,
                    kind: ErrorKind::NotFound,
                    detail: format!("the answer holds no global cluster {global}"),
                    retry_after: None,
                })
        };
        self.bounded(OPERATION, self.limits.describe, call).await
    }

    /// Asks for a planned switchover of `global` to the member `target_arn`. Call it in the
    /// region of the current primary.
    ///
    /// Looks first: a target that is the writer already, or about to be, is `AlreadyDone` and
    /// nothing is asked. `Done` means accepted; the change itself takes minutes and is watched
    /// with [`RdsClient::describe`]. The call carries no token, so `Unknown` may still start
    /// later: describe until it shows, never assume.
    pub async fn switchover(&self, global: &str, target_arn: &str) -> Outcome {
        match self.describe(global).await {
            Ok(before) if before.is_or_becomes_writer(target_arn) => {
                return Outcome::AlreadyDone { seen_by: self.name.clone() };
            }
            Ok(before) => {
                if let Some(reason) = before.forbids_switch_to(target_arn) {
                    return Outcome::not_asked(reason, false);
                }
            }
            Err(error) => {
                let permanent = error.kind.is_permanent();
                return Outcome::not_asked(format!("looking first failed: {error}"), permanent);
            }
        }
        match self.request_switchover(global, target_arn).await {
            Ok(()) => Outcome::Done { by: self.name.clone() },
            Err(error) if error.kind == ErrorKind::Conflict => {
                let now = self.describe(global).await;
                if now.is_ok_and(|now| now.is_or_becomes_writer(target_arn)) {
                    return Outcome::AlreadyDone { seen_by: self.name.clone() };
                }
                Outcome::refused_by(&error)
            }
            Err(error) if error.kind.may_have_happened() => Outcome::Unknown { why: error.to_string() },
            Err(error) => Outcome::refused_by(&error),
        }
    }

    async fn request_switchover(&self, global: &str, target_arn: &str) -> Result<(), CallError> {
        const OPERATION: &str = "SwitchoverGlobalCluster";
        let call = async {
            self.client
                .switchover_global_cluster()
                .global_cluster_identifier(global)
                .target_db_cluster_identifier(target_arn)
                .send()
                .await
                .map(|_| ())
                .map_err(|error| CallError::from_sdk(&self.name, OPERATION, &error))
        };
        self.bounded(OPERATION, self.limits.act, call).await
    }

    async fn bounded<T>(
        &self,
        operation: &'static str,
        limit: Duration,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let started = Instant::now();
        let result = match timeout(limit, call).await {
            Ok(result) => result,
            Err(_) => Err(CallError::timed_out(&self.name, operation, limit)),
        };
        self.health.note(&result, started, Instant::now());
        result
    }
}

impl GlobalClusterView {
    /// True when this answer shows `arn` as the only writer and no change under way.
    pub fn settled_on(&self, arn: &str) -> bool {
        self.writer.as_deref() == Some(arn) && self.change.is_none()
    }

    fn is_or_becomes_writer(&self, arn: &str) -> bool {
        match &self.change {
            Some(change) => change.to.as_deref() == Some(arn) && !change.is_cancelling(),
            None => self.settled_on(arn),
        }
    }

    /// Why asking now would be wrong; the service would refuse it too, only later.
    fn forbids_switch_to(&self, arn: &str) -> Option<String> {
        if let Some(change) = &self.change {
            return Some(format!(
                "a change from {} to {} is {}",
                change.from.as_deref().unwrap_or("an unnamed cluster"),
                change.to.as_deref().unwrap_or("an unnamed cluster"),
                change.status.as_deref().unwrap_or("under way"),
            ));
        }
        let known = self.members.iter().any(|member| member.arn == arn);
        (!known).then(|| format!("{arn} is no member of {}", self.identifier))
    }
}

impl ChangeUnderWay {
    fn is_cancelling(&self) -> bool {
        self.status.as_deref() == Some("cancelling")
    }
}

/// Lenient: every word is kept as it came, and what is missing stays unknown.
fn view(asked: &str, identifier: &str, cluster: &GlobalCluster) -> GlobalClusterView {
    let members: Vec<GlobalMember> = cluster
        .global_cluster_members()
        .iter()
        .filter_map(|member| {
            Some(GlobalMember {
                arn: member.db_cluster_arn()?.to_owned(),
                is_writer: member.is_writer(),
                synchronization: member.synchronization_status().map(|status| status.as_str().to_owned()),
            })
        })
        .collect();
    let mut writers = members.iter().filter(|member| member.is_writer == Some(true));
    let writer = match (writers.next(), writers.next()) {
        (Some(only), None) => Some(only.arn.clone()),
        _ => None,
    };
    // The service sends an empty element when nothing is under way.
    let change = cluster
        .failover_state()
        .map(|state| ChangeUnderWay {
            status: state.status().map(|status| status.as_str().to_owned()),
            from: state.from_db_cluster_arn().map(str::to_owned),
            to: state.to_db_cluster_arn().map(str::to_owned),
            data_loss_allowed: state.is_data_loss_allowed(),
        })
        .filter(|change| change.status.is_some() || change.to.is_some());
    GlobalClusterView {
        asked: asked.to_owned(),
        identifier: identifier.to_owned(),
        status: cluster.status().map(str::to_owned),
        writer,
        members,
        change,
        writer_endpoint: cluster.endpoint().map(str::to_owned),
        engine_version: cluster.engine_version().map(str::to_owned),
    }
}
