//! The view as text: one screen, words before colours, unknown never shown as a number.

use crds::Outcome;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::hint::Place;
use crate::progress::Change;
use crate::view::{FindingView, PlanView, Reading, RegionView, RunView, View, short};

/// Widest line.
pub const COLUMNS: usize = 100;
/// Most lines of a status.
pub const LINES: usize = 24;
/// Most lines of each part that can grow.
const MOST_STEPS: usize = 5;
const MOST_WAITS: usize = 2;
const MOST_FINDINGS: usize = 3;

/// How text is dressed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Whether colours are wanted.
    pub colour: bool,
    /// Widest line that is wanted, at most [`COLUMNS`].
    pub columns: usize,
}

impl Default for Style {
    fn default() -> Self {
        Self { colour: false, columns: COLUMNS }
    }
}

impl Style {
    fn paint(self, code: &str, text: &str) -> String {
        if self.colour { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    /// The word stays; the colour only repeats it.
    fn verdict(self, verdict: &str) -> String {
        let code = match verdict {
            "Ok" => "32",
            "Degraded" | "WaitForUser" => "33",
            _ => "31",
        };
        self.paint(code, verdict)
    }
}

/// The status on one screen: at most [`LINES`] lines of as many columns as the style has.
pub fn status(view: &View, style: Style) -> String {
    let mut lines = vec![headline(view), cut(&view.summary), String::new()];
    lines.push(row(["REGION", "ROLE", "WANTS", "PHASE", "READY", "STANDBY", "LAG", "LEASE"]));
    lines.extend(view.regions.iter().map(region_line));
    if let Some(run) = &view.run {
        lines.push(String::new());
        lines.extend(run_lines(run, view));
    }
    let drain: Vec<String> = view
        .regions
        .iter()
        .filter(|region| view.run.as_ref().is_some_and(|run| run.summary.from.0 == region.name))
        .flat_map(|region| region.drain.iter().map(reading_with_name))
        .collect();
    if !drain.is_empty() {
        lines.push(cut(&format!("  drain: {}", drain.join(", "))));
    }
    for wait in view.waits.iter().take(MOST_WAITS) {
        let since = wait.for_seconds.map(|s| format!(", for {}", span(s))).unwrap_or_default();
        let left = wait.left_seconds.map(|s| {
            if s < 0 { format!(", {} over time", span(-s)) } else { format!(", at most {} more", span(s)) }
        });
        lines.push(cut(&format!(
            "  {} waits for {}{since}{}",
            wait.region,
            wait.on,
            left.unwrap_or_default()
        )));
    }
    more(&mut lines, view.waits.len(), MOST_WAITS, "waits");
    if !view.findings.is_empty() {
        lines.push(String::new());
        for finding in view.findings.iter().take(MOST_FINDINGS) {
            lines.push(finding_line(finding));
        }
        more(&mut lines, view.findings.len(), MOST_FINDINGS, "findings");
        let mut codes: Vec<&str> =
            view.findings.iter().take(MOST_FINDINGS).map(|finding| finding.code.as_str()).collect();
        codes.dedup();
        lines.push(cut(&format!("next: kubectl region explain {}", codes.join(" "))));
    }
    lines.truncate(LINES);
    let mut lines: Vec<String> = lines.iter().map(|line| cut_to(line, style.columns)).collect();
    // Colours have no width: they come last.
    lines[0] = lines[0].replacen(&view.verdict, &style.verdict(&view.verdict), 1);
    lines.join("\n") + "\n"
}

fn headline(view: &View) -> String {
    let epoch = view.epoch.map_or_else(|| "unknown".to_owned(), |epoch| epoch.to_string());
    let active = view.active.as_deref().unwrap_or("unknown");
    cut(&format!(
        "{}/{}  active {active}  epoch {epoch}  {}  at {}",
        view.namespace,
        view.name,
        view.verdict,
        clock(view.at)
    ))
}

fn region_line(region: &RegionView) -> String {
    let name = region.name.as_str();
    if let Some(why) = &region.unknown {
        return cut(&format!("{name:<12} unknown: {why}"));
    }
    let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
    let shown = |reading: &Option<Reading>| reading.as_ref().map_or_else(|| "-".to_owned(), reading_text);
    let phase = or_unknown(&region.phase) + if region.observed && !region.silent() { "" } else { " (old)" };
    row([
        name,
        &or_unknown(&region.role),
        &or_unknown(&region.wants),
        &phase,
        &or_unknown(&region.ready),
        &or_unknown(&region.standby_ready),
        &shown(&region.lag),
        &shown(&region.lease),
    ])
}

fn row(cells: [&str; 8]) -> String {
    let [name, role, wants, phase, ready, standby, lag, lease] = cells;
    cut(&format!("{name:<12} {role:<7} {wants:<12} {phase:<17} {ready:<7} {standby:<7} {lag:<14} {lease}"))
}

/// A reading with its age: `120ms (3s ago)`, `120ms (45s old!)`, `unknown`.
fn reading_text(reading: &Reading) -> String {
    let age = reading.age_seconds.map(span);
    match (reading.freshness.as_str(), &reading.value, age) {
        ("fresh", Some(value), Some(age)) => format!("{value} ({age} ago)"),
        ("old", Some(value), Some(age)) => format!("{value} ({age} old!)"),
        (_, _, Some(age)) => format!("unknown ({age})"),
        _ => "unknown".to_owned(),
    }
}

fn reading_with_name(reading: &Reading) -> String {
    format!("{} {}", reading.name, reading_text(reading))
}

fn run_lines(run: &RunView, view: &View) -> Vec<String> {
    let summary = &run.summary;
    let way = if run.past_return { "forward only" } else { "can be aborted" };
    let id = short(summary.id);
    let reason = summary.reason.as_deref().map(|reason| format!(", \"{reason}\"")).unwrap_or_default();
    let mut lines = vec![cut(&format!(
        "run {id}: {} to {}, {:.1} s so far, {way}{reason}",
        summary.from, summary.to, run.seconds
    ))];
    let skipped = run.summary.steps.len().saturating_sub(MOST_STEPS);
    if skipped > 0 {
        let all = Place::of(view).spell(&format!("kubectl region history --run {id}"));
        let told = format!("  {skipped} steps before: {all}");
        // A command that is cut is of no use.
        let fits = told.chars().count() <= COLUMNS;
        lines.push(if fits { told } else { format!("  {skipped} steps before; -o json shows all") });
    }
    lines.extend(run.summary.steps.iter().skip(skipped).map(|step| step_line(step, view.at)));
    lines
}

fn step_line(step: &crds::RunStep, now: Timestamp) -> String {
    let record = &step.record;
    let took = record.finished_at.unwrap_or(now).duration_since(record.started_at).as_secs_f64();
    let state = if record.finished_at.is_some() { "done" } else { "runs" };
    let attempts = if record.attempts > 1 { format!("  attempt {}", record.attempts) } else { String::new() };
    let note = record.note.as_deref().map(|note| format!("  {note}")).unwrap_or_default();
    let line =
        format!("  {state}  {:<12} {:<16} {took:>7.1} s{attempts}{note}", step.region.0, record.step.name());
    cut(&line)
}

fn finding_line(finding: &FindingView) -> String {
    let weight = if finding.blocks { "blocks " } else { "informs" };
    cut(&format!("{} {weight} {}: {}", finding.code, finding.regions.join(", "), finding.message))
}

fn more(lines: &mut Vec<String>, all: usize, shown: usize, what: &str) {
    if all > shown {
        lines.push(format!("  and {} more {what}; -o json shows all", all - shown));
    }
}

/// What a switch would do.
pub fn plan(view: &View, plan: &PlanView) -> String {
    let known = |text: &Option<String>| {
        text.clone().unwrap_or_else(|| "unknown (no run was measured yet)".to_owned())
    };
    let mut lines = vec![
        format!(
            "{}/{}: switch to {}, worked out by the operator in {}",
            view.namespace, view.name, plan.to, plan.by
        ),
        format!("expected: {} in all; customers wait {}", known(&plan.estimate), known(&plan.unavailable)),
        String::new(),
    ];
    for (number, step) in plan.steps.iter().enumerate() {
        if step.no_return {
            lines.push("      ------ no way back from here ------".to_owned());
        }
        let estimate = step.estimate.map(|estimate| estimate.to_string()).unwrap_or_default();
        let line = format!("  {:>2}  {:<12} {:<18} {estimate}", number + 1, step.region.0, step.step.name());
        lines.push(line.trim_end().to_owned());
    }
    lines.push(String::new());
    if plan.blocking.is_empty() {
        lines.push("nothing stands in the way".to_owned());
    }
    let mut lines: Vec<String> = lines.iter().map(|line| cut(line)).collect();
    for finding in &plan.blocking {
        lines.push(finding_line(finding));
        // Whole: it is there to be followed and copied.
        lines.push(clean(&format!("  next: {}", Place::of(view).spell(&finding.next))));
    }
    lines.push(format!("plan hash: {}", clean(&plan.hash)));
    lines.join("\n") + "\n"
}

/// The last runs.
pub fn history(view: &View) -> String {
    let head = format!(
        "{:<9} {:<24} {:<20} {:<9} {:>8} {:>9}  {:<52}  REASON",
        "RUN", "FROM TO", "STARTED", "OUTCOME", "SECONDS", "CUSTOMERS", "SPLIT"
    );
    let mut lines = vec![head];
    for run in &view.history {
        let summary = &run.summary;
        let id = short(summary.id);
        let times = &summary.times;
        let parts = [
            ("prepare", times.prepare),
            ("drain", times.drain),
            ("promote", times.promote),
            ("open", times.open),
        ];
        let split: Vec<String> =
            parts.iter().filter_map(|(name, time)| Some(format!("{name} {}", time.as_ref()?))).collect();
        lines.push(format!(
            "{id:<9} {:<24} {:<20} {:<9} {:>8.1} {:>9}  {:<52}  {}",
            format!("{} {}", summary.from, summary.to),
            clock(summary.started_at),
            summary.outcome.map_or_else(|| "unknown".to_owned(), |outcome| format!("{outcome:?}")),
            run.seconds,
            times.unavailable.map_or_else(|| "unknown".to_owned(), |time| time.to_string()),
            split.join(", "),
            clean(summary.reason.as_deref().unwrap_or("not given")),
        ));
    }
    if view.history.is_empty() {
        lines = vec!["no run has ended yet".to_owned()];
    }
    lines.join("\n") + "\n"
}

/// The steps of one run, each with its start, its length, and a bar that shows where the time went.
pub fn run_steps(run: &RunView, now: Timestamp) -> String {
    const BAR: f64 = 40.0;
    let summary = &run.summary;
    let reason = summary.reason.as_deref().unwrap_or("not given");
    let mut lines = vec![format!(
        "run {}: {} to {}, {:.1} s, reason: {reason}",
        summary.id, summary.from, summary.to, run.seconds
    )];
    if let Some(note) = &summary.note {
        let given_up = matches!(summary.outcome, Some(Outcome::Aborted | Outcome::Declined));
        let what = if given_up { "given up" } else { "note" };
        lines.push(clean(&format!("{what}: {note}")));
    }
    if summary.steps.is_empty() {
        lines.push("its steps are not kept any more: the objects hold those of the newest runs".to_owned());
    }
    for step in &run.summary.steps {
        let began = step.record.started_at.duration_since(summary.started_at).as_secs_f64().max(0.0);
        let took = step
            .record
            .finished_at
            .unwrap_or(now)
            .duration_since(step.record.started_at)
            .as_secs_f64()
            .max(0.0);
        let scale =
            |seconds: f64| ((seconds / run.seconds.max(0.001) * BAR).round() as usize).min(BAR as usize);
        let bar = format!("{}{}", " ".repeat(scale(began)), "=".repeat(scale(took).max(1)));
        lines.push(cut(&format!(
            "  +{began:>6.1} {took:>6.1} s  {:<12} {:<16} |{bar}",
            step.region.0,
            step.record.step.name()
        )));
    }
    lines.join("\n") + "\n"
}

/// One line for each change of a followed run.
pub(crate) fn change(change: &Change, now: Timestamp) -> String {
    let line = match change {
        Change::Phase { region, phase, reason } => {
            let reason = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            format!("{region} is {}{reason}", phase.as_deref().unwrap_or("unknown"))
        }
        Change::Began(step) => format!("{} begins {}", step.region, step.record.step.name()),
        Change::Ended(step, seconds) => {
            format!("{} has done {} in {seconds:.1} s", step.region, step.record.step.name())
        }
        Change::Summary(summary) => summary.clone(),
    };
    cut(&format!("{} {line}", clock(now)))
}

fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

fn span(seconds: i64) -> String {
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3_600),
    }
}

/// What people or providers wrote must not steer the terminal.
fn clean(line: &str) -> String {
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Never wider than the screen; what is cut says so.
fn cut(line: &str) -> String {
    cut_to(line, COLUMNS)
}

fn cut_to(line: &str, columns: usize) -> String {
    let clean = clean(line);
    if clean.chars().count() <= columns {
        return clean.trim_end().to_owned();
    }
    clean.chars().take(columns.saturating_sub(3)).chain("...".chars()).take(columns).collect()
}
