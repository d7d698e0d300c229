//! Everything a test may set while the simulator runs: delays, modes, scripts. `GET`/`PUT`/`PATCH /faults`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// All settings. The default is a healthy AWS with no delay at all.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Faults {
    /// Mode of each ARC endpoint by region; absent means `ok`.
    pub arc: BTreeMap<String, EndpointMode>,
    /// Mode of the RDS API by region; absent means `ok`. The regions share one listener, so `dead` closes a
    /// connection when a call for that region arrives instead of refusing the connection.
    pub rds: BTreeMap<String, EndpointMode>,
    /// How long a change of a routing control takes to each other endpoint.
    pub propagation: Propagation,
    /// Mode of ARC's control plane, which lists the safety rules. It shares the RDS listener; `dead` as there.
    pub arc_config: EndpointMode,
    /// How a batch is judged by the safety rules.
    pub batch_judgement: BatchJudgement,
    /// Wait period of every safety rule, in ms; absent means each rule's own.
    pub wait_period_ms: Option<u64>,
    /// Names of safety rules that do not exist while they stand here.
    pub absent_rules: BTreeSet<String>,
    /// Turns in which ARC endpoints answer EndpointTemporarilyUnavailableException; absent means none.
    pub maintenance: Option<Maintenance>,
    /// How much later than the accepting endpoint the DNS health checks see a control's change, in ms.
    pub health_check_lag_ms: u64,
    /// How old the RDS answers of a region are, in ms; absent means 0.
    pub rds_lag_ms: BTreeMap<String, u64>,
    /// How the next switchovers go, of each global cluster or of one.
    pub switchover: SwitchoverScript,
    /// How the DNS server behaves.
    pub dns: DnsMode,
}

/// How an API endpoint behaves.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case", deny_unknown_fields)]
pub enum EndpointMode {
    /// Answers at once.
    #[default]
    Ok,
    /// Answers after this many milliseconds; the call takes effect when it arrives.
    Slow {
        /// Milliseconds.
        ms: u64,
    },
    /// Accepts the call and never answers (until the mode changes).
    Hung {
        /// Whether the call takes effect all the same: a lost answer.
        #[serde(default)]
        effect: bool,
    },
    /// Refuses connections and cuts the open ones.
    Dead,
    /// Every call fails with this error, without effect.
    Error {
        /// Which one.
        kind: ErrorKind,
    },
}

/// Errors that [`EndpointMode::Error`] can play. On RDS they become the query protocol's nearest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// EndpointTemporarilyUnavailableException (RDS: ServiceUnavailable).
    Unavailable,
    /// InternalServerException (RDS: InternalFailure).
    Internal,
    /// ThrottlingException (RDS: Throttling).
    Throttling,
    /// AccessDeniedException (RDS: AccessDenied).
    AccessDenied,
    /// ConflictException (RDS: InvalidGlobalClusterStateFault).
    Conflict,
}

/// Delay of a change to each of the other endpoints: `min + exponential(mean - min)`, cut at `max`. All zero
/// means at once; AWS documents a mean of 5 s and at most 15 s.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Propagation {
    /// Shortest, ms.
    pub min_ms: u64,
    /// Mean, ms.
    pub mean_ms: u64,
    /// Longest, ms.
    pub max_ms: u64,
}

impl Propagation {
    /// The delay for a uniform draw `u` in [0, 1).
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "milliseconds of at most some minutes are exact in f64"
    )]
    pub fn delay(&self, u: f64) -> Duration {
        let spread = self.mean_ms.saturating_sub(self.min_ms) as f64;
        let drawn = self.min_ms.saturating_add((-(1.0 - u).ln() * spread) as u64);
        Duration::from_millis(drawn.min(self.max_ms))
    }
}

/// How the safety rules see a batch: AWS documents the end state; the other answer can be played too.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BatchJudgement {
    /// Rules are judged on the state after the whole batch; the batch is one change for wait periods.
    #[default]
    EndState,
    /// Each entry is judged, in order, as if it came alone; still all or nothing.
    EachEntry,
}

/// Endpoints take turns at being down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// Length of a turn, in seconds.
    pub turn_seconds: u64,
    /// How many endpoints a turn takes down. AWS keeps three of five up, so 1 or 2.
    pub down_at_once: usize,
    /// Allows more than two down at once.
    #[serde(default)]
    pub beyond_documented: bool,
}

