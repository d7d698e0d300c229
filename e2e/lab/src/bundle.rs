//! Gathers what explains a failure: logs of all processes and pods, Kubernetes objects and events, the simulator's
//! call log. Passwords and keys stay out.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::cache::{create_folder, write};
use crate::command::run;
use crate::control;
use crate::error::{Error, Result};
use crate::facts::Facts;
use crate::layout::Lab;
use crate::network;
use crate::process;
use crate::region::{Place, Region};

const CALL: Duration = Duration::from_secs(20);

/// What is asked of each cluster: file name and kubectl's arguments.
const QUESTIONS: [(&str, &[&str]); 4] = [
    ("events.txt", &["get", "events", "--all-namespaces", "--sort-by=.lastTimestamp", "--output=wide"]),
    ("pods.txt", &["get", "pods", "--all-namespaces", "--output=wide"]),
    ("workloads.yaml", &["get", "deployments,pods,leases", "--all-namespaces", "--output=yaml"]),
    ("tradingregions.yaml", &["get", "tradingregions", "--all-namespaces", "--output=yaml"]),
];

/// Gathers everything into a folder. A part that cannot be had leaves a note with the reason instead.
///
/// # Errors
/// When the folder cannot be written.
pub fn bundle(lab: &Lab, target: &Path) -> Result<()> {
    create_folder(target)?;
    let status = process::status(lab).map(|all| {
        all.iter()
            .map(|one| {
                let state = if one.alive { "alive" } else { "DEAD" };
                format!("{:10} {:25} {:7} {state}\n", one.place, one.name, one.pid)
            })
            .collect()
    });
    note(&target.join("processes.txt"), status)?;
    note(&target.join("cuts.txt"), network::cuts(lab).map(|cuts| cuts.join("\n")))?;
    note(&target.join("aws-calls.json"), control::request(lab, "GET", "/calls", ""))?;
    for place in Place::ALL {
        copy_logs(&lab.place(place).join("logs"), &target.join(place.name()).join("logs"))?;
    }
    let facts = Facts::read(lab.plan.name());
    for region in Region::ALL {
        let folder = target.join(region.name());
        copy_logs(&lab.place(region).join("kubernetes/pod-logs"), &folder.join("pods"))?;
        if let Ok(facts) = &facts {
            for (file, question) in QUESTIONS {
                let mut kubectl = Command::new(&facts.programs["kubectl"]);
                kubectl.arg("--kubeconfig").arg(&facts.regions[&region].kubeconfig);
                note(&folder.join(file), run(kubectl.arg("--request-timeout=10s").args(question), CALL))?;
            }
        }
    }
    Ok(())
}

fn note(file: &Path, content: Result<String>) -> Result<()> {
    write(file, content.unwrap_or_else(|error| format!("not available: {error}\n")))
}

/// Copies a folder of logs; a missing one is fine.
fn copy_logs(from: &Path, to: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    create_folder(to)?;
    for entry in entries.flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_logs(&entry.path(), &target)?;
        } else if entry.path().is_file() {
            fs::copy(entry.path(), &target).map_err(Error::file("copy", &entry.path()))?;
        }
    }
    Ok(())
}
