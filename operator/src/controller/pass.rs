//! One pass: read, observe, decide, apply, write.

use std::sync::Arc;
use std::time::Duration;

use crds::{FINALIZER, TradingRegion, TradingRegionStatus};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use region_plan::{Epoch, Plan, RunReport, SideReport, Step, decide, preview};

use super::pace::pace;
use super::tell::Teller;
use super::{Guarded, Operator, PassError};
use crate::apply::{Attempt, CrashAt, Executor, Moment, ObjectWriter, Outcome, WriteError};
use crate::clock;
use crate::deadline::within;
use crate::metrics::Seen;
use crate::observe::{Observation, Observer, Rival, own_report};
use crate::sources::Sources;
use crate::status::{self, Inputs, note_attempt, prove, untried, worth_writing};

/// Reading the own object.
const READ: Duration = Duration::from_secs(2);

/// When to look again.
pub(super) enum Next {
    In(Duration),
    /// The object is gone, or leaves without us.
    Gone,
}

/// Reads the object anew: what this process wrote last is in it.
async fn read(operator: &Operator, cached: &TradingRegion) -> Result<Option<TradingRegion>, PassError> {
    let api: Api<TradingRegion> =
        Api::namespaced(operator.client.clone(), &cached.namespace().unwrap_or_default());
    match within(READ, "the API server", api.get_opt(&cached.name_any())).await {
        Ok(Ok(found)) => Ok(found.filter(|object| object.uid() == cached.uid())),
        Ok(Err(error)) => Err(PassError::Unreadable(error.to_string())),
        Err(late) => Err(PassError::Unreadable(late.to_string())),
    }
}

pub(super) async fn pass(
    operator: &Operator,
    cached: &TradingRegion,
    objects: &Store<Guarded>,
) -> Result<Next, PassError> {
    let Some(mut object) = read(operator, cached).await? else { return Ok(Next::Gone) };
    if let Some(run) = own_report(&operator.me, &object).open_run() {
        name_in_log(run);
    }
    let kept = object.finalizers().iter().any(|name| name == FINALIZER);
    if object.meta().deletion_timestamp.is_some() && !kept {
        return Ok(Next::Gone);
    }
    let writer = ObjectWriter::new(&operator.client, &object);
    if object.spec.managed == crds::Managed::Manage && !kept {
        object = writer.add_finalizer(&object).await?;
    }
    let sources = operator.sources.of(&object).await;
    let rivals = rivals(&object, objects);
    let observer = Observer {
        me: &operator.me,
        workloads: &operator.workloads,
        peers: &operator.peers,
        hooks: &operator.hooks,
        samples: &operator.samples,
        deadline: operator.observe_deadline,
    };
    let seen = observer.observe(&object, &sources, &rivals).await;
    let now = clock::now();
    let plan = decide(now, &operator.me, &seen.intent, &seen.world);
    Pass { operator, object, writer, sources, seen, plan, now }.act().await
}

fn rivals(object: &TradingRegion, objects: &Store<Guarded>) -> Vec<Rival> {
    let others = objects.state();
    let others = others.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    others
        .filter(|other| other.namespace() == object.namespace() && other.uid() != object.uid())
        .map(Rival::of)
        .collect()
}

/// A pass that has decided.
struct Pass<'a> {
    operator: &'a Operator,
    object: TradingRegion,
    writer: ObjectWriter,
    sources: Arc<Sources>,
    seen: Observation,
    plan: Plan,
    now: Timestamp,
}

