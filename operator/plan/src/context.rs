//! One decision's inputs with the questions that all roles ask of them.

use jiff::{SignedDuration, Timestamp};

use crate::fact::Fact;
use crate::ids::{Epoch, Region};
use crate::intent::{HookPoint, Intent};
use crate::plan::{Code, Finding, Phase, Plan, Wait};
use crate::report::{Grant, RunReport, SideReport};
use crate::step::{Flipped, Recorded, Step};
use crate::world::{ControlKey, ControlRole, ControlState, LeaseView, Switch, World};

/// Inputs of one decision.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) now: Timestamp,
    pub(crate) me: &'a Region,
    pub(crate) other: &'a Region,
    pub(crate) intent: &'a Intent,
    pub(crate) world: &'a World,
}

impl<'a> Context<'a> {
    /// A fact, if it is recent enough to act on.
    pub(crate) fn fresh<T>(&self, fact: &'a Fact<T>) -> Option<&'a T> {
        fact.fresh(self.now, self.intent.limits.fact_age)
    }

    /// The lease row, if it is known and there is one.
    pub(crate) fn lease(&self) -> Option<&'a LeaseView> {
        self.fresh(&self.world.lease)?.as_ref()
    }

    /// The other side's report, if it is known and there is one.
    pub(crate) fn peer(&self) -> Option<&'a SideReport> {
        self.fresh(&self.world.peer)?.as_ref()
    }

    /// The other side's object was read: its report, or nothing yet.
    pub(crate) fn peer_or_absent(&self) -> Option<Option<&'a SideReport>> {
        Some(self.fresh(&self.world.peer)?.as_ref())
    }

    /// The region that the RDS API shows as the writer.
    pub(crate) fn writer_region(&self) -> Option<&'a Region> {
        self.fresh(&self.world.global_database)?.writer.as_ref()
    }

    /// The other side's part in this run.
    pub(crate) fn peer_part(&self, run: &RunReport) -> Option<&'a RunReport> {
        self.peer()?.run.as_ref().filter(|part| part.id == run.id)
    }

    pub(crate) fn control(&self, role: ControlRole, region: &Region) -> ControlState {
        let key = ControlKey { role, region: region.clone() };
        self.world.controls.get(&key).copied().unwrap_or_default()
    }

    pub(crate) fn is(&self, role: ControlRole, region: &Region, wanted: Switch) -> bool {
        self.control(role, region).agreed() == Some(wanted)
    }

    /// Whether every entry of a batch is agreed by enough endpoints.
    pub(crate) fn flipped(&self, batch: &[(ControlKey, Switch)]) -> bool {
        batch.iter().all(|(key, wanted)| self.is(key.role, &key.region, *wanted))
    }

    /// Whether a safety rule refused a change of this kind not long ago.
    pub(crate) fn refused_lately(&self, what: Flipped) -> bool {
        self.world.refused.get(&what).is_some_and(|at| !self.past(*at, self.intent.limits.refusal))
    }

    /// A grant that nobody made before: above the row, above all that either side reported.
    pub(crate) fn next_grant(&self, row: &LeaseView) -> Grant {
        let index = self.intent.regions.iter().position(|region| region == self.me).unwrap_or(0);
        let floor = self.highest_epoch().max(row.epoch);
        Grant { epoch: Epoch::next_for(index, self.intent.regions.len(), floor), id: self.world.fresh.grant }
    }

    /// The highest epoch that this side knows of.
    pub(crate) fn highest_epoch(&self) -> Epoch {
        let row = self.lease().map_or(Epoch(0), |row| row.epoch);
        let peer = self.peer().map_or(Epoch(0), |report| report.highest_epoch);
        self.world.mine.highest_epoch.max(row).max(peer)
    }

    /// How the writer's row is older than one that either side saw before, in words. `None`: it is not.
    pub(crate) fn epoch_behind(&self) -> Option<String> {
        let row = self.lease().filter(|_| self.writer_here())?;
        let theirs = self.peer().map_or(Epoch(0), |peer| peer.row_epoch);
        let seen = self.world.mine.row_epoch.max(theirs);
        (row.epoch < seen).then(|| {
            format!("the database of {} shows epoch {}, and epoch {seen} was seen before", self.me, row.epoch)
        })
    }

    /// Whether a hook point is wanted and has not succeeded in this run.
    pub(crate) fn hook_due(&self, point: HookPoint, run: &RunReport) -> bool {
        self.intent.hooks.contains(&point) && !run.hooks_done.contains(&point)
    }

    /// Whether my own region's database takes writes, so that its copy of the lease is the present truth.
    pub(crate) fn writer_here(&self) -> bool {
        self.fresh(&self.world.writable) == Some(&true)
    }

    /// Whether anyone can write now, as far as this region's database tells.
    pub(crate) fn writes(&self) -> String {
        match self.lease().map(|row| (row, row.holder.as_ref())) {
            None => "it is not known whether anyone can write".to_owned(),
            Some((row, holder)) if !self.writer_here() => {
                let holder = holder.map_or("nobody", Region::as_str);
                format!(
                    "this region's copy of the lease, which may be behind, names {holder} in epoch {}",
                    row.epoch
                )
            }
            Some((row, Some(holder))) if row.validity.is_open() => {
                format!("{holder} holds the lease and can write")
            }
            Some((_, Some(holder))) => format!("nobody can write now: the lease of {holder} is not valid"),
            Some((_, None)) => "nobody can write now".to_owned(),
        }
    }

    /// A run that takes too long asks for a person, says whether anyone can write, and goes on beside it.
    pub(crate) fn attention(&self, run: &RunReport, draft: &mut Draft) {
        if !self.past(run.opened_at, self.intent.limits.attention) || draft.0.phase == Phase::WaitForUser {
            return;
        }
        let reason = format!("{}: takes too long; {}", draft.0.reason, self.writes());
        draft.finding(Code::RunSlow, reason.clone());
        draft.phase(Phase::WaitForUser, reason);
    }

    pub(crate) fn past(&self, since: Timestamp, limit: SignedDuration) -> bool {
        self.now.duration_since(since) >= limit
    }
}

