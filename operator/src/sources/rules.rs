//! ARC's safety rules: which ones there are, as its control plane lists them, and which changes one of them refused.
//! The list is for preflight and people. It comes from one region and is never waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use region_aws::{AssertionRule, CallError, RulesClient, panel_of};
use region_plan::{ControlKey, ControlRole, Fact, Flipped};
use tokio::time::Instant;

use crate::clock;

/// Rules change when people change them.
const PERIOD: Duration = Duration::from_secs(60);
/// An answer outlives failures of the API for so long; below the age at which a decision no longer takes it.
const KEPT: SignedDuration = SignedDuration::from_secs(240);

/// Asks which roles are guarded by a rule, rarely, beside the passes.
pub struct RulesWatch {
    client: RulesClient,
    controls: BTreeMap<ControlKey, String>,
    state: Mutex<State>,
}

struct State {
    last: Fact<BTreeSet<ControlRole>>,
    asked: Option<Instant>,
}

impl RulesWatch {
    /// Nothing is asked yet. `controls` gives the ARN of each control of the application.
    pub fn new(client: RulesClient, controls: BTreeMap<ControlKey, String>) -> Arc<Self> {
        let state = State { last: Fact::unknown("the first answer is on its way"), asked: None };
        Arc::new(Self { client, controls, state: Mutex::new(state) })
    }

    /// Asks when that is due; the answer comes on its own.
    pub fn ask_when_due(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.asked.is_none_or(|asked| asked.elapsed() >= PERIOD) {
            state.asked = Some(Instant::now());
            let watch = Arc::clone(self);
            tokio::spawn(async move { watch.ask().await });
        }
    }

    /// The last answer with its age.
    pub fn last(&self) -> Fact<BTreeSet<ControlRole>> {
        self.lock().last.clone()
    }

    async fn ask(&self) {
        let answer = self.list().await;
        let now = clock::now();
        if let Err(error) = &answer {
            tracing::warn!(%error, "safety rules could not be read");
        }
        let mut state = self.lock();
        state.last = after(&state.last, answer.map(|rules| guarded(&self.controls, &rules)), now);
    }

    /// The rules of every panel that the controls name. The client bounds each call.
    async fn list(&self) -> Result<Vec<AssertionRule>, CallError> {
        let panels: BTreeSet<&str> = self.controls.values().filter_map(|arn| panel_of(arn)).collect();
        let mut rules = Vec::new();
        for panel in panels {
            rules.extend(self.client.assertion_rules(panel).await?);
        }
        Ok(rules)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is known after an answer: a failure leaves a recent answer standing, with its age.
fn after(
    last: &Fact<BTreeSet<ControlRole>>,
    answer: Result<BTreeSet<ControlRole>, CallError>,
    now: Timestamp,
) -> Fact<BTreeSet<ControlRole>> {
    match answer {
        Ok(guarded) => Fact::known(guarded, now),
        Err(_) if last.fresh(now, KEPT).is_some() => last.clone(),
        Err(error) => Fact::unknown(error.to_string()),
    }
}

/// Roles whose controls one rule keeps from being On in any two regions.
fn guarded(controls: &BTreeMap<ControlKey, String>, rules: &[AssertionRule]) -> BTreeSet<ControlRole> {
    let holds = |role: &ControlRole| {
        let arns: Vec<&String> =
            controls.iter().filter(|(key, _)| key.role == *role).map(|(_, arn)| arn).collect();
        let pairs = arns
            .iter()
            .enumerate()
            .flat_map(|(at, one)| arns.iter().skip(at + 1).map(move |other| (one.as_str(), other.as_str())));
        arns.len() > 1
            && pairs.into_iter().all(|(one, other)| rules.iter().any(|rule| rule.excludes(one, other)))
    };
    [ControlRole::App, ControlRole::Ingress].into_iter().filter(holds).collect()
}

/// When ARC last refused each kind of change because of its state or a rule. Kept in memory only: after a restart the
/// whole batch is tried once more.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<Flipped, Timestamp>>);

impl Refusals {
    /// Notes a refusal.
    pub fn note(&self, what: Flipped, at: Timestamp) {
        self.lock().insert(what, at);
    }

    /// All of them.
    pub fn all(&self) -> BTreeMap<Flipped, Timestamp> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Flipped, Timestamp>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use region_aws::ErrorKind;

    use super::*;
    use crate::observe::routing::controls;
    use crate::testing::example;

    fn rule(role: &str, regions: &[&str]) -> AssertionRule {
        let panel = "arn:aws:route53-recovery-control::123456789012:controlpanel/trading";
        AssertionRule {
            arn: format!("{panel}/safetyrule/one-{role}"),
            controls: regions.iter().map(|name| format!("{panel}/routingcontrol/{role}-{name}")).collect(),
            at_most_one_on: true,
            deployed: true,
        }
    }

    fn denied() -> CallError {
        CallError {
            endpoint: "ARC configuration us-west-2".to_owned(),
            operation: "ListSafetyRules",
            kind: ErrorKind::AccessDenied,
            detail: "not allowed".to_owned(),
            retry_after: None,
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_role_is_guarded_by_a_rule_over_the_controls_of_both_regions() {
        let controls = controls(&example().spec);
        let both = ["us-east-1", "us-west-2"];
        let app = BTreeSet::from([ControlRole::App]);
        assert_eq!(guarded(&controls, &[rule("app", &both), rule("intake", &both)]), app);
        assert_eq!(guarded(&controls, &[rule("app", &["us-east-1", "us-west-2", "eu-west-1"])]), app);
        assert_eq!(
            guarded(&controls, &[rule("app", &["us-east-1"]), rule("ingress", &["us-west-2"])]),
            [].into()
        );
    }

    #[test]
    fn a_failure_leaves_a_recent_answer_standing_and_ends_an_old_one() {
        let known = Fact::known(BTreeSet::from([ControlRole::App]), at(0));
        assert_eq!(after(&known, Err(denied()), at(239)), known);
        let gone = after(&known, Err(denied()), at(241));
        assert!(gone.why_unknown().unwrap().contains("not allowed"));
        assert_eq!(after(&gone, Ok(BTreeSet::new()), at(300)), Fact::known(BTreeSet::new(), at(300)));
    }
}
