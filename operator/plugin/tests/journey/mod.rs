//! Views of what real decisions lead through: the universe of the decision's own tests, each side's status made from its
//! plan and its report.

#[path = "../../../plan/tests/support/mod.rs"]
mod support;

use crds::conditions::{READY, STANDBY_READY};
use crds::{Outcome, RunStep, RunSummary, TradingRegion, TradingRegionStatus};
use jiff::SignedDuration;
use kubectl_region::{Copy, View, build};
use region_plan::{
    Code, ControlState, Fact, Finding, Mark, OnDeadline, Phase, Plan, Preview, Region, RunReport, StepKind,
    StepRecord, World, decide, preview,
};
use serde_json::json;
use support::{EAST, Universe, WEST, region};

use crate::recorded::example;

/// A change of what one side observes.
type Disturbance = fn(&mut World);

/// Both sides, with the times of their steps and the objects that carry their statuses.
struct Journey {
    universe: Universe,
    steps: [Vec<StepRecord>; 2],
    objects: [TradingRegion; 2],
    disturbed: Disturbance,
    views: Vec<View>,
}

impl Journey {
    fn from(universe: Universe) -> Self {
        let object = || serde_json::from_value(example()).unwrap();
        let (objects, steps) = ([object(), object()], [Vec::new(), Vec::new()]);
        Self { universe, steps, objects, disturbed: |_| {}, views: Vec::new() }
    }

    /// Both sides decide, act and tell, in turn, for so many seconds.
    fn lasts(mut self, seconds: usize) -> Self {
        for _ in 0..seconds {
            for index in 0..2 {
                self.pass(index);
                self.look();
            }
            self.universe.tick(SignedDuration::from_secs(1));
        }
        self
    }

    fn wants(mut self, index: usize) -> Self {
        self.universe.want(index);
        self
    }

    fn sees(mut self, disturbed: Disturbance) -> Self {
        self.disturbed = disturbed;
        self
    }

    fn pass(&mut self, index: usize) {
        let (me, intent, mut world) =
            (region(index), self.universe.intent(index), self.universe.world(index));
        (self.disturbed)(&mut world);
        let now = self.universe.now;
        let plan = decide(now, &me, &intent, &world);
        let foreseen = preview(now, &me, &intent, &world);
        for record in &mut self.steps[index] {
            if plan.proved.contains(&record.step) {
                record.finished_at = Some(now);
            }
        }
        for step in &plan.steps {
            let before = self.run(index).map(|run| run.id);
            self.universe.apply(index, step);
            if self.run(index).map(|run| run.id) != before {
                self.steps[index].clear();
            }
            self.note(index, step.kind());
        }
        let status = self.status(index, &me, &world, plan, foreseen);
        let object = &mut self.objects[index];
        object.metadata.generation = Some(intent.mine.generation);
        object.spec.active_region = intent.mine.active.0.clone();
        object.status = Some(status);
    }

    fn run(&self, index: usize) -> Option<&RunReport> {
        self.universe.sides[index].report.run.as_ref()
    }

    fn note(&mut self, index: usize, step: StepKind) {
        match self.steps[index].iter_mut().find(|record| record.step == step) {
            Some(record) => (record.attempts, record.finished_at) = (record.attempts + 1, None),
            None => self.steps[index].push(StepRecord {
                step,
                started_at: self.universe.now,
                finished_at: None,
                attempts: 1,
                note: None,
            }),
        }
    }

    /// What a side tells of its plan.
    fn status(
        &self,
        index: usize,
        me: &Region,
        world: &World,
        plan: Plan,
        foreseen: Option<Preview>,
    ) -> TradingRegionStatus {
        let now = self.universe.now;
        let lease = world.lease.get().and_then(Option::as_ref);
        let holder = lease.and_then(|row| row.holder.clone());
        let holds = holder.as_ref() == Some(me);
        let summary = self.run(index).map(|run| summary(run, me, &self.steps[index]));
        let (ended, open): (Vec<RunSummary>, _) =
            summary.into_iter().partition(|summary| summary.outcome.is_some());
        let ready = plan.phase == Phase::Steady && plan.findings.is_empty();
        let condition = |type_: &str| {
            json!({
                "type": type_, "status": if ready { "True" } else { "False" }, "reason": "AsWanted",
                "message": plan.reason, "lastTransitionTime": now,
            })
        };
        let told = json!({
            "observedGeneration": self.universe.sides[index].wanted.generation,
            "operatorVersion": env!("CARGO_PKG_VERSION"),
            "conditions": [condition(READY), condition(STANDBY_READY)],
            "lease": holds.then(|| json!({"holder": me, "epoch": lease.map(|row| row.epoch), "remaining": "15s", "at": now})),
            "lag": (!holds).then(|| json!({"value": "120ms", "at": now})),
            "drain": world.drain.iter().map(|(name, check)| match check {
                Fact::Known { value, at } => json!({"name": name, "value": value, "at": at}),
                Fact::Unknown { why } => json!({"name": name, "unknown": why}),
            }).collect::<Vec<_>>(),
            "preview": foreseen.filter(|_| open.is_empty()).map(|foreseen| json!({
                "to": foreseen.to,
                "planHash": foreseen.hash,
                "steps": foreseen.steps.iter().map(|step| json!({
                    "region": step.region, "step": step.step, "noReturn": step.point_of_no_return,
                })).collect::<Vec<_>>(),
                "blocking": foreseen.blocking,
            })),
        });
        TradingRegionStatus {
            active_region: holder,
            epoch: lease.map(|row| row.epoch),
            phase: Some(plan.phase),
            reason: Some(plan.reason),
            side: Some(self.universe.sides[index].report.clone()),
            waits: plan.waits,
            findings: plan.findings,
            current_run: open.into_iter().next(),
            history: ended,
            ..serde_json::from_value(told).unwrap()
        }
    }

