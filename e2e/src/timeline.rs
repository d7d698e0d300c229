//! Both sides' steps of one run in the order of time, as text.

use std::fmt::Write as _;

use jiff::Timestamp;
use region_plan::{RunReport, StepRecord};

/// Renders a run: each step with its side, its start since the run began, its length.
pub fn text(parts: &[RunReport; 2]) -> String {
    let [old, new] = parts;
    let start = old.opened_at.min(new.opened_at);
    let end = parts.iter().filter_map(|part| part.ended_at).max();
    let mut steps: Vec<(&RunReport, &StepRecord)> =
        parts.iter().flat_map(|part| part.steps.iter().map(move |step| (part, step))).collect();
    steps.sort_by_key(|(_, step)| step.started_at);
    let mut text = format!(
        "run {}: {} -> {}, epoch {} -> {}\n",
        new.id,
        new.from,
        new.to,
        new.from_epoch,
        new.grant.map_or("-".to_owned(), |grant| grant.epoch.to_string()),
    );
    for (part, step) in steps {
        let side = if std::ptr::eq(part, old) { &new.from } else { &new.to };
        let length =
            step.finished_at.map_or(String::new(), |end| format!("{:.2} s", seconds(step.started_at, end)));
        let offset = seconds(start, step.started_at);
        let line = format!("  +{offset:>6.2} s  {side:<10}  {:<16} {length:>8}", step.step.name());
        let _ = writeln!(text, "{}", line.trim_end());
    }
    if let Some(end) = end {
        let _ = writeln!(text, "  total {:.2} s", seconds(start, end));
    }
    text
}

/// Seconds between two times.
pub fn seconds(from: Timestamp, to: Timestamp) -> f64 {
    to.duration_since(from).as_secs_f64()
}
