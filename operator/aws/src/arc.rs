//! The data plane of Application Recovery Controller: five endpoints that know the same controls.

mod flip;
mod name;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use aws_sdk_route53recoverycluster::Client;
use aws_sdk_route53recoverycluster::config::Config;
use aws_sdk_route53recoverycluster::config::retry::RetryConfig;
use aws_sdk_route53recoverycluster::types::RoutingControlState;
use futures::stream::{FuturesUnordered, StreamExt};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, timeout_at};

use crate::access::AwsAccess;
use crate::error::{CallError, ErrorKind};
use crate::health::{EndpointHealth, HealthRecord};

pub use flip::{FlipLimits, MAX_BATCH};
pub use name::NameError;
pub use reading::{ArcReading, EndpointReading};

/// A cluster has five endpoints.
pub const MAX_ENDPOINTS: usize = 5;
/// A control panel holds at most 100 controls; a page holds at least one.
const MAX_PAGES: usize = 10;
const PAGE_SIZE: i32 = 100;

/// The state of a routing control.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ControlState {
    /// Traffic, or the right to write, is given.
    On,
    /// It is not.
    Off,
}

impl ControlState {
    /// A state that this version does not know is no state.
    fn from_sdk(state: &RoutingControlState) -> Option<Self> {
        match state.as_str() {
            "On" => Some(Self::On),
            "Off" => Some(Self::Off),
            _ => None,
        }
    }

    fn to_sdk(self) -> RoutingControlState {
        match self {
            Self::On => RoutingControlState::On,
            Self::Off => RoutingControlState::Off,
        }
    }
}

impl fmt::Display for ControlState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::On => "On",
            Self::Off => "Off",
        })
    }
}

/// One of the cluster's endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArcEndpoint {
    /// The endpoint's own region; calls to it are signed for that region.
    pub region: String,
    /// `https://…` as the cluster's description gives it.
    pub url: String,
}

/// Why a set of endpoints cannot be used. Permanent: the configuration must change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArcConfigError {
    /// No endpoint, or more than a cluster has.
    #[error("{0} ARC endpoints are configured; a cluster has 5 (give all of them)")]
    Count(usize),
    /// Counting answers of one endpoint twice would fake agreement.
    #[error("ARC endpoint {0} is configured twice; each region and URL may appear once")]
    Duplicate(String),
    /// The URL is not one.
    #[error("ARC endpoint {region} has the URL {url:?}; it must begin with https:// (or http:// in a test)")]
    BadUrl {
        /// The endpoint's region.
        region: String,
        /// The text given.
        url: String,
    },
}

/// How long [`ArcClient::read_all`] waits, and for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// The reading is over at this time after the call began, whoever is still missing.
    pub deadline: Duration,
    /// Return early when this many endpoints agree on every control that was asked for;
    /// `None` waits for all.
    pub enough: Option<usize>,
    /// After agreement, how long to wait for the rest.
    pub grace: Duration,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self { deadline: Duration::from_secs(2), enough: None, grace: Duration::from_millis(50) }
    }
}

/// A client of all endpoints of one ARC cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ArcClient {
    endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone)]
struct Endpoint {
    region: String,
    /// As it appears in errors: `ARC us-east-1`.
    name: String,
    client: Client,
    health: HealthRecord,
}

impl ArcClient {
    /// A client of the given endpoints; no call is made.
    ///
    /// # Errors
    /// [`ArcConfigError`] when the endpoints are none, too many, not distinct or not URLs.
    pub fn new(endpoints: &[ArcEndpoint], access: &AwsAccess) -> Result<Self, ArcConfigError> {
        check_endpoints(endpoints)?;
        let endpoints = endpoints.iter().map(|endpoint| Endpoint::new(endpoint, access)).collect();
        Ok(Self { endpoints })
    }

