//! What a simulator serves: endpoints, controls, rules, names, the database pair. One JSON document.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::Error;

/// A whole simulated AWS account. Port 0 in any address means "any free port" (see
/// [`Simulator::addresses`](crate::Simulator::addresses)).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The ARC cluster's endpoints, five on the real service; HTTPS.
    pub arc_endpoints: Vec<ArcEndpoint>,
    /// RDS API, HTTPS. One listener serves every region; a call's region is its signature's.
    pub rds_listen: SocketAddr,
    /// DNS, both UDP and TCP.
    pub dns: Dns,
    /// Control port for tests and people, plain HTTP.
    pub control_listen: SocketAddr,
    /// Server certificate for all HTTPS listeners.
    pub tls: Tls,
    /// Keys that are accepted. The call log names a caller by its access key.
    pub credentials: Vec<Credential>,
    /// Twelve digits; owner of all controls.
    #[serde(default = "default_account")]
    pub account: String,
    /// Routing controls with the state they begin with.
    pub routing_controls: Vec<RoutingControl>,
    /// Safety rules over the controls.
    #[serde(default)]
    pub safety_rules: Vec<SafetyRule>,
    /// Aurora global clusters.
    #[serde(default)]
    pub global_clusters: Vec<GlobalCluster>,
    /// Keeps control states and writers over a restart; replaced atomically at each change. None: kept in
    /// memory only.
    #[serde(default)]
    pub state_file: Option<PathBuf>,
    /// Seed of every random choice (propagation delays, maintenance turns). None: drawn and printed.
    #[serde(default)]
    pub seed: Option<u64>,
    /// How many calls the log keeps; the oldest are dropped (and counted) beyond it.
    #[serde(default = "default_call_log")]
    pub call_log_limit: usize,
}

/// One endpoint of the ARC cluster.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArcEndpoint {
    /// Region that callers must sign for.
    pub region: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// The DNS server and what it answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dns {
    /// UDP and TCP.
    pub listen: SocketAddr,
    /// Names outside this zone are refused.
    pub zone: String,
    /// TTL of every answer whose record sets none, in seconds.
    #[serde(default = "default_ttl")]
    pub ttl_seconds: u32,
    /// Names that never change.
    #[serde(default)]
    pub static_names: BTreeMap<String, Ipv4Addr>,
    /// Failover record pairs with health checks on routing controls.
    #[serde(default)]
    pub failover_names: Vec<FailoverName>,
}

/// A PRIMARY/SECONDARY record pair. A side is healthy while its control is On. PRIMARY is answered while it is
/// healthy, else SECONDARY while that is healthy, else (Route 53's rule) PRIMARY.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverName {
    /// Full name, in the zone.
    pub name: String,
    /// Overrides the zone's TTL.
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
    /// PRIMARY record.
    pub primary: FailoverTarget,
    /// SECONDARY record.
    pub secondary: FailoverTarget,
}

/// One side of a failover record.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FailoverTarget {
    /// ARN of the routing control that its health check watches.
    pub control: String,
    /// What the A record says.
    pub address: Ipv4Addr,
}

/// Certificate chain and key, PEM files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Chain, leaf first.
    pub certificate_file: PathBuf,
    /// Private key of the leaf.
    pub key_file: PathBuf,
}

/// An AWS access key that is accepted.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret_access_key: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// State of a routing control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ControlState {
    /// Traffic flows.
    On,
    /// Traffic does not flow.
    Off,
}

/// A routing control.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutingControl {
    /// Unique.
    pub arn: String,
    /// Unique within its panel.
    pub name: String,
    /// ARN of its control panel.
    pub panel_arn: String,
    /// Name of its control panel.
    pub panel_name: String,
    /// State when no state file says otherwise.
    pub initial_state: ControlState,
}

/// A safety rule: an assertion rule without `target_controls`, a gating rule with them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SafetyRule {
    /// Unique; what an override names.
    pub arn: String,
    /// For people.
    pub name: String,
    /// Asserted controls, or gating controls if there are target controls.
    pub controls: Vec<String>,
    /// Gating rule only: the controls that may change only while the condition holds over `controls`.
    #[serde(default)]
    pub target_controls: Vec<String>,
    /// Condition over the number of `controls` that are On.
    pub condition: Condition,
    /// After a change of the guarded controls, requests on them fail for so long. AWS's default is 5000.
    #[serde(default = "default_wait_period")]
    pub wait_period_ms: u64,
}

/// Condition of a safety rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// How the controls are counted.
    #[serde(rename = "type")]
    pub kind: ConditionKind,
    /// For ATLEAST: how many must be On.
    #[serde(default)]
    pub threshold: usize,
    /// Negates the result: "at most one On" is ATLEAST 2, inverted.
    #[serde(default)]
    pub inverted: bool,
}

/// How a condition counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum ConditionKind {
    /// At least `threshold` are On.
    AtLeast,
    /// All are On.
    And,
    /// One or more is On.
    Or,
}

/// An Aurora global cluster made of real PostgreSQL servers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GlobalCluster {
    /// `GlobalClusterIdentifier`.
    pub id: String,
    /// Global writer endpoint: a name in the DNS zone that follows the writer.
    pub writer_endpoint: String,
    /// Overrides the zone's TTL for the writer endpoint.
    #[serde(default)]
    pub ttl_seconds: Option<u32>,
    /// What the describe calls answer.
    #[serde(default = "default_engine_version")]
    pub engine_version: String,
    /// ARN of the member that is the writer when no state file says otherwise.
    pub writer: String,
    /// Two or more; at most one in a region.
    pub members: Vec<Member>,
    /// Each of a member's commands must end within this time, or it counts as failed.
    #[serde(default = "default_command_timeout")]
    pub command_timeout_seconds: u64,
}

