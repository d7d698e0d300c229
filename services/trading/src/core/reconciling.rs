//! The hook `reconcile`: all boundaries of the application in the order in which a message passes them, each compared and
//! replayed before the next one. It takes longer than a call may, so it runs on its own, and calls ask after it.

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};
use services_common::gate::Gate;
use services_common::telemetry::chain;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, spawn_blocking};

use super::hooks::{Call, Hooks, NotDone};
use super::replay::Whose;
use crate::names::Application;
use crate::reconcile::{self, Job, Place, Plan, ReconcileError, Report, Since, Window};

/// How far back it looks unless the hook's address says otherwise, as in `?since=1d`: what a switch can have lost is younger.
pub(super) const SINCE: Since = Since(Some(Duration::from_secs(3_600)));
/// Once the intake is open, what is younger than this is on its way; before that nothing is.
const GRACE: Duration = Duration::from_secs(30);
/// How long one round of a replay waits for what it sent to arrive.
const WAIT: Duration = Duration::from_secs(30);

type Outcome = Result<Report, ReconcileError>;

/// One run of the hook, in this process.
struct Running {
    run: String,
    epoch: u64,
    outcome: JoinHandle<Outcome>,
}

/// The latest run, if there was one since the process started.
#[derive(Clone, Default)]
pub(crate) struct Reconciling(Arc<Mutex<Option<Running>>>);

/// How a call found the run.
pub(super) enum Found {
    /// It goes on.
    AtWork,
    /// It has ended.
    Done(Value),
}

impl Reconciling {
    /// Begins the run of this call, or asks after it. Another process of core may be asked next and begins one of its own:
    /// what is sent twice is harmless.
    pub(super) async fn call(&self, hooks: &Hooks, call: &Call, since: Since) -> Result<Found, NotDone> {
        let mut latest = self.0.lock().await;
        let present =
            latest.take().filter(|running| (&running.run, running.epoch) == (&call.run, call.epoch));
        let running = match present {
            Some(running) => running,
            None => begin(hooks, call, since).await?,
        };
        if !running.outcome.is_finished() {
            *latest = Some(running);
            return Ok(Found::AtWork);
        }
        // A failed one is forgotten, and the next call begins anew.
        let ended = running.outcome.await.map_err(|error| NotDone::Failed(chain(&error)))?;
        told(&ended.map_err(|error| NotDone::Failed(chain(&error)))?).map(Found::Done)
    }
}

async fn begin(hooks: &Hooks, call: &Call, Since(since): Since) -> Result<Running, NotDone> {
    let (application, settling) = match hooks.whose {
        Whose::TradeMatching { settlements } => (Application::TradeMatching, settlements),
        Whose::Settlement => (Application::Settlement, true),
    };
    let database = hooks.deps.database.options().await.map_err(|error| NotDone::Failed(chain(&error)))?;
    let grace = match *hooks.deps.gate.watch().borrow() {
        Gate::Open(_) => GRACE,
        Gate::Closed { .. } | Gate::Core(_) | Gate::Draining => Duration::ZERO,
    };
    let plan = Plan {
        application,
        app: hooks.app.clone(),
        region: hooks.region.clone(),
        database,
        // The other application may be moving too: it is compared when both stand.
        peer: None,
        jobs: Job::within(application, settling),
        window: Window { since, grace },
        resend_after: Duration::MAX,
        replay: None,
    };
    let (deps, by) = (hooks.deps.clone(), format!("hook of run {}", call.run));
    let runtime = Handle::current();
    // Apart from the stages' threads: it is busy with rows for longer than they may be held up.
    let outcome = spawn_blocking(move || {
        let place = Place { database: &deps.database, broker: &deps.broker };
        runtime.block_on(reconcile::run_within(&plan, place, WAIT, &by))
    });
    Ok(Running { run: call.run.clone(), epoch: call.epoch, outcome })
}

/// What no replay can mend is told and holds no switch up: trading goes on, and a person looks. What could not be compared
/// is tried again.
fn told(report: &Report) -> Result<Value, NotDone> {
    if let Some(untold) = report.untold.first() {
        return Err(NotDone::Failed(format!("{} could not be told: {}", untold.job.word(), untold.reason)));
    }
    if !report.agrees {
        tracing::error!(%report, "the stores differ after the replay: docs/reconciliation.md");
    }
    let boundary = |one: &reconcile::Boundary| {
        let comparison = &one.comparison;
        json!({
            "job": comparison.job,
            "compared": comparison.compared,
            "replayed": one.replay.map(|replay| replay.replayed),
            "missing": comparison.missing.count,
            "ahead": comparison.ahead.count,
            "differs": comparison.differs.count,
        })
    };
    let boundaries: Vec<Value> = report.boundaries.iter().map(boundary).collect();
    Ok(json!({ "agrees": report.agrees, "boundaries": boundaries }))
}

impl Found {
    /// As a call is answered: 202 while it goes on.
    pub(super) fn answer(self) -> (StatusCode, Value) {
        match self {
            Self::AtWork => (StatusCode::ACCEPTED, json!("at work")),
            Self::Done(did) => (StatusCode::OK, did),
        }
    }
}
