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
use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::hooks::{Call, Hooks, NotDone};
use super::replay::Whose;
use crate::names::Application;
use crate::reconcile::{self, Job, Place, Plan, Report, Since, Window};

/// How far back it looks unless the hook's address says otherwise, as in `?since=1d`: what a switch can have lost is younger.
pub(super) const SINCE: Since = Since(Some(Duration::from_secs(3_600)));
/// Once the intake is open, what is younger than this is on its way; before that nothing is.
const GRACE: Duration = Duration::from_secs(30);
/// How long a replay goes on in which nothing of what it sent arrives.
const WAIT: Duration = Duration::from_secs(30);

/// How long all boundaries together may take: before the intake opens customers wait for it. What was not looked at by then
/// is for the command, beside them.
pub(super) const LIMIT: Duration = Duration::from_secs(300);

/// What a run came to; the reason where it must begin anew.
type Outcome = Result<Value, String>;

/// One run of the hook, in this process. Dropping it ends it.
struct Running {
    run: String,
    epoch: u64,
    state: State,
    _alive: DropGuard,
}

enum State {
    AtWork(JoinHandle<Outcome>),
    Done(Value),
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
    /// Begins the run of this call, or asks after it; a run of another switch ends. Another process of core may be asked next
    /// and begins one of its own: what is sent twice is harmless.
    pub(super) async fn call(&self, hooks: &Hooks, call: &Call, since: Since) -> Result<Found, NotDone> {
        let mut latest = self.0.lock().await;
        let present =
            latest.take().filter(|running| (&running.run, running.epoch) == (&call.run, call.epoch));
        let mut running = match present {
            Some(running) => running,
            None => begin(hooks, call, since).await?,
        };
        let found = match running.state {
            State::AtWork(ref outcome) if !outcome.is_finished() => Found::AtWork,
            State::AtWork(outcome) => {
                // A failed one is forgotten, and the next call begins anew.
                let did = outcome.await.map_err(|error| NotDone::Failed(chain(&error)))?;
                let did = did.map_err(NotDone::Failed)?;
                running.state = State::Done(did.clone());
                Found::Done(did)
            }
            State::Done(ref did) => Found::Done(did.clone()),
        };
        *latest = Some(running);
        Ok(found)
    }
}

async fn begin(hooks: &Hooks, call: &Call, Since(since): Since) -> Result<Running, NotDone> {
    let (application, settling) = match hooks.whose {
        Whose::TradeMatching { settlements } => (Application::TradeMatching, settlements),
        Whose::Settlement => (Application::Settlement, true),
    };
    let database = hooks.deps.database.options().await;
    let mut gate = hooks.deps.gate.watch();
    let present = gate.borrow().clone();
    let grace = match present {
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
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let work = async move {
        let place = Place { database: &deps.database, broker: &deps.broker };
        tokio::select! {
            outcome = timeout(LIMIT, reconcile::run_within(&plan, place, WAIT, &by)) => match outcome {
                Ok(outcome) => outcome.map(|report| told(&report)).map_err(|error| chain(&error)),
                Err(_) => Ok(overdue()),
            },
            // An intake that opened meanwhile has records on their way; a gate that closed allows no replay.
            _ = gate.wait_for(|gate| *gate != present) => Err("the gate has changed; call again".to_owned()),
            () = stopped.cancelled() => Err("ended for another run".to_owned()),
        }
    };
    // Apart from the stages' threads: it is busy with rows for longer than they may be held up.
    let outcome = spawn_blocking(move || runtime.block_on(work));
    let state = State::AtWork(outcome);
    Ok(Running { run: call.run.clone(), epoch: call.epoch, state, _alive: stop.drop_guard() })
}

/// What no replay can mend, and what could not be read, is told and holds no switch up: trading goes on, and a person looks.
fn told(report: &Report) -> Value {
    if !report.agrees {
        tracing::error!(%report, "the stores differ after the replay, or it is not known: docs/reconciliation.md");
    }
    let boundary = |one: &reconcile::Boundary| {
        let comparison = &one.comparison;
        json!({
            "job": comparison.job,
            "compared": comparison.compared,
            "replayed": one.replay.map(|replay| replay.replayed),
            "missing": one.missing(),
            "ahead": comparison.ahead.count,
            "differs": comparison.differs.count,
        })
    };
    let boundaries: Vec<Value> = report.boundaries.iter().map(boundary).collect();
    json!({ "agrees": report.agrees, "boundaries": boundaries, "untold": report.untold })
}

/// Not all boundaries were looked at in time.
fn overdue() -> Value {
    let reason = format!("not done within {} s; run the command: docs/reconciliation.md", LIMIT.as_secs());
    tracing::error!(reason, "it is not known whether the stores agree");
    json!({ "agrees": false, "boundaries": [], "untold": [{ "reason": reason }] })
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
