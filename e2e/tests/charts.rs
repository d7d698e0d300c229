//! The charts, rendered by the pinned Helm: golden renders, refused values, and the rules that every rendered object
//! keeps. `UPDATE_GOLDEN=1` rewrites the golden files instead of comparing.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the failure of the test"
)]

#[path = "charts/golden.rs"]
mod golden;
#[path = "charts/helm.rs"]
mod helm;
#[path = "charts/rules.rs"]
mod rules;

use std::collections::BTreeSet;
use std::fs;

use helm::{CHARTS, Chart, Helm, repository};
use serde_json::Value;

fn every_render(mut check: impl FnMut(&Chart, &str, &[Value])) {
    let helm = Helm::pinned();
    for chart in CHARTS {
        for set in chart.value_sets() {
            let rendered = helm.template(chart, &set).unwrap_or_else(|error| panic!("{}: {error}", set.name));
            let objects = helm::objects(&rendered);
            assert!(!objects.is_empty(), "{} {} renders nothing", chart.name, set.name);
            check(chart, &set.name, &objects);
        }
    }
}

#[test]
fn every_value_set_passes_lint() {
    let helm = Helm::pinned();
    for chart in CHARTS {
        for set in chart.value_sets() {
            helm.lint(chart, &set).unwrap_or_else(|error| panic!("{} {}: {error}", chart.name, set.name));
        }
    }
}

#[test]
fn renders_equal_the_golden_files() {
    let helm = Helm::pinned();
    let mut differences = Vec::new();
    for chart in CHARTS {
        let sets = chart.value_sets();
        assert!(sets.len() >= 8, "{} has only {} value sets", chart.name, sets.len());
        for set in &sets {
            let rendered = helm.template(chart, set).unwrap_or_else(|error| panic!("{}: {error}", set.name));
            differences.extend(golden::compare(chart, &set.name, &rendered));
        }
        differences.extend(golden::leftovers(chart, &sets));
    }
    assert!(
        differences.is_empty(),
        "run again with UPDATE_GOLDEN=1 if this is wanted:\n{}",
        differences.join("\n")
    );
}

#[test]
fn wrong_values_are_refused_with_the_place_of_the_mistake() {
    let helm = Helm::pinned();
    for chart in CHARTS {
        let sets = chart.refused_sets();
        assert!(sets.len() >= 12, "{} has only {} refused value sets", chart.name, sets.len());
        for set in sets {
            let expected = set.comment("refused").unwrap_or_else(|| panic!("{} names no refusal", set.name));
            match helm.template(chart, &set) {
                Ok(_) => panic!("{} {} is accepted, expected {expected:?}", chart.name, set.name),
                Err(said) => {
                    assert!(said.contains(&expected), "{}: expected {expected:?}, got: {said}", set.name)
                }
            }
        }
    }
}

#[test]
fn notes_warn_of_what_is_missing() {
    let helm = Helm::pinned();
    let mut warnings = 0;
    for chart in CHARTS {
        for set in chart.value_sets() {
            let mut expected = set.comments("warns");
            if expected.is_empty() {
                continue;
            }
            expected.retain(|warning| warning != "nothing");
            let notes = helm.notes(chart, &set).unwrap_or_else(|error| panic!("{}: {error}", set.name));
            for warning in &expected {
                assert!(
                    notes.contains(&format!("WARNING: {warning}")),
                    "{}: no {warning:?} in {notes}",
                    set.name
                );
            }
            assert_eq!(
                notes.matches("WARNING: ").count(),
                expected.len(),
                "{} {}: {notes}",
                chart.name,
                set.name
            );
            warnings += expected.len();
        }
    }
    assert!(warnings >= 10, "only {warnings} warnings are expected");
}

#[test]
fn schemas_describe_every_key_and_refuse_unknown_ones() {
    for chart in CHARTS {
        let schema: Value = serde_json::from_str(&chart.read("values.schema.json")).unwrap();
        let faults = rules::schema_faults(&schema);
        assert!(faults.is_empty(), "{}: {faults:#?}", chart.name);
    }
}

#[test]
fn every_pod_keeps_the_restricted_profile() {
    let mut pods = 0;
    every_render(|chart, set, objects| {
        for object in objects {
            let Some(pod) = rules::pod_template(object) else { continue };
            pods += 1;
            let faults = rules::pod_faults(object, pod);
            assert!(faults.is_empty(), "{} {set} {}: {faults:#?}", chart.name, rules::title(object));
        }
    });
    assert!(pods > 20, "only {pods} pods were looked at");
}

#[test]
fn rights_name_every_group_resource_and_verb() {
    let mut roles = 0;
    every_render(|chart, set, objects| {
        for object in objects {
            roles += usize::from(object["kind"].as_str().is_some_and(|kind| kind.ends_with("Role")));
            let faults = rules::rbac_faults(object);
            assert!(faults.is_empty(), "{} {set} {}: {faults:#?}", chart.name, rules::title(object));
        }
    });
    assert!(roles > 0, "no role was rendered");
}

