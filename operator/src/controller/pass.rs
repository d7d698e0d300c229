//! One pass: read, observe, decide, apply, write.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crds::{FINALIZER, TradingRegion, TradingRegionStatus};
use jiff::{SignedDuration, Timestamp};
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use region_plan::{Epoch, Plan, RunReport, SideReport, Step, StepKind, decide, preview};

use super::pace::{AT_ONCE, pace};
use super::tell::Teller;
use super::{Guarded, Operator, PassError};
use crate::apply::{Attempt, Executor, Failpoint, Moment, ObjectWriter, Outcome, WriteError};
use crate::clock;
use crate::deadline::within;
use crate::metrics::Seen;
use crate::observe::{Observation, Observer, Rival, own_report};
use crate::sources::Sources;
use crate::status::{self, Inputs, note_begun, note_ended, prove, untried, worth_writing};

/// Reading the own object.
const READ: Duration = Duration::from_secs(2);
/// Records in one pass: more than the protocol ever writes without anything new to see.
const RECORDS: usize = 4;
/// An observation that began longer ago is followed by no further decision: not all that is in it carries its own time.
const STALE: Duration = Duration::from_secs(1);

/// When to look again.
pub(super) enum Next {
    In(Duration),
    /// The object is gone, or leaves without us.
    Gone,
}

/// How old a write may be after which the own object is taken from the watch: in a run the status is written once a second.
const JUST_WRITTEN: SignedDuration = SignedDuration::from_secs(3);

/// The object, read anew: what this process wrote last is in it. A side that has begun goes forward, so for it what the watch
/// brought will do, if that is what this process just wrote.
async fn read(operator: &Operator, cached: &TradingRegion) -> Result<Option<TradingRegion>, PassError> {
    let written = operator.last_written(&cached.uid().unwrap_or_default());
    let as_written = written.is_some_and(|last| {
        last.version == cached.resource_version() && clock::now().duration_since(last.at) < JUST_WRITTEN
    });
    if as_written && own_report(&operator.me, cached).has_begun() {
        return Ok(Some(cached.clone()));
    }
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
    let began = Instant::now();
    let seen = observer.observe(&object, &sources, &rivals).await;
    let mut pass = Pass { operator, object, writer, sources, seen };
    for _ in 0..RECORDS {
        let decision = pass.decide();
        match decision.record() {
            None => return pass.make(&decision).await,
            Some(record) => {
                let run = pass.record(&decision, &record).await?;
                // What follows an empty drain is the fence, however short the hold: it is looked at once more.
                let look_again = record.kind == StepKind::RecordDrained;
                if run == Run::Ended || look_again || began.elapsed() > STALE {
                    break;
                }
            }
        }
    }
    Ok(Next::In(AT_ONCE))
}

fn rivals(object: &TradingRegion, objects: &Store<Guarded>) -> Vec<Rival> {
    let others = objects.state();
    let others = others.iter().filter_map(|guarded| guarded.0.as_ref().ok());
    others
        .filter(|other| other.namespace() == object.namespace() && other.uid() != object.uid())
        .map(Rival::of)
        .collect()
}

/// A pass that has observed. Its own records become part of what it saw: they change nothing else, so the decision goes on
/// from the same observation, whose facts grow older meanwhile.
struct Pass<'a> {
    operator: &'a Operator,
    object: TradingRegion,
    writer: ObjectWriter,
    sources: Arc<Sources>,
    seen: Observation,
}

/// What was decided, and when.
struct Decision {
    plan: Plan,
    now: Timestamp,
}

/// The step of a plan that is written with the status.
struct Record<'p> {
    kind: StepKind,
    run: &'p RunReport,
    highest_epoch: Epoch,
}

/// Whether the run that a record is part of goes on.
#[derive(PartialEq, Eq)]
enum Run {
    Open,
    Ended,
}

impl Decision {
    fn record(&self) -> Option<Record<'_>> {
        self.plan.steps.iter().find_map(|step| match step {
            Step::Record { run, highest_epoch, .. } => {
                Some(Record { kind: step.kind(), run, highest_epoch: *highest_epoch })
            }
            _ => None,
        })
    }
}

