//! A small universe for tests: two sides, five ARC endpoints taken as one register, a database pair, two brokers.
//! It applies the steps of a plan the way the real parts would, without time of its own.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the support module")]

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use region_plan::*;
use uuid::Uuid;

pub const EAST: &str = "us-east-1";
pub const WEST: &str = "us-west-2";

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("in range")
}

pub fn region(index: usize) -> Region {
    Region::from([EAST, WEST][index])
}

/// One side: its copy of the spec, its report, its cluster and broker.
#[derive(Clone, Debug, PartialEq)]
pub struct Side {
    pub wanted: Wanted,
    pub deleting: bool,
    pub report: SideReport,
    pub workloads: Vec<Workload>,
    pub broker: Broker,
    pub queue: u64,
    pub hook_results: BTreeMap<HookPoint, HookResult>,
    pub finalizer: bool,
    /// When a safety rule refused a change of that kind, as this side's operator remembers it.
    pub refused: BTreeMap<Flipped, Timestamp>,
}

/// Everything outside of the operators.
#[derive(Clone, Debug, PartialEq)]
pub struct Universe {
    pub now: Timestamp,
    pub sides: [Side; 2],
    pub lease: LeaseView,
    /// Index of the region whose database takes writes.
    pub writer: usize,
    pub controls: BTreeMap<ControlKey, Switch>,
    /// How the safety rules judge: `None` the end state of a batch; else each entry, with this wait period.
    pub each_entry: Option<SignedDuration>,
    /// When a control of a guarded role last changed.
    pub changed: BTreeMap<ControlRole, Timestamp>,
    pub hooks: Vec<HookPoint>,
    pub management: Management,
    pub on_deadline: OnDeadline,
    pub approval_required: bool,
    /// Every grant ever made, in order.
    pub grants: Vec<(Epoch, GrantId, usize)>,
    pub ids: u128,
}

/// How long the API server of the lab takes for a record.
pub const RECORD: SignedDuration = SignedDuration::from_millis(80);

impl Universe {
    /// Both copies name east; nothing was ever granted; nothing is scaled.
    pub fn fresh() -> Self {
        let side = |index: usize| Side {
            wanted: Wanted { active: region(0), mode: Mode::Planned, generation: 1, fingerprint: "f".into() },
            deleting: false,
            report: SideReport::new(&region(index)),
            workloads: ["core", "inbound"]
                .map(|name| workload(name, if name == "core" { 0 } else { 1 }))
                .into(),
            broker: Broker {
                customers_may_write: false,
                all_customers_may_write: false,
                customer_connections: 0,
                old_customer_connections: 0,
                answer_connections: 0,
            },
            queue: 0,
            hook_results: BTreeMap::new(),
            finalizer: true,
            refused: BTreeMap::new(),
        };
        let mut controls = BTreeMap::new();
        for role in [ControlRole::App, ControlRole::Intake, ControlRole::Ingress] {
            for index in 0..2 {
                controls.insert(ControlKey { role, region: region(index) }, Switch::Off);
            }
        }
        Self {
            now: at(0),
            sides: [side(0), side(1)],
            lease: LeaseView {
                epoch: Epoch(0),
                grant_id: GrantId(Uuid::nil()),
                holder: None,
                opened: Opened::None,
                validity: Validity::NeverRenewed,
                released: None,
                aborted_run: None,
            },
            writer: 0,
            controls,
            each_entry: None,
            changed: BTreeMap::new(),
            hooks: HookPoint::ALL.to_vec(),
            management: Management::Manage,
            on_deadline: OnDeadline::Abort,
            approval_required: false,
            grants: Vec::new(),
            ids: 1,
        }
    }

    /// East is active and everything is steady.
    pub fn active() -> Self {
        let mut universe = Self::fresh();
        universe.settle(200);
        assert_eq!(universe.lease.holder, Some(region(0)), "the start did not end: {:?}", universe.plan(0));
        universe
    }

    /// Both copies name this region from now on.
    pub fn want(&mut self, index: usize) {
        for side in &mut self.sides {
            side.wanted.active = region(index);
            side.wanted.generation += 1;
        }
    }

