//! The safety rules of ARC control panels, read from ARC's control plane, which is in one region
//! only. What it says is for people and preflight: nothing that moves trading may wait for it.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_route53recoverycontrolconfig::Client;
use aws_sdk_route53recoverycontrolconfig::config::Config;
use aws_sdk_route53recoverycontrolconfig::config::retry::RetryConfig;
use aws_sdk_route53recoverycontrolconfig::types::{AssertionRule as Listed, RuleType, Status};
use tokio::time::timeout;

use crate::access::AwsAccess;
use crate::error::CallError;

/// The one region of ARC's control plane.
const REGION: &str = "us-west-2";
const OPERATION: &str = "ListSafetyRules";
/// A panel holds at most 20 rules; a page holds at least one.
const MAX_PAGES: usize = 20;
const PAGE_SIZE: i32 = 100;

/// An assertion rule as the service lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssertionRule {
    /// Its ARN.
    pub arn: String,
    /// ARNs of the controls that it asserts something about.
    pub controls: BTreeSet<String>,
    /// Whether it never lets more than one of its controls be On: `ATLEAST` 2, inverted.
    pub at_most_one_on: bool,
    /// Whether it is in force: neither on its way nor being deleted.
    pub deployed: bool,
}

impl AssertionRule {
    /// True when this rule, in force, keeps these controls from being On at one time.
    pub fn excludes(&self, one: &str, other: &str) -> bool {
        self.deployed && self.at_most_one_on && self.controls.contains(one) && self.controls.contains(other)
    }
}

/// A client of ARC's control plane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct RulesClient {
    client: Client,
    deadline: Duration,
}

impl RulesClient {
    /// A client; no call is made. `endpoint_url` replaces the public endpoint; `deadline` bounds one listing.
    pub fn new(endpoint_url: Option<&str>, access: &AwsAccess, deadline: Duration) -> Self {
        let timeouts =
            access.timeout_config(deadline).to_builder().operation_attempt_timeout(deadline).build();
        let mut config = Config::builder()
            .behavior_version_latest()
            .region(AwsAccess::region(REGION))
            .credentials_provider(access.credentials.clone())
            .identity_cache(access.identity_cache.clone())
            .http_client(access.http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts)
            .stalled_stream_protection(AwsAccess::no_stall_watch());
        config.set_endpoint_url(endpoint_url.map(str::to_owned));
        Self { client: Client::from_conf(config.build()), deadline }
    }

    /// The assertion rules of a control panel. Gating rules are left out.
    ///
    /// # Errors
    /// [`CallError`]; `NotFound` when there is no such panel.
    pub async fn assertion_rules(&self, panel: &str) -> Result<Vec<AssertionRule>, CallError> {
        match timeout(self.deadline, self.list(panel)).await {
            Ok(listed) => listed,
            Err(_) => Err(CallError::timed_out(&name(), OPERATION, self.deadline)),
        }
    }

    async fn list(&self, panel: &str) -> Result<Vec<AssertionRule>, CallError> {
        let mut rules = Vec::new();
        let mut token = None;
        for _ in 0..MAX_PAGES {
            let page = self
                .client
                .list_safety_rules()
                .control_panel_arn(panel)
                .max_results(PAGE_SIZE)
                .set_next_token(token)
                .send()
                .await
                .map_err(|error| CallError::from_sdk(&name(), OPERATION, &error))?;
            rules.extend(page.safety_rules().iter().filter_map(|rule| rule.assertion()).map(view));
            token = page.next_token().map(str::to_owned);
            if token.is_none() {
                return Ok(rules);
            }
        }
        let detail = format!("{panel} has more than {MAX_PAGES} pages of safety rules");
        Err(CallError::unparsable(&name(), OPERATION, detail))
    }
}

/// As it appears in errors.
fn name() -> String {
    format!("ARC configuration {REGION}")
}

/// What is missing or not understood guarantees nothing.
fn view(rule: &Listed) -> AssertionRule {
    AssertionRule {
        arn: rule.safety_rule_arn().unwrap_or_default().to_owned(),
        controls: rule.asserted_controls().iter().cloned().collect(),
        at_most_one_on: rule.rule_config().is_some_and(|config| {
            config.r#type() == Some(&RuleType::Atleast)
                && config.threshold() == Some(2)
                && config.inverted() == Some(true)
        }),
        deployed: rule.status() == Some(&Status::Deployed),
    }
}

#[cfg(test)]
mod tests {
    use aws_sdk_route53recoverycontrolconfig::types::RuleConfig;

    use super::*;

    fn rule(kind: RuleType, threshold: i32, inverted: bool, status: Status) -> AssertionRule {
        let config = RuleConfig::builder().r#type(kind).threshold(threshold).inverted(inverted).build();
        view(
            &Listed::builder()
                .asserted_controls("a")
                .asserted_controls("b")
                .rule_config(config)
                .status(status)
                .build(),
        )
    }

    #[test]
    fn only_at_least_two_inverted_and_deployed_excludes_two_on() {
        assert!(rule(RuleType::Atleast, 2, true, Status::Deployed).excludes("a", "b"));
        for weaker in [
            rule(RuleType::Atleast, 2, false, Status::Deployed),
            rule(RuleType::Atleast, 3, true, Status::Deployed),
            rule(RuleType::And, 2, true, Status::Deployed),
            rule(RuleType::Atleast, 2, true, Status::Pending),
            rule(RuleType::Atleast, 2, true, Status::PendingDeletion),
        ] {
            assert!(!weaker.excludes("a", "b"), "{weaker:?}");
        }
    }

    #[test]
    fn a_rule_over_one_of_two_controls_says_nothing_about_the_other() {
        assert!(!rule(RuleType::Atleast, 2, true, Status::Deployed).excludes("a", "c"));
    }

    #[test]
    fn a_rule_that_comes_without_its_condition_guarantees_nothing() {
        let bare = view(&Listed::builder().asserted_controls("a").asserted_controls("b").build());
        assert!(!bare.excludes("a", "b"));
    }
}
