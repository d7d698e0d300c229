//! kubectl, as a person would run it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lab::{Facts, Region};

/// Applies a file, or the files of a folder, in one cluster.
///
/// # Errors
/// When kubectl fails; its own words are in the error.
pub async fn apply(facts: &Facts, region: Region, path: &Path) -> Result<()> {
    let path = path.to_string_lossy();
    run(facts, region, &["apply", "--server-side", "--force-conflicts", "-f", &path]).await.map(drop)
}

/// Runs a command in one cluster and gives what it printed.
///
/// # Errors
/// When kubectl fails; its own words are in the error.
pub async fn run(facts: &Facts, region: Region, arguments: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(&facts.programs["kubectl"])
        .arg("--kubeconfig")
        .arg(&facts.kubeconfig)
        .args(["--context", region.name(), "--request-timeout=30s"])
        .args(arguments)
        .output()
        .await
        .context("running kubectl")?;
    if !output.status.success() {
        let verb = arguments.join(" ");
        bail!("kubectl {verb} in {region}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
