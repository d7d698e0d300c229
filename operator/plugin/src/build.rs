//! Builds the view from both copies and the time. Pure.

use crds::conditions::{READY, STANDBY_READY};
use crds::{RunSummary, TradingRegion, TradingRegionStatus};
use jiff::Timestamp;
use region_plan::{Mark, Phase};

use crate::cluster::{Copy, CopyError};
use crate::view::{FindingView, PERIOD, PlanView, Reading, RegionView, RunView, View, WaitView};

/// Builds the view. `target`: the region that a plan is wanted for; absent: the one that is not active.
///
/// # Errors
/// Not one copy is known; the first reason is handed back.
pub fn build(copies: &[Copy], target: Option<&str>, now: Timestamp) -> Result<View, CopyError> {
    let known: Vec<(&Copy, &TradingRegion)> =
        copies.iter().filter_map(|copy| Some((copy, copy.object.as_deref().ok()?))).collect();
    let Some((_, first)) = known.first() else {
        let why = copies.iter().find_map(|copy| copy.object.as_ref().err().cloned());
        return Err(why.unwrap_or(CopyError::NoContext));
    };
    let names: Vec<String> = first.spec.regions.iter().map(|region| region.name.clone()).collect();
    let regions: Vec<RegionView> = names.iter().map(|name| region_view(name, copies, now)).collect();
    let statuses: Vec<(&str, &TradingRegionStatus)> = regions_with_status(&names, copies);
    let active = one(statuses
        .iter()
        .filter_map(|(_, status)| status.active_region.as_ref().map(|region| region.0.clone())));
    let wanted = one(regions.iter().map(|region| region.wants.clone().unwrap_or_default()))
        .filter(|wanted| !wanted.is_empty());
    let runs =
        merged(statuses.iter().flat_map(|(_, status)| status.current_run.iter().chain(&status.history)));
    let (open, ended): (Vec<RunSummary>, Vec<RunSummary>) =
        runs.into_iter().partition(|run| is_open(run, &statuses));
    let mut view = View {
        api_version: "regions.trading.dev/view/v1".to_owned(),
        at: now,
        name: first.metadata.name.clone().unwrap_or_default(),
        namespace: first.metadata.namespace.clone().unwrap_or_default(),
        epoch: statuses.iter().filter_map(|(_, status)| status.epoch).max().map(|epoch| epoch.0),
        active,
        wanted,
        verdict: String::new(),
        summary: String::new(),
        run: open.into_iter().next().map(|run| run_view(run, &regions, now)),
        waits: statuses
            .iter()
            .flat_map(|(name, status)| status.waits.iter().map(|wait| wait_view(name, wait, now)))
            .collect(),
        findings: findings(
            statuses
                .iter()
                .flat_map(|(name, status)| status.findings.iter().map(move |finding| (*name, finding))),
        ),
        plan: plan_view(&statuses, target),
        history: ended.into_iter().map(|run| run_view(run, &regions, now)).collect(),
        regions,
        way: String::new(),
    };
    for region in &mut view.regions {
        region.role = view
            .active
            .as_ref()
            .map(|active| if *active == region.name { "active" } else { "standby" }.to_owned());
    }
    let (verdict, summary) = judge(&view, copies, &statuses);
    (view.verdict, view.summary) = (verdict.to_owned(), summary);
    Ok(view)
}

fn regions_with_status<'a>(
    names: &'a [String],
    copies: &'a [Copy],
) -> Vec<(&'a str, &'a TradingRegionStatus)> {
    let status = |name: &'a String| {
        Some((name.as_str(), copy_of(name, copies)?.object.as_ref().ok()?.status.as_ref()?))
    };
    names.iter().filter_map(status).collect()
}

/// The copy of a region. A copy that could not be read is known by its context, or by being the only one left.
fn copy_of<'a>(name: &str, copies: &'a [Copy]) -> Option<&'a Copy> {
    let by_region = copies.iter().find(|copy| copy.region.as_deref() == Some(name));
    by_region
        .or_else(|| copies.iter().find(|copy| copy.region.is_none() && copy.context == name))
        .or_else(|| one_of(copies.iter().filter(|copy| copy.region.is_none())))
}