    /// Asks all endpoints at once for the states of `controls` (ARNs). Never fails as a whole:
    /// what each endpoint said, or why it said nothing, is in the reading.
    pub async fn read_all(&self, controls: &[String], limits: ReadLimits) -> ArcReading {
        let started = Instant::now();
        let mut until = started + limits.deadline;
        let mut reading =
            ArcReading::unanswered(self.endpoints.iter().map(|endpoint| &endpoint.region), started);
        let mut calls: FuturesUnordered<_> = self
            .endpoints
            .iter()
            .enumerate()
            .map(async |(index, endpoint)| (index, endpoint.read(controls).await))
            .collect();
        let mut agreed = false;
        while let Ok(Some((index, outcome))) = timeout_at(until, calls.next()).await {
            reading.note(index, outcome, Instant::now());
            let enough = limits.enough.is_some_and(|quorum| reading.agrees_on_all(controls, quorum));
            if enough && !agreed {
                agreed = true;
                until = until.min(Instant::now() + limits.grace);
            }
        }
        let missing = if agreed { ErrorKind::NotAwaited } else { ErrorKind::Timeout };
        reading.finish(missing, Instant::now());
        for (endpoint, said) in self.endpoints.iter().zip(&reading.endpoints) {
            // Calls that ended have noted themselves; a call cut off here could not.
            if said.latency.is_none() && missing == ErrorKind::Timeout {
                endpoint.health.note(&said.outcome, started, reading.finished);
            }
        }
        reading
    }

    /// Numbers about each endpoint, in configured order.
    pub fn health(&self) -> Vec<EndpointHealth> {
        self.endpoints.iter().map(|endpoint| endpoint.health.snapshot()).collect()
    }
}

impl Endpoint {
    fn new(endpoint: &ArcEndpoint, access: &AwsAccess) -> Self {
        let config = Config::builder()
            .behavior_version_latest()
            .region(AwsAccess::region(&endpoint.region))
            .endpoint_url(&endpoint.url)
            .credentials_provider(access.credentials.clone())
            .identity_cache(access.identity_cache.clone())
            .http_client(access.http.clone())
            .retry_config(RetryConfig::disabled())
            .timeout_config(access.timeout_config(access.timeouts.attempt))
            .stalled_stream_protection(AwsAccess::no_stall_watch())
            .build();
        Self {
            region: endpoint.region.clone(),
            name: format!("ARC {}", endpoint.region),
            client: Client::from_conf(config),
            health: HealthRecord::new(&endpoint.region),
        }
    }

    async fn read(&self, controls: &[String]) -> Result<BTreeMap<String, ControlState>, CallError> {
        let started = Instant::now();
        let result = self.read_states(controls).await;
        self.health.note(&result, started, Instant::now());
        result
    }

    /// One call a control panel: a listing where several controls are asked for, else a single get.
    async fn read_states(&self, controls: &[String]) -> Result<BTreeMap<String, ControlState>, CallError> {
        let mut states = BTreeMap::new();
        for (panel, wanted) in by_panel(controls) {
            match panel {
                Some(panel) if wanted.len() > 1 => {
                    self.list_panel(panel, &wanted, &mut states).await?;
                }
                _ => {
                    for control in wanted {
                        if let Some(state) = self.get(control).await? {
                            states.insert(control.to_owned(), state);
                        }
                    }
                }
            }
        }
        Ok(states)
    }

    /// `None` when the endpoint does not know the control or its state has no known name.
    async fn get(&self, control: &str) -> Result<Option<ControlState>, CallError> {
        let answer = self.client.get_routing_control_state().routing_control_arn(control).send().await;
        match answer {
            Ok(answer) => Ok(ControlState::from_sdk(answer.routing_control_state())),
            Err(error) => {
                let error = CallError::from_sdk(&self.name, "GetRoutingControlState", &error);
                if error.kind == ErrorKind::NotFound {
                    return Ok(None);
                }
                Err(error)
            }
        }
    }

