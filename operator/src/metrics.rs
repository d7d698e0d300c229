//! Numbers for Prometheus. Label values come from enums only, so the number of series has a bound; names of objects stand
//! in logs and events.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::AtomicU64;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use region_plan::{Code, Phase, StepKind};

type Decimal = Gauge<f64, AtomicU64>;

/// How a pass over one object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum PassResult {
    /// Decided, applied, written.
    Ok,
    /// Another writer came first; decided again at once.
    Conflict,
    /// The object's spec or the cluster could not be read or written.
    Error,
    /// The object cannot be decoded; it was reported and left alone.
    Undecodable,
}

/// How one attempt of a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub enum AttemptResult {
    /// Made now.
    Done,
    /// Nothing had to be done.
    AlreadyDone,
    /// Certainly not made.
    Refused,
    /// May have been made; what is so is read in the next pass.
    Unknown,
}

/// The five regions in which ARC's data plane answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(missing_docs, reason = "named after the regions")]
pub enum ArcRegion {
    UsEast1,
    UsWest2,
    EuWest1,
    ApNortheast1,
    ApSoutheast2,
    Other,
}

impl ArcRegion {
    /// The region of that name.
    pub fn named(name: &str) -> Self {
        match name {
            "us-east-1" => Self::UsEast1,
            "us-west-2" => Self::UsWest2,
            "eu-west-1" => Self::EuWest1,
            "ap-northeast-1" => Self::ApNortheast1,
            "ap-southeast-2" => Self::ApSoutheast2,
            _ => Self::Other,
        }
    }
}

/// Label of a step's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct StepName(StepKind);

impl EncodeLabelValue for StepName {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.name(), encoder)
    }
}

/// Label of a finding's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct CodeText(Code);

impl EncodeLabelValue for CodeText {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        EncodeLabelValue::encode(&self.0.text(), encoder)
    }
}

/// Label of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct PhaseName(Phase);

impl EncodeLabelValue for PhaseName {
    fn encode(&self, encoder: &mut LabelValueEncoder) -> fmt::Result {
        EncodeLabelValue::encode(&format!("{:?}", self.0).as_str(), encoder)
    }
}

