//! Numbers that were read somewhere, with their age. Unknown is never zero.

use jiff::Timestamp;
use region_plan::{Epoch, Fact, Region};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// One drain check as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CheckReading {
    /// The check's name in the spec.
    pub name: String,
    /// The number; absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<u64>,
    /// When the source answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why the number is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl CheckReading {
    /// The reading that an observation makes.
    pub fn new(name: impl Into<String>, fact: &Fact<u64>) -> Self {
        let (value, at, unknown) = parts(fact);
        Self { name: name.into(), value, at, unknown }
    }
}

/// A time span as last read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DurationReading {
    /// The span; absent if it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Duration>,
    /// When the source answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why the span is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

impl From<&Fact<Duration>> for DurationReading {
    fn from(fact: &Fact<Duration>) -> Self {
        let (value, at, unknown) = parts(fact);
        Self { value, at, unknown }
    }
}

/// The lease as this region's own database shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LeaseReading {
    /// Who holds it; absent: released, or never granted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Region>,
    /// Number of the present or last grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<Epoch>,
    /// How long guards still accept without a renewal; absent: not known, or without a limit. 0s: expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remaining: Option<Duration>,
    /// When the database answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// Why nothing is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

fn parts<T: Copy>(fact: &Fact<T>) -> (Option<T>, Option<Timestamp>, Option<String>) {
    match fact {
        Fact::Known { value, at } => (Some(*value), Some(*at), None),
        Fact::Unknown { why } => (None, None, Some(why.clone())),
    }
}
