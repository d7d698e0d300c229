//! Every rule of the definition accepts what it should and refuses what it should, with the message that it has.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod cases;

use std::collections::BTreeSet;

use crds::{TradingRegion, definition};
use kube::core::cel::{Validator, validate_cel, validate_cel_update};
use serde_json::{Map, Value};

fn schema() -> Value {
    let schema = definition().spec.versions.remove(0).schema.and_then(|schema| schema.open_api_v3_schema);
    serde_json::to_value(schema.expect("the definition has a schema")).expect("a schema is JSON")
}

/// Messages of the rules that refuse the object, each with the field that it names.
fn refusals(schema: &Value, object: &Value, old: Option<&Value>) -> Vec<(String, String)> {
    let found = Validator::new().validate_with_defaults(schema, object, old);
    let errors = found.err().map(kube::core::cel::ValidationErrors::into_vec).unwrap_or_default();
    errors.into_iter().map(|error| (error.field_path, error.message)).collect()
}

#[test]
fn each_accepted_case_is_refused_by_no_rule_and_can_be_read() {
    let schema = schema();
    for case in cases::all().into_iter().filter(|case| case.refused.is_none()) {
        assert_eq!(refusals(&schema, &case.object, case.old.as_ref()), [], "{}", case.name);
        let object: TradingRegion =
            serde_json::from_value(case.object).unwrap_or_else(|why| panic!("{}: {why}", case.name));
        assert!(validate_cel(&object).is_ok(), "{}", case.name);
        if let Some(old) = case.old {
            let old = serde_json::from_value(old).unwrap();
            assert!(validate_cel_update(&object, &old).is_ok(), "{}", case.name);
        }
    }
}

#[test]
fn each_case_that_a_rule_refuses_is_refused_with_its_message() {
    let schema = schema();
    for case in cases::all().into_iter().filter(|case| case.by_rule) {
        let said = refusals(&schema, &case.object, case.old.as_ref());
        let expected = case.refused.unwrap_or_default();
        assert!(said.iter().any(|(_, message)| *message == expected), "{}: said {said:?}", case.name);
    }
}

#[test]
fn every_rule_has_a_case_that_it_refuses_and_an_object_that_it_accepts() {
    let cases = cases::all();
    let refused: BTreeSet<&str> = cases.iter().filter_map(|case| case.refused.as_deref()).collect();
    let accepted: Vec<&Value> =
        cases.iter().filter(|case| case.refused.is_none()).map(|case| &case.object).collect();
    let (mut count, mut missing) = (0, Vec::new());
    each_rule(&schema(), &mut Vec::new(), &mut |path, rule| {
        count += 1;
        let message =
            rule["message"].as_str().unwrap_or_else(|| panic!("a rule at {path:?} has no message: {rule}"));
        if !refused.contains(message) {
            missing.push(format!("nothing is refused with {message:?}"));
        }
        if !accepted.iter().any(|object| reaches(object, path)) {
            missing.push(format!("no accepted object has {path:?}, judged by {message:?}"));
        }
    });
    assert!(count > 30, "only {count} rules were found");
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Calls `found` for each rule with the path of the values that it judges; `*` stands for any item or key.
fn each_rule<'a>(schema: &'a Value, path: &mut Vec<&'a str>, found: &mut impl FnMut(&[&str], &Value)) {
    for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
        found(path, rule);
    }
    let properties = schema["properties"].as_object().into_iter().flat_map(Map::iter);
    let others =
        ["items", "additionalProperties"].into_iter().filter_map(|part| Some(("*", schema.get(part)?)));
    for (name, child) in properties.map(|(name, child)| (name.as_str(), child)).chain(others) {
        path.push(name);
        each_rule(child, path, found);
        path.pop();
    }
}

fn reaches(value: &Value, path: &[&str]) -> bool {
    match path.split_first() {
        None => true,
        Some((&"*", rest)) => match value {
            Value::Array(items) => items.iter().any(|item| reaches(item, rest)),
            Value::Object(map) => map.values().any(|item| reaches(item, rest)),
            _ => false,
        },
        Some((key, rest)) => value.get(*key).is_some_and(|child| reaches(child, rest)),
    }
}

#[test]
fn the_example_of_the_other_application_is_accepted() {
    assert_eq!(refusals(&schema(), &cases::settlement(), None), []);
}

#[test]
fn an_immutable_part_may_be_sent_again_as_it_is() {
    let example = cases::example();
    assert_eq!(refusals(&schema(), &example, Some(&example)), []);
}

#[test]
fn defaults_are_filled_in_as_documented() {
    let bare = cases::all()
        .into_iter()
        .find(|case| case.name.ends_with("default is left out"))
        .expect("the case exists");
    let object: TradingRegion = serde_json::from_value(bare.object).unwrap();
    let spec = serde_json::to_value(&object.spec).unwrap();
    let expected = serde_json::json!({
        "transition": {"mode": "Planned"},
        "managed": "Manage",
        "approval": {"required": "Failover", "expiresAfter": "10m"},
    });
    for (field, value) in expected.as_object().unwrap() {
        assert_eq!(spec[field], *value, "{field}");
    }
    assert_eq!(spec["drain"]["holdFor"], "3s");
    assert_eq!(spec["drain"]["deadline"], "2m");
    assert_eq!(spec["drain"]["onDeadline"], "Abort");
    assert_eq!(spec["database"]["lease"], serde_json::json!({"onWitnessLoss": "Stop"}));
    assert_eq!(spec["workloads"]["active"]["floor"], 1);
    assert_eq!(spec["workloads"]["standby"]["replicas"], 0);
}
