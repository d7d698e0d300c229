//! The loop: one pass over an object at a time, another soon after while a run is open.

mod pace;
mod pass;
mod tell;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crds::TradingRegion;
use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::core::{DeserializeGuard, error_boundary::InvalidObject};
use kube::runtime::controller::{Action, Config, Controller, Error as ControllerError};
use kube::runtime::reflector::Store;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use region_plan::Region;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use crate::apply::{HookBoard, Pauses, WriteError, tell_not_understood};
use crate::backoff::Backoff;
use crate::clock;
use crate::cluster::Peers;
use crate::error::chain;
use crate::events::{Events, Severity};
use crate::metrics::{Metrics, PassResult};
use crate::observe::Samples;
use crate::sources::SourceBook;
use crate::workloads::Workloads;

/// Objects that are worked on at one time.
const CONCURRENCY: u16 = 16;
/// After a lost race for the object.
const AFTER_CONFLICT: Duration = Duration::from_millis(10);
/// No pause between failed passes is longer while a run is open: customers may be waiting.
const LONGEST_IN_RUN: Duration = Duration::from_secs(1);
/// An object that cannot be decoded is looked at again after this time, should no change come.
const UNDECODABLE: Duration = Duration::from_secs(300);

/// The root kind, where one object that cannot be decoded does not stop the others.
pub type Guarded = DeserializeGuard<TradingRegion>;

/// What passes work with.
pub struct Operator {
    /// The own region.
    pub me: Region,
    /// The own cluster.
    pub client: Client,
    /// Cached Deployments and autoscalers.
    pub workloads: Workloads,
    /// The other clusters.
    pub peers: Arc<Peers>,
    /// Hooks under way.
    pub hooks: HookBoard,
    /// Connections of objects.
    pub sources: SourceBook,
    /// Events.
    pub events: Events,
    /// Numbers.
    pub metrics: Arc<Metrics>,
    /// Pauses after failed passes.
    pub backoff: Backoff,
    /// Pauses between attempts of one step.
    pub pauses: Pauses,
    /// Earlier samples of drain checks.
    pub samples: Samples,
    /// Bound of one observation.
    pub observe_deadline: Duration,
    /// Whether a test may end this process by an annotation.
    pub failpoints: bool,
    /// What this process wrote last of each object.
    pub written: Mutex<HashMap<String, Written>>,
}

/// A write of a status.
#[derive(Clone, Debug)]
pub struct Written {
    /// When.
    pub at: Timestamp,
    /// The object's resourceVersion since then.
    pub version: Option<String>,
}

/// Why a pass could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PassError {
    /// The object could not be read.
    #[error("the object could not be read: {0}")]
    Unreadable(String),
    /// The object could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

struct Running {
    operator: Arc<Operator>,
    objects: Store<Guarded>,
}

/// Works until `shutdown`; passes under way end first. `wishes` asks for a pass over all objects.
pub async fn run(
    operator: Arc<Operator>,
    wishes: impl Stream<Item = ()> + Send + 'static,
    shutdown: CancellationToken,
) {
    let api: Api<Guarded> = Api::all(operator.client.clone());
    let controller = Controller::new(api, watcher::Config::default())
        .with_config(Config::default().concurrency(CONCURRENCY))
        .reconcile_all_on(wishes)
        .graceful_shutdown_on(shutdown.cancelled_owned());
    let running = Arc::new(Running { objects: controller.store(), operator });
    controller
        .run(reconcile, error_policy, Arc::clone(&running))
        .for_each(async |result| match result {
            // Passes log themselves.
            Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
            // It is gone, and by another way than a pass if it was not understood.
            Err(ControllerError::ObjectNotFound(_)) => {
                let there =
                    running.objects.state().iter().filter_map(|object| object.meta().uid.clone()).collect();
                running.operator.metrics.keep(&there);
            }
            Err(error) => tracing::warn!(error = chain(&error), "watch of TradingRegions"),
        })
        .await;
}

