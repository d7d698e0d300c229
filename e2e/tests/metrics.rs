//! `docs/metrics.md` names exactly the metrics that the programs write, with their types and labels.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the failure of the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use region_operator::metrics::{AttemptResult, Metrics, PassResult, Seen};
use region_plan::{Phase, StepKind};
use trading::names::Application;
use trading::reconcile::{Job, Watched};
use trading::run::{StageName, metrics_at_start};

/// What the keeper's own test says that its code writes while it holds the lease.
const KEEPER: &str = include_str!("../../operator/keeper/tests/golden/holding.txt");

/// Labels that all series of a program have: the page says so once.
const COMMON: [(&str, &[&str]); 4] = [
    ("services_reconcile_", &["app", "region"]),
    ("services_", &["stage"]),
    ("region_operator_", &[]),
    ("region_keeper_", &["app"]),
];

/// Type and labels of a metric.
type Described = (String, BTreeSet<String>);

fn common(name: &str) -> &'static [&'static str] {
    COMMON.iter().find(|(begin, _)| name.starts_with(begin)).unwrap().1
}

/// The metrics in an OpenMetrics text, by the names of their samples.
fn written(text: &str, found: &mut BTreeMap<String, Described>) {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    for (family, kind) in types {
        let ending = if kind == "counter" { "_total" } else { "" };
        let name = format!("{family}{ending}");
        let sample = format!("{name}{}", if kind == "histogram" { "_count" } else { "" });
        let mut labels = BTreeSet::new();
        for line in text.lines() {
            let Some(rest) = line.strip_prefix(&sample) else { continue };
            let Some(inside) = rest.strip_prefix('{').and_then(|rest| rest.split('}').next()) else {
                continue;
            };
            labels.extend(inside.split(',').filter_map(|label| label.split('=').next()).map(str::to_owned));
        }
        labels.retain(|label| !common(&name).contains(&label.as_str()));
        let known = found.entry(name).or_insert_with(|| (kind.to_owned(), BTreeSet::new()));
        known.1.extend(labels);
    }
}

/// What an operator shows that has done everything once.
fn operator() -> String {
    let metrics = Metrics::default();
    metrics.leads(true);
    metrics.pass(PassResult::Ok, Duration::ZERO);
    metrics.step_proved(StepKind::Fence, Duration::ZERO);
    metrics.attempt(StepKind::Fence, AttemptResult::Done);
    metrics.endpoint("us-east-1", true, Some(Duration::ZERO));
    let seen = Seen {
        phase: Phase::Steady,
        codes: Vec::new(),
        lease_remaining_seconds: Some(1.0),
        lag_seconds: Some(1.0),
        peer_reachable: true,
    };
    metrics.saw("uid", seen);
    metrics.text().unwrap()
}

fn in_the_programs() -> BTreeMap<String, Described> {
    let mut found = BTreeMap::new();
    for application in [Application::TradeMatching, Application::Settlement] {
        for stage in StageName::ALL {
            written(&metrics_at_start(stage, application), &mut found);
        }
    }
    written(
        &Watched::new("trade-matching", "us-east-1", Job::TRADES.to_vec()).text(Instant::now()),
        &mut found,
    );
    written(&operator(), &mut found);
    written(KEEPER, &mut found);
    found
}

/// The rows of the page's tables of metrics; each names its unit and says what it means.
fn on_the_page() -> BTreeMap<String, Described> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md")).unwrap();
    let mut found = BTreeMap::new();
    for line in page.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, name, kind, unit, labels, meaning, _] = cells.as_slice() else { continue };
        let Some(name) = name.strip_prefix('`').and_then(|name| name.strip_suffix('`')) else { continue };
        assert!(!unit.is_empty() && meaning.len() > 8, "{line}");
        assert_eq!(name.trim_end_matches("_total").ends_with("_seconds"), *unit == "seconds", "{line}");
        let labels = labels.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        let before = found.insert(name.to_owned(), ((*kind).to_owned(), labels));
        assert_eq!(before, None, "{name} stands there twice");
    }
    found
}

#[test]
fn the_page_names_every_metric_with_its_type_and_labels_and_no_other() {
    let (page, programs) = (on_the_page(), in_the_programs());
    assert!(programs.len() > 30, "only {programs:?}");
    let only = |one: &BTreeMap<String, Described>, other: &BTreeMap<String, Described>| {
        one.iter().filter(|(name, _)| !other.contains_key(*name)).map(|(name, _)| name.clone()).collect()
    };
    let (stale, missing): (Vec<String>, Vec<String>) = (only(&page, &programs), only(&programs, &page));
    assert!(
        stale.is_empty() && missing.is_empty(),
        "not in the code: {stale:?}; not on the page: {missing:?}"
    );
    for (name, described) in &programs {
        assert_eq!(&page[name], described, "{name}");
    }
}
