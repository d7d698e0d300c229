//! Hooks that the operator calls at named points of a switch: `POST /hooks/{name}` with run, epoch, app and region.
//!
//! Each may be called again at any time with the same result. Here 200 means done and every other answer: not done, call
//! again. The operator takes any 2xx as success, and 202 as still at work.

use std::time::{Duration, Instant};

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use services_common::amqp::{Outgoing, grant_headers};
use services_common::gate::{Gate, Needs};
use services_common::postgres::{DbError, Grant};
use services_common::stage::{StageDeps, StageError};
use services_common::telemetry::chain;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::reconciling::{Found, Reconciling, SINCE};
use super::replay::{self, Whose};
use crate::reconcile::Since;
use crate::{names, outbound};

/// A hook answers within this time, whatever happens.
const HOOK_DEADLINE: Duration = Duration::from_secs(25);
/// How long a hook waits for the pipeline to finish what the hook has begun.
const SETTLE_DEADLINE: Duration = Duration::from_secs(20);
/// How often it looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What the operator sends.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Call {
    /// Run of the switch.
    pub(crate) run: String,
    /// Epoch that the run has granted, or works under.
    pub(crate) epoch: u64,
    /// Application.
    pub(crate) app: String,
    /// Region that is meant.
    pub(crate) region: String,
}

/// What the hooks work with.
#[derive(Clone)]
pub(crate) struct Hooks {
    /// Application and region of this process.
    pub(crate) app: String,
    /// Region of this process.
    pub(crate) region: String,
    /// Broker user of this process; the broker vouches for it on probes.
    pub(crate) broker_user: String,
    /// Database, broker, gate.
    pub(crate) deps: StageDeps,
    /// What a replay sends again.
    pub(crate) whose: Whose,
    /// The latest run of the hook `reconcile`.
    pub(crate) reconciling: Reconciling,
}

/// What the address of a hook may say.
#[derive(Clone, Debug, Deserialize)]
struct Asked {
    /// How far back `reconcile` looks, as on the command line.
    since: Option<String>,
}

/// A hook that is not done.
pub(super) enum NotDone {
    /// The call does not fit this process: wrong application, region, epoch, or no such hook.
    Refused(StatusCode, String),
    /// A part failed or is not finished yet.
    Failed(String),
}

impl From<StageError> for NotDone {
    fn from(error: StageError) -> Self {
        Self::Failed(chain(&error))
    }
}

impl From<DbError> for NotDone {
    fn from(error: DbError) -> Self {
        Self::Failed(chain(&error))
    }
}

/// The routes of the hooks.
pub(crate) fn router(hooks: Hooks) -> Router {
    Router::new().route("/hooks/{name}", post(call)).with_state(hooks)
}

async fn call(
    State(hooks): State<Hooks>,
    Path(name): Path<String>,
    Query(asked): Query<Asked>,
    Json(call): Json<Call>,
) -> (StatusCode, Json<Value>) {
    let began = Instant::now();
    let outcome = match timeout(HOOK_DEADLINE, hooks.run(&name, &asked, &call)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(NotDone::Failed(format!("not done within {} s", HOOK_DEADLINE.as_secs()))),
    };
    let took_ms = began.elapsed().as_millis();
    let (status, answer) = match outcome {
        Ok((status, did)) => {
            (status, json!({ "hook": name, "run": call.run, "did": did, "tookMs": took_ms }))
        }
        Err(NotDone::Refused(status, reason)) => (status, json!({ "hook": name, "error": reason })),
        Err(NotDone::Failed(reason)) => {
            (StatusCode::SERVICE_UNAVAILABLE, json!({ "hook": name, "error": reason, "tookMs": took_ms }))
        }
    };
    tracing::info!(hook = name, run = call.run, epoch = call.epoch, %status, %answer, "hook");
    (status, Json(answer))
}

impl Hooks {
    async fn run(&self, name: &str, asked: &Asked, call: &Call) -> Result<(StatusCode, Value), NotDone> {
        if call.app != self.app || call.region != self.region {
            let reason = format!(
                "this is {} in {}, the call is for {} in {}",
                self.app, self.region, call.app, call.region
            );
            return Err(NotDone::Refused(StatusCode::CONFLICT, reason));
        }
        let did = match name {
            "pre-warm" => self.pre_warm().await?,
            "drained" => self.drained().await?,
            "after-grant" => self.after_grant(call).await?,
            "reconcile" => return Ok(self.reconcile(asked, call).await?.answer()),
            "probe" => self.probe(call).await?,
            "after-open" => json!({ "gate": self.deps.gate.watch().borrow().word() }),
            _ => {
                let reason =
                    "known hooks: pre-warm, drained, after-grant, reconcile, probe, after-open".to_owned();
                return Err(NotDone::Refused(StatusCode::NOT_FOUND, reason));
            }
        };
        Ok((StatusCode::OK, did))
    }

