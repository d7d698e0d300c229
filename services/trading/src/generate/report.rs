//! What the customer prints: progress while it runs, the verdict at the end. Standard output carries the verdict
//! alone, so that `-o json` can be piped.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use super::{Output, SharedLedger, Verdict, with};
use crate::message::json;

/// Prints the state of the ledger, each second on a terminal and each five seconds elsewhere, until aborted.
pub(super) async fn progress(ledger: SharedLedger) {
    let terminal = std::io::stderr().is_terminal();
    let interval = Duration::from_secs(if terminal { 1 } else { 5 });
    let began = Instant::now();
    loop {
        tokio::time::sleep(interval).await;
        let (now, problem) = with(&ledger, |ledger| (ledger.counts(), ledger.take_problem()));
        let problem = problem.map(|problem| format!("  [{problem}]")).unwrap_or_default();
        let line = format!("{:>4} s  {now}{problem}", began.elapsed().as_secs());
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
    let statuses: Vec<_> =
        verdict.statuses.iter().map(|(status, count)| format!("{status} {count}")).collect();
    let epochs: Vec<_> = verdict.epochs.iter().map(ToString::to_string).collect();
    let gap =
        verdict.unavailable.map(|gap| format!(" ({:.0} … {:.0})", gap.from, gap.to)).unwrap_or_default();
    let mut lines = vec![
        format!("sent         {:>9}   sent again without a confirm: {}", verdict.sent, verdict.resent),
        format!("confirmed    {:>9}   never confirmed: {}", verdict.confirmed, verdict.unconfirmed),
        format!("answered     {:>9}   {}", verdict.answered, statuses.join(", ")),
        format!("lost         {:>9}   {}", verdict.lost, verdict.lost_ids.join(" ")),
        format!("doubled      {:>9}   {}", verdict.doubled, verdict.doubled_ids.join(" ")),
        format!("repeats      {:>9}   the same answer again, harmless", verdict.repeats),
        format!("unavailable  {:>9.3} s longest wait for an answer{gap}", verdict.unavailable_seconds),
        format!("epochs       {:>9}", epochs.join(", ")),
    ];
    if verdict.unknown > 0 {
        lines.push(format!("unknown      {:>9}   answers to messages of somebody else", verdict.unknown));
    }
    lines.push(if verdict.good() { "nothing lost, nothing doubled".into() } else { "NOT GOOD".to_owned() });
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}
