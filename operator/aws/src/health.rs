//! Numbers about each endpoint, for metrics and findings.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::{CallError, ErrorKind};

/// What is known of one endpoint from the calls that this process made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointHealth {
    /// The endpoint's region.
    pub region: String,
    /// How long the last successful call took; `None` before the first.
    pub latency: Option<Duration>,
    /// When the last call succeeded.
    pub last_success: Option<Instant>,
    /// How and when the last call failed; stays after a later success.
    pub last_error: Option<(ErrorKind, Instant)>,
    /// Calls that succeeded since the start.
    pub successes: u64,
    /// Calls that failed since the start.
    pub failures: u64,
}

/// The shared, growing record behind [`EndpointHealth`].
#[derive(Debug, Clone)]
pub(crate) struct HealthRecord(Arc<Mutex<EndpointHealth>>);

impl HealthRecord {
    pub(crate) fn new(region: &str) -> Self {
        Self(Arc::new(Mutex::new(EndpointHealth {
            region: region.to_owned(),
            latency: None,
            last_success: None,
            last_error: None,
            successes: 0,
            failures: 0,
        })))
    }

    pub(crate) fn snapshot(&self) -> EndpointHealth {
        self.lock().clone()
    }

    /// Notes one call. An endpoint that refused an act for a reason of ours is healthy.
    pub(crate) fn note<T>(&self, result: &Result<T, CallError>, started: Instant, ended: Instant) {
        let mut health = self.lock();
        match result {
            Err(error) if !answered_in_earnest(error.kind) => {
                health.failures = health.failures.saturating_add(1);
                health.last_error = Some((error.kind, ended));
            }
            _ => {
                health.successes = health.successes.saturating_add(1);
                health.latency = Some(ended.duration_since(started));
                health.last_success = Some(ended);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, EndpointHealth> {
        // The numbers are whole after every statement, so a poisoned lock still holds sense.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A refusal of the content shows a working endpoint; a refusal of the caller does not help anyone.
fn answered_in_earnest(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Conflict | ErrorKind::Invalid | ErrorKind::NotFound)
}
