//! Making the steps of a plan. The plan leaves no choice: here is only how each effect is made, with which deadline, and how
//! it ended. A step that is a record of the own report is written together with the status (see `controller`).

mod failpoint;
mod hooks;
mod lease;
mod not_understood;
mod object;
mod outcome;
mod pauses;
mod scale;

use std::sync::Arc;
use std::time::Duration;

use crds::TradingRegion;
use futures::future::join_all;
use kube::{Client, ResourceExt};
use region_aws::{ControlState, FlipLimits, Outcome as AwsOutcome};
use region_plan::{ControlKey, Flipped, HookPoint, Region, RunId, RunReport, Step, StepKind, Switch};

pub use failpoint::{ANNOTATION as FAILPOINT_ANNOTATION, Failpoint, Moment, crash};
pub use hooks::{HookBoard, Occasion};
pub use not_understood::{NOT_UNDERSTOOD_MANAGER, tell_not_understood};
pub use object::{ObjectWriter, STATUS_MANAGER, WriteError};
pub use outcome::Outcome;
pub use pauses::Pauses;
pub use scale::FIELD_MANAGER as REPLICAS_MANAGER;

use crate::clock;
use crate::deadline::within;
use crate::sources::Sources;
use crate::sources::broker::Management;
use crate::workloads::Workloads;

/// A change of routing controls: two dead endpoints may come first.
const FLIP: Duration = Duration::from_secs(5);
/// A change at the broker: several calls.
const BROKER: Duration = Duration::from_secs(5);
/// The lease's own calls bound themselves; this bound is above all of them.
const LEASE: Duration = Duration::from_secs(25);
/// Bound of the RDS act, with the looking before and after it.
const DATABASE: Duration = Duration::from_secs(20);

/// What the steps of one object act through.
pub struct Executor<'a> {
    /// Own region.
    pub me: &'a Region,
    /// Own cluster.
    pub client: &'a Client,
    /// Cached Deployments.
    pub workloads: &'a Workloads,
    /// Hooks under way.
    pub hooks: &'a HookBoard,
    /// Connections of the object.
    pub sources: &'a Arc<Sources>,
    /// The object as it was read.
    pub object: &'a TradingRegion,
    /// Its writer.
    pub writer: &'a ObjectWriter,
    /// The own run, open or last.
    pub run: Option<&'a RunReport>,
    /// Pauses between attempts of one step.
    pub pauses: &'a Pauses,
    /// A test's wish.
    pub failpoint: Option<&'a Failpoint>,
}

/// One attempt of one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// Which step.
    pub kind: StepKind,
    /// How it ended.
    pub outcome: Outcome,
}