    pub fn intent(&self, index: usize) -> Intent {
        Intent {
            app: "trade-matching".into(),
            regions: vec![region(0), region(1)],
            mine: self.sides[index].wanted.clone(),
            peer: Fact::known(self.sides[1 - index].wanted.clone(), self.now),
            drain: DrainPolicy {
                hold: SignedDuration::from_secs(3),
                deadline: SignedDuration::from_secs(120),
                on_deadline: self.on_deadline,
            },
            hooks: self.hooks.clone(),
            dns_name: Some("mq.trading.example".to_owned()),
            approval_required: self.approval_required,
            management: self.management,
            deleting: self.sides[index].deleting,
            limits: Limits::default(),
        }
    }

    /// What side `index` sees when it sees everything.
    pub fn world(&self, index: usize) -> World {
        let side = &self.sides[index];
        let known = |value: u64| Fact::known(value, self.now);
        World {
            mine: side.report.clone(),
            peer: Fact::known(Some(self.sides[1 - index].report.clone()), self.now),
            lease: Fact::known(Some(self.lease.clone()), self.now),
            writable: Fact::known(self.writer == index, self.now),
            global_database: Fact::known(
                GlobalDatabase {
                    writer: Some(region(self.writer)),
                    switching: false,
                    status: "available".into(),
                },
                self.now,
            ),
            controls: self.controls.iter().map(|(key, switch)| (key.clone(), five(*switch))).collect(),
            controls_unanswered: None,
            refused: side.refused.clone(),
            guarded: Fact::known(BTreeSet::from([ControlRole::App, ControlRole::Ingress]), self.now),
            workloads: Fact::known(Workloads { items: side.workloads.clone(), conflicts: vec![] }, self.now),
            broker: Fact::known(side.broker.clone(), self.now),
            drain: BTreeMap::from([("queue trades".to_owned(), known(side.queue))]),
            hook_results: side.hook_results.clone(),
            dns: Fact::known(self.dns(), self.now),
            fresh: Fresh {
                run: RunId(Uuid::from_u128(self.ids)),
                grant: GrantId(Uuid::from_u128(self.ids + 1)),
            },
        }
    }

    fn dns(&self) -> Option<Region> {
        (0..2).map(region).find(|region| {
            self.controls[&ControlKey { role: ControlRole::Ingress, region: region.clone() }] == Switch::On
        })
    }

    pub fn plan(&self, index: usize) -> Plan {
        decide(self.now, &region(index), &self.intent(index), &self.world(index))
    }

    /// One pass of side `index` as the operator makes it: what it records is part of what it saw, and the decision goes on
    /// from there. Answers the effects that are then to be made.
    pub fn pass(&mut self, index: usize, mut world: World) -> Vec<Step> {
        let intent = self.intent(index);
        for _ in 0..4 {
            let steps = decide(self.now, &region(index), &intent, &world).steps;
            let [record @ Step::Record { .. }] = steps.as_slice() else { return steps };
            self.apply(index, record);
            world.mine = self.sides[index].report.clone();
            world.hook_results = self.sides[index].hook_results.clone();
            self.now = self.now.checked_add(RECORD).expect("in range");
            if world.mine.open_run().is_none() {
                break;
            }
        }
        Vec::new()
    }

    /// What hooks answered is written beside the effects.
    pub fn note_hooks(&mut self, index: usize, plan: &Plan) {
        if let Some(run) = &mut self.sides[index].report.run {
            run.hooks_done.extend(&plan.hooks_done);
        }
    }

    /// Keepers renew, deployments become ready: what happens without the operators.
    pub fn tick(&mut self, step: SignedDuration) {
        self.now = self.now.checked_add(step).expect("in range");
        if let Some(holder) = self.lease.holder.clone() {
            let on =
                self.controls[&ControlKey { role: ControlRole::App, region: holder.clone() }] == Switch::On;
            let here = region(self.writer) == holder;
            if on && here && !matches!(self.lease.validity, Validity::Unlimited | Validity::HandedBack) {
                self.lease.validity = Validity::Valid;
            }
        }
        for side in &mut self.sides {
            for item in &mut side.workloads {
                item.ready = item.replicas;
            }
        }
    }