    /// Compares and replays boundary after boundary, under the call's epoch.
    async fn reconcile(&self, asked: &Asked, call: &Call) -> Result<Found, NotDone> {
        let since = match &asked.since {
            None => SINCE,
            Some(text) => {
                let wrong = |reason| NotDone::Refused(StatusCode::BAD_REQUEST, format!("since: {reason}"));
                text.parse::<Since>().map_err(wrong)?
            }
        };
        self.grant(call, Needs::Core).await?;
        self.reconciling.clone().call(self, call, since).await
    }

    /// The grant of the call's epoch, once the gate admits it.
    async fn grant(&self, call: &Call, needs: Needs) -> Result<Grant, NotDone> {
        let mut gate = self.deps.gate.watch();
        let wanted = |gate: &Gate| gate.admits(needs).is_some_and(|grant| grant.epoch() == call.epoch);
        match timeout(SETTLE_DEADLINE, gate.wait_for(wanted)).await {
            Ok(Ok(gate)) => {
                gate.admits(needs).cloned().ok_or_else(|| NotDone::Failed("the gate closed".into()))
            }
            Ok(Err(_)) => Err(NotDone::Failed("the process is ending".into())),
            Err(_) => {
                let present = self.deps.gate.watch().borrow().clone();
                Err(NotDone::Failed(format!("the gate does not admit epoch {}: {present:?}", call.epoch)))
            }
        }
    }

    /// Connections are made now, so that the first message does not wait for them.
    async fn pre_warm(&self) -> Result<Value, NotDone> {
        drop(self.deps.database.connection().await?);
        let channel = self.deps.broker.channel().await.map_err(StageError::from)?;
        // Only opening it mattered.
        let _ = channel.close(200, "".into()).await;
        Ok(json!({ "database": "connected", "broker": "connected" }))
    }

    async fn drained(&self) -> Result<Value, NotDone> {
        Ok(json!({ "inFlight": replay::in_flight(&self.deps).await? }))
    }

    /// Sends again what was left between the stages, and waits until all of it is decided and answered.
    async fn after_grant(&self, call: &Call) -> Result<Value, NotDone> {
        let grant = self.grant(call, Needs::Core).await?;
        let before = replay::in_flight(&self.deps).await?;
        let replayed = replay::replay(&self.deps, &grant, self.whose).await?;
        let until = Instant::now() + SETTLE_DEADLINE;
        let after = loop {
            let left = replay::in_flight(&self.deps).await?;
            // Once the intake is open there is always something on its way: then the replay itself must do.
            let intake_open = matches!(*self.deps.gate.watch().borrow(), Gate::Open(_));
            if left == 0 || intake_open {
                break left;
            }
            if Instant::now() > until {
                return Err(NotDone::Failed(format!("{left} records are still between the stages")));
            }
            sleep(LOOK_INTERVAL).await;
        };
        Ok(json!({ "inFlightBefore": before, "replayed": replayed, "inFlightAfter": after }))
    }

    /// Sends a probe into the first queue and waits until the last stage has seen it under the call's epoch.
    async fn probe(&self, call: &Call) -> Result<Value, NotDone> {
        let grant = self.grant(call, Needs::Intake).await?;
        let probe = Uuid::new_v4();
        let message = Outgoing {
            exchange: self.first_queue().to_owned(),
            body: json!({ "probe": probe, "run": call.run, "epoch": call.epoch }).to_string().into_bytes(),
            message_id: probe.to_string(),
            correlation_id: Some(probe.to_string()),
            headers: grant_headers(&grant),
            user_id: Some(self.broker_user.clone()),
        };
        let publisher = self.deps.broker.publisher().await.map_err(StageError::from)?;
        publisher.publish_all(&[message]).await.map_err(StageError::from)?;
        let until = Instant::now() + SETTLE_DEADLINE;
        loop {
            let stages = self.stages_passed(probe).await?;
            if let Some((_, epoch)) = stages.iter().find(|(stage, _)| stage == outbound::STAGE) {
                let names: Vec<_> = stages.iter().map(|(stage, _)| stage.as_str()).collect();
                return Ok(json!({ "probe": probe, "epoch": epoch, "stages": names }));
            }
            if Instant::now() > until {
                let names: Vec<_> = stages.iter().map(|(stage, _)| stage.as_str()).collect();
                return Err(NotDone::Failed(format!("the probe only passed {names:?}")));
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    fn first_queue(&self) -> &'static str {
        match self.whose {
            Whose::TradeMatching { .. } => names::IN,
            Whose::Settlement => names::SETTLEMENT_IN,
        }
    }

    async fn stages_passed(&self, probe: Uuid) -> Result<Vec<(String, i64)>, DbError> {
        let connection = self.deps.database.connection().await?;
        let query = "select stage, epoch from trading.probes where probe = $1 order by at";
        let rows = connection.query(query, &[&probe]).await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }
}
