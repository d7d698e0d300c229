//! Every golden render is accepted by the real API servers of the lab, as a dry run: nothing is made. Field names, types
//! and values are judged strictly by the server itself.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the failure of the test"
)]

#[path = "charts/helm.rs"]
#[expect(dead_code, reason = "shared with charts.rs, which renders; this test only reads the renders")]
mod helm;

use std::io::Write as _;
use std::process::{Command, Stdio};

use helm::CHARTS;
use lab::{Facts, Region, RegionFacts};
use serde_json::{Value, json};

/// Kinds whose definitions the lab does not have.
const UNKNOWN_TO_THE_LAB: [&str; 3] = ["ServiceMonitor", "PodMonitor", "PrometheusRule"];

/// What kubectl said about the objects; the error is its words.
fn dry_run(facts: &Facts, place: &RegionFacts, objects: &[Value]) -> Result<(), String> {
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let mut kubectl = Command::new(&facts.programs["kubectl"])
        .arg("--kubeconfig")
        .arg(&place.kubeconfig)
        .args(["apply", "--server-side", "--dry-run=server", "--validate=strict", "--request-timeout=30s"])
        .args(["--field-manager=charts-admission", "--force-conflicts", "--filename", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| error.to_string())?;
    let written = kubectl.stdin.take().map(|mut input| input.write_all(list.as_bytes()));
    assert!(matches!(written, Some(Ok(()))), "kubectl took no input");
    let output = kubectl.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

fn accepted_objects(rendered: &str) -> Vec<Value> {
    let mut objects = helm::objects(rendered);
    objects.retain(|object| !UNKNOWN_TO_THE_LAB.iter().any(|kind| object["kind"] == *kind));
    for object in &mut objects {
        // Namespaces of the value sets do not all exist on the lab.
        if object["metadata"].get("namespace").is_some() {
            object["metadata"]["namespace"] = json!("trading");
        }
    }
    objects
}

#[test]
fn the_servers_of_both_regions_accept_every_render() {
    let facts = Facts::read("tr").unwrap();
    let mut checked = 0;
    for chart in CHARTS {
        for (name, rendered) in helm::yaml_files(&chart.folder().join("tests/golden")) {
            let objects = accepted_objects(&rendered);
            for region in Region::ALL {
                dry_run(&facts, &facts.regions[&region], &objects)
                    .unwrap_or_else(|said| panic!("{} {name} in {region}: {said}", chart.name));
            }
            checked += objects.len();
        }
    }
    assert!(checked > 100, "only {checked} objects were checked");
}

#[test]
fn a_render_with_an_unknown_field_is_refused() {
    let facts = Facts::read("tr").unwrap();
    let place = &facts.regions[&Region::ALL[0]];
    let object = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "refused", "namespace": "trading"},
        "spec": {"ports": [{"port": 80}], "surprise": true},
    });
    let said = dry_run(&facts, place, &[object]).unwrap_err();
    assert!(said.contains("surprise"), "{said}");
}