/// How switchovers go. Read when a switchover begins, except `hang`, which is read while it runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SwitchoverScript {
    /// Identifier of the one global cluster that goes so; absent means each.
    pub cluster: Option<String>,
    /// Seconds between acceptance and the real effect.
    pub before_effect_seconds: f64,
    /// Seconds between acceptance and `available`, if the real effect is not longer.
    pub total_seconds: f64,
    /// Refuses the call with this fault.
    pub refuse: Option<Refusal>,
    /// Accepts, then does nothing while this is set.
    pub hang: bool,
    /// The writer endpoint's DNS name moves so many seconds after `available`.
    pub endpoint_lag_seconds: f64,
    /// What FailoverState.Status says while it runs. Default `switching-over`.
    pub status_word: Option<String>,
}

/// A fault that SwitchoverGlobalCluster answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refusal {
    /// For instance `InvalidGlobalClusterStateFault`.
    pub code: String,
    /// Explanation for people.
    #[serde(default)]
    pub message: String,
}

/// How the DNS server behaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DnsMode {
    /// Answers.
    #[default]
    Ok,
    /// SERVFAIL to every query.
    Servfail,
    /// No answer at all.
    Hung,
}

/// Longest delay that any setting may ask for: one hour.
const LONGEST_MS: u64 = 3_600_000;

impl Faults {
    /// How switchovers of a global cluster go: as scripted, or without any delay if the script is about another one.
    pub(crate) fn switchover_of(&self, global_cluster: &str) -> SwitchoverScript {
        let meant = self.switchover.cluster.as_deref().is_none_or(|only| only == global_cluster);
        if meant { self.switchover.clone() } else { SwitchoverScript::default() }
    }

    /// Checks what the types cannot.
    ///
    /// # Errors
    /// A sentence naming the setting that is out of bounds or what it names and does not exist.
    pub fn validate(
        &self,
        arc_regions: &[&str],
        rds_regions: &[&str],
        rule_names: &[&str],
        global_clusters: &[&str],
    ) -> Result<(), String> {
        known("switchover", self.switchover.cluster.iter(), global_clusters)?;
        known("absent_rules", self.absent_rules.iter(), rule_names)?;
        known("arc", self.arc.keys(), arc_regions)?;
        known("rds", self.rds.keys(), rds_regions)?;
        known("rds_lag_ms", self.rds_lag_ms.keys(), rds_regions)?;
        let p = self.propagation;
        if p.min_ms > p.mean_ms || p.mean_ms > p.max_ms {
            return Err("propagation: min_ms <= mean_ms <= max_ms must hold".to_owned());
        }
        let modes = self.arc.values().chain(self.rds.values()).chain([&self.arc_config]);
        let slow = modes.filter_map(|mode| match mode {
            EndpointMode::Slow { ms } => Some(*ms),
            EndpointMode::Ok
            | EndpointMode::Hung { .. }
            | EndpointMode::Dead
            | EndpointMode::Error { .. } => None,
        });
        let single = [p.max_ms, self.health_check_lag_ms, self.wait_period_ms.unwrap_or(0)];
        let mut delays = slow.chain(self.rds_lag_ms.values().copied()).chain(single);
        if delays.any(|ms| ms > LONGEST_MS) {
            return Err(format!("a delay is longer than {LONGEST_MS} ms"));
        }
        if let Some(m) = self.maintenance {
            let most = if m.beyond_documented { arc_regions.len() } else { 2 };
            if m.turn_seconds == 0 || m.down_at_once > most {
                return Err(format!("maintenance: turn_seconds >= 1 and down_at_once <= {most}"));
            }
        }
        self.switchover.validate()
    }
}

impl SwitchoverScript {
    fn validate(&self) -> Result<(), String> {
        let seconds = [self.before_effect_seconds, self.total_seconds, self.endpoint_lag_seconds];
        if seconds.iter().all(|s| (0.0..=3600.0).contains(s)) {
            Ok(())
        } else {
            Err("switchover: seconds must lie between 0 and 3600".to_owned())
        }
    }
}

fn known<'a>(what: &str, named: impl Iterator<Item = &'a String>, existing: &[&str]) -> Result<(), String> {
    for name in named {
        if !existing.contains(&name.as_str()) {
            return Err(format!("{what}: unknown name {name}; known are {}", existing.join(", ")));
        }
    }
    Ok(())
}