impl Executor<'_> {
    /// The steps that are to be tried now; records are not among them.
    pub fn due<'s>(&self, steps: &'s [Step]) -> Vec<&'s Step> {
        let uid = self.object.uid().unwrap_or_default();
        let due = |step: &&Step| !matches!(step, Step::Record { .. }) && self.pauses.due(&uid, step);
        steps.iter().filter(due).collect()
    }

    /// Whether this process has not tried the step lately.
    pub fn untried(&self, step: &Step) -> bool {
        self.pauses.untried(&self.object.uid().unwrap_or_default(), step)
    }

    /// Makes the steps that are due side by side.
    pub async fn apply(&self, due: &[&Step]) -> Vec<Attempt> {
        let uid = self.object.uid().unwrap_or_default();
        let made = due.iter().map(async |step| {
            let attempt = self.attempt(step).await;
            self.pauses.note(&uid, step, &attempt.outcome);
            attempt
        });
        join_all(made).await
    }

    async fn attempt(&self, step: &Step) -> Attempt {
        let kind = step.kind();
        self.pass_failpoint(Moment::Before, kind).await;
        let outcome = self.make(step).await;
        self.pass_failpoint(Moment::After, kind).await;
        match (&outcome, outcome.note()) {
            (Outcome::AlreadyDone, _) => tracing::debug!(step = kind.name(), "step: nothing to do"),
            (_, None) => tracing::info!(step = kind.name(), "step made"),
            (_, Some(note)) => tracing::warn!(step = kind.name(), note, "step not made"),
        }
        Attempt { kind, outcome }
    }

    /// Ends the process or waits, if a test wished so here and the wish could be marked as met.
    pub async fn pass_failpoint(&self, moment: Moment, kind: StepKind) {
        let Some(wish) = self.failpoint else { return };
        if wish.ends(moment, kind) && self.writer.remove_failpoint().await.is_ok() {
            crash();
        }
        if wish.holds(moment, kind) {
            self.writer.hold(self.me, kind).await;
        }
    }

    async fn make(&self, step: &Step) -> Outcome {
        let namespace = self.object.namespace().unwrap_or_default();
        match step {
            Step::Record { .. } => Outcome::Refused("records are written with the status".to_owned()),
            Step::Scale { to, targets } => {
                scale::scale(self.client, self.workloads, &namespace, *to, targets).await
            }
            Step::Flip { what, batch } => self.flip(*what, batch).await,
            Step::CloseBroker => self.broker(Management::close_customers).await,
            Step::CloseAnswers => self.broker(Management::close_readers).await,
            Step::OpenBroker => self.broker(Management::open_customers).await,
            Step::SwitchDatabase { from } => self.switch_database(from).await,
            Step::Hook { point, run, epoch } => self.hook(*point, *run, *epoch),
            Step::RemoveFinalizer => match self.writer.remove_finalizer(self.object).await {
                Ok(_) => Outcome::Done,
                Err(WriteError::Late(why)) => Outcome::Unknown(why),
                Err(error) => Outcome::Refused(error.to_string()),
            },
            Step::AbortRun { .. }
            | Step::Fence { .. }
            | Step::Grant { .. }
            | Step::OpenIntake { .. }
            | Step::ReleaseUnlimited { .. }
            | Step::LimitAgain { .. } => match within(LEASE, "the database", self.lease(step)).await {
                Ok(outcome) => outcome,
                Err(late) => Outcome::from(late),
            },
        }
    }

    async fn lease(&self, step: &Step) -> Outcome {
        let database = match &self.sources.database {
            Ok(database) => database,
            Err(why) => return Outcome::Refused(why.clone()),
        };
        match step {
            Step::AbortRun { run } => lease::abort(database, *run).await,
            Step::Fence { grant, run, to } => lease::fence(database, grant, *run, to).await,
            Step::Grant { from_epoch, grant, run } => {
                lease::grant(database, *from_epoch, grant, self.me, *run).await
            }
            Step::OpenIntake { grant } => lease::open_intake(database, grant).await,
            Step::ReleaseUnlimited { grant } => lease::hand_back(database, grant).await,
            Step::LimitAgain { grant } => lease::limit_again(database, grant).await,
            other => Outcome::Refused(format!("{} is no act on the lease", other.kind().name())),
        }
    }

    async fn flip(&self, what: Flipped, batch: &[(ControlKey, Switch)]) -> Outcome {
        let arc = match &self.sources.arc {
            Ok(arc) => arc,
            Err(why) => return Outcome::Refused(why.clone()),
        };
        let named: Option<Vec<_>> = batch
            .iter()
            .map(|(key, switch)| {
                let state = match switch {
                    Switch::On => ControlState::On,
                    Switch::Off => ControlState::Off,
                };
                Some((self.sources.controls.get(key)?.clone(), state))
            })
            .collect();
        let Some(named) = named else {
            return Outcome::Refused("the spec names no routing control for a step".to_owned());
        };
        // The client bounds the act itself.
        let outcome = arc.flip(&named, FlipLimits { deadline: FLIP }).await;
        if matches!(&outcome, AwsOutcome::Refused(refusal) if refusal.conflict) {
            // The same batch is not sent again: the next decision parts it.
            self.sources.refused.note(what, clock::now());
        }
        outcome.into()
    }

    async fn broker<'s>(
        &'s self,
        act: impl AsyncFnOnce(&'s Management) -> Result<(), crate::caller::CallError>,
    ) -> Outcome {
        let management = match &self.sources.broker {
            Ok(broker) => &broker.management,
            Err(why) => return Outcome::Refused(why.clone()),
        };
        match within(BROKER, "the broker", act(management)).await {
            Ok(Ok(())) => Outcome::Done,
            Ok(Err(error)) => error.into(),
            Err(late) => late.into(),
        }
    }

    /// The call goes to the API of the present writer's region, as RDS asks for.
    async fn switch_database(&self, from: &Region) -> Outcome {
        let (Some(client), Some(target)) = (self.sources.rds.get(from), self.sources.members.get(self.me))
        else {
            return Outcome::Refused(format!("the spec names no database cluster of {from} or {}", self.me));
        };
        let act = client.switchover(&self.sources.global_cluster, target);
        let outcome = match within(DATABASE, "the RDS API", act).await {
            Ok(outcome) => outcome.into(),
            Err(late) => late.into(),
        };
        if let Ok(global) = &self.sources.global {
            global.ask_soon();
        }
        outcome
    }

    fn hook(&self, point: HookPoint, run: RunId, epoch: region_plan::Epoch) -> Outcome {
        let Some(report) = self.run.filter(|report| report.id == run) else {
            return Outcome::Refused(format!("run {run} is not this side's run"));
        };
        let occasion = Occasion {
            app: self.object.name_any(),
            namespace: self.object.namespace().unwrap_or_default(),
            region: self.me.clone(),
            run,
            epoch,
            from: report.from.clone(),
            to: report.to.clone(),
            point,
        };
        self.hooks.call(self.object, &self.sources.caller, occasion)
    }
}