    async fn list_panel(
        &self,
        panel: &str,
        wanted: &BTreeSet<&str>,
        states: &mut BTreeMap<String, ControlState>,
    ) -> Result<(), CallError> {
        const OPERATION: &str = "ListRoutingControls";
        let mut token = None;
        for _ in 0..MAX_PAGES {
            let page = self
                .client
                .list_routing_controls()
                .control_panel_arn(panel)
                .max_results(PAGE_SIZE)
                .set_next_token(token)
                .send()
                .await
                .map_err(|error| CallError::from_sdk(&self.name, OPERATION, &error))?;
            for control in page.routing_controls() {
                let state = control.routing_control_state().and_then(ControlState::from_sdk);
                if let (Some(arn), Some(state)) = (control.routing_control_arn(), state)
                    && wanted.contains(arn)
                {
                    states.insert(arn.to_owned(), state);
                }
            }
            token = page.next_token().map(str::to_owned);
            if token.is_none() {
                return Ok(());
            }
        }
        Err(CallError::unparsable(
            &self.name,
            OPERATION,
            format!("{panel} has more than {MAX_PAGES} pages of controls"),
        ))
    }
}

fn check_endpoints(endpoints: &[ArcEndpoint]) -> Result<(), ArcConfigError> {
    if endpoints.is_empty() || endpoints.len() > MAX_ENDPOINTS {
        return Err(ArcConfigError::Count(endpoints.len()));
    }
    let mut seen = BTreeSet::new();
    for endpoint in endpoints {
        let host = endpoint
            .url
            .strip_prefix("https://")
            .or_else(|| endpoint.url.strip_prefix("http://"))
            .map(|rest| rest.trim_end_matches('/').to_ascii_lowercase())
            .filter(|host| !host.is_empty())
            .ok_or_else(|| ArcConfigError::BadUrl {
                region: endpoint.region.clone(),
                url: endpoint.url.clone(),
            })?;
        for name in [endpoint.region.clone(), host] {
            if !seen.insert(name.clone()) {
                return Err(ArcConfigError::Duplicate(name));
            }
        }
    }
    Ok(())
}

/// The controls, each under the ARN of its control panel where its own ARN tells it.
fn by_panel(controls: &[String]) -> BTreeMap<Option<&str>, BTreeSet<&str>> {
    let mut panels: BTreeMap<Option<&str>, BTreeSet<&str>> = BTreeMap::new();
    for control in controls {
        panels.entry(panel_of(control)).or_default().insert(control);
    }
    panels
}

/// The ARN of the control panel that a routing control's ARN names.
pub fn panel_of(control: &str) -> Option<&str> {
    control
        .split_once("/routingcontrol/")
        .map(|(panel, _)| panel)
        .filter(|panel| panel.contains(":controlpanel/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(region: &str, url: &str) -> ArcEndpoint {
        ArcEndpoint { region: region.to_owned(), url: url.to_owned() }
    }

    #[test]
    fn the_same_endpoint_under_two_names_is_refused() {
        let twice = [endpoint("us-east-1", "https://a.example/"), endpoint("us-west-2", "https://A.example")];
        assert_eq!(check_endpoints(&twice), Err(ArcConfigError::Duplicate("a.example".to_owned())));
    }

    #[test]
    fn none_and_six_endpoints_are_refused() {
        assert_eq!(check_endpoints(&[]), Err(ArcConfigError::Count(0)));
        let six: Vec<_> = (0..6).map(|n| endpoint(&format!("r{n}"), &format!("https://h{n}"))).collect();
        assert_eq!(check_endpoints(&six), Err(ArcConfigError::Count(6)));
    }

    #[test]
    fn controls_are_grouped_by_the_panel_in_their_name() {
        let panel = "arn:aws:route53-recovery-control::1:controlpanel/p";
        let controls =
            [format!("{panel}/routingcontrol/a"), format!("{panel}/routingcontrol/b"), "odd".to_owned()];
        let grouped = by_panel(&controls);
        assert_eq!(grouped[&Some(panel)].len(), 2);
        assert_eq!(grouped[&None], BTreeSet::from(["odd"]));
    }
}
