//! Whether an act may start, and whether it has reached its goal. Pure.

use region_plan::{Code, Mark};

use crate::cluster::{Copy, Wish};
use crate::exit::Exit;
use crate::hint::{Place, quoted};
use crate::view::{FindingView, PlanView, View};

/// Why an act is not started. Nothing was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}\n  next: {next}")]
pub struct Refusal {
    /// The code that the command ends with.
    pub exit: Exit,
    /// The fact.
    pub why: String,
    /// What to do.
    pub next: String,
}

/// What an act wants to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goal {
    /// The region that shall be active.
    pub region: String,
    /// Generations of the copies after the change, in the order of the regions.
    pub generations: Vec<i64>,
    /// The run that is aborted; absent: a switch.
    pub aborts: Option<String>,
}

/// Whether a goal is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Not yet.
    Open,
    /// It is.
    Reached,
    /// A person is asked.
    WaitForUser(String),
    /// The run was given up and the old region is active again.
    GivenUp(String),
}

fn refuse<T>(view: &View, exit: Exit, why: impl Into<String>, next: impl AsRef<str>) -> Result<T, Refusal> {
    Err(Refusal { exit, why: why.into(), next: Place::of(view).spell(next.as_ref()) })
}

/// Whether a switch to `target` may start, with the plan that it rests on.
/// `confirmed`: the hash of the plan that a person has seen.
///
/// # Errors
/// Anything unknown, in the way, or different from what was seen.
pub fn may_switch<'a>(
    view: &'a View,
    target: &str,
    confirmed: Option<&str>,
) -> Result<&'a PlanView, Refusal> {
    let Some(region) = view.region(target) else {
        let names: Vec<&str> = view.regions.iter().map(|region| region.name.as_str()).collect();
        return refuse(
            view,
            Exit::Usage,
            format!("{target} is no region of {}", view.name),
            format!("choose one of {}", names.join(", ")),
        );
    };
    known(view)?;
    no_run_open(view)?;
    if view.active.as_deref() == Some(target) {
        let back = "kubectl region abort makes both copies want it again";
        let settled = view.wanted.as_deref() == Some(target);
        let next = if settled { "kubectl region status" } else { back };
        return refuse(view, Exit::Refused, format!("{target} is active already"), next);
    }
    let Some(plan) = view.plan.as_ref().filter(|plan| plan.to == target) else {
        return no_plan(view, target);
    };
    if !region.observed || view.region(&plan.by).is_none_or(|by| !by.observed) {
        let why = "the operators have not seen the newest change of the object yet";
        return refuse(view, Exit::Refused, why, "wait, then try again");
    }
    if let Some(finding) = plan.blocking.first() {
        return in_the_way(view, finding);
    }
    if let Some(region) = view.regions.iter().find(|region| region.silent()) {
        let why =
            format!("the operator in {} is silent; what it said last is too old to act on", region.name);
        let context = quoted(&region.context);
        let next = format!("kubectl --context {context} get pods -n trading-region-operator");
        return refuse(view, Exit::Refused, why, next);
    }
    match confirmed {
        Some(hash) if hash != plan.hash => refuse(
            view,
            Exit::Refused,
            format!("the plan changed: you saw {hash}, it is {} now", plan.hash),
            format!("kubectl region plan {target}"),
        ),
        _ => Ok(plan),
    }
}

/// A run moves the application already. One that waits for a person says on what.
fn no_run_open(view: &View) -> Result<(), Refusal> {
    let Some(run) = &view.run else { return Ok(()) };
    let open = format!("a run is open: {} to {}", run.summary.from, run.summary.to);
    let back = may_abort(view).is_ok();
    if view.exit() != Exit::WaitForUser {
        let or = if back { ", or kubectl region abort" } else { "" };
        return refuse(view, Exit::Refused, open, format!("kubectl region status --watch{or}"));
    }
    let forward =
        "do what its reason asks for, as docs/runbooks/RegionWaitForUser.md tells, and it goes on by itself";
    let next = if back {
        format!("kubectl region abort goes back to {}; or {forward}", run.summary.from)
    } else {
        forward.to_owned()
    };
    refuse(view, Exit::Refused, format!("{open}; {}", view.summary), next)
}

fn in_the_way<T>(view: &View, finding: &FindingView) -> Result<T, Refusal> {
    let why = format!("{} {}", finding.code, finding.message);
    refuse(view, Exit::Refused, why, format!("kubectl region explain {}", finding.code))
}