fn one_of<T>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.next().is_none().then_some(first)
}

/// The value that all items have, if there are any and they agree.
fn one<T: PartialEq>(mut items: impl Iterator<Item = T>) -> Option<T> {
    let first = items.next()?;
    items.all(|item| item == first).then_some(first)
}

fn region_view(name: &str, copies: &[Copy], now: Timestamp) -> RegionView {
    let unknown = |context: &str, why: String| RegionView {
        name: name.to_owned(),
        context: context.to_owned(),
        unknown: Some(why),
        ..RegionView::default()
    };
    let Some(copy) = copy_of(name, copies) else {
        return unknown("", "no context for this region; name both with --contexts A,B".to_owned());
    };
    let object = match &copy.object {
        Ok(object) => object,
        Err(why) => return unknown(&copy.context, why.to_string()),
    };
    let generation = object.metadata.generation.unwrap_or_default();
    let mut view = RegionView {
        name: name.to_owned(),
        context: copy.context.clone(),
        wants: Some(object.spec.active_region.clone()),
        generation,
        ..RegionView::default()
    };
    let Some(status) = &object.status else {
        view.reason = Some("no operator has looked at the object yet".to_owned());
        return view;
    };
    let condition = |type_| status.condition(type_).map(|condition| condition.status.clone());
    view.observed = status.observed_generation == Some(generation);
    view.heard_seconds_ago = newest_reading(status).map(|at| now.duration_since(at).as_secs().max(0));
    view.phase = status.phase.map(|phase| format!("{phase:?}"));
    view.reason = status.reason.clone();
    view.ready = condition(READY);
    view.standby_ready = condition(STANDBY_READY);
    view.lag = status
        .lag
        .as_ref()
        .map(|lag| reading("lag", lag.value.map(|v| v.to_string()), lag.at, lag.unknown.as_deref(), now));
    let lease =
        status.lease.as_ref().filter(|lease| lease.holder.as_ref().is_some_and(|holder| holder.0 == name));
    view.lease = lease.map(|lease| {
        reading("lease", lease.remaining.map(|v| v.to_string()), lease.at, lease.unknown.as_deref(), now)
    });
    let drain = |check: &crds::CheckReading| {
        reading(&check.name, check.value.map(|v| v.to_string()), check.at, check.unknown.as_deref(), now)
    };
    view.drain = status.drain.iter().map(drain).collect();
    let own = status.side.as_ref().and_then(|side| side.run.as_ref());
    view.mark = own.map(|run| run.mark);
    view.mark_of = own.map(|run| run.id.to_string());
    view.operator_version = status.operator_version.clone();
    view
}

fn newest_reading(status: &TradingRegionStatus) -> Option<Timestamp> {
    let lag = status.lag.as_ref().and_then(|lag| lag.at);
    let lease = status.lease.as_ref().and_then(|lease| lease.at);
    status.drain.iter().map(|check| check.at).chain([lag, lease]).flatten().max()
}

fn reading(
    name: &str,
    value: Option<String>,
    at: Option<Timestamp>,
    why: Option<&str>,
    now: Timestamp,
) -> Reading {
    let age = at.map(|at| now.duration_since(at));
    let freshness = match age {
        Some(age) if value.is_some() && age <= PERIOD * 2 => "fresh",
        Some(age) if value.is_some() && age <= PERIOD * 6 => "old",
        _ => "unknown",
    };
    Reading {
        name: name.to_owned(),
        value,
        age_seconds: age.map(|age| age.as_secs().max(0)),
        freshness: freshness.to_owned(),
        why: why.map(str::to_owned),
    }
}

fn wait_view(region: &str, wait: &region_plan::Wait, now: Timestamp) -> WaitView {
    WaitView {
        region: region.to_owned(),
        on: wait.on.clone(),
        for_seconds: wait.since.map(|since| now.duration_since(since).as_secs().max(0)),
        left_seconds: wait.until.map(|until| until.duration_since(now).as_secs()),
    }
}

