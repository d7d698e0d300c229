//! What an application does itself at named points of a run.

use k8s_openapi::api::batch::v1::JobTemplateSpec;
use kube::KubeSchema;
use region_plan::HookPoint;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::duration::Duration;

/// A call at a point of a run. It must be idempotent by run and epoch: after a failure, or when the operator ended before it
/// could write that it succeeded, it is made again, perhaps when the next stage is open already.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.http) != has(self.job)")
        .message("give the hook exactly one of http and job"),
    validation = Rule::new("!has(self.http) || duration(self.http.timeout) <= duration(self.deadline)")
        .message("http.timeout must not be longer than the hook's deadline")
        .field_path(".deadline")
)]
pub struct Hook {
    /// Name in status, events and logs.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// The point of the run.
    pub at: HookPoint,
    /// A POST to a service that is already there. Body: app, region, run, epoch, from, to, point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHook>,
    /// A Job of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub job: Option<JobHook>,
    /// The time that the hook may take, repeats included, from its first call. Past it a Drained hook is left out, and any
    /// other is called less often.
    #[serde(default = "deadline")]
    pub deadline: Duration,
}

/// A POST request; any 2xx answer is success, 202 means "still at work, ask again".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpHook {
    /// Where to.
    #[schemars(length(max = 1_024))]
    #[x_kube(validation = Rule::new("self.matches('^https?://[^@/?# ]+([/?][^ ]*)?$')")
        .message("write url as http://HOST:PORT/PATH or https://HOST:PORT/PATH without a user"))]
    pub url: String,
    /// How long one attempt may take.
    #[serde(default = "timeout")]
    pub timeout: Duration,
}

/// A Job made from a template in the namespace of the object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobHook {
    /// A Job's metadata and spec; the API server checks it when the Job is made.
    #[schemars(schema_with = "job_template")]
    pub template: JobTemplateSpec,
}

/// The whole Job schema would be many times the size of all else; the Job API validates it anyway.
fn job_template(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

fn timeout() -> Duration {
    Duration::from_secs(5)
}

fn deadline() -> Duration {
    Duration::from_secs(60)
}