/// Why there is nothing to act on: without a holder of the lease operators work no switch out.
fn no_plan<T>(view: &View, target: &str) -> Result<T, Refusal> {
    if view.active.is_some() {
        let why = format!("no operator has published a plan for a switch to {target}");
        return refuse(view, Exit::Refused, why, "kubectl region status");
    }
    let nobody = Code::NobodyHolds.text();
    if view.findings.iter().any(|finding| finding.code == nobody) {
        let never = view.epoch.is_none_or(|epoch| epoch == 0);
        let why = if never { "nobody holds the lease yet" } else { "nobody holds the lease" };
        let observing = view.regions.iter().any(|region| region.phase.as_deref() == Some("Observing"));
        let next = if observing {
            "apply the object with managed: Manage in both clusters; then the region that activeRegion names takes the lease"
        } else {
            "kubectl region status tells what is waited for"
        };
        return refuse(view, Exit::Refused, format!("{why}, so there is no switch to plan"), next);
    }
    match view.findings.iter().find(|finding| finding.blocks) {
        Some(finding) => in_the_way(view, finding),
        None => refuse(
            view,
            Exit::Refused,
            format!(
                "no operator knows yet who holds the lease, so none has published a plan for a switch to {target}"
            ),
            "kubectl region status",
        ),
    }
}

/// Whether the change would move anything: a region's operator that gave a run up waits for another spec.
///
/// # Errors
/// The copy of the region that would take over would stay as it was when its last run was given up.
pub(crate) fn may_repeat(view: &View, copies: &[Copy], wish: &Wish<'_>) -> Result<(), Refusal> {
    let copy = copies.iter().find(|copy| copy.region.as_deref() == Some(wish.region));
    let Some(object) = copy.and_then(|copy| copy.object.as_deref().ok()) else { return Ok(()) };
    let side = object.status.as_ref().and_then(|status| status.side.as_ref());
    let given_up = side.and_then(|side| side.run.as_ref()).filter(|run| {
        matches!(run.mark, Mark::Declined | Mark::Aborted)
            && run.to.0 == wish.region
            && Some(run.generation) == object.metadata.generation
    });
    let Some(run) = given_up.filter(|_| !wish.changes(&object.spec)) else { return Ok(()) };
    let why = run.reason.as_deref().unwrap_or("no reason recorded");
    refuse(
        view,
        Exit::Refused,
        format!(
            "the last run to {} was given up ({why}), and this would change nothing: \
             the object asks for {0} with that reason already, and operators try again only after a change",
            wish.region
        ),
        "the same line with another --reason, once the cause is mended",
    )
}

/// Whether the open run, or a wish that nobody has followed yet, may be taken back, and to which region.
///
/// # Errors
/// Nothing is open, or there is no way back.
pub fn may_abort(view: &View) -> Result<(String, Option<String>), Refusal> {
    known(view)?;
    let Some(run) = &view.run else {
        let differs = view.regions.iter().any(|region| region.wants != view.active);
        return match &view.active {
            Some(active) if differs => Ok((active.clone(), None)),
            _ => refuse(view, Exit::Refused, "no run is open", "kubectl region status"),
        };
    };
    let id = run.summary.id.to_string();
    let of_run = view.regions.iter().filter(|region| region.mark_of.as_ref() == Some(&id));
    let mut marks = of_run.filter_map(|region| Some((region, region.mark?)));
    let past = marks.find(|(_, mark)| matches!(mark, Mark::Fenced | Mark::Begun | Mark::Finished));
    if let Some((region, mark)) = past {
        let (from, to) = (&run.summary.from, &run.summary.to);
        return refuse(
            view,
            Exit::Refused,
            format!(
                "there is no way back in this run: {} is at {mark:?}; it goes forward to {to}",
                region.name
            ),
            format!(
                "kubectl region status --watch; afterwards kubectl region switch {from} --reason WHY goes back"
            ),
        );
    }
    Ok((run.summary.from.0.clone(), Some(id)))
}

/// Both regions must be known, and of versions that fit, before anything is changed.
fn known(view: &View) -> Result<(), Refusal> {
    let next = match view.exit() {
        Exit::PeerUnknown => "restore the connection, then kubectl region status",
        Exit::Skew => "use the same version in both clusters and here",
        _ => return Ok(()),
    };
    refuse(view, view.exit(), view.summary.clone(), next)
}

/// Whether the goal is reached. Unknown is never taken for reached.
pub fn reached(view: &View, goal: &Goal) -> Verdict {
    let answered = view.regions.len() == goal.generations.len()
        && view.regions.iter().zip(&goal.generations).all(|(region, wanted)| {
            region.unknown.is_none() && region.observed && region.generation >= *wanted
        });
    if !answered {
        return Verdict::Open;
    }
    if view.exit() == Exit::WaitForUser {
        return Verdict::WaitForUser(view.summary.clone());
    }
    if view.run.is_some() {
        return Verdict::Open;
    }
    let steady =
        view.regions.iter().all(|region| matches!(region.phase.as_deref(), Some("Steady" | "Observing")));
    let at_goal = view.active.as_deref() == Some(&goal.region);
    if steady
        && at_goal
        && view.region(&goal.region).is_some_and(|region| region.ready.as_deref() == Some("True"))
    {
        return Verdict::Reached;
    }
    let given_up = view.findings.iter().find(|finding| finding.code == Code::RunAborted.text());
    match given_up {
        Some(finding) if goal.aborts.is_none() && !at_goal && view.active.is_some() => {
            Verdict::GivenUp(finding.message.clone())
        }
        _ => Verdict::Open,
    }
}
