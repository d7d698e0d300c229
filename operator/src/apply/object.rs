//! Writes to the own copy of the object: its status by compare-and-set, its finalizer, and the test annotation.

use std::time::Duration;

use crds::{FINALIZER, TradingRegion, TradingRegionStatus};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource, ResourceExt};
use region_plan::{Region, StepKind};
use serde_json::{Value, json};

use super::failpoint;
use crate::deadline::within;

/// Owner of the status.
pub const STATUS_MANAGER: &str = "regions.trading.dev/status";
/// One write.
const DEADLINE: Duration = Duration::from_secs(3);
/// Longest time that a test holds an operator, and how often it looks whether it still does.
const LONGEST_HOLD: Duration = Duration::from_secs(30);
const HOLD_LOOK: Duration = Duration::from_millis(100);

/// Why a write to the object did not end well.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else wrote first: nothing was written; read and decide again.
    #[error("the object changed meanwhile")]
    Conflict,
    /// The API server refused it or could not be reached.
    #[error("the object could not be written")]
    Kube(#[source] kube::Error),
    /// No answer: it may have been written.
    #[error("the object may or may not have been written: {0}")]
    Late(String),
}

/// Access to one object.
#[derive(Clone)]
pub struct ObjectWriter {
    api: Api<TradingRegion>,
    name: String,
}

impl ObjectWriter {
    /// For that object.
    pub fn new(client: &Client, object: &TradingRegion) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        Self { api: Api::namespaced(client.clone(), &namespace), name: object.name_any() }
    }

    /// Writes the whole status, if the object is still as it was read.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn write_status(
        &self,
        read: &TradingRegion,
        status: &TradingRegionStatus,
    ) -> Result<TradingRegion, WriteError> {
        let params = PatchParams::apply(STATUS_MANAGER).force();
        let patch = Patch::Apply(status_body(read, status));
        bounded(self.api.patch_status(&self.name, &params, &patch)).await
    }

    /// Adds the finalizer that keeps the object until trading was handed back.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn add_finalizer(&self, read: &TradingRegion) -> Result<TradingRegion, WriteError> {
        let mut finalizers = read.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        self.merge(read, json!({"finalizers": finalizers})).await
    }

    /// Lets the API server delete the object.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn remove_finalizer(&self, read: &TradingRegion) -> Result<TradingRegion, WriteError> {
        let finalizers: Vec<_> = read.finalizers().iter().filter(|name| *name != FINALIZER).collect();
        self.merge(read, json!({"finalizers": finalizers})).await
    }

    /// Removes the wish of a test, so that it is met once. An object that is gone took it along.
    ///
    /// # Errors
    /// [`WriteError`].
    pub async fn remove_failpoint(&self) -> Result<(), WriteError> {
        self.set_failpoint(None).await
    }

    /// Says in the annotation that the operator of `me` is held before such a step, and waits until that is removed.
    pub async fn hold(&self, me: &Region, kind: StepKind) {
        let held = format!("{me}/held/{}", kind.name());
        if self.set_failpoint(Some(&held)).await.is_err() {
            return;
        }
        let is_held = async || {
            let metadata = self.api.get_metadata_opt(&self.name).await.ok().flatten()?;
            metadata.annotations().get(failpoint::ANNOTATION).cloned()
        };
        let released = async {
            while is_held().await.as_deref() == Some(&held) {
                tokio::time::sleep(HOLD_LOOK).await;
            }
        };
        // A test that went away must not hold an operator for ever.
        let _ = within(LONGEST_HOLD, "the test that holds this operator", released).await;
    }

    async fn set_failpoint(&self, value: Option<&str>) -> Result<(), WriteError> {
        let patch = Patch::Merge(json!({"metadata": {"annotations": {failpoint::ANNOTATION: value}}}));
        match bounded(self.api.patch(&self.name, &PatchParams::default(), &patch)).await {
            Err(WriteError::Kube(kube::Error::Api(status))) if status.is_not_found() => Ok(()),
            written => written.map(drop),
        }
    }

    async fn merge(&self, read: &TradingRegion, mut metadata: Value) -> Result<TradingRegion, WriteError> {
        metadata["resourceVersion"] = json!(read.resource_version());
        let patch = Patch::Merge(json!({"metadata": metadata}));
        bounded(self.api.patch(&self.name, &PatchParams::default(), &patch)).await
    }
}

/// The resourceVersion makes it a compare-and-set, the uid refuses an object that was deleted and made anew.
fn status_body(read: &TradingRegion, status: &TradingRegionStatus) -> Value {
    json!({
        "apiVersion": TradingRegion::api_version(&()),
        "kind": TradingRegion::kind(&()),
        "metadata": {
            "name": read.name_any(),
            "namespace": read.namespace(),
            "uid": read.uid(),
            "resourceVersion": read.resource_version(),
        },
        "status": status,
    })
}

/// One call, with the deadline of a write.
pub(super) async fn bounded<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
    match within(DEADLINE, "the API server", call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) if status.is_conflict() => Err(WriteError::Conflict),
        Ok(Err(error)) => Err(WriteError::Kube(error)),
        Err(late) => Err(WriteError::Late(late.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    #[test]
    fn a_status_is_written_only_over_the_version_that_was_read() {
        let body = status_body(&example(), &TradingRegionStatus::default());
        assert_eq!(body["metadata"]["resourceVersion"], "7");
        assert_eq!(body["metadata"]["uid"], example().uid().unwrap());
        assert!(body.get("spec").is_none());
    }
}
