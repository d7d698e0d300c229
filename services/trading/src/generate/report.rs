//! What the customer prints: progress while it runs, the verdict at the end. Standard output carries the verdict
//! alone, so that `-o json` can be piped.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::expected::SETTLED;
use super::{CustomerCounts, Desk, Output, Percentiles, Settled, Verdict, with};
use crate::message::json;

/// Prints the state of the ledger, each second on a terminal and each five seconds elsewhere, until aborted.
pub(super) async fn progress(desk: Desk) {
    let terminal = std::io::stderr().is_terminal();
    let interval = Duration::from_secs(if terminal { 1 } else { 5 });
    let began = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        let (now, problem) = with(&desk.ledger, |ledger| (ledger.counts(), ledger.take_problem()));
        let problem = problem.map(|problem| format!("  [{problem}]")).unwrap_or_default();
        let paused = if *desk.control.borrow() { "" } else { "  [paused by the routing control]" };
        let line = format!("{:>4} s  {now}{paused}{problem}", began.elapsed().as_secs());
        let mut error = std::io::stderr().lock();
        // A closed terminal is no reason to stop the run.
        let _ = if terminal { write!(error, "\r\x1b[K{line}") } else { writeln!(error, "{line}") };
        let _ = error.flush();
    }
}

/// Prints the verdict.
pub(super) fn print(verdict: &Verdict, output: Output) {
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    match output {
        Output::Json => println!("{}", json(verdict)),
        Output::Text => println!("{}", text(verdict)),
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&text(self))
    }
}

fn text(verdict: &Verdict) -> String {
    let Verdict { details, .. } = verdict;
    let statuses: Vec<_> =
        verdict.statuses.iter().map(|(status, count)| format!("{status} {count}")).collect();
    let epochs: Vec<_> = verdict.epochs.iter().map(ToString::to_string).collect();
    let gap =
        verdict.unavailable.map(|gap| format!(" ({:.0} … {:.0})", gap.from, gap.to)).unwrap_or_default();
    let mut lines = vec![
        format!("sent         {:>9}   sent again without a confirm: {}", verdict.sent, verdict.resent),
        format!("confirmed    {:>9}   never confirmed: {}", verdict.confirmed, verdict.unconfirmed),
        format!("answered     {:>9}   {}", verdict.answered, statuses.join(", ")),
        format!("balance      {}", balance(verdict)),
        format!("lost         {:>9}   {}", verdict.lost, verdict.lost_ids.join(" ")),
        format!("doubled      {:>9}   {}", verdict.doubled, verdict.doubled_ids.join(" ")),
        format!("wrong        {:>9}   {}", details.unexpected, details.unexpected_answers.join(", ")),
        format!("repeats      {:>9}   the same answer again, harmless", verdict.repeats),
        format!("unavailable  {:>9.3} s longest wait for an answer{gap}", verdict.unavailable_seconds),
        format!("epochs       {:>9}", epochs.join(", ")),
        format!("answers took {} after the message was due", percentiles(details.latency)),
        format!("sent late by {} against the schedule", percentiles(details.lateness)),
    ];
    if let Some(settlement) = &verdict.settlement {
        lines.extend(settled(settlement));
    }
    if verdict.unsent > 0 {
        lines.push(format!("never sent   {:>9}   due, and no broker was there to take them", verdict.unsent));
    }
    if details.quarantined > 0 {
        lines.push(format!(
            "quarantined  {:>9}   must be set apart: nobody to answer to",
            details.quarantined
        ));
    }
    if details.paused_seconds > 0.0 {
        lines.push(format!("paused       {:>9.3} s by the routing control", details.paused_seconds));
    }
    if verdict.unknown > 0 {
        lines.push(format!("unknown      {:>9}   answers to messages of somebody else", verdict.unknown));
    }
    if details.customers.len() > 1 {
        lines.extend(details.customers.iter().enumerate().map(|(number, part)| customer(number, part)));
    }
    lines.push(if verdict.good() { "nothing lost, nothing doubled".into() } else { "NOT GOOD".to_owned() });
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// Where each message is that was sent. SETTLED is a second answer, so it is no part of it.
fn balance(verdict: &Verdict) -> String {
    let Verdict { sent, lost, statuses, details, .. } = verdict;
    let answers = statuses.iter().filter(|(status, _)| *status != SETTLED);
    let rest =
        [("owed no answer", details.not_owed), ("lost", *lost), ("not confirmed, no answer", details.untold)];
    let parts: Vec<_> = (answers.map(|(status, count)| (status.as_str(), *count)))
        .chain(rest)
        .filter(|(_, count)| *count > 0)
        .map(|(part, count)| format!("{count} {part}"))
        .collect();
    format!("{sent:>9} sent = {}", if parts.is_empty() { "nothing".to_owned() } else { parts.join(" + ") })
}

fn settled(settlement: &Settled) -> [String; 3] {
    let Settled { settled, unsettled, unsettled_ids, stay_matched, settled_latency } = settlement;
    [
        format!(
            "settled      {settled:>9}   of those that match; {stay_matched} stay matched, without allocations to settle"
        ),
        format!("unsettled    {unsettled:>9}   {}", unsettled_ids.join(" ")),
        format!("SETTLED took {} after the message was due", percentiles(*settled_latency)),
    ]
}

fn percentiles(times: Percentiles) -> String {
    let Percentiles { count, p50, p99, p999, max } = times;
    if count == 0 {
        return "nothing timed,".to_owned();
    }
    format!("{p50:.1} ms (half), {p99:.1} (99 %), {p999:.1} (99.9 %), {max:.1} (all {count})")
}

fn customer(number: usize, part: &CustomerCounts) -> String {
    let CustomerCounts { sent, confirmed, answered, lost, doubled } = part;
    format!(
        "customer {number:<4}{sent:>9} sent, {confirmed} confirmed, {answered} answered, {lost} lost, {doubled} doubled"
    )
}

#[cfg(test)]
mod tests {
    use super::super::{Details, Expected, Ledger, Note};
    use super::*;

    #[test]
    fn the_text_names_what_was_wrong_and_leaves_out_what_did_not_happen() {
        let now = jiff::Timestamp::from_second(1).unwrap();
        let mut ledger = Ledger::default();
        for (id, customer) in [("a", 0), ("b", 1)] {
            ledger.sent_as(id, Note { customer, expected: Expected::Quarantined, ..Note::default() }, now);
            ledger.confirmed(id);
        }
        let verdict = ledger.verdict(now);
        let quiet = text(&verdict);
        assert!(quiet.ends_with("nothing lost, nothing doubled"), "{quiet}");
        for part in ["quarantined          2", "customer 1           1 sent", "nothing timed"] {
            assert!(quiet.contains(part), "{part}: {quiet}");
        }
        assert!(!quiet.contains("paused") && !quiet.contains("unknown "), "{quiet}");
        let details = Details {
            unexpected: 1,
            unexpected_answers: vec!["x NACK".to_owned()],
            paused_seconds: 2.5,
            ..verdict.details
        };
        let wrong = text(&Verdict { details, ..verdict });
        assert!(wrong.contains("x NACK") && wrong.contains("2.500 s by the routing control"), "{wrong}");
        assert!(wrong.ends_with("NOT GOOD"), "{wrong}");
    }
}
