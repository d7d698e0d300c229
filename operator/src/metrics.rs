//! Numbers for Prometheus. Label values come from fixed sets only, so the number of series has a bound; names of objects
//! stand in logs and events. A number that is not known has no series: nothing is better than an invented zero.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use region_plan::{Code, Phase, StepKind};

type Decimal = Gauge<f64, AtomicU64>;
/// Names and values of a series' labels.
type Labels<const N: usize> = [(&'static str, &'static str); N];

/// How a pass over one object ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl PassResult {
    const ALL: [Self; 4] = [Self::Ok, Self::Conflict, Self::Error, Self::Undecodable];

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Conflict => "conflict",
            Self::Error => "error",
            Self::Undecodable => "undecodable",
        }
    }
}

/// How one attempt of a step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl AttemptResult {
    fn name(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::AlreadyDone => "already_done",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// The regions in which ARC's data plane answers.
const ARC_REGIONS: [&str; 5] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"];

/// The name as a label; a name that is not ARC's shares one series with its like.
fn arc_region(name: &str) -> &'static str {
    ARC_REGIONS.into_iter().find(|region| *region == name).unwrap_or("other")
}

/// What the last pass over one object saw.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// Where it stands.
    pub phase: Phase,
    /// Findings that stand.
    pub codes: Vec<Code>,
    /// Seconds until the lease held here runs out; `None` when it is not known, not held here or has no limit.
    pub lease_remaining_seconds: Option<f64>,
    /// How far the own standby is behind; `None` when this side is not a standby or it is not known.
    pub lag_seconds: Option<f64>,
    /// The other cluster's object could be read.
    pub peer_reachable: bool,
}

/// What the last passes saw, summed up when it is asked for. A replica that does not lead makes no passes, so it has
/// nothing to tell.
#[derive(Debug, Default)]
struct Objects {
    leads: AtomicBool,
    /// `None` for an object that is not understood.
    seen: Mutex<HashMap<String, Option<Seen>>>,
}

impl Collector for Objects {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if !self.leads.load(Ordering::Relaxed) {
            return Ok(());
        }
        let all = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen: Vec<&Seen> = all.values().flatten().collect();
        let count = |holds: &dyn Fn(&Seen) -> bool| seen.iter().filter(|s| holds(s)).count() as i64;
        let phases = Phase::ALL.iter().map(|p| ([("phase", p.name())], count(&|s| s.phase == *p)));
        gauges(&mut encoder, "objects", "Objects by phase.", phases)?;
        let codes = Code::ALL.iter().map(|c| ([("code", c.text())], count(&|s| s.codes.contains(c))));
        gauges(&mut encoder, "findings", "Objects with a finding of that code.", codes)?;
        gauges(
            &mut encoder,
            "undecodable_objects",
            "Objects that this version does not understand and leaves alone.",
            [([], (all.len() - seen.len()) as i64)],
        )?;
        gauges(
            &mut encoder,
            "unreachable_peers",
            "Objects whose copy in the other cluster cannot be read.",
            [([], count(&|s| !s.peer_reachable))],
        )?;
        gauges(
            &mut encoder,
            "lease_remaining_seconds",
            "Least time until a lease held in this region runs out; absent when none with a limit is known.",
            seen.iter().filter_map(|s| s.lease_remaining_seconds).reduce(f64::min).map(|least| ([], least)),
        )?;
        gauges(
            &mut encoder,
            "replication_lag_seconds",
            "Greatest known lag of a standby database of this region; absent when none is known.",
            seen.iter().filter_map(|s| s.lag_seconds).reduce(f64::max).map(|greatest| ([], greatest)),
        )
    }
}

/// Writes the series of one metric; without any, not even its name.
fn gauges<const N: usize, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    series: impl IntoIterator<Item = (Labels<N>, V)>,
) -> fmt::Result {
    let mut series = series.into_iter().peekable();
    if series.peek().is_none() {
        return Ok(());
    }
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in series {
        if N == 0 {
            return metric.encode_gauge(&value);
        }
        ConstGauge::new(value).encode(metric.encode_family(&labels)?)?;
    }
    Ok(())
}

