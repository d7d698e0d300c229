//! The contract as an independent client sees it: botocore, pinned by hash, in a virtual environment.
#![expect(clippy::panic, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{KEY, PANEL, REGIONS, Running, SECRET, ZONE, cluster_arn, control_arn};
use serde_json::json;

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    );
}

#[expect(clippy::disallowed_methods, reason = "a test has no command line to take the cache's place from")]
fn cache() -> PathBuf {
    let base = std::env::var("XDG_CACHE_HOME").map(PathBuf::from);
    let base = base.unwrap_or_else(|_| Path::new(&std::env::var("HOME").unwrap()).join(".cache"));
    base.join("trading-region-operator")
}

/// The virtual environment's Python, made if it is missing. Its folder is named after the pinned versions.
fn python(requirements: &Path) -> PathBuf {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(std::fs::read(requirements).unwrap());
    let name: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    let cache = cache();
    std::fs::create_dir_all(&cache).unwrap();
    // Held until the end of this function: two test runs share one cache.
    let lock = File::create(cache.join("botocore.lock")).unwrap();
    lock.lock().unwrap();
    let folder = cache.join(format!("botocore-{name}"));
    let (python, complete) = (folder.join("bin/python"), folder.join("complete"));
    if !complete.exists() {
        run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&folder));
        run(Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "--require-hashes", "--only-binary", ":all:", "-r"])
            .arg(requirements));
        File::create(complete).unwrap();
    }
    python
}

#[tokio::test(flavor = "multi_thread")]
async fn botocore_finds_the_apis_as_it_knows_them() {
    let contract = Path::new(env!("CARGO_MANIFEST_DIR")).join("contract");
    let requirements = contract.join("requirements.txt");
    let python = tokio::task::spawn_blocking(move || python(&requirements)).await.unwrap();
    let running = Running::start().await;
    let settings = json!({
        "arc": REGIONS.iter().map(|region| ((*region).to_owned(), running.arc_url(region).into()))
            .collect::<serde_json::Map<_, _>>(),
        "rds": running.rds_url(),
        "control": format!("http://{}", running.addresses.control),
        "ca": running.ca_file(),
        "key": KEY,
        "secret": SECRET,
        "panel": PANEL,
        "controls": {"east": control_arn("app-us-east-1"), "west": control_arn("app-us-west-2")},
        "control_count": 6,
        "clusters": {"us-east-1": cluster_arn("us-east-1"), "us-west-2": cluster_arn("us-west-2")},
        "writer_endpoint": format!("writer.{ZONE}"),
    });
    let file = running.folder.join("settings.json");
    std::fs::write(&file, settings.to_string()).unwrap();
    let checked = tokio::task::spawn_blocking(move || {
        run(Command::new(python).arg("-B").arg(contract.join("contract.py")).arg(file));
    });
    checked.await.unwrap();
}
