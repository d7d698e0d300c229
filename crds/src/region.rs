//! What belongs to one region: how to reach its cluster, its broker, its database instance.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::reference::{SecretKeyRef, SecretRef};

/// One of the two regions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RegionSpec {
    /// The AWS region's name, for instance us-east-1.
    #[schemars(length(min = 1, max = 32))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')")
        .message("write the region's name in lower case letters, digits and hyphens, such as us-east-1"))]
    pub name: String,
    /// How the other region's operator reaches this region's cluster.
    pub peer: Peer,
    /// The broker in this region.
    pub broker: Broker,
    /// The database instance in this region.
    pub database: Instance,
}

/// Access to a region's cluster from the other one. It needs to read TradingRegions only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Key of a Secret that holds a kubeconfig.
    pub secret_ref: SecretKeyRef,
}

/// RabbitMQ of one region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.answerUsers) || self.answerUsers.all(user, !(user in self.customerUsers))")
    .message("a user is in customerUsers and in answerUsers: list who submits in one and who reads answers in the other")
    .field_path(".answerUsers"))]
pub struct Broker {
    /// Base URL of the management API, for instance <https://rabbitmq.example.com:15671>.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^https://[^@/?# ]+/?$')")
        .message("write managementUrl as https://HOST:PORT without a user; credentials are in secretRef"))]
    pub management_url: String,
    /// AMQP URL, for instance amqps://rabbitmq.example.com:5671.
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new("self.matches('^amqps://[^@/?# ]+(/[^@/?# ]*)?$')")
        .message("write amqpUrl as amqps://HOST:PORT or amqps://HOST:PORT/VHOST without a user; credentials are in secretRef"))]
    pub amqp_url: String,
    /// Secret with `username` and `password` of a user that may change permissions and close connections.
    pub secret_ref: SecretRef,
    /// Key of a Secret with the CA that the broker's certificates are checked against. Absent: the system's CAs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_secret_ref: Option<SecretKeyRef>,
    /// Users who submit. Their permission to publish is taken when the region closes and given when it opens.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub customer_users: Vec<String>,
    /// Users who only read answers. Their connections are closed once nothing more comes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 128)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub answer_users: Vec<String>,
}

/// The database instance of one region, by address: a name that moves would prove nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// HOST:PORT of an instance endpoint, or a custom one with that instance alone: a secondary's cluster endpoint is inactive.
    #[schemars(length(max = 300))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9.-]+:[0-9]{1,5}$')")
        .message("write instance as HOST:PORT of this region's own database, such as 10.0.1.5:5432"))]
    pub instance: String,
}