impl Pass<'_> {
    fn decide(&self) -> Decision {
        let now = clock::now();
        Decision { plan: decide(now, &self.operator.me, &self.seen.intent, &self.seen.world), now }
    }

    /// Writes the own report, which is then part of what this pass saw.
    async fn record(&mut self, decision: &Decision, record: &Record<'_>) -> Result<Run, PassError> {
        name_in_log(record.run);
        let teller = self.teller();
        self.tell_phase(decision, &teller);
        let side = self.side_with_proofs(decision, &teller);
        let mut side = with_record(side, record.run, record.highest_epoch);
        let first = side.run.as_ref().is_some_and(|run| untried(run, record.kind));
        if let Some(run) = side.run.as_mut() {
            if first {
                teller.begun(record.kind, Some(run));
            }
            note_begun(run, record.kind, decision.now);
        }
        self.note(&mut side, &Attempt { kind: record.kind, outcome: Outcome::Done }, true, &teller);
        let failpoint = self.failpoint();
        self.executor(failpoint.as_ref()).pass_failpoint(Moment::Before, record.kind).await;
        self.object = self.write_status(&self.object, &self.status(decision, side)).await?;
        self.executor(failpoint.as_ref()).pass_failpoint(Moment::After, record.kind).await;
        self.count(&decision.plan);
        self.seen.world.mine = own_report(&self.operator.me, &self.object);
        Ok(self.follow_run())
    }

    /// What hooks answered belongs to one run: it is read anew for the run that is on record now.
    fn follow_run(&mut self) -> Run {
        let hooks = &self.operator.hooks;
        let Some(run) = self.seen.world.mine.run.as_ref() else { return Run::Ended };
        if run.mark.ended() {
            hooks.forget(run.id);
        }
        self.seen.world.hook_results = hooks.results(run.id);
        if run.mark.ended() { Run::Ended } else { Run::Open }
    }

    /// Makes the effects that are due, and writes what they came to.
    async fn make(&self, decision: &Decision) -> Result<Next, PassError> {
        let teller = self.teller();
        self.tell_phase(decision, &teller);
        let mut side = self.side_with_proofs(decision, &teller);
        let failpoint = self.failpoint();
        let executor = self.executor(failpoint.as_ref());
        let due = executor.due(&decision.plan.steps);
        let first = begin(&due, &executor, &mut side, decision.now, &teller);
        // Beside the effects, so that people see what is under way and nobody waits for two things one after the other.
        // An object that is about to go tells nothing more.
        let leaves = due.iter().any(|step| step.kind() == StepKind::RemoveFinalizer);
        let tell =
            async { if leaves { Ok(None) } else { self.write_if_worth(None, decision, side.clone()).await } };
        let (told, attempts) = tokio::join!(tell, executor.apply(&due));
        if leaves && attempts.iter().all(|attempt| attempt.outcome == Outcome::Done) {
            return Ok(Next::Gone);
        }
        for attempt in &attempts {
            self.note(&mut side, attempt, first.contains(&attempt.kind), &teller);
        }
        let told = told?;
        // The number of an attempt is not worth a write by itself; that it was in vain is.
        let in_vain = |attempt: &Attempt| attempt.outcome.note().is_some();
        if side.open_run().is_some() && attempts.iter().any(in_vain) {
            self.write_status(told.as_ref().unwrap_or(&self.object), &self.status(decision, side.clone()))
                .await?;
        } else if !attempts.is_empty() {
            self.write_if_worth(told.as_ref(), decision, side.clone()).await?;
        }
        self.count(&decision.plan);
        if let Some(ended) = side.run.as_ref().filter(|run| run.mark.ended()) {
            self.operator.hooks.forget(ended.id);
        }
        let made = attempts.iter().any(|attempt| attempt.outcome == Outcome::Done);
        let world = &self.seen.world;
        let peer = world.peer.get().and_then(Option::as_ref);
        let lease = world.lease.get().and_then(Option::as_ref);
        Ok(Next::In(pace(&self.seen.intent, &side, peer, lease, &decision.plan, made, clock::now())))
    }

    fn executor<'s>(&'s self, failpoint: Option<&'s Failpoint>) -> Executor<'s> {
        Executor {
            me: &self.operator.me,
            client: &self.operator.client,
            workloads: &self.operator.workloads,
            hooks: &self.operator.hooks,
            sources: &self.sources,
            object: &self.object,
            writer: &self.writer,
            run: self.seen.world.mine.run.as_ref(),
            pauses: &self.operator.pauses,
            failpoint,
        }
    }

    fn failpoint(&self) -> Option<Failpoint> {
        Failpoint::wished(self.operator.failpoints, &self.object, &self.operator.me)
    }

    fn teller(&self) -> Teller<'_> {
        Teller { events: &self.operator.events, about: self.object.object_ref(&()) }
    }

    fn tell_phase(&self, decision: &Decision, teller: &Teller<'_>) {
        let plan = &decision.plan;
        let before = self.object.status.as_ref().and_then(|status| status.phase);
        if before != Some(plan.phase) {
            tracing::info!(phase = ?plan.phase, reason = plan.reason, "phase");
            teller.phase(plan.phase, &plan.reason);
        }
    }

    fn side_with_proofs(&self, decision: &Decision, teller: &Teller<'_>) -> SideReport {
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
        if let Some(run) = side.run.as_mut() {
            run.hooks_done.extend(&decision.plan.hooks_done);
        }
        for (kind, took) in prove(&mut side, &decision.plan.proved, decision.now) {
            teller.proved(kind, took);
            self.operator.metrics.step_proved(kind, Duration::try_from(took).unwrap_or_default());
        }
        side
    }

    /// `first`: it is the attempt that was noted when it began.
    fn note(&self, side: &mut SideReport, attempt: &Attempt, first: bool, teller: &Teller<'_>) {
        self.operator.metrics.attempt(attempt.kind, attempt.outcome.result());
        if let Some(run) = side.run.as_mut().filter(|run| belongs_to(run, attempt)) {
            note_ended(run, attempt.kind, first, &attempt.outcome);
        }
        teller.attempted(attempt, side.open_run());
    }

    fn status(&self, decision: &Decision, side: SideReport) -> TradingRegionStatus {
        status::build(Inputs {
            now: decision.now,
            me: &self.operator.me,
            object: &self.object,
            intent: &self.seen.intent,
            world: &self.seen.world,
            plan: &decision.plan,
            preview: preview(decision.now, &self.operator.me, &self.seen.intent, &self.seen.world),
            side,
            lease_remaining: self.seen.lease_remaining.clone(),
            lag: self.seen.lag.clone(),
            bad_references: &self.sources.bad_references,
        })
    }

    /// `told`: the object as this pass has written it already.
    async fn write_if_worth(
        &self,
        told: Option<&TradingRegion>,
        decision: &Decision,
        side: SideReport,
    ) -> Result<Option<TradingRegion>, WriteError> {
        let object = told.unwrap_or(&self.object);
        let status = self.status(decision, side);
        let written =
            self.operator.last_written(&self.object.uid().unwrap_or_default()).map(|written| written.at);
        if !worth_writing(object.status.as_ref(), &status, written, decision.now) {
            return Ok(None);
        }
        self.write_status(object, &status).await.map(Some)
    }

    async fn write_status(
        &self,
        over: &TradingRegion,
        status: &TradingRegionStatus,
    ) -> Result<TradingRegion, WriteError> {
        let written = self.writer.write_status(over, status).await?;
        self.operator.note_written(&written);
        Ok(written)
    }

    fn count(&self, plan: &Plan) {
        let seconds = |span: &SignedDuration| span.as_secs_f64();
        let held_here =
            self.seen.world.lease.get().and_then(Option::as_ref).and_then(|row| row.holder.as_ref())
                == Some(&self.operator.me);
        let remaining = self.seen.lease_remaining.get().and_then(Option::as_ref).filter(|_| held_here);
        let seen = Seen {
            phase: plan.phase,
            codes: plan.findings.iter().map(|finding| finding.code).collect(),
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

/// Tells and notes the steps that are tried for the first time. Answers their kinds, where they are part of the open run.
fn begin(
    due: &[&Step],
    executor: &Executor<'_>,
    side: &mut SideReport,
    now: Timestamp,
    teller: &Teller<'_>,
) -> Vec<StepKind> {
    let mut first = Vec::new();
    for step in due {
        let kind = step.kind();
        match side.run.as_mut().filter(|run| !run.mark.ended()) {
            Some(run) if untried(run, kind) => {
                teller.begun(kind, Some(run));
                note_begun(run, kind, now);
                first.push(kind);
            }
            None if executor.untried(step) => teller.begun(kind, None),
            Some(_) | None => {}
        }
    }
    first
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