async fn reconcile(guarded: Arc<Guarded>, running: Arc<Running>) -> Result<Action, PassError> {
    let began = Instant::now();
    let operator = &running.operator;
    let uid = guarded.meta().uid.clone().unwrap_or_default();
    let span = tracing::info_span!(
        "pass",
        object = %format!("{}/{}", guarded.namespace().unwrap_or_default(), guarded.name_any()),
        run = tracing::field::Empty,
    );
    let object = match &guarded.0 {
        Ok(object) => object,
        Err(invalid) => return Ok(undecodable(operator, &guarded, invalid).instrument(span).await),
    };
    let result = pass::pass(operator, object, &running.objects).instrument(span.clone()).await;
    if result.is_err() {
        // Somebody else may have written, and the watch may be late to tell.
        operator.forget_written(&uid);
    }
    let (kind, answer) = match result {
        Ok(pass::Next::In(pause)) => {
            operator.backoff.succeeded(&uid);
            (PassResult::Ok, Ok(Action::requeue(pause)))
        }
        Ok(pass::Next::Gone) => {
            operator.forget(&uid).await;
            (PassResult::Ok, Ok(Action::await_change()))
        }
        Err(PassError::Write(WriteError::Conflict)) => {
            (PassResult::Conflict, Ok(Action::requeue(AFTER_CONFLICT)))
        }
        Err(error) => {
            let _entered = span.enter();
            tracing::warn!(error = chain(&error), "the pass failed");
            (PassResult::Error, Err(error))
        }
    };
    operator.metrics.pass(kind, began.elapsed());
    answer
}

#[expect(clippy::needless_pass_by_value, reason = "the signature that the controller wants")]
fn error_policy(guarded: Arc<Guarded>, _: &PassError, running: Arc<Running>) -> Action {
    let uid = guarded.meta().uid.clone().unwrap_or_default();
    let pause = running.operator.backoff.failed(&uid, rand::random());
    let status = guarded.0.as_ref().ok().and_then(|object| object.status.as_ref());
    let in_run = status.is_some_and(|status| status.current_run.is_some());
    Action::requeue(if in_run { pause.min(LONGEST_IN_RUN) } else { pause })
}

/// Reported in its status, by an event and in the log; harmless to all other objects.
async fn undecodable(operator: &Operator, guarded: &Guarded, invalid: &InvalidObject) -> Action {
    let uid = guarded.meta().uid.clone().unwrap_or_default();
    operator.metrics.not_understood(&uid);
    let note = format!(
        "the object is not understood and left alone: {}; correct it, or update the operator",
        invalid.error
    );
    operator.events.tell(&guarded.object_ref(&()), Severity::Warning, "Undecodable", "ReadObject", &note);
    tracing::warn!(error = invalid.error, "undecodable object");
    operator.metrics.pass(PassResult::Undecodable, Duration::ZERO);
    let (namespace, name) = (guarded.namespace().unwrap_or_default(), guarded.name_any());
    match tell_not_understood(&operator.client, &namespace, &name, clock::now()).await {
        Ok(()) => {
            operator.backoff.succeeded(&uid);
            Action::requeue(UNDECODABLE)
        }
        Err(error) => {
            tracing::warn!(error = chain(&error), "its status could not be written");
            Action::requeue(operator.backoff.failed(&uid, rand::random()))
        }
    }
}

impl Operator {
    async fn forget(&self, uid: &str) {
        self.sources.forget(uid).await;
        self.metrics.forget(uid);
        self.backoff.succeeded(uid);
        self.samples.forget(uid);
        self.forget_written(uid);
    }

    fn forget_written(&self, uid: &str) {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    fn last_written(&self, uid: &str) -> Option<Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner).get(uid).cloned()
    }

    fn note_written(&self, object: &TradingRegion) {
        let written = Written { at: clock::now(), version: object.resource_version() };
        let uid = object.uid().unwrap_or_default();
        self.written.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, written);
    }
}