impl Pass<'_> {
    async fn act(self) -> Result<Next, PassError> {
        let crash_at = CrashAt::wished(self.operator.failpoints, &self.object, &self.operator.me);
        let executor = Executor {
            me: &self.operator.me,
            client: &self.operator.client,
            workloads: &self.operator.workloads,
            hooks: &self.operator.hooks,
            sources: &self.sources,
            object: &self.object,
            writer: &self.writer,
            run: self.seen.world.mine.run.as_ref(),
            pauses: &self.operator.pauses,
            crash_at: crash_at.as_ref(),
        };
        let teller = Teller { events: &self.operator.events, about: self.object.object_ref(&()) };
        let record = self.plan.steps.iter().find_map(|step| match step {
            Step::Record { run, highest_epoch, .. } => Some((step.kind(), run, *highest_epoch)),
            _ => None,
        });
        if let Some((_, run, _)) = record {
            name_in_log(run);
        }
        self.tell_phase(&teller);
        let mut side = self.side_with_proofs(&teller);
        let made = if let Some((kind, run, highest_epoch)) = record {
            let attempt = Attempt { kind, began: self.now, outcome: Outcome::Done };
            side = with_record(side, run, highest_epoch);
            if side.run.as_ref().is_some_and(|run| untried(run, kind)) {
                teller.begun(kind, side.run.as_ref());
            }
            self.note(&mut side, &attempt, &teller);
            executor.crash_if(Moment::Before, kind).await;
            self.write(side.clone()).await?;
            executor.crash_if(Moment::After, kind).await;
            true
        } else {
            let due = executor.due(&self.plan.steps);
            for step in &due {
                let run = side.open_run();
                if run.map_or_else(|| executor.untried(step), |run| untried(run, step.kind())) {
                    teller.begun(step.kind(), run);
                }
            }
            let attempts = executor.apply(&due).await;
            attempts.iter().for_each(|attempt| self.note(&mut side, attempt, &teller));
            let left = attempts.iter().any(|attempt| attempt.kind == region_plan::StepKind::RemoveFinalizer);
            if left && attempts.iter().all(|attempt| attempt.outcome == Outcome::Done) {
                return Ok(Next::Gone);
            }
            self.write_if_worth(side.clone()).await?;
            attempts.iter().any(|attempt| attempt.outcome == Outcome::Done)
        };
        self.count();
        if let Some(ended) = side.run.as_ref().filter(|run| run.mark.ended()) {
            self.operator.hooks.forget(ended.id);
        }
        let world = &self.seen.world;
        let peer = world.peer.get().and_then(Option::as_ref);
        let lease = world.lease.get().and_then(Option::as_ref);
        Ok(Next::In(pace(&self.seen.intent, &side, peer, lease, &self.plan, made)))
    }

    fn tell_phase(&self, teller: &Teller<'_>) {
        let before = self.object.status.as_ref().and_then(|status| status.phase);
        if before != Some(self.plan.phase) {
            tracing::info!(phase = ?self.plan.phase, reason = self.plan.reason, "phase");
            teller.phase(self.plan.phase, &self.plan.reason);
        }
    }

    fn side_with_proofs(&self, teller: &Teller<'_>) -> SideReport {
        let mut side = self.seen.world.mine.clone();
        let row = self.seen.world.lease.get().and_then(Option::as_ref);
        let row_epoch = row.map_or(Epoch(0), |row| row.epoch);
        side.highest_epoch = side.highest_epoch.max(row_epoch);
        side.row_epoch = side.row_epoch.max(row_epoch);
        let active = row.and_then(|row| row.holder.as_ref()) == Some(&self.operator.me);
        if let Some(workloads) =
            self.seen.world.workloads.get().filter(|_| active && side.open_run().is_none())
        {
            side.sizes = workloads.items.iter().map(|item| (item.name.clone(), item.replicas)).collect();
        }
        for (kind, took) in prove(&mut side, &self.plan.proved, self.now) {
            teller.proved(kind, took);
            self.operator.metrics.step_proved(kind, Duration::try_from(took).unwrap_or_default());
        }
        side
    }

    fn note(&self, side: &mut SideReport, attempt: &Attempt, teller: &Teller<'_>) {
        self.operator.metrics.attempt(attempt.kind, attempt.outcome.result());
        if let Some(run) = side.run.as_mut().filter(|run| belongs_to(run, attempt)) {
            note_attempt(run, attempt.kind, attempt.began, &attempt.outcome);
        }
        teller.attempted(attempt, side.open_run());
    }

    fn status(&self, side: SideReport) -> TradingRegionStatus {
        status::build(Inputs {
            now: self.now,
            me: &self.operator.me,
            object: &self.object,
            intent: &self.seen.intent,
            world: &self.seen.world,
            plan: &self.plan,
            preview: preview(self.now, &self.operator.me, &self.seen.intent, &self.seen.world),
            side,
            lease_remaining: self.seen.lease_remaining.clone(),
            lag: self.seen.lag.clone(),
            bad_references: &self.sources.bad_references,
        })
    }

    async fn write_if_worth(&self, side: SideReport) -> Result<(), WriteError> {
        let status = self.status(side);
        let uid = self.object.uid().unwrap_or_default();
        if worth_writing(self.object.status.as_ref(), &status, self.operator.last_written(&uid), self.now) {
            self.write_status(&status).await?;
        }
        Ok(())
    }

    async fn write(&self, side: SideReport) -> Result<(), WriteError> {
        let status = self.status(side);
        self.write_status(&status).await
    }

    async fn write_status(&self, status: &TradingRegionStatus) -> Result<(), WriteError> {
        self.writer.write_status(&self.object, status).await?;
        self.operator.note_written(&self.object.uid().unwrap_or_default(), self.now);
        Ok(())
    }

    fn count(&self) {
        let seconds = |span: &SignedDuration| span.as_secs_f64();
        let held_here =
            self.seen.world.lease.get().and_then(Option::as_ref).and_then(|row| row.holder.as_ref())
                == Some(&self.operator.me);
        let remaining = self.seen.lease_remaining.get().and_then(Option::as_ref).filter(|_| held_here);
        let seen = Seen {
            phase: self.plan.phase,
            codes: self.plan.findings.iter().map(|finding| finding.code).collect(),
            lease_remaining_seconds: remaining.map(seconds),
            lag_seconds: self.seen.lag.as_ref().and_then(|lag| lag.get()).map(seconds),
            peer_reachable: self.seen.intent.peer.get().is_some(),
        };
        self.operator.metrics.saw(&self.object.uid().unwrap_or_default(), seen);
        if let Ok(arc) = &self.sources.arc {
            for endpoint in arc.health() {
                let failed_at = endpoint.last_error.as_ref().map(|(_, at)| *at);
                let up = endpoint.last_success.is_some() && endpoint.last_success >= failed_at;
                self.operator.metrics.endpoint(&endpoint.region, up, endpoint.latency);
            }
        }
    }
}

/// Every further line of this pass in the log carries the run.
fn name_in_log(run: &RunReport) {
    tracing::Span::current().record("run", tracing::field::display(run.id));
}

/// The report of a record step, with the times of steps that are known by now.
fn with_record(side: SideReport, run: &RunReport, highest_epoch: Epoch) -> SideReport {
    let mut run = run.clone();
    let known = side.run.as_ref().filter(|known| known.id == run.id);
    run.steps = known.map(|known| known.steps.clone()).unwrap_or_default();
    SideReport { highest_epoch: side.highest_epoch.max(highest_epoch), run: Some(run), ..side }
}

/// Steps are part of an open run; the record that ends a run is part of it too.
fn belongs_to(run: &RunReport, attempt: &Attempt) -> bool {
    !run.mark.ended() || attempt.kind.name().starts_with("Record")
}
