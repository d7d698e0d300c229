//! An object that is not understood says so in its own status: two conditions under a field manager of their own. The rest of
//! the status, the side report above all, stays as it was. The next whole status takes both conditions over.

use crds::TradingRegion;
use crds::conditions::{READY, Set, State, VALID, reason, set};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::object::{WriteError, bounded};

/// Owner of the two conditions while they say that the object is not understood.
pub const NOT_UNDERSTOOD_MANAGER: &str = "regions.trading.dev/not-understood";

/// Writes the conditions, if the object is still there, still not understood, and does not say so yet.
///
/// # Errors
/// [`WriteError`].
pub async fn tell_not_understood(
    client: &Client,
    namespace: &str,
    name: &str,
    now: Timestamp,
) -> Result<(), WriteError> {
    let kind = ApiResource::erase::<TradingRegion>(&());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
    let Some(live) = bounded(api.get_opt(name)).await? else { return Ok(()) };
    let Some(body) = body(&live, now) else { return Ok(()) };
    let params = PatchParams::apply(NOT_UNDERSTOOD_MANAGER).force();
    bounded(api.patch_status(name, &params, &Patch::Apply(body))).await.map(drop)
}

/// What is to be written; `None`: nothing.
fn body(live: &DynamicObject, now: Timestamp) -> Option<Value> {
    let value = serde_json::to_value(live).ok()?;
    let written = value.pointer("/status/conditions").cloned().unwrap_or_default();
    let why = serde_json::from_value::<TradingRegion>(value).err()?.to_string();
    let before: Vec<Condition> = serde_json::from_value(written).unwrap_or_default();
    let wanted = conditions(before.clone(), &why, live.metadata.generation, now);
    if wanted.iter().all(|condition| before.contains(condition)) {
        return None;
    }
    Some(json!({
        "apiVersion": TradingRegion::api_version(&()),
        "kind": TradingRegion::kind(&()),
        "metadata": {
            "name": live.name_any(),
            "namespace": live.namespace(),
            "uid": live.uid(),
            "resourceVersion": live.resource_version(),
        },
        "status": {"conditions": wanted},
    }))
}

fn conditions(mut all: Vec<Condition>, why: &str, generation: Option<i64>, now: Timestamp) -> Vec<Condition> {
    let invalid = format!("the object is not understood: {why}; correct it, or update the operator");
    let unready = "the object is not understood, so nothing is done; the rest of this status is from before";
    for (type_, state, message) in [(VALID, State::False, invalid.as_str()), (READY, State::Unknown, unready)]
    {
        let wanted = Set { type_, state, reason: reason::UNDECODABLE, message, generation };
        set(&mut all, &wanted, now);
    }
    all.retain(|condition| [VALID, READY].contains(&condition.type_.as_str()));
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn condition(type_: &str, status: &str) -> Value {
        json!({"type": type_, "status": status, "reason": "AsWanted", "message": "before",
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    /// An object of a later version, with the status that an operator wrote before.
    fn later() -> Value {
        let mut value = serde_json::to_value(example()).unwrap();
        value["spec"]["managed"] = json!("Sometimes");
        value["status"] = json!({
            "conditions": [condition("Ready", "True"), condition("LeaseHeld", "True"), condition("Valid", "True")],
            "side": {"region": "us-east-1", "highestEpoch": 4},
        });
        value
    }

    fn object(value: Value) -> DynamicObject {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_the_two_conditions_are_written_over_the_version_that_was_read() {
        let body = body(&object(later()), at(100)).unwrap();
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["status"].as_object().unwrap().keys().collect::<Vec<_>>(), ["conditions"]);
        let written: Vec<Condition> = serde_json::from_value(body["status"]["conditions"].clone()).unwrap();
        let said = |one: &Condition| (one.type_.clone(), one.status.clone(), one.reason.clone());
        let word =
            |type_: &str, status: &str| (type_.to_owned(), status.to_owned(), "Undecodable".to_owned());
        let said: Vec<_> = written.iter().map(said).collect();
        assert_eq!(said, [word("Ready", "Unknown"), word("Valid", "False")]);
        assert!(written[1].message.contains("Sometimes"), "{}", written[1].message);
        assert_eq!(written[1].observed_generation, Some(3));
    }

    #[test]
    fn what_is_said_already_is_not_written_again() {
        let mut value = later();
        let first = body(&object(value.clone()), at(100)).unwrap();
        value["status"]["conditions"] = first["status"]["conditions"].clone();
        assert_eq!(body(&object(value.clone()), at(200)), None);
        value["metadata"]["generation"] = json!(4);
        assert!(body(&object(value), at(200)).is_some(), "another generation is judged anew");
    }

    #[test]
    fn an_object_that_is_understood_meanwhile_is_left_to_the_next_pass() {
        assert_eq!(body(&object(serde_json::to_value(example()).unwrap()), at(100)), None);
    }
}
