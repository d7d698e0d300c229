//! ARC's control plane on the wire, as far as safety rules are read: restJson1,
//! `GET /controlpanel/{ControlPanelArn}/safetyrules`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::api::ArcError;
use crate::config::{ConditionKind, SafetyRule};
use crate::faults::Faults;
use crate::world::Inner;

/// The only region of this API.
pub(crate) const REGION: &str = "us-west-2";

/// Page size when the caller sets none, and the largest.
const LARGEST_PAGE: usize = 1_000;

/// Whether a path is one of this API's; RDS has only `/`.
pub(crate) fn serves(path: &str) -> bool {
    path != "/"
}

/// Name and parameters of an operation, for the call log and for [`call`].
pub(crate) fn parse(method: &http::Method, path: &str, query: Option<&str>) -> (String, Value) {
    let mut parameters: BTreeMap<String, String> =
        form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect();
    let mut segments = path.trim_start_matches('/').split('/');
    match (segments.next(), segments.next(), segments.next(), segments.next()) {
        (Some("controlpanel"), Some(panel), Some("safetyrules"), None) if method == http::Method::GET => {
            parameters.insert("ControlPanelArn".to_owned(), decoded(panel));
            ("ListSafetyRules".to_owned(), json!(parameters))
        }
        _ => (format!("{method} {path}"), json!(parameters)),
    }
}

/// A path segment without its percent encoding. A plus sign stands for itself there.
fn decoded(segment: &str) -> String {
    let pair = format!("={}", segment.replace('+', "%2B"));
    form_urlencoded::parse(pair.as_bytes()).map(|(_, value)| value.into_owned()).collect()
}

/// Does one operation.
///
/// # Errors
/// The API's error.
pub(crate) fn call(
    world: &Inner,
    faults: &Faults,
    operation: &str,
    parameters: &Value,
) -> Result<Value, ArcError> {
    if operation != "ListSafetyRules" {
        return Err(ArcError::new("UnknownOperationException", 404, format!("There is no {operation}.")));
    }
    let text = |name: &str| parameters[name].as_str();
    let panel = text("ControlPanelArn").unwrap_or_default();
    if !world.register.controls().any(|control| control.panel_arn == panel) {
        return Err(ArcError::not_found("ControlPanel", panel));
    }
    let page = match text("MaxResults") {
        None => LARGEST_PAGE,
        Some(wanted) => wanted
            .parse()
            .ok()
            .filter(|page| (1..=LARGEST_PAGE).contains(page))
            .ok_or_else(|| ArcError::invalid("MaxResults", "must be between 1 and 1000"))?,
    };
    let start: usize = match text("NextToken") {
        None => 0,
        Some(token) => token
            .strip_prefix("from-")
            .and_then(|start| start.parse().ok())
            .ok_or_else(|| ArcError::invalid("NextToken", "was not given by this service"))?,
    };
    let rules: Vec<&SafetyRule> = world
        .register
        .rules()
        .filter(|rule| panel_of(world, rule) == Some(panel) && !faults.absent_rules.contains(&rule.name))
        .collect();
    let shown: Vec<Value> =
        rules.iter().skip(start).take(page).map(|rule| listed(rule, panel, faults, &world.account)).collect();
    let next = start + shown.len();
    let mut output = json!({ "SafetyRules": shown });
    if next < rules.len() {
        output["NextToken"] = json!(format!("from-{next}"));
    }
    Ok(output)
}

/// A rule belongs to the panel of its controls.
fn panel_of<'a>(world: &'a Inner, rule: &SafetyRule) -> Option<&'a str> {
    let first = rule.controls.first()?;
    world.register.controls().find(|control| control.arn == *first).map(|control| control.panel_arn.as_str())
}

fn listed(rule: &SafetyRule, panel: &str, faults: &Faults, owner: &str) -> Value {
    let kind = match rule.condition.kind {
        ConditionKind::AtLeast => "ATLEAST",
        ConditionKind::And => "AND",
        ConditionKind::Or => "OR",
    };
    let mut shown = json!({
        "ControlPanelArn": panel,
        "Name": rule.name,
        "Owner": owner,
        "RuleConfig": {
            "Inverted": rule.condition.inverted,
            "Threshold": rule.condition.threshold,
            "Type": kind,
        },
        "SafetyRuleArn": rule.arn,
        "Status": "DEPLOYED",
        "WaitPeriodMs": faults.wait_period_ms.unwrap_or(rule.wait_period_ms),
    });
    if rule.target_controls.is_empty() {
        shown["AssertedControls"] = json!(rule.controls);
        json!({ "ASSERTION": shown })
    } else {
        shown["GatingControls"] = json!(rule.controls);
        shown["TargetControls"] = json!(rule.target_controls);
        json!({ "GATING": shown })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panel_is_read_from_the_path_as_it_was_meant() {
        let path = "/controlpanel/arn%3Aaws%3Aarc%3A%3A1%3Acontrolpanel%2Fa+b/safetyrules";
        let (operation, parameters) = parse(&http::Method::GET, path, Some("MaxResults=3"));
        assert_eq!(operation, "ListSafetyRules");
        assert_eq!(
            parameters,
            json!({"ControlPanelArn": "arn:aws:arc::1:controlpanel/a+b", "MaxResults": "3"})
        );
        assert_ne!(parse(&http::Method::DELETE, path, None).0, "ListSafetyRules");
    }
}
