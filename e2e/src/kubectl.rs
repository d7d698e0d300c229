//! kubectl, as a person would run it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use lab::{Facts, Region};

/// Applies a file, or the files of a folder, in one cluster.
///
/// # Errors
/// When kubectl fails; its own words are in the error.
pub async fn apply(facts: &Facts, region: Region, path: &Path) -> Result<()> {
    let output = tokio::process::Command::new(&facts.programs["kubectl"])
        .arg("--kubeconfig")
        .arg(&facts.kubeconfig)
        .args(["--context", region.name(), "--request-timeout=30s"])
        .args(["apply", "--server-side", "--force-conflicts", "-f"])
        .arg(path)
        .output()
        .await
        .context("running kubectl")?;
    if !output.status.success() {
        bail!("kubectl apply in {region}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
