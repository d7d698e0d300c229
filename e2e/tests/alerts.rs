//! The alerts fire when they should, after the time that they name, and stay silent otherwise: Prometheus's own
//! `promtool` runs the rendered rules over series that the operator's, the keeper's and the reconciler's own code wrote.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the failure of the test"
)]

#[path = "alerts/promtool.rs"]
mod promtool;
#[path = "alerts/reconciliation.rs"]
mod reconciliation;
#[path = "alerts/series.rs"]
mod series;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use promtool::{Case, Promtool};
use region_operator::metrics::{Metrics, Seen};
use region_plan::{Code, Limits, Phase};
use serde_json::Value;
use series::{Series, keeper};

const ARC_REGIONS: [&str; 5] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"];

fn chart_file(chart: &str, name: &str) -> String {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts").join(chart);
    fs::read_to_string(chart.join(name)).unwrap()
}

/// The rules as a chart renders them with alerts on; a test of the charts keeps these files equal to the templates.
fn rules_of(chart: &str, golden: &str) -> Value {
    let file = chart_file(chart, &format!("tests/golden/{golden}.yaml"));
    let objects: Vec<Value> = serde_saphyr::from_multiple(&file).unwrap();
    objects.into_iter().find(|object| object["kind"] == "PrometheusRule").unwrap()["spec"].clone()
}

fn rules() -> Value {
    rules_of("trading-region-operator", "service-monitor")
}

fn steady() -> Seen {
    Seen {
        phase: Phase::Steady,
        codes: Vec::new(),
        lease_remaining_seconds: Some(18.0),
        lag_seconds: None,
        peer_reachable: true,
    }
}

/// What two operators, the first of them leading, and three keepers show; `down` endpoints do not answer the leader.
fn region(seen: Seen, down: usize) -> Vec<Series> {
    let leader = Metrics::default();
    leader.leads(true);
    leader.saw("uid", seen);
    for (number, region) in ARC_REGIONS.iter().enumerate() {
        leader.endpoint(region, number >= down, None);
    }
    let other = Metrics::default();
    other.leads(false);
    let mut all = series::read("operator-0", &leader.text().unwrap());
    all.extend(series::read("operator-1", &other.text().unwrap()));
    all.extend(["keeper-0", "keeper-1", "keeper-2"].into_iter().flat_map(keeper));
    all.extend(series::core("core-0", "trading-core"));
    all
}

fn healthy() -> Vec<Series> {
    region(steady(), 0)
}

/// Keepers that run and have not read the lease row since they started.
fn unread() -> Vec<Series> {
    let after_reading = [
        "region_keeper_holder",
        "region_keeper_lease_remaining_seconds",
        "region_keeper_last_renewal_age_seconds",
    ];
    after_reading.into_iter().fold(healthy(), series::without)
}

/// Told after the chart's default: the values of the render name no bound of their own.
fn stuck_in(phase: Phase) -> Case {
    let series = region(Seen { phase, ..steady() }, 0);
    Case::new("RegionRunStuck", series)
        .after("5m")
        .says("A start or a switch that concerns region us-east-1 has not ended")
}

/// A start that waits while nobody holds the lease.
fn nobody_holds() -> Vec<Series> {
    let codes = vec![Code::NobodyHolds];
    region(Seen { phase: Phase::Starting, codes, lease_remaining_seconds: None, ..steady() }, 0)
}

/// An object that the leader cannot decode.
fn not_understood() -> Vec<Series> {
    series::set(healthy(), &["operator-0"], "region_operator_undecodable_objects", "1")
}

/// Each alert at least once, with what makes it fire.
fn cases() -> Vec<Case> {
    let set = |pods: &[&str], name: &str, value: &str| series::set(healthy(), pods, name, value);
    let keepers = ["keeper-0", "keeper-1", "keeper-2"];
    let app = ("app", "trade-matching");
    let no_database = series::set(unread(), &keepers, "region_keeper_missed_renewals", "4");
    let mut cases = vec![
        Case::new("RegionLeaseRemainingLow", set(&keepers, "region_keeper_lease_remaining_seconds", "6.5"))
            .labelled(app)
            .says("The lease of trade-matching runs out in 6.5s"),
        Case::new("RegionRenewalsMissed", set(&keepers[..1], "region_keeper_missed_renewals", "1"))
            .labelled(app)
            .says("A keeper of trade-matching has missed 1 renewals in a row"),
        // Their database does not answer: nobody can tell yet whether this region holds the lease.
        Case::new("RegionRenewalsMissed", no_database)
            .labelled(app)
            .says("A keeper of trade-matching has missed 4 renewals in a row"),
        Case::new("RegionKeeperAbsent", series::without(healthy(), "region_keeper_"))
            .after("1m")
            .says("No keeper reports in region us-east-1"),
        Case::new("RegionWaitForUser", region(Seen { phase: Phase::WaitForUser, ..steady() }, 0))
            .says("An application in region us-east-1 waits for a person"),
        Case::new("RegionNobodyHolds", nobody_holds())
            .after("2m")
            .says("Nobody can write in an application of region us-east-1, for nobody holds its lease"),
        Case::new("RegionPeerUnreachable", region(Seen { peer_reachable: false, ..steady() }, 0))
            .after("2m")
            .says("The operator of us-east-1 cannot read the other cluster"),
        Case::new("RegionObjectUndecodable", not_understood())
            .after("2m")
            .says("The operator of us-east-1 does not understand an object and leaves it alone"),
        Case::new("RegionArcEndpointsUnhealthy", region(steady(), 2))
            .after("2m")
            .labelled(("pod", "operator-0"))
            .says("Only 3 of 5 ARC endpoints answer"),
        Case::new("RegionOperatorWithoutLeader", set(&["operator-0"], "region_operator_leader", "0"))
            .after("1m")
            .says("No operator leads in region us-east-1"),
        Case::new("RegionOperatorWithoutLeader", series::without(healthy(), "region_operator_"))
            .after("1m")
            .says("No operator leads in region us-east-1"),
        Case::new("TradingDaysNotMade", set(&["core-0"], "services_store_days_made_ahead_seconds", "86400"))
            .after("15m")
            .labelled(("job", "trading-core"))
            .says("The stores of trading-core have partitions for 1d 0h 0m 0s to come"),
        Case::new("TradingRowsOutsideDays", set(&["core-0"], "services_store_rows_outside_days", "3"))
            .after("15m")
            .labelled(("job", "trading-core"))
            .says("3 rows of trading-core are in no partition of a day"),
        Case::new("TradingDayKeptOpen", set(&["core-0"], "services_store_days_overdue", "2"))
            .after("60m")
            .labelled(("job", "trading-core"))
            .says("trading-core keeps 2 days more than it should, because something of them is open"),
    ];
    // A start that waits for a holder is told by its finding before that.
    let moving = [
        Phase::Starting,
        Phase::Preparing,
        Phase::Draining,
        Phase::Promoting,
        Phase::Opening,
        Phase::Aborting,
    ];
    cases.extend(moving.map(stuck_in));
    // The finding that has an alert of its own fires that first.
    let later = |code: &&Code| code.blocks() && **code != Code::NobodyHolds;
    cases.extend(Code::ALL.iter().filter(later).map(|code| {
        let series = region(Seen { codes: vec![*code], ..steady() }, 0);
        Case::new("RegionNotReadyToSwitch", series)
            .after("15m")
            .says("A planned switch would be refused in region us-east-1")
    }));
    cases
}

