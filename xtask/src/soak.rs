//! `cargo xtask bench soak`: the endurance test of both applications, for as long as it is told.

use std::process::Command;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use crate::cargo::shown;

/// How long, how hard, and under which seed.
#[derive(Debug, Args)]
#[command(
    after_help = "Progress comes each ten seconds. At the end: how often each fault struck each target, the customer's \
verdict, conservation over both stores, and what reconciliation finds. Exit code 0 only if nothing must not be; else the \
seed, the last fault, the ids and the folder of logs are told. The same --seed takes the same faults again.\n\n\
Needs root, and the programs that the lab has fetched: docs/soak.md"
)]
pub(crate) struct Soak {
    /// Seconds for which messages and faults come
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(10..=86_400))]
    seconds: u64,
    /// One fault in each, like 2s or 500ms
    #[arg(long, default_value = "2s", value_parser = duration)]
    every: Duration,
    /// Seed of the faults, of the copies and of the trades; a random one if not given
    #[arg(long)]
    seed: Option<u64>,
    /// Messages a second of all customers together
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=2_000))]
    rate: u32,
}

pub(crate) fn run(settings: &Soak) -> Result<()> {
    let mut command = Command::new(env!("CARGO"));
    command.env("SOAK_SECONDS", settings.seconds.to_string());
    command.env("SOAK_EVERY_MILLISECONDS", settings.every.as_millis().to_string());
    command.env("SOAK_RATE", settings.rate.to_string());
    if let Some(seed) = settings.seed {
        command.env("SOAK_SEED", seed.to_string());
    }
    command.args(["test", "--workspace", "--test", "soak", "--", "--nocapture", "whatever_fails"]);
    shown(&mut command)
}

/// A whole number with its unit, at least 100 ms.
fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || "write a number with ms or s, like 500ms or 2s; at least 100ms".to_owned();
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s').ok_or_else(wrong)?, 1_000),
    };
    let number: u32 = number.parse().map_err(|_| wrong())?;
    let duration = Duration::from_millis(u64::from(number) * unit);
    if duration < Duration::from_millis(100) { Err(wrong()) } else { Ok(duration) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_between_faults_has_its_unit() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        for wrong in ["2", "s", "-1s", "1m", "10ms", "0s"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