    /// Applies one step as the real parts would; a step whose token no longer fits is refused and changes nothing.
    pub fn apply(&mut self, index: usize, step: &Step) {
        self.ids += 2;
        match step {
            Step::Record { run, highest_epoch, .. } => {
                let mut run = run.as_ref().clone();
                run.steps.clear();
                if self.sides[index].report.run.as_ref().is_none_or(|old| old.id != run.id) {
                    self.sides[index].hook_results.clear();
                }
                self.sides[index].report.run = Some(run);
                let highest = &mut self.sides[index].report.highest_epoch;
                assert!(*highest_epoch >= *highest, "the highest epoch never falls");
                *highest = *highest_epoch;
                let report = &mut self.sides[index].report;
                report.row_epoch = report.row_epoch.max(self.lease.epoch);
            }
            Step::Scale { targets, .. } => {
                for target in targets {
                    for item in &mut self.sides[index].workloads {
                        if item.name == target.name {
                            item.replicas = target.replicas;
                            item.ready = item.ready.min(item.replicas);
                        }
                    }
                }
            }
            Step::Flip { what, batch } => {
                if !self.flip(batch) {
                    self.sides[index].refused.insert(*what, self.now);
                }
            }
            Step::CloseBroker => {
                self.sides[index].broker.customers_may_write = false;
                self.sides[index].broker.all_customers_may_write = false;
                self.sides[index].broker.customer_connections = 0;
                self.sides[index].broker.old_customer_connections = 0;
            }
            Step::CloseAnswers => self.sides[index].broker.answer_connections = 0,
            Step::OpenBroker => {
                let broker = &mut self.sides[index].broker;
                broker.all_customers_may_write = true;
                broker.customers_may_write = true;
                (broker.customer_connections, broker.old_customer_connections) = (2, 2);
                broker.answer_connections = 1;
            }
            Step::Hook { point, .. } => {
                self.sides[index].hook_results.insert(*point, HookResult::Succeeded);
            }
            Step::SwitchDatabase { from } => {
                if region(self.writer) == *from {
                    self.writer = index;
                }
            }
            Step::RemoveFinalizer => self.sides[index].finalizer = false,
            on_the_row => self.apply_to_row(index, on_the_row),
        }
    }

    /// The safety rules: at most one App control and one Ingress control On. Answers whether they let the batch pass.
    fn flip(&mut self, batch: &[(ControlKey, Switch)]) -> bool {
        let (mut after, mut changed) = (self.controls.clone(), self.changed.clone());
        let parts = if self.each_entry.is_some() { 1 } else { batch.len().max(1) };
        for part in batch.chunks(parts) {
            let before = after.clone();
            after.extend(part.iter().cloned());
            for role in [ControlRole::App, ControlRole::Ingress] {
                let of_role = |controls: &BTreeMap<ControlKey, Switch>| -> Vec<Switch> {
                    controls.iter().filter(|(key, _)| key.role == role).map(|(_, switch)| *switch).collect()
                };
                let now = of_role(&after);
                if now == of_role(&before) {
                    continue;
                }
                let waits = changed
                    .insert(role, self.now)
                    .zip(self.each_entry)
                    .is_some_and(|(at, wait)| self.now.duration_since(at) < wait);
                if waits || now.iter().filter(|switch| **switch == Switch::On).count() > 1 {
                    return false;
                }
            }
        }
        (self.controls, self.changed) = (after, changed);
        true
    }

    /// Statements on the lease row: they work only where the database takes writes.
    fn apply_to_row(&mut self, index: usize, step: &Step) {
        if self.writer != index {
            return;
        }
        let row = &mut self.lease;
        match step {
            Step::AbortRun { run } => row.aborted_run = Some(*run),
            Step::Fence { grant, run, to } => {
                let mine =
                    row.epoch == grant.epoch && row.grant_id == grant.id && row.holder == Some(region(index));
                if mine && row.aborted_run != Some(*run) {
                    row.holder = None;
                    row.opened = Opened::None;
                    row.released = Some(Released { epoch: grant.epoch, to: to.clone(), run: *run });
                }
            }
            Step::Grant { from_epoch, grant, .. } => {
                if row.epoch == *from_epoch && (row.holder.is_none() || !row.validity.is_open()) {
                    row.epoch = grant.epoch;
                    row.grant_id = grant.id;
                    row.holder = Some(region(index));
                    row.opened = Opened::Core;
                    row.validity = Validity::NeverRenewed;
                    self.grants.push((grant.epoch, grant.id, index));
                }
            }
            Step::OpenIntake { grant } => {
                if row.epoch == grant.epoch && row.grant_id == grant.id && row.validity == Validity::Valid {
                    row.opened = Opened::Intake;
                }
            }
            Step::ReleaseUnlimited { .. } => row.validity = Validity::HandedBack,
            Step::LimitAgain { .. } => row.validity = Validity::LimitAsked,
            other => panic!("not a statement on the row: {other:?}"),
        }
    }

