//! The alerts of the application's chart, over what continuous reconciliation itself writes.

use std::time::{Duration, Instant};

use serde_json::Value;
use trading::reconcile::{Boundary, Comparison, Job, ReconcileError, Report, Watched};

use crate::promtool::{Case, Promtool};
use crate::series::{self, Series};
use crate::{all_fire, rules_of};

const APP: &str = "trade-matching";

fn rules() -> Value {
    rules_of("trading", "reconciliation-continuous")
}

/// A complete round that found so many records missing at the first boundary and differing at the second.
fn round(missing: u64, differing: u64) -> Report {
    let mut boundaries: Vec<Boundary> = Job::TRADES
        .into_iter()
        .map(|job| Boundary { comparison: Comparison::new(job), replay: None })
        .collect();
    boundaries[0].comparison.missing.count = missing;
    boundaries[1].comparison.differs.count = differing;
    let agrees = missing + differing == 0;
    Report { app: APP.into(), region: "us-east-1".into(), agrees, boundaries, untold: Vec::new() }
}

/// What the reconcilers of the active region and of the other one show, so long after a round there.
fn shown(round: &Result<Report, ReconcileError>, age: Duration) -> Vec<Series> {
    let (here, there) = ("us-east-1", "us-west-2");
    let now = Instant::now();
    let active = Watched::new(APP, here, Job::TRADES.to_vec());
    active.tell(round, now);
    let standby = Watched::new(APP, there, Job::TRADES.to_vec());
    standby.tell(&Err(ReconcileError::Standby), now);
    let mut all = series::read("reconciler-0", &active.text(now + age));
    all.extend(series::read("reconciler-1", &standby.text(now + age)));
    all
}

const YOUNG: Duration = Duration::from_secs(20);

#[test]
fn each_alert_about_reconciliation_fires_alone_after_the_time_that_it_names() {
    let reason = "the lease expired".to_owned();
    let unknown = Err(ReconcileError::Closed { reason });
    let place = |case: Case| case.labelled(("app", APP)).labelled(("region", "us-east-1"));
    let absent = |series| {
        let case = Case::new("TradingReconciliationAbsent", series).after("15m");
        case.says("Nobody compares the stores of trade-matching in us-east-1")
    };
    let cases = [
        place(Case::new("TradingStoresDiffer", shown(&Ok(round(2, 1)), YOUNG)))
            .after("5m")
            .says("The stores of trade-matching in us-east-1 differ in 3 records"),
        place(Case::new("TradingReconciliationOld", shown(&Ok(round(0, 0)), Duration::from_secs(901))))
            .says("The stores of trade-matching in us-east-1 were last compared completely 15m 1s ago"),
        // No round was ever complete: as old as the first one.
        place(Case::new("TradingReconciliationOld", shown(&unknown, Duration::from_secs(1_800))))
            .says("The stores of trade-matching in us-east-1 were last compared completely 30m 0s ago"),
        absent(other_regions()),
        // It starts anew again and again, and never comes to the end of a round.
        absent(before_the_first_round()),
    ];
    all_fire(&rules(), &cases);
}

/// What is left when this region's reconciler is gone.
fn other_regions() -> Vec<Series> {
    shown(&Ok(round(0, 0)), YOUNG)
        .into_iter()
        .filter(|series| !series.notation().contains("us-east-1"))
        .collect()
}

/// What this region's reconciler shows until then.
fn before_the_first_round() -> Vec<Series> {
    let mut all = other_regions();
    let started = Watched::new(APP, "us-east-1", Job::TRADES.to_vec());
    all.extend(series::read("reconciler-0", &started.text(Instant::now())));
    all
}

#[test]
fn nothing_fires_while_the_stores_agree_or_while_this_region_is_on_standby() {
    let silent = [
        shown(&Ok(round(0, 0)), YOUNG),
        shown(&Ok(round(0, 0)), Duration::from_secs(890)),
        // A round that failed once tells nothing, and is not old.
        shown(&Err(ReconcileError::Closed { reason: "the lease expired".to_owned() }), YOUNG),
        shown(&Err(ReconcileError::Standby), Duration::from_secs(86_400)),
    ];
    let cases: Vec<Case> = silent.into_iter().map(Case::silent).collect();
    Promtool::ready().test(&rules(), &cases).unwrap_or_else(|said| panic!("{said}"));
}