#[test]
fn every_finding_that_blocks_a_switch_is_in_the_alert_about_it() {
    let rules = rules();
    let alert = promtool::alerts(&rules).find(|alert| alert["alert"] == "RegionNotReadyToSwitch").unwrap();
    let blocking: Vec<&str> = Code::ALL.iter().filter(|code| code.blocks()).map(|code| code.text()).collect();
    let expected = format!("code=~\"{}\"", blocking.join("|"));
    assert!(alert["expr"].as_str().unwrap().contains(&expected), "{expected} is not in {}", alert["expr"]);
}

#[test]
fn a_run_is_told_as_stuck_before_its_phase_asks_for_a_person() {
    let attention = Limits::default().attention.as_secs();
    let rules = rules();
    let alert = promtool::alerts(&rules).find(|alert| alert["alert"] == "RegionRunStuck").unwrap();
    let wait: i64 = alert["for"].as_str().unwrap().trim_end_matches('s').parse().unwrap();
    assert!(wait < attention, "{wait} s by default, a person is asked after {attention} s");
    let schema: Value =
        serde_json::from_str(&chart_file("trading-region-operator", "values.schema.json")).unwrap();
    let bound = &schema["properties"]["alerts"]["properties"]["runStuckSeconds"];
    let longest = bound["maximum"].as_i64().unwrap();
    assert!(longest < attention, "{longest} s is allowed, a person is asked after {attention} s");
}

#[test]
fn each_alert_fires_alone_after_the_time_that_it_names() {
    all_fire(&rules(), &cases());
}

/// Each alert of the rules has a case, and fires as that says.
fn all_fire(rules: &Value, cases: &[Case]) {
    let named: BTreeSet<&str> =
        promtool::alerts(rules).map(|alert| alert["alert"].as_str().unwrap()).collect();
    let tried: BTreeSet<&str> = cases.iter().map(|case| case.alert).collect();
    assert_eq!(named, tried, "each alert needs a case");
    Promtool::ready().test(rules, cases).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn nothing_fires_while_all_is_well_or_while_one_of_several_copes() {
    let set = |name: &str, value: &str| series::set(healthy(), &["keeper-0"], name, value);
    let silent = [
        healthy(),
        // One keeper that is cut off sees its last reading run down; the others renew.
        set("region_keeper_lease_remaining_seconds", "0"),
        // Keepers report from their start, before they have read the row.
        unread(),
        // A standby region: its keepers hold nothing.
        series::without(set("region_keeper_holder", "0"), "region_keeper_lease_remaining_seconds"),
        region(steady(), 1),
        // Findings that only inform.
        region(
            Seen { codes: Code::ALL.iter().copied().filter(|code| !code.blocks()).collect(), ..steady() },
            0,
        ),
    ];
    let cases: Vec<Case> = silent.into_iter().map(Case::silent).collect();
    Promtool::ready().test(&rules(), &cases).unwrap_or_else(|said| panic!("{said}"));
}

#[test]
fn promtool_refuses_an_alert_that_stays_silent_or_a_metric_with_another_name() {
    let promtool = Promtool::ready();
    let wrong = Case::new("RegionWaitForUser", healthy())
        .says("An application in region us-east-1 waits for a person");
    let said = promtool.test(&rules(), &[wrong]).unwrap_err();
    assert!(said.contains("FAILED"), "{said}");
    let renamed: Value =
        serde_json::from_str(&rules().to_string().replace("region_operator_leader", "region_operator_leads"))
            .unwrap();
    let said = promtool.test(&renamed, &[Case::silent(healthy())]).unwrap_err();
    assert!(said.contains("RegionOperatorWithoutLeader"), "{said}");
}
