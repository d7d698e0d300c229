//! Helm, as a user would run it: a release is installed or upgraded, also after a Helm that was killed in the middle.

use std::path::Path;
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tokio::process::Command;
use tokio::time::timeout;

use crate::timeouts::{INSTALL, MARGIN, stretched};

/// A release of one of our charts in one cluster.
#[derive(Clone, Copy, Debug)]
pub struct Release<'a> {
    /// The program.
    pub helm: &'a Path,
    /// The cluster, as its administrator.
    pub kubeconfig: &'a Path,
    /// Namespace of the release.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// What frees a release that a killed Helm left pending: until then every upgrade is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Repair {
    /// There is an older revision to go back to.
    Rollback,
    /// It was the first install.
    Uninstall,
}

/// The repair that `helm list --pending -o json` of one release asks for.
fn repair(list: &Value) -> Option<Repair> {
    match list[0]["status"].as_str()? {
        "pending-install" => Some(Repair::Uninstall),
        "pending-upgrade" | "pending-rollback" => Some(Repair::Rollback),
        _ => None,
    }
}

impl Release<'_> {
    /// Installs or upgrades from a chart's folder with these files of values, and waits until everything is ready.
    ///
    /// # Errors
    /// When Helm fails; its own words are in the error.
    pub async fn upgrade(&self, chart: &Path, values: &[&Path]) -> Result<()> {
        self.free().await?;
        let limit = format!("{}s", stretched(INSTALL).as_secs());
        let mut command = self.command(&["upgrade", "--install", self.name]);
        command.arg(chart).args(["--wait", "--timeout", &limit]);
        for file in values {
            command.arg("--values").arg(file);
        }
        self.run(command).await.map(drop)
    }

    /// Whether the release is there.
    ///
    /// # Errors
    /// As [`Self::upgrade`].
    pub async fn installed(&self) -> Result<bool> {
        Ok(self.listed(&[]).await?.as_array().is_some_and(|releases| !releases.is_empty()))
    }

    /// Undoes what a killed Helm began.
    async fn free(&self) -> Result<()> {
        let Some(repair) = repair(&self.listed(&["--pending"]).await?) else { return Ok(()) };
        let verb = match repair {
            Repair::Rollback => "rollback",
            Repair::Uninstall => "uninstall",
        };
        eprintln!("release {} was left pending by a Helm that was killed: helm {verb}", self.name);
        self.run(self.command(&[verb, self.name])).await.map(drop)
    }

    /// Helm's own list, of this release alone.
    async fn listed(&self, options: &[&str]) -> Result<Value> {
        let filter = format!("^{}$", self.name);
        let words = [&["list", "--filter", &filter, "-o", "json"], options].concat();
        let list = self.run(self.command(&words)).await?;
        serde_json::from_str(&list).context("reading Helm's list of releases")
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(self.helm);
        command.args(words).args(["--namespace", self.namespace]).arg("--kubeconfig").arg(self.kubeconfig);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    async fn run(&self, mut command: Command) -> Result<String> {
        // Helm keeps its own limit; this one is for a Helm that does not.
        let output = timeout(stretched(INSTALL) + MARGIN, command.output())
            .await
            .with_context(|| format!("helm did not end for release {}", self.name))?
            .context("running helm")?;
        if !output.status.success() {
            bail!("helm, release {}: {}", self.name, String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pending_release_is_freed_and_any_other_left_alone() {
        let of = |status: &str| repair(&json!([{"name": "trading", "revision": "2", "status": status}]));
        assert_eq!(of("pending-install"), Some(Repair::Uninstall));
        assert_eq!(of("pending-upgrade"), Some(Repair::Rollback));
        assert_eq!(of("pending-rollback"), Some(Repair::Rollback));
        assert_eq!(of("deployed"), None);
        assert_eq!(of("failed"), None);
        assert_eq!(repair(&json!([])), None);
    }
}