const PHASES: [Phase; 10] = [
    Phase::Observing,
    Phase::Starting,
    Phase::Steady,
    Phase::Preparing,
    Phase::Draining,
    Phase::Promoting,
    Phase::Opening,
    Phase::Aborting,
    Phase::WaitForUser,
    Phase::Releasing,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByStep {
    step: StepName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByAttempt {
    step: StepName,
    result: AttemptResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: PassResult,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByPhase {
    phase: PhaseName,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByCode {
    code: CodeText,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByEndpoint {
    endpoint: ArcRegion,
}

/// What the last pass over one object saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Where it stands.
    pub phase: Phase,
    /// Findings that stand.
    pub codes: Vec<Code>,
    /// Seconds until the lease held here runs out; `None` when it is not held here or has no limit.
    pub lease_remaining_seconds: Option<f64>,
    /// How far the own standby is behind; `None` when this side is not a standby or it is not known.
    pub lag_seconds: Option<f64>,
    /// The other cluster's object could be read.
    pub peer_reachable: bool,
}

/// All numbers of the process.
pub struct Metrics {
    registry: Registry,
    passes: Family<ByResult, Counter>,
    pass_seconds: Histogram,
    step_seconds: Family<ByStep, Histogram, fn() -> Histogram>,
    attempts: Family<ByAttempt, Counter>,
    objects: Family<ByPhase, Gauge>,
    findings: Family<ByCode, Gauge>,
    lease_remaining: Decimal,
    lag: Decimal,
    unreachable_peers: Gauge,
    endpoint_up: Family<ByEndpoint, Gauge>,
    endpoint_seconds: Family<ByEndpoint, Decimal>,
    leader: Gauge,
    seen: Mutex<HashMap<String, Seen>>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

fn step_buckets() -> Histogram {
    Histogram::new([0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0])
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("region_operator"),
            passes: Family::default(),
            pass_seconds: Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0]),
            step_seconds: Family::new_with_constructor(step_buckets),
            attempts: Family::default(),
            objects: Family::default(),
            findings: Family::default(),
            lease_remaining: Gauge::default(),
            lag: Gauge::default(),
            unreachable_peers: Gauge::default(),
            endpoint_up: Family::default(),
            endpoint_seconds: Family::default(),
            leader: Gauge::default(),
            seen: Mutex::default(),
        };
        metrics.register();
        for result in [PassResult::Ok, PassResult::Conflict, PassResult::Error, PassResult::Undecodable] {
            drop(metrics.passes.get_or_create(&ByResult { result }));
        }
        metrics
    }
}

impl Metrics {
    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("passes", "Passes over objects by result", self.passes.clone());
        r.register("pass_seconds", "Duration of a pass", self.pass_seconds.clone());
        r.register(
            "step_seconds",
            "From the first attempt of a step to its proof",
            self.step_seconds.clone(),
        );
        r.register("step_attempts", "Attempts of steps by result", self.attempts.clone());
        r.register("objects", "Objects by phase", self.objects.clone());
        r.register("findings", "Objects with a finding of that code", self.findings.clone());
        r.register(
            "lease_remaining_seconds",
            "Least time until a lease held in this region runs out; +Inf when none is held with a limit",
            self.lease_remaining.clone(),
        );
        r.register(
            "replication_lag_seconds",
            "Greatest lag of a standby database of this region",
            self.lag.clone(),
        );
        r.register(
            "unreachable_peers",
            "Objects whose copy in the other cluster cannot be read",
            self.unreachable_peers.clone(),
        );
        r.register(
            "arc_endpoint_up",
            "1 when the last call to the ARC endpoint succeeded",
            self.endpoint_up.clone(),
        );
        r.register(
            "arc_endpoint_seconds",
            "Duration of the last successful call to the endpoint",
            self.endpoint_seconds.clone(),
        );
        r.register("leader", "1 when this replica leads", self.leader.clone());
    }

    /// Notes a pass.
    pub fn pass(&self, result: PassResult, took: Duration) {
        self.passes.get_or_create(&ByResult { result }).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// Notes the proof of a step, `took` after its first attempt.
    pub fn step_proved(&self, step: StepKind, took: Duration) {
        self.step_seconds.get_or_create(&ByStep { step: StepName(step) }).observe(took.as_secs_f64());
    }

    /// Notes an attempt of a step.
    pub fn attempt(&self, step: StepKind, result: AttemptResult) {
        self.attempts.get_or_create(&ByAttempt { step: StepName(step), result }).inc();
    }

    /// Notes the health of an ARC endpoint. `latency` is that of the last success.
    pub fn endpoint(&self, region: &str, up: bool, latency: Option<Duration>) {
        let label = ByEndpoint { endpoint: ArcRegion::named(region) };
        self.endpoint_up.get_or_create(&label).set(i64::from(up));
        if let Some(latency) = latency {
            self.endpoint_seconds.get_or_create(&label).set(latency.as_secs_f64());
        }
    }

    /// Notes what a pass saw of the object `uid`.
    pub fn saw(&self, uid: &str, seen: Seen) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), seen);
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only when a metric cannot be formatted.
    pub fn text(&self) -> Result<String, fmt::Error> {
        self.sum_up_objects();
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn sum_up_objects(&self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |holds: &dyn Fn(&Seen) -> bool| seen.values().filter(|s| holds(s)).count() as i64;
        for phase in PHASES {
            self.objects
                .get_or_create(&ByPhase { phase: PhaseName(phase) })
                .set(count(&|s| s.phase == phase));
        }
        for code in Code::ALL {
            self.findings
                .get_or_create(&ByCode { code: CodeText(*code) })
                .set(count(&|s| s.codes.contains(code)));
        }
        self.unreachable_peers.set(count(&|s| !s.peer_reachable));
        let least = seen.values().filter_map(|s| s.lease_remaining_seconds).fold(f64::INFINITY, f64::min);
        self.lease_remaining.set(least);
        self.lag.set(seen.values().filter_map(|s| s.lag_seconds).fold(0.0, f64::max));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(phase: Phase, lease: Option<f64>) -> Seen {
        Seen {
            phase,
            codes: vec![Code::PeerUnknown],
            lease_remaining_seconds: lease,
            lag_seconds: None,
            peer_reachable: false,
        }
    }

    #[test]
    fn the_shortest_lease_is_shown_and_gone_objects_are_not() {
        let metrics = Metrics::default();
        metrics.saw("a", seen(Phase::Steady, Some(17.5)));
        metrics.saw("b", seen(Phase::Draining, Some(3.0)));
        metrics.saw("c", seen(Phase::Draining, Some(1.0)));
        metrics.forget("c");
        let text = metrics.text().unwrap();
        assert!(text.contains("region_operator_lease_remaining_seconds 3.0"), "{text}");
        assert!(text.contains("region_operator_objects{phase=\"Draining\"} 1"), "{text}");
        assert!(text.contains("region_operator_findings{code=\"TR-1002\"} 2"), "{text}");
        assert!(text.contains("region_operator_unreachable_peers 2"), "{text}");
    }

    #[test]
    fn results_are_counted_from_zero() {
        let text = Metrics::default().text().unwrap();
        assert!(text.contains("region_operator_passes_total{result=\"Conflict\"} 0"), "{text}");
    }

    #[test]
    fn steps_are_labelled_by_their_kind() {
        let metrics = Metrics::default();
        metrics.attempt(StepKind::Fence, AttemptResult::Unknown);
        metrics.step_proved(StepKind::Fence, Duration::from_millis(20));
        let text = metrics.text().unwrap();
        assert!(
            text.contains("region_operator_step_attempts_total{step=\"Fence\",result=\"Unknown\"} 1"),
            "{text}"
        );
        assert!(text.contains("region_operator_step_seconds_count{step=\"Fence\"} 1"), "{text}");
    }
}
