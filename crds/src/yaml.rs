//! The definition as the charts ship it.

use std::fmt;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;

use crate::trading_region::TradingRegion;

/// Widths of integers that the API server does not know as formats; it would warn at each apply.
const UNKNOWN_FORMATS: [&str; 4] = ["uint", "uint16", "uint32", "uint64"];

/// The definition of [`TradingRegion`], cleaned of what the API server would warn of.
pub fn definition() -> CustomResourceDefinition {
    let mut definition = TradingRegion::crd();
    for version in &mut definition.spec.versions {
        if let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut()) {
            clean(schema);
            if let Some(status) = schema.properties.as_mut().and_then(|parts| parts.get_mut("status")) {
                drop_rules(status);
            }
        }
    }
    definition
}

/// The definition as YAML text, with a first line that says where it comes from.
///
/// # Errors
/// The definition cannot be written as YAML.
pub fn definition_yaml() -> Result<String, YamlError> {
    let yaml =
        serde_saphyr::to_string(&definition()).map_err(|source| YamlError { why: source.to_string() })?;
    Ok(format!("# Written by `cargo run -p crds --bin crdgen`; do not edit.\n{yaml}"))
}

/// The definition could not be written as YAML.
#[derive(Debug)]
pub struct YamlError {
    why: String,
}

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the definition of TradingRegion cannot be written as YAML: {}", self.why)
    }
}

impl std::error::Error for YamlError {}

fn clean(schema: &mut JSONSchemaProps) {
    if schema.format.as_deref().is_some_and(|format| UNKNOWN_FORMATS.contains(&format)) {
        schema.format = None;
    }
    each_part(schema, clean);
}

/// A status is written by the operator alone. Its types print what they read, so judging it again costs for nothing.
fn drop_rules(schema: &mut JSONSchemaProps) {
    schema.x_kubernetes_validations = None;
    each_part(schema, drop_rules);
}

fn each_part(schema: &mut JSONSchemaProps, change: fn(&mut JSONSchemaProps)) {
    schema.properties.iter_mut().flat_map(|properties| properties.values_mut()).for_each(change);
    match &mut schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => change(items),
        Some(JSONSchemaPropsOrArray::Schemas(list)) => list.iter_mut().for_each(change),
        None => {}
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        change(values);
    }
}