fn findings<'a>(all: impl Iterator<Item = (&'a str, &'a region_plan::Finding)>) -> Vec<FindingView> {
    let mut views: Vec<FindingView> = Vec::new();
    for (region, finding) in all {
        let code = finding.code.text();
        match views.iter_mut().find(|view| view.code == code && view.message == finding.message) {
            Some(view) => view.regions.push(region.to_owned()),
            None => {
                let entry = crate::explain::explain(code);
                views.push(FindingView {
                    code: code.to_owned(),
                    regions: vec![region.to_owned()],
                    message: finding.message.clone(),
                    blocks: finding.code.blocks(),
                    next: entry.as_ref().map(|entry| entry.next.to_owned()).unwrap_or_default(),
                    docs: entry.map(|entry| entry.docs).unwrap_or_default(),
                });
            }
        }
    }
    views.sort_by(|a, b| b.blocks.cmp(&a.blocks).then_with(|| a.code.cmp(&b.code)));
    views
}

fn plan_view(statuses: &[(&str, &TradingRegionStatus)], target: Option<&str>) -> Option<PlanView> {
    let previews = statuses.iter().filter_map(|(by, status)| Some((*by, status.preview.as_ref()?)));
    let fits = previews.filter(|(_, preview)| target.is_none_or(|target| preview.to.0 == target));
    // The side that would take over knows best: the plan is worked out there.
    let (by, preview) = fits.max_by_key(|(by, preview)| preview.to.0 == *by)?;
    Some(PlanView {
        to: preview.to.0.clone(),
        hash: preview.plan_hash.clone(),
        by: by.to_owned(),
        steps: preview.steps.clone(),
        estimate: preview.estimate.map(|estimate| estimate.to_string()),
        unavailable: preview.unavailable.map(|unavailable| unavailable.to_string()),
        blocking: findings(preview.blocking.iter().map(|finding| (by, finding))),
    })
}

/// Runs of both copies, each once with the steps of both sides, newest first.
fn merged<'a>(all: impl Iterator<Item = &'a RunSummary>) -> Vec<RunSummary> {
    let mut runs: Vec<RunSummary> = Vec::new();
    for run in all {
        let Some(known) = runs.iter_mut().find(|known| known.id == run.id) else {
            runs.push(run.clone());
            continue;
        };
        for step in &run.steps {
            let same = |other: &&mut crds::RunStep| {
                other.region == step.region
                    && other.record.step == step.record.step
                    && other.record.started_at == step.record.started_at
            };
            match known.steps.iter_mut().find(same) {
                Some(known) if known.record.finished_at.is_none() => *known = step.clone(),
                Some(_) => {}
                None => known.steps.push(step.clone()),
            }
        }
        known.started_at = known.started_at.min(run.started_at);
        known.ended_at = known.ended_at.max(run.ended_at);
        known.outcome = known.outcome.or(run.outcome);
        known.to_epoch = known.to_epoch.or(run.to_epoch);
        known.reason = known.reason.take().or_else(|| run.reason.clone());
        known.plan_hash = known.plan_hash.take().or_else(|| run.plan_hash.clone());
        known.note = known.note.take().or_else(|| run.note.clone());
        let (mine, other) = (&mut known.times, &run.times);
        mine.total = mine.total.max(other.total);
        mine.prepare = mine.prepare.or(other.prepare);
        mine.drain = mine.drain.or(other.drain);
        mine.promote = mine.promote.or(other.promote);
        mine.open = mine.open.or(other.open);
        mine.unavailable = mine.unavailable.or(other.unavailable);
    }
    for run in &mut runs {
        run.steps.sort_by_key(|step| step.record.started_at);
    }
    runs.sort_by_key(|run| std::cmp::Reverse(run.started_at));
    runs
}

/// A run is open while any copy still carries it as its open one.
fn is_open(run: &RunSummary, statuses: &[(&str, &TradingRegionStatus)]) -> bool {
    statuses.iter().any(|(_, status)| status.current_run.as_ref().is_some_and(|open| open.id == run.id))
}

