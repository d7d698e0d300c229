//! The YAML that the charts ship is what the types say, and every list and text in a spec has an end.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

use serde_json::Value;

#[test]
fn the_written_yaml_is_what_the_types_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/yaml/tradingregions.regions.trading.dev.yaml");
    let written = std::fs::read_to_string(path).expect("the YAML is in the repository");
    let now = crds::definition_yaml().expect("the definition is YAML");
    assert!(written == now, "{path} is out of date: run `cargo run -p crds --bin crdgen`");
}

#[test]
fn every_list_map_and_text_of_the_spec_is_bounded() {
    let schema =
        crds::definition().spec.versions.remove(0).schema.and_then(|schema| schema.open_api_v3_schema);
    let schema = serde_json::to_value(schema.expect("the definition has a schema")).unwrap();
    let mut unbounded = Vec::new();
    look(&schema["properties"]["spec"], "spec", &mut unbounded);
    assert!(unbounded.is_empty(), "{unbounded:#?}");
}

fn look(schema: &Value, path: &str, unbounded: &mut Vec<String>) {
    let bounded = match schema["type"].as_str() {
        Some("string") => schema.get("maxLength").is_some() || schema.get("enum").is_some(),
        Some("array") => schema.get("maxItems").is_some(),
        Some("object") if schema.get("additionalProperties").is_some() => {
            schema.get("maxProperties").is_some()
        }
        _ => true,
    };
    if !bounded {
        unbounded.push(path.to_owned());
    }
    for (name, child) in schema["properties"].as_object().into_iter().flatten() {
        look(child, &format!("{path}.{name}"), unbounded);
    }
    for part in ["items", "additionalProperties"] {
        if let Some(child) = schema.get(part).filter(|child| child.is_object()) {
            look(child, &format!("{path}[]"), unbounded);
        }
    }
}

#[test]
fn a_status_that_an_operator_writes_can_be_read_back() {
    let text = include_str!("status.yaml");
    let status: crds::TradingRegionStatus = serde_saphyr::from_str(text).expect("the status is understood");
    let written: Value = serde_json::to_value(&status).unwrap();
    let read: Value = serde_saphyr::from_str(text).unwrap();
    let mut lost = Vec::new();
    compare(&read, &written, "status", &mut lost);
    assert!(lost.is_empty(), "{lost:#?}");
}

/// Everything in `read` must stand in `written`; defaults may stand there too.
fn compare(read: &Value, written: &Value, path: &str, lost: &mut Vec<String>) {
    match (read, written) {
        (Value::Object(read), Value::Object(_)) => {
            for (name, value) in read {
                compare(value, &written[name], &format!("{path}.{name}"), lost);
            }
        }
        (Value::Array(read), Value::Array(items)) if read.len() == items.len() => {
            for (at, (value, item)) in read.iter().zip(items).enumerate() {
                compare(value, item, &format!("{path}[{at}]"), lost);
            }
        }
        _ if read == written => {}
        _ => lost.push(format!("{path}: {read} became {written}")),
    }
}
