//! What a stage is told on its command line or in its environment.

use std::num::NonZeroU16;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use services_common::config::{BrokerArgs, DatabaseArgs, HttpArgs, RegionArgs};

use super::PeerArgs;
use crate::days::KEEP_DAYS_MIN;

/// Options of every stage.
#[derive(Args, Clone, Debug)]
pub struct StageArgs {
    #[command(flatten)]
    pub(super) region: RegionArgs,
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    #[command(flatten)]
    pub(super) broker: BrokerArgs,
    #[command(flatten)]
    pub(super) http: HttpArgs,
    /// Broker user whose messages on the first queue are probes, not business
    #[arg(long, env = "PROBE_USER", default_value = "tm-core")]
    pub(super) probe_user: String,
    /// Messages in one transaction at most, where that is less than the stage takes by itself; 1 is the form without
    /// batches, to measure against
    #[arg(long, env = "BATCH_LIMIT")]
    pub(super) batch_limit: Option<NonZeroU16>,
    #[command(flatten)]
    pub(super) peer: PeerArgs,
    /// Days that the stores keep beside today, 7 to 3650: a day that is older is dropped once nothing of it is open; 0 keeps all.
    /// Only core uses it
    #[arg(long, env = "KEEP_DAYS", default_value = "0", value_parser = keep_days)]
    pub(super) keep_days: KeepDays,
}

/// How many days are kept; `None` is all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeepDays(pub(super) Option<NonZeroU16>);

/// Longest time that options count in days: ten years.
const DAYS_MAX: u16 = 3_650;

fn keep_days(text: &str) -> Result<KeepDays, String> {
    match text.parse() {
        Ok(0) => Ok(KeepDays(None)),
        Ok(days @ KEEP_DAYS_MIN..=DAYS_MAX) => Ok(KeepDays(NonZeroU16::new(days))),
        _ => Err(format!("write a number of days from {KEEP_DAYS_MIN} to {DAYS_MAX}, or 0 to keep all")),
    }
}

/// Options of the stages of trade matching.
#[derive(Args, Clone, Debug)]
pub struct TradingArgs {
    #[command(flatten)]
    pub(super) stage: StageArgs,
    /// Settle matched trades: egress makes a settlement for each allocation, outbound sends them to the settlement
    /// application's broker (--peer-broker-url), and what comes back is taken. The same for all stages
    #[arg(long, env = "SETTLEMENTS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    pub(super) settlements: bool,
    /// Seconds after which a settlement that has not come back is sent again, then after twice as long, and so on; only
    /// outbound uses it
    #[arg(long, env = "RESEND_AFTER_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(60..=86_400))]
    pub(super) resend_after_seconds: u64,
    /// Days after its trade date for which a trade waits for the other party's report, 1 to 3650; then it is EXPIRED, and its
    /// sender told. 0: it waits for ever. Only core uses it
    #[arg(long, env = "EXPIRE_AFTER_DAYS", default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=i64::from(DAYS_MAX)))]
    pub(super) expire_after_days: u16,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_kept_from_a_week_to_ten_years_or_all_of_them() {
        let days = |text| keep_days(text).map(|KeepDays(days)| days.map_or(0, NonZeroU16::get));
        assert_eq!(["0", "7", "3650"].map(days), [Ok(0), Ok(7), Ok(3_650)]);
        for wrong in ["", "6", "3651", "-1", "a week", "65536"] {
            let reason = days(wrong).unwrap_err();
            assert!(reason.contains("from 7 to 3650, or 0"), "{wrong}: {reason}");
        }
    }
}
