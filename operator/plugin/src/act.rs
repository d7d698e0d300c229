//! Whether an act may start, and whether it has reached its goal. Pure.

use region_plan::Mark;

use crate::exit::Exit;
use crate::view::{PlanView, View};

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

fn refuse<T>(exit: Exit, why: impl Into<String>, next: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { exit, why: why.into(), next: next.into() })
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
            Exit::Usage,
            format!("{target} is no region of {}", view.name),
            format!("choose one of {}", names.join(", ")),
        );
    };
    known(view)?;
    if let Some(run) = &view.run {
        return refuse(
            Exit::Refused,
            format!("a run is open: {} to {}", run.summary.from, run.summary.to),
            "kubectl region status --watch, or kubectl region abort",
        );
    }
    let Some(plan) = view.plan.as_ref().filter(|plan| plan.to == target) else {
        return refuse(
            Exit::Refused,
            format!("no operator has published a plan for a switch to {target}"),
            "kubectl region status",
        );
    };
    if !region.observed || view.region(&plan.by).is_none_or(|by| !by.observed) {
        return refuse(
            Exit::Refused,
            "the operators have not seen the newest change of the object yet",
            "wait, then try again",
        );
    }
    if let Some(finding) = plan.blocking.first() {
        return refuse(
            Exit::Refused,
            format!("{} {}", finding.code, finding.message),
            format!("kubectl region explain {}", finding.code),
        );
    }
    if let Some(region) = view.regions.iter().find(|region| region.silent()) {
        let why =
            format!("the operator in {} is silent; what it said last is too old to act on", region.name);
        let next = format!("kubectl --context {} get pods -n trading-region-operator", region.context);
        return refuse(Exit::Refused, why, next);
    }
    match confirmed {
        Some(hash) if hash != plan.hash => refuse(
            Exit::Refused,
            format!("the plan changed: you saw {hash}, it is {} now", plan.hash),
            format!("kubectl region plan {target}"),
        ),
        _ => Ok(plan),
    }
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
            _ => refuse(Exit::Refused, "no run is open", "kubectl region status"),
        };
    };
    let id = run.summary.id.to_string();
    let of_run = view.regions.iter().filter(|region| region.mark_of.as_ref() == Some(&id));
    let mut marks = of_run.filter_map(|region| Some((region, region.mark?)));
    let past = marks.find(|(_, mark)| matches!(mark, Mark::Fenced | Mark::Begun | Mark::Finished));
    if let Some((region, mark)) = past {
        return refuse(
            Exit::Refused,
            format!(
                "there is no way back in this run: {} is at {mark:?}; it goes forward to {}",
                region.name, run.summary.to
            ),
            "kubectl region status --watch; afterwards switch back with kubectl region switch",
        );
    }
    Ok((run.summary.from.0.clone(), Some(id)))
}

/// Both regions must be known, and of versions that fit, before anything is changed.
fn known(view: &View) -> Result<(), Refusal> {
    match view.exit() {
        Exit::PeerUnknown => refuse(
            Exit::PeerUnknown,
            view.summary.clone(),
            "restore the connection, then kubectl region status",
        ),
        Exit::Skew => {
            refuse(Exit::Skew, view.summary.clone(), "use the same version in both clusters and here")
        }
        _ => Ok(()),
    }
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
    let given_up = view.findings.iter().find(|finding| finding.code == region_plan::Code::RunAborted.text());
    match given_up {
        Some(finding) if goal.aborts.is_none() && !at_goal && view.active.is_some() => {
            Verdict::GivenUp(finding.message.clone())
        }
        _ => Verdict::Open,
    }
}