fn run_view(summary: RunSummary, regions: &[RegionView], now: Timestamp) -> RunView {
    let until = summary.ended_at.unwrap_or(now);
    let id = summary.id.to_string();
    let past = |region: &RegionView| {
        region.mark_of.as_ref() == Some(&id)
            && matches!(region.mark, Some(Mark::Fenced | Mark::Begun | Mark::Finished))
    };
    let past_return = match summary.outcome {
        Some(outcome) => outcome != crds::Outcome::Aborted,
        None => regions.iter().any(past),
    };
    RunView { seconds: until.duration_since(summary.started_at).as_secs_f64().max(0.0), past_return, summary }
}

fn judge(view: &View, copies: &[Copy], statuses: &[(&str, &TradingRegionStatus)]) -> (&'static str, String) {
    if let Some(why) = skew(copies, statuses) {
        return ("Skew", why);
    }
    if let Some(region) = view.regions.iter().find(|region| region.unknown.is_some()) {
        return (
            "PeerUnknown",
            format!("{} is unknown: {}", region.name, region.unknown.as_deref().unwrap_or_default()),
        );
    }
    let phase = |wanted: Phase| statuses.iter().find(|(_, status)| status.phase == Some(wanted));
    if let Some((name, status)) = phase(Phase::WaitForUser) {
        return (
            "WaitForUser",
            format!("{name} waits for a person: {}", status.reason.as_deref().unwrap_or("no reason given")),
        );
    }
    if let Some(region) = view.regions.iter().find(|region| region.silent()) {
        let seconds = region.heard_seconds_ago.unwrap_or_default();
        return (
            "Degraded",
            format!("the operator in {} is silent: its newest reading is {seconds} s old", region.name),
        );
    }
    if view.wanted.is_none() {
        return ("Degraded", "the two copies do not want the same region active; nothing moves".to_owned());
    }
    if let Some(run) = &view.run {
        return ("Degraded", format!("a run is open: {} to {}", run.summary.from, run.summary.to));
    }
    if statuses.len() < view.regions.len() {
        return ("Degraded", "an operator has not looked at the object yet".to_owned());
    }
    if let Some(region) = view.regions.iter().find(|region| !region.observed) {
        return (
            "Degraded",
            format!("the operator in {} has not seen the newest change of the object yet", region.name),
        );
    }
    if view.wanted != view.active {
        let active = view.active.as_deref().unwrap_or("none, or not known");
        return (
            "Degraded",
            format!("{} is wanted, active is {active}", view.wanted.as_deref().unwrap_or_default()),
        );
    }
    if let Some(finding) = view.findings.iter().find(|finding| finding.blocks) {
        return (
            "Degraded",
            format!("serving, but a switch could not start: {} {}", finding.code, finding.message),
        );
    }
    if let Some(region) = view.regions.iter().find(|region| region.ready.as_deref() != Some("True")) {
        return (
            "Degraded",
            format!(
                "{} is not ready: {}",
                region.name,
                region.reason.as_deref().unwrap_or("no reason given")
            ),
        );
    }
    ("Ok", "all is as wanted; a switch could start".to_owned())
}

/// Whether the parts are of versions that do not fit: an object that is not understood, or operators of two minors.
fn skew(copies: &[Copy], statuses: &[(&str, &TradingRegionStatus)]) -> Option<String> {
    let misread = copies
        .iter()
        .find_map(|copy| copy.object.as_ref().err().filter(|why| matches!(why, CopyError::Skew { .. })));
    if let Some(why) = misread {
        return Some(why.to_string());
    }
    let minor = |version: &str| version.split('.').take(2).collect::<Vec<_>>().join(".");
    let versions: Vec<(&str, String)> = statuses
        .iter()
        .filter_map(|(name, status)| Some((*name, minor(status.operator_version.as_deref()?))))
        .collect();
    let (name, version) =
        versions.iter().find(|(_, version)| *version != minor(env!("CARGO_PKG_VERSION")))?;
    Some(format!("the operator in {name} is {version}, this plugin is {}", minor(env!("CARGO_PKG_VERSION"))))
}