#[test]
fn the_operator_is_granted_what_it_says_it_needs_and_no_more() {
    let needed =
        rules::documented_rights(&fs::read_to_string(repository().join("operator/RBAC.md")).unwrap());
    assert!(needed.len() >= 8, "{needed:?}");
    every_render(|chart, set, objects| {
        if chart.name == "trading-region-operator" {
            assert_eq!(rules::granted_rights(objects), needed, "{set}");
        }
    });
}

#[test]
fn deployments_of_the_application_leave_the_replica_count_to_the_operator() {
    let (mut seen, mut apart) = (0, 0);
    every_render(|chart, set, objects| {
        for object in
            objects.iter().filter(|object| object["kind"] == "Deployment" && chart.name == "trading")
        {
            let at = format!("{set} {}", rules::title(object));
            let meta = &object["metadata"];
            if meta["labels"]["app.kubernetes.io/component"] == "reconciler" {
                // It runs in both regions, always: no label and no annotation by which the operator would scale it.
                let text = meta.to_string() + &object["spec"]["template"]["metadata"].to_string();
                let selects = ["part-of", "regions.trading.dev"].iter().any(|word| text.contains(word));
                assert!(!selects && object["spec"]["replicas"] == 1, "{at}: {text}");
                apart += 1;
                continue;
            }
            assert!(object["spec"].get("replicas").is_none(), "{at} sets replicas");
            let wanted = meta["annotations"]["regions.trading.dev/active-replicas"].as_str();
            assert!(wanted.is_some_and(|text| text.parse::<u16>().is_ok_and(|n| n > 0)), "{at}: {wanted:?}");
            assert!(
                meta["labels"]["regions.trading.dev/tier"].as_str().is_some_and(|t| t.parse::<u8>().is_ok()),
                "{at}"
            );
            assert!(meta["labels"]["app.kubernetes.io/part-of"].is_string(), "{at}");
            seen += 1;
        }
    });
    assert!(seen >= 24 && apart >= 2, "only {seen} and {apart} Deployments were looked at");
}

#[test]
fn selectors_find_the_pods_that_they_are_for() {
    every_render(|chart, set, objects| {
        let faults = rules::selector_faults(objects);
        assert!(faults.is_empty(), "{} {set}: {faults:#?}", chart.name);
    });
}

#[test]
fn every_alert_has_a_runbook_and_every_runbook_an_alert() {
    let mut alerts = BTreeSet::new();
    every_render(|_, _, objects| {
        for rule in rules::alerts(objects) {
            let name = rule["alert"].as_str().unwrap().to_owned();
            let url = rule["annotations"]["runbook_url"].as_str().unwrap();
            assert!(url.ends_with(&format!("/{name}.md")), "{name} points to {url}");
            alerts.insert(name);
        }
    });
    let runbooks: BTreeSet<String> = fs::read_dir(repository().join("docs/runbooks"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".md").map(str::to_owned))
        .filter(|name| name != "README")
        .collect();
    assert_eq!(alerts, runbooks);
    for name in runbooks {
        let text = fs::read_to_string(repository().join(format!("docs/runbooks/{name}.md"))).unwrap();
        for part in ["# ", "## Meaning", "## Impact", "## Diagnosis", "## Mitigation", "```"] {
            assert!(text.contains(part), "runbook {name} lacks {part:?}");
        }
    }
}

#[test]
fn the_chart_ships_the_generated_definitions() {
    let generated = helm::yaml_files(&repository().join("crds/yaml"));
    assert!(!generated.is_empty(), "crds/yaml is empty");
    let shipped = repository().join("charts/trading-region-operator/crds");
    if golden::update_wanted() {
        for (name, text) in &generated {
            fs::write(shipped.join(format!("{name}.yaml")), text).unwrap();
        }
    }
    let names = |files: &[(String, String)]| files.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let copies = helm::yaml_files(&shipped);
    assert_eq!(names(&copies), names(&generated));
    assert!(copies == generated, "crds/yaml has changed; copy it to the chart with UPDATE_GOLDEN=1");
}

#[test]
fn the_lab_needs_no_more_than_its_values_and_the_facts_of_a_region() {
    let helm = Helm::pinned();
    let facts = [
        "region=us-east-1",
        "database.host=us-east-1.trading.lab",
        "broker.url=amqps://us-east-1.trading.lab:5671",
    ];
    for (chart, facts) in [(&CHARTS[0], &facts[..1]), (&CHARTS[1], &facts[..])] {
        let file = if chart.name == "trading" { "trading" } else { "operator" };
        let sets = helm::value_sets(&repository().join("e2e/values"));
        let set = sets.iter().find(|set| set.name == file).unwrap();
        let rendered =
            helm.template_with(chart, set, facts).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(rendered.contains(":dev"), "{file} does not use the image that the lab builds");
    }
}

#[test]
fn charts_say_nothing_of_the_lab() {
    for chart in CHARTS {
        for (file, text) in chart.shipped_files() {
            let text = text.to_lowercase();
            for word in [".trading.lab", " lab ", "xtask", "10.99.", "simulator"] {
                assert!(!text.contains(word), "{} {file} says {word:?}", chart.name);
            }
        }
    }
}