/// A plan that is being put together.
pub(crate) struct Draft(pub(crate) Plan);

impl Draft {
    pub(crate) fn new(phase: Phase, reason: impl Into<String>) -> Self {
        Self(Plan {
            steps: Vec::new(),
            waits: Vec::new(),
            phase,
            reason: reason.into(),
            findings: Vec::new(),
            proved: Vec::new(),
            hooks_done: Vec::new(),
        })
    }

    /// A plan that only writes my own report: what follows rests on its having been written.
    pub(crate) fn record(ctx: &Context<'_>, phase: Phase, what: Recorded, run: RunReport) -> Self {
        let mut draft = Draft::new(phase, format!("recording {what:?} of run {}", run.id));
        let granted = run.grant.map_or(Epoch(0), |grant| grant.epoch);
        let highest_epoch = ctx.highest_epoch().max(granted);
        draft.0.steps.push(Step::Record { what, run: Box::new(run), highest_epoch });
        draft
    }

    pub(crate) fn is_record(&self) -> bool {
        matches!(self.0.steps.as_slice(), [Step::Record { .. }])
    }

    pub(crate) fn phase(&mut self, phase: Phase, reason: impl Into<String>) {
        self.0.phase = phase;
        self.0.reason = reason.into();
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.0.steps.push(step);
    }

    pub(crate) fn wait(&mut self, on: impl Into<String>) {
        self.0.waits.push(Wait { on: on.into(), since: None, until: None });
    }

    pub(crate) fn wait_until(&mut self, on: impl Into<String>, since: Timestamp, limit: SignedDuration) {
        self.0.waits.push(Wait { on: on.into(), since: Some(since), until: since.checked_add(limit).ok() });
    }

    pub(crate) fn finding(&mut self, code: Code, message: impl Into<String>) {
        self.0.findings.push(Finding { code, message: message.into() });
    }
}