    fn look(&mut self) {
        let copy = |context: &str, object: &TradingRegion| Copy {
            context: context.to_owned(),
            region: Some(context.to_owned()),
            object: Ok(Box::new(object.clone())),
        };
        let copies = [copy(EAST, &self.objects[0]), copy(WEST, &self.objects[1])];
        self.views.push(build(&copies, None, self.universe.now).unwrap());
    }
}

/// A side's part of a run, as people see it.
fn summary(run: &RunReport, me: &Region, steps: &[StepRecord]) -> RunSummary {
    let outcome = match run.mark {
        Mark::Finished => Some(Outcome::Finished),
        Mark::Aborted => Some(Outcome::Aborted),
        Mark::Declined => Some(Outcome::Declined),
        Mark::Proposed | Mark::Accepted | Mark::Fenced | Mark::Begun => None,
    };
    let told = json!({
        "id": run.id,
        "from": run.from,
        "to": run.to,
        "fromEpoch": run.from_epoch,
        "toEpoch": run.grant.map(|grant| grant.epoch),
        "reason": "quarterly rotation",
        "startedAt": run.opened_at,
        "endedAt": run.ended_at,
        "outcome": outcome,
        "note": run.reason,
    });
    let steps = steps.iter().map(|record| RunStep { region: me.clone(), record: record.clone() }).collect();
    RunSummary { steps, ..serde_json::from_value(told).unwrap() }
}

fn unknown<T>() -> Fact<T> {
    Fact::unknown("no answer within 1.5 s")
}

const DISTURBANCES: [(&str, Disturbance); 8] = [
    ("peer", |world| world.peer = unknown()),
    ("lease", |world| world.lease = unknown()),
    ("global database", |world| world.global_database = unknown()),
    ("workloads", |world| world.workloads = unknown()),
    ("broker", |world| world.broker = unknown()),
    ("safety rules", |world| world.guarded = unknown()),
    ("drain", |world| world.drain.values_mut().for_each(|check| *check = unknown())),
    ("controls", |world| {
        world.controls.values_mut().for_each(|state| *state = ControlState { on: 2, off: 2 });
    }),
];

/// Every view of every journey, with the journey's name.
pub fn views() -> Vec<(String, View)> {
    let clogged = |on_deadline: OnDeadline| {
        let mut universe = Universe::active();
        universe.sides[0].queue = 5;
        universe.on_deadline = on_deadline;
        Journey::from(universe)
    };
    let active = || Journey::from(Universe::active());
    let mut journeys = vec![
        ("start".to_owned(), Journey::from(Universe::fresh()).lasts(20)),
        ("there and back".to_owned(), active().lasts(2).wants(1).lasts(40).wants(0).lasts(40)),
        ("taken back".to_owned(), clogged(OnDeadline::Abort).wants(1).lasts(20).wants(0).lasts(20)),
        ("given up".to_owned(), clogged(OnDeadline::Abort).wants(1).lasts(150)),
        ("waits for a person".to_owned(), clogged(OnDeadline::WaitForUser).wants(1).lasts(150)),
        ("goes on with a remainder".to_owned(), clogged(OnDeadline::Proceed).wants(1).lasts(150)),
    ];
    for (what, disturbed) in DISTURBANCES {
        journeys.push((format!("steady without {what}"), active().lasts(1).sees(disturbed).lasts(1)));
        journeys.push((format!("a run without {what}"), active().wants(1).lasts(3).sees(disturbed).lasts(3)));
    }
    let mut views: Vec<(String, View)> = journeys
        .into_iter()
        .flat_map(|(name, journey)| journey.views.into_iter().map(move |view| (name.clone(), view)))
        .collect();
    views.extend(Code::ALL.iter().map(|&code| (format!("finding {}", code.text()), with_finding(code))));
    views
}

/// A steady state in which one side has that finding.
fn with_finding(code: Code) -> View {
    let mut journey = Journey::from(Universe::active()).lasts(1);
    let status = journey.objects[1].status.as_mut().unwrap();
    status.findings = vec![Finding { code, message: "a fact of which the operator tells".to_owned() }];
    journey.look();
    journey.views.pop().unwrap()
}