/// A cluster of a global cluster: one real server and the commands that change its role.
///
/// A switchover runs, in this order: `stop` of the old primary, `promote` of the new one, `follow` of the old
/// one. Each must be idempotent, because a switchover that a restart interrupted runs again from its recorded
/// step. Exit status 0 means done. If `promote` fails, the old primary's `promote` runs to bring it back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// `DBClusterArn`.
    pub arn: String,
    /// Region whose API describes it.
    pub region: String,
    /// Where the server listens.
    pub address: SocketAddr,
    /// Name that DescribeDBClusters gives as `Endpoint`; the address if absent.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Makes the server a running, writable primary; does nothing if it is one. After a `stop` that printed
    /// something, the environment has `OLD_PRIMARY_POSITION`: the last line it printed (for PostgreSQL the
    /// position of the shutdown checkpoint), so that the command can refuse to promote a server that lacks it.
    pub promote: Vec<String>,
    /// Makes the server a standby of the current writer, whose address is in `PRIMARY_ADDRESS` (ip:port).
    pub follow: Vec<String>,
    /// Stops the primary cleanly, so that its standby has all it ever wrote. May print its last position.
    pub stop: Vec<String>,
}

fn default_account() -> String {
    "123456789012".to_owned()
}

fn default_call_log() -> usize {
    10_000
}

fn default_ttl() -> u32 {
    5
}

fn default_wait_period() -> u64 {
    5_000
}

fn default_engine_version() -> String {
    "17.4".to_owned()
}

fn default_command_timeout() -> u64 {
    60
}

impl Config {
    /// Checks what the types cannot: unique names, references that exist, names inside the zone.
    ///
    /// # Errors
    /// [`Error::Config`] with the first fault found.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_arc()?;
        self.validate_clusters()?;
        self.validate_names()?;
        require(!self.credentials.is_empty(), || "credentials: at least one key is needed".to_owned())?;
        require(self.call_log_limit > 0, || "call_log_limit: must be above zero".to_owned())
    }

    fn validate_arc(&self) -> Result<(), Error> {
        unique("arc_endpoints.region", self.arc_endpoints.iter().map(|e| &e.region))?;
        unique("routing_controls.arn", self.routing_controls.iter().map(|c| &c.arn))?;
        unique("safety_rules.arn", self.safety_rules.iter().map(|r| &r.arn))?;
        for rule in &self.safety_rules {
            require(!rule.controls.is_empty(), || format!("safety_rules: {} has no controls", rule.name))?;
            for arn in rule.controls.iter().chain(&rule.target_controls) {
                self.require_control(arn, &rule.name)?;
            }
        }
        self.dns.failover_names.iter().try_for_each(|name| {
            self.require_control(&name.primary.control, &name.name)?;
            self.require_control(&name.secondary.control, &name.name)
        })
    }

    fn validate_clusters(&self) -> Result<(), Error> {
        unique("global_clusters.id", self.global_clusters.iter().map(|c| &c.id))?;
        let members = || self.global_clusters.iter().flat_map(|c| &c.members);
        unique("global_clusters.members.arn", members().map(|m| &m.arn))?;
        for cluster in &self.global_clusters {
            unique("global_clusters.members.region", cluster.members.iter().map(|m| &m.region))?;
            require(cluster.members.iter().any(|m| m.arn == cluster.writer), || {
                format!("global_clusters: the writer of {} is not one of its members", cluster.id)
            })?;
            for member in &cluster.members {
                require(member.address.is_ipv4(), || format!("{}: address must be IPv4", member.arn))?;
                let commands = [&member.promote, &member.follow, &member.stop];
                require(commands.iter().all(|argv| !argv.is_empty()), || {
                    format!("{}: promote, follow and stop each need a command", member.arn)
                })?;
            }
        }
        Ok(())
    }

    fn validate_names(&self) -> Result<(), Error> {
        let names: Vec<&String> = (self.dns.static_names.keys())
            .chain(self.dns.failover_names.iter().map(|n| &n.name))
            .chain(self.global_clusters.iter().map(|c| &c.writer_endpoint))
            .collect();
        let suffix = format!(".{}", self.dns.zone.trim_end_matches('.'));
        for name in &names {
            require(name.trim_end_matches('.').ends_with(&suffix), || {
                format!("dns: {name} is not in the zone {}", self.dns.zone)
            })?;
        }
        unique("dns names", names.into_iter())
    }

    fn require_control(&self, arn: &str, user: &str) -> Result<(), Error> {
        require(self.routing_controls.iter().any(|c| c.arn == arn), || {
            format!("{user} names the unknown routing control {arn}")
        })
    }
}

fn require(holds: bool, fault: impl FnOnce() -> String) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(Error::Config(fault())) }
}

fn unique<'a>(what: &str, values: impl Iterator<Item = &'a String>) -> Result<(), Error> {
    let mut seen = BTreeSet::new();
    for value in values {
        require(seen.insert(value), || format!("{what}: {value} stands twice"))?;
    }
    Ok(())
}
