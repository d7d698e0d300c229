//! ARC's data plane on the wire: awsJson1.0, `X-Amz-Target: ToggleCustomerAPI.<Operation>`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::endpoint::{MUTATIONS_PER_SECOND, in_maintenance};
use super::register::Observer;
use super::rules::{Entry, Judging};
use crate::config::ControlState;
use crate::faults::{ErrorKind, Faults};
use crate::world::Inner;

/// Prefix of `X-Amz-Target`.
pub(crate) const TARGET_PREFIX: &str = "ToggleCustomerAPI.";

/// Most controls in one UpdateRoutingControlStates.
const MOST_ENTRIES: usize = 10;

/// Page size of ListRoutingControls when the caller sets none.
const DEFAULT_PAGE: usize = 500;

/// An error of the API: code, HTTP status, and the fields that the service's model gives it.
#[derive(Debug)]
pub(crate) struct ArcError {
    pub(crate) code: &'static str,
    pub(crate) status: u16,
    fields: Map<String, Value>,
}

impl ArcError {
    pub(crate) fn new(code: &'static str, status: u16, message: impl Into<String>) -> Self {
        let mut fields = Map::new();
        fields.insert("message".to_owned(), Value::String(message.into()));
        Self { code, status, fields }
    }

    fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.fields.insert(field.to_owned(), value.into());
        self
    }

    pub(super) fn invalid(field: &str, message: &str) -> Self {
        Self::new("ValidationException", 400, format!("{field}: {message}"))
            .with("reason", "fieldValidationFailed")
            .with("fields", json!([{"name": field, "message": message}]))
    }

    pub(super) fn not_found(kind: &str, arn: &str) -> Self {
        Self::new("ResourceNotFoundException", 404, format!("There is no {kind} {arn} on this cluster."))
            .with("resourceId", arn)
            .with("resourceType", kind)
    }

    fn unavailable() -> Self {
        let message = "The cluster endpoint isn't available. Try another cluster endpoint.";
        Self::new("EndpointTemporarilyUnavailableException", 503, message)
    }

    fn throttled() -> Self {
        let message = format!("More than {MUTATIONS_PER_SECOND} mutating calls a second on this endpoint.");
        Self::new("ThrottlingException", 429, message).with("retryAfterSeconds", 1)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new("InternalServerException", 500, message).with("retryAfterSeconds", 1)
    }

    /// The error that a mode plays.
    pub(crate) fn played(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Unavailable => Self::unavailable(),
            ErrorKind::Internal => Self::internal("Something failed inside the service."),
            ErrorKind::Throttling => Self::throttled(),
            ErrorKind::AccessDenied => Self::new(
                "AccessDeniedException",
                403,
                "You don't have sufficient permissions for this action.",
            ),
            ErrorKind::Conflict => {
                Self::new("ConflictException", 409, "There was a conflict with this request.")
                    .with("resourceId", "unknown")
                    .with("resourceType", "RoutingControl")
            }
        }
    }

    /// The JSON document that goes on the wire.
    pub(crate) fn body(&self) -> Value {
        let mut body = self.fields.clone();
        body.insert("__type".to_owned(), Value::String(self.code.to_owned()));
        Value::Object(body)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetState {
    routing_control_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct List {
    control_panel_arn: Option<String>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateOne {
    #[serde(flatten)]
    entry: UpdateEntry,
    #[serde(default)]
    safety_rules_to_override: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateMany {
    update_routing_control_state_entries: Vec<UpdateEntry>,
    #[serde(default)]
    safety_rules_to_override: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateEntry {
    routing_control_arn: String,
    routing_control_state: ControlState,
}

/// Does one operation at one endpoint. The second part of the answer tells whether the register changed.
///
/// # Errors
/// The API's error; the register is unchanged then.
pub(crate) fn call(
    world: &mut Inner,
    faults: &Faults,
    endpoint: Observer,
    operation: &str,
    parameters: &Value,
    now: Instant,
) -> Result<(Value, bool), ArcError> {
    if let Some(turns) = faults.maintenance {
        let since_start = now.saturating_duration_since(world.started);
        if in_maintenance(turns, world.seed, world.throttles.len(), endpoint, since_start) {
            return Err(ArcError::unavailable());
        }
    }
    match operation {
        "GetRoutingControlState" => get_state(world, endpoint, &parse(parameters)?, now).map(|v| (v, false)),
        "ListRoutingControls" => list(world, endpoint, &parse(parameters)?, now).map(|v| (v, false)),
        "UpdateRoutingControlState" => {
            let UpdateOne { entry, safety_rules_to_override } = parse(parameters)?;
            let overridden = safety_rules_to_override.unwrap_or_default();
            update(world, faults, endpoint, &[entry], &overridden, now).map(|()| (json!({}), true))
        }
        "UpdateRoutingControlStates" => {
            let many: UpdateMany = parse(parameters)?;
            let overridden = many.safety_rules_to_override.unwrap_or_default();
            update(world, faults, endpoint, &many.update_routing_control_state_entries, &overridden, now)
                .map(|()| (json!({}), true))
        }
        unknown => {
            Err(ArcError::new("ValidationException", 400, format!("There is no operation {unknown}."))
                .with("reason", "unknownOperation"))
        }
    }
}

fn parse<T: DeserializeOwned>(parameters: &Value) -> Result<T, ArcError> {
    T::deserialize(parameters).map_err(|error| {
        ArcError::new("ValidationException", 400, format!("The request can't be read: {error}."))
            .with("reason", "cannotParse")
    })
}

fn get_state(world: &Inner, endpoint: Observer, input: &GetState, now: Instant) -> Result<Value, ArcError> {
    check_arn("RoutingControlArn", &input.routing_control_arn)?;
    let (index, control) = world
        .register
        .controls()
        .enumerate()
        .find(|(_, control)| control.arn == input.routing_control_arn)
        .ok_or_else(|| ArcError::not_found("RoutingControl", &input.routing_control_arn))?;
    Ok(json!({
        "RoutingControlArn": control.arn,
        "RoutingControlName": control.name,
        "RoutingControlState": world.register.seen(index, endpoint, now),
    }))
}

fn list(world: &Inner, endpoint: Observer, input: &List, now: Instant) -> Result<Value, ArcError> {
    let page = match input.max_results {
        None => DEFAULT_PAGE,
        Some(wanted) => usize::try_from(wanted)
            .ok()
            .filter(|&page| page >= 1)
            .ok_or_else(|| ArcError::invalid("MaxResults", "must be at least 1"))?
            .min(DEFAULT_PAGE),
    };
    let start = match &input.next_token {
        None => 0,
        Some(token) => token
            .strip_prefix("from-")
            .and_then(|start| start.parse().ok())
            .ok_or_else(|| ArcError::invalid("NextToken", "was not given by this service"))?,
    };
    if let Some(panel) = &input.control_panel_arn {
        check_arn("ControlPanelArn", panel)?;
        if !world.register.controls().any(|control| control.panel_arn == *panel) {
            return Err(ArcError::not_found("ControlPanel", panel));
        }
    }
    let mut matching = world.register.controls().enumerate().filter(|(_, control)| {
        input.control_panel_arn.as_ref().is_none_or(|panel| control.panel_arn == *panel)
    });
    let controls: Vec<Value> = matching
        .by_ref()
        .skip(start)
        .take(page)
        .map(|(index, control)| {
            json!({
                "ControlPanelArn": control.panel_arn,
                "ControlPanelName": control.panel_name,
                "RoutingControlArn": control.arn,
                "RoutingControlName": control.name,
                "RoutingControlState": world.register.seen(index, endpoint, now),
                "Owner": world.account,
            })
        })
        .collect();
    let more = matching.next().is_some();
    let next = start + controls.len();
    let mut output = json!({ "RoutingControls": controls });
    if more {
        output["NextToken"] = json!(format!("from-{next}"));
    }
    Ok(output)
}

fn update(
    world: &mut Inner,
    faults: &Faults,
    endpoint: Observer,
    asked: &[UpdateEntry],
    overridden: &[String],
    now: Instant,
) -> Result<(), ArcError> {
    // The limit comes first: it is on calls, not on changes.
    if !world.throttles[endpoint].admit(now) {
        return Err(ArcError::throttled());
    }
    if asked.is_empty() {
        return Err(ArcError::invalid("UpdateRoutingControlStateEntries", "must not be empty"));
    }
    if asked.len() > MOST_ENTRIES {
        let message = "The request can't update that many routing control states at the same time.";
        return Err(ArcError::new("ServiceLimitExceededException", 402, message)
            .with("limitCode", "UpdateRoutingControlStatesEntries")
            .with("serviceCode", "route53-recovery-cluster"));
    }
    let mut named = BTreeSet::new();
    let mut entries: Vec<Entry> = Vec::with_capacity(asked.len());
    for entry in asked {
        check_arn("RoutingControlArn", &entry.routing_control_arn)?;
        if !named.insert(&entry.routing_control_arn) {
            return Err(ArcError::invalid("UpdateRoutingControlStateEntries", "names a control twice"));
        }
        let index = world.register.find(&entry.routing_control_arn);
        let index = index.ok_or_else(|| ArcError::not_found("RoutingControl", &entry.routing_control_arn))?;
        entries.push((index, entry.routing_control_state));
    }
    if let Some(unknown) = overridden.iter().find(|arn| !world.register.has_rule(arn)) {
        return Err(ArcError::not_found("SafetyRule", unknown));
    }
    let delays = delays(world, faults, endpoint);
    let absent = world.register.rules().filter(|rule| faults.absent_rules.contains(&rule.name));
    let passed: Vec<String> = overridden.iter().chain(absent.map(|rule| &rule.arn)).cloned().collect();
    let judging = Judging { batch: faults.batch_judgement, wait_period_ms: faults.wait_period_ms };
    world.register.update(&entries, &passed, judging, &delays, now).map_err(|violation| {
        ArcError::new("ConflictException", 409, violation.message)
            .with("resourceId", violation.rule_arn)
            .with("resourceType", "SafetyRule")
    })
}

/// How long a change accepted here takes to each endpoint and, last, to the DNS health checks.
fn delays(world: &mut Inner, faults: &Faults, accepting: Observer) -> Vec<Duration> {
    use rand::Rng;
    let endpoints = world.throttles.len();
    let mut delays: Vec<Duration> = (0..endpoints)
        .map(|observer| {
            // Drawn for all, so that the sequence of draws doesn't depend on which endpoint was called.
            let drawn = faults.propagation.delay(world.rng.random());
            if observer == accepting { Duration::ZERO } else { drawn }
        })
        .collect();
    delays.push(Duration::from_millis(faults.health_check_lag_ms));
    delays
}

fn check_arn(field: &str, arn: &str) -> Result<(), ArcError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":./_-".contains(c);
    if (1..=255).contains(&arn.len()) && arn.chars().all(allowed) {
        Ok(())
    } else {
        Err(ArcError::invalid(field, "must be 1 to 255 letters, digits or :./_-"))
    }
}
