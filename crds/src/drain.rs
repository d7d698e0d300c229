//! When the old side counts as empty.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// The drain: every check reads zero without a break for `holdFor`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("duration(self.deadline) > duration(self.holdFor)")
    .message("deadline must be longer than holdFor, or no drain can ever end")
    .field_path(".deadline"))]
pub struct Drain {
    /// Numbers that must all be zero. No answer is not zero.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<DrainCheck>,
    /// How long all checks must read zero.
    #[serde(default = "hold_for")]
    pub hold_for: Duration,
    /// How long the drain may take, counted from the order to close ingress.
    #[serde(default = "deadline")]
    pub deadline: Duration,
    /// What happens at the deadline.
    #[serde(default)]
    pub on_deadline: OnDeadline,
}

/// What happens when the drain does not end in time. Abort: the run is given up and the old side reopens.
/// Proceed: the run goes on and what was left is listed; gives up that nothing is lost. WaitForUser: it stops and asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnDeadline {
    /// The run is given up and the old side reopens.
    #[default]
    Abort,
    /// The run goes on and what was left is listed; gives up that nothing is lost.
    Proceed,
    /// The run stops and asks.
    WaitForUser,
}

/// One number that must reach zero: exactly one source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.rabbitmq), has(self.sql), has(self.http)].filter(given, given).size() == 1")
    .message("give the check exactly one of rabbitmq, sql and http"))]
pub struct DrainCheck {
    /// Name in status, events and metrics.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Messages in a queue, ready and unacknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rabbitmq: Option<RabbitmqCheck>,
    /// A number from the application's database, read in the old region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<SqlCheck>,
    /// A number from a service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpCheck>,
}

/// Messages in a queue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RabbitmqCheck {
    /// The queue's name, in the virtual host of the region's amqpUrl.
    #[schemars(length(min = 1, max = 255))]
    pub queue: String,
}

/// A number from the database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SqlCheck {
    /// A query whose first row has one integer column. It runs read-only with a timeout.
    #[schemars(length(min = 1, max = 2_048))]
    pub query: String,
}

/// A number from a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Address of a JSON document.
    #[schemars(length(max = 1_024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^@/?# ]+([/?][^ ]*)?$')")
        .message("write url as http://HOST:PORT/PATH or https://HOST:PORT/PATH without a user"))]
    pub url: String,
    /// Where the number stands in the document, as a JSON pointer such as /queues/pending.
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("self == '' || self.startsWith('/')")
        .message("write jsonPointer with a leading slash, such as /pending"))]
    pub json_pointer: String,
}

fn hold_for() -> Duration {
    Duration::from_secs(3)
}

fn deadline() -> Duration {
    Duration::from_secs(120)
}
