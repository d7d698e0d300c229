//! The two regions that a command works on: brought up for it and ended after it, unless they were up before; and of a
//! failure what explains it is kept.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Result, bail};
use clap::Args;
use lab::{Facts, Lab, Options};

use crate::cargo::{build, stage};

const LAB: &str = "tr";

/// What the help of each command tells that works on them.
pub(crate) const ENDS: &str = "\
Two regions that this command brings up are ended afterwards (--keep: they stay up). Two regions that were up before are
used as they are and stay up: `cargo xtask lab down` ends them.";

/// Where the lab's Kubernetes comes from.
#[derive(Clone, Debug, Args)]
pub(crate) struct Assets {
    /// Folder with ready-made Kubernetes binaries, used instead of building them.
    #[arg(long = "assets", env = "KUBEBUILDER_ASSETS", value_name = "FOLDER")]
    pub(crate) folder: Option<PathBuf>,
}

/// Both regions, up.
pub(crate) struct TwoRegions {
    /// What is where.
    pub(crate) facts: Facts,
    built: PathBuf,
}

impl TwoRegions {
    /// A program of this workspace.
    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.built.join(name)
    }
}

/// Brings both regions up, works, and ends them unless they were up before or are to be kept. After a failure, also one of
/// bringing them up, logs, objects, events and AWS's call log are kept.
pub(crate) fn on_two_regions(
    keep: bool,
    assets: &Assets,
    work: impl FnOnce(&TwoRegions) -> Result<()>,
) -> Result<()> {
    stage("packages", || Ok(lab::packages::ensure()?))?;
    stage("the project's programs", build)?;
    let mut options = Options::new(LAB, 0)?;
    options.assets.clone_from(&assets.folder);
    let lab = Lab::new(options.plan.clone());
    let before = facts_written(&lab);
    let up = stage("two regions", || Ok(lab::up(&options)?));
    let were_up = same_start(before, facts_written(&lab));
    let outcome = up.and_then(|facts| work(&TwoRegions { facts, built: options.built.clone() }));
    if outcome.is_err() {
        keep_evidence(&lab, &options.built);
    }
    if were_up {
        eprintln!("the two regions were up before and stay up: `cargo xtask lab down` ends them");
    }
    if were_up || keep {
        return outcome;
    }
    let ended = stage("ending the two regions", || end(&lab));
    match (outcome, ended) {
        (Err(error), Err(second)) => {
            eprintln!("error: {second:#}");
            Err(error)
        }
        (outcome, ended) => outcome.and(ended),
    }
}

/// When the lab that is complete now was started.
fn facts_written(lab: &Lab) -> Option<SystemTime> {
    std::fs::metadata(lab.facts_file()).and_then(|file| file.modified()).ok()
}

/// Whether a lab is the one that was there before: each start writes the facts anew, as its last part.
fn same_start<T: PartialEq + Copy>(before: Option<T>, now: Option<T>) -> bool {
    before.is_some() && before == now
}

/// Beside the programs, in Cargo's folder. What cannot be kept is no reason to hide the failure itself.
fn keep_evidence(lab: &Lab, built: &Path) {
    let folder = built.parent().unwrap_or(built).join("lab-bundle");
    // Files of an earlier failure would be taken for those of this one.
    let _ = std::fs::remove_dir_all(&folder);
    match lab::bundle(lab, &folder) {
        Ok(()) => eprintln!("logs, objects, events and the AWS call log are in {}", folder.display()),
        Err(error) => eprintln!("logs could not be kept in {}: {error}", folder.display()),
    }
}

fn end(lab: &Lab) -> Result<()> {
    lab::down(lab)?;
    let left = lab::left(lab)?;
    if !left.is_empty() {
        bail!("the lab left behind: {}", left.join(", "));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_regions_that_were_complete_before_count_as_up_before() {
        assert!(same_start(Some(1), Some(1)), "used as they are");
        assert!(!same_start(None, Some(2)), "brought up by this command");
        assert!(!same_start(Some(1), Some(2)), "incomplete before, so started anew");
        assert!(!same_start(Some(1), None), "started anew, and did not come up");
        assert!(!same_start(None::<u8>, None), "did not come up");
    }
}