/// All numbers of the process.
pub struct Metrics {
    registry: Registry,
    passes: Family<Labels<1>, Counter>,
    pass_seconds: Histogram,
    step_seconds: Family<Labels<1>, Histogram, fn() -> Histogram>,
    attempts: Family<Labels<2>, Counter>,
    endpoint_up: Family<Labels<1>, Gauge>,
    endpoint_seconds: Family<Labels<1>, Decimal>,
    leader: Gauge,
    objects: Arc<Objects>,
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
            endpoint_up: Family::default(),
            endpoint_seconds: Family::default(),
            leader: Gauge::default(),
            objects: Arc::default(),
        };
        metrics.register();
        for result in PassResult::ALL {
            drop(metrics.passes.get_or_create(&[("result", result.name())]));
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
        r.register_collector(Box::new(Arc::clone(&self.objects)));
    }

    /// Notes a pass.
    pub fn pass(&self, result: PassResult, took: Duration) {
        self.passes.get_or_create(&[("result", result.name())]).inc();
        self.pass_seconds.observe(took.as_secs_f64());
    }

    /// Notes the proof of a step, `took` after its first attempt.
    pub fn step_proved(&self, step: StepKind, took: Duration) {
        self.step_seconds.get_or_create(&[("step", step.name())]).observe(took.as_secs_f64());
    }

    /// Notes an attempt of a step.
    pub fn attempt(&self, step: StepKind, result: AttemptResult) {
        self.attempts.get_or_create(&[("step", step.name()), ("result", result.name())]).inc();
    }

    /// Notes the health of an ARC endpoint. `latency` is that of the last success.
    pub fn endpoint(&self, region: &str, up: bool, latency: Option<Duration>) {
        let label = [("endpoint", arc_region(region))];
        self.endpoint_up.get_or_create(&label).set(i64::from(up));
        if let Some(latency) = latency {
            self.endpoint_seconds.get_or_create(&label).set(latency.as_secs_f64());
        }
    }

    /// Notes what a pass saw of the object `uid`.
    pub fn saw(&self, uid: &str, seen: Seen) {
        self.objects.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), Some(seen));
    }

    /// Notes that the object `uid` is not understood: where it stood is not known any more.
    pub fn not_understood(&self, uid: &str) {
        self.objects.seen.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned(), None);
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.objects.seen.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Forgets all objects but these.
    pub fn keep(&self, uids: &HashSet<String>) {
        self.objects.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|uid, _| uids.contains(uid));
    }

    /// Whether this replica leads.
    pub fn leads(&self, leads: bool) {
        self.leader.set(i64::from(leads));
        self.objects.leads.store(leads, Ordering::Relaxed);
    }

    /// Everything in the OpenMetrics text format.
    ///
    /// # Errors
    /// Only when a metric cannot be formatted.
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
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

    fn leading() -> Metrics {
        let metrics = Metrics::default();
        metrics.leads(true);
        metrics
    }

    #[test]
    fn the_shortest_lease_and_the_greatest_lag_are_shown_and_gone_objects_are_not() {
        let metrics = leading();
        metrics.saw("a", Seen { lag_seconds: Some(0.25), ..seen(Phase::Steady, Some(17.5)) });
        metrics.saw("b", Seen { lag_seconds: Some(4.5), ..seen(Phase::Draining, Some(3.0)) });
        metrics.saw("c", seen(Phase::Draining, Some(1.0)));
        metrics.forget("c");
        let text = metrics.text().unwrap();
        for line in [
            "region_operator_lease_remaining_seconds 3.0",
            "region_operator_replication_lag_seconds 4.5",
            "region_operator_objects{phase=\"Draining\"} 1",
            "region_operator_objects{phase=\"Starting\"} 0",
            "region_operator_findings{code=\"TR-1002\"} 2",
            "region_operator_unreachable_peers 2",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }

    #[test]
    fn what_is_not_known_has_no_series() {
        let metrics = leading();
        metrics.saw("a", seen(Phase::Steady, None));
        let text = metrics.text().unwrap();
        assert!(text.contains("region_operator_objects{phase=\"Steady\"} 1"), "{text}");
        for name in ["lease_remaining_seconds", "replication_lag_seconds"] {
            assert!(!text.contains(name), "{text}");
        }
    }

    #[test]
    fn an_object_that_is_not_understood_is_counted_apart_until_it_is_gone() {
        let metrics = leading();
        let shown = |line: &str| metrics.text().unwrap().lines().any(|one| one == line);
        metrics.saw("a", seen(Phase::Steady, None));
        metrics.saw("b", seen(Phase::Steady, None));
        metrics.not_understood("b");
        assert!(shown("region_operator_undecodable_objects 1"));
        assert!(shown("region_operator_objects{phase=\"Steady\"} 1"), "where it stood is not known any more");
        metrics.keep(&HashSet::from(["a".to_owned()]));
        assert!(shown("region_operator_undecodable_objects 0"));
        assert!(shown("region_operator_objects{phase=\"Steady\"} 1"));
    }

    #[test]
    fn a_replica_that_does_not_lead_tells_nothing_of_objects() {
        let metrics = Metrics::default();
        metrics.saw("a", Seen { lag_seconds: Some(0.25), ..seen(Phase::Steady, Some(17.5)) });
        metrics.leads(false);
        let text = metrics.text().unwrap();
        assert!(text.contains("region_operator_leader 0"), "{text}");
        for name in
            ["objects", "findings", "unreachable_peers", "lease_remaining_seconds", "replication_lag_seconds"]
        {
            assert!(!text.contains(&format!("region_operator_{name}")), "{text}");
        }
    }

    #[test]
    fn results_are_counted_from_zero() {
        let text = Metrics::default().text().unwrap();
        assert!(text.contains("region_operator_passes_total{result=\"conflict\"} 0"), "{text}");
    }

    #[test]
    fn steps_and_endpoints_are_labelled_by_the_names_that_people_know() {
        let metrics = Metrics::default();
        metrics.attempt(StepKind::Fence, AttemptResult::AlreadyDone);
        metrics.step_proved(StepKind::Fence, Duration::from_millis(20));
        metrics.endpoint("ap-southeast-2", true, None);
        metrics.endpoint("nowhere-1", false, None);
        let text = metrics.text().unwrap();
        for line in [
            "region_operator_step_attempts_total{step=\"Fence\",result=\"already_done\"} 1",
            "region_operator_step_seconds_count{step=\"Fence\"} 1",
            "region_operator_arc_endpoint_up{endpoint=\"ap-southeast-2\"} 1",
            "region_operator_arc_endpoint_up{endpoint=\"other\"} 0",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} is not in {text}");
        }
    }
}