    /// Lets both sides decide and act in turn until nothing changes. Answers the steps made.
    pub fn settle(&mut self, rounds: usize) -> Vec<(usize, StepKind)> {
        let mut made = Vec::new();
        let mut quiet = 0;
        for _ in 0..rounds {
            let before = self.clone();
            for index in 0..2 {
                let plan = self.plan(index);
                self.note_hooks(index, &plan);
                for step in plan.steps {
                    made.push((index, step.kind()));
                    self.apply(index, &step);
                }
            }
            let unchanged = Universe { ids: 0, ..before } == Universe { ids: 0, ..self.clone() };
            let bounded = (0..2).any(|index| self.plan(index).waits.iter().any(|wait| wait.until.is_some()));
            quiet = if unchanged && !bounded { quiet + 1 } else { 0 };
            if quiet > 4 {
                break;
            }
            self.tick(SignedDuration::from_secs(1));
        }
        made
    }
}

/// Plays east → west until the fence is in the row and west has not seen it.
pub fn fenced() -> Universe {
    let mut universe = Universe::active();
    universe.want(1);
    while universe.lease.holder.is_some() {
        for index in [1, 0] {
            for step in universe.plan(index).steps {
                universe.apply(index, &step);
            }
        }
        universe.tick(SignedDuration::from_secs(1));
    }
    universe
}

pub fn workload(name: &str, tier: i32) -> Workload {
    Workload {
        name: name.into(),
        uid: format!("uid-{name}"),
        tier,
        active_replicas: 2,
        standby_replicas: 0,
        replicas: 0,
        ready: 0,
        current: true,
        autoscaled: false,
    }
}

pub fn five(switch: Switch) -> ControlState {
    match switch {
        Switch::On => ControlState { on: 5, off: 0 },
        Switch::Off => ControlState { on: 0, off: 5 },
    }
}

/// A plan as reviewers read it.
pub fn text(plan: &Plan) -> String {
    let mut lines = vec![format!("phase {:?}: {}", plan.phase, plan.reason)];
    for step in &plan.steps {
        lines.push(format!("step {}: {}", step.kind().name(), detail(step)));
    }
    for wait in &plan.waits {
        let until = wait.until.map_or(String::new(), |until| format!(" (until {until})"));
        lines.push(format!("wait for {}{until}", wait.on));
    }
    for finding in &plan.findings {
        lines.push(format!("finding {}: {}", finding.code.text(), finding.message));
    }
    lines.join("\n") + "\n"
}

fn detail(step: &Step) -> String {
    match step {
        Step::Record { run, highest_epoch, .. } => {
            let grant = run.grant.map_or(String::new(), |grant| format!(", grant {}", grant.epoch));
            format!("{} to {}, {:?}{grant}, highest epoch {highest_epoch}", run.from, run.to, run.mark)
        }
        Step::Scale { targets, .. } => targets
            .iter()
            .map(|target| format!("{}={}", target.name, target.replicas))
            .collect::<Vec<_>>()
            .join(" "),
        Step::Flip { batch, .. } => batch
            .iter()
            .map(|(key, switch)| format!("{:?}-{} {switch:?}", key.role, key.region))
            .collect::<Vec<_>>()
            .join(", "),
        Step::Fence { grant, to, .. } => format!("epoch {} released to {to}", grant.epoch),
        Step::SwitchDatabase { from } => format!("writer leaves {from}"),
        Step::Grant { from_epoch, grant, .. } => format!("epoch {from_epoch} becomes {}", grant.epoch),
        Step::OpenIntake { grant } => format!("of epoch {}", grant.epoch),
        Step::Hook { point, epoch, .. } => format!("{point:?} in epoch {epoch}"),
        Step::AbortRun { .. }
        | Step::CloseBroker
        | Step::CloseAnswers
        | Step::OpenBroker
        | Step::ReleaseUnlimited { .. }
        | Step::LimitAgain { .. }
        | Step::RemoveFinalizer => "-".to_owned(),
    }
}
