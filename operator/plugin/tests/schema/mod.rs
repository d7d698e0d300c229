//! As much of JSON Schema as the view's schema uses. A keyword that is not known here is an error, not ignored.

use serde_json::{Map, Value};

/// Keywords that only describe; the rules for API servers are tested with the definition.
const DESCRIPTIONS: [&str; 7] =
    ["$schema", "$defs", "title", "description", "default", "format", "x-kubernetes-validations"];

/// What is wrong with a value: each difference with its path. A field that the schema does not declare is wrong.
pub fn wrong(schema: &Value, value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    check(schema, schema, value, "", &mut found);
    found
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(rules) = schema else {
        assert_eq!(schema, &Value::Bool(true), "{path}: a schema that is no object");
        return;
    };
    for (keyword, rule) in rules {
        match keyword.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                check(root, root.pointer(pointer).unwrap(), value, path, found);
            }
            "type" => {
                if !types(rule).any(|name| is_of(name, value)) {
                    found.push(format!("{path}: {value} is no {rule}"));
                }
            }
            "anyOf" | "oneOf" => {
                let fits = |one: &&Value| {
                    let mut differences = Vec::new();
                    check(root, one, value, path, &mut differences);
                    differences.is_empty()
                };
                if !rule.as_array().unwrap().iter().any(|one| fits(&one)) {
                    found.push(format!("{path}: {value} is none of the declared"));
                }
            }
            "const" if value == rule => {}
            "enum" if rule.as_array().unwrap().contains(value) => {}
            "const" | "enum" => found.push(format!("{path}: {value} is not {rule}")),
            "minimum" if value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()) => {}
            "maxItems"
                if value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()) => {}
            "maxLength" if value.as_str().is_none_or(|text| text.len() as u64 <= rule.as_u64().unwrap()) => {}
            "minimum" | "maxItems" | "maxLength" => found.push(format!("{path}: {keyword} is {rule}")),
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{path}/{index}"), found);
                }
            }
            "properties" => fields(root, rules, value, path, found),
            // Together with the properties.
            "required" => assert!(rules.contains_key("properties"), "{path}"),
            known => assert!(DESCRIPTIONS.contains(&known), "{path}: keyword {known} is not understood here"),
        }
    }
}

fn types(rule: &Value) -> impl Iterator<Item = &str> {
    let several = rule.as_array().into_iter().flatten().filter_map(Value::as_str);
    rule.as_str().into_iter().chain(several)
}

fn is_of(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type {other}"),
    }
}

fn fields(root: &Value, rules: &Map<String, Value>, value: &Value, path: &str, found: &mut Vec<String>) {
    let Value::Object(value) = value else { return };
    let declared = rules.get("properties").and_then(Value::as_object);
    for (name, field) in value {
        match declared.and_then(|declared| declared.get(name)) {
            Some(rule) => check(root, rule, field, &format!("{path}/{name}"), found),
            None => found.push(format!("{path}/{name} is not declared")),
        }
    }
    let required = rules.get("required").and_then(Value::as_array).into_iter().flatten();
    for name in required.filter_map(Value::as_str).filter(|name| !value.contains_key(*name)) {
        found.push(format!("{path}/{name} is missing"));
    }
}
