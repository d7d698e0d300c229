//! The two regions that a command works on: brought up for it and ended after it, and of a failure what explains it is kept.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use lab::{Facts, Lab, Options};

use crate::cargo::{build, stage};

const LAB: &str = "tr";

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

/// Brings both regions up, works, and ends them unless they are to be kept. After a failure, also one of bringing them
/// up, logs, objects, events and AWS's call log are kept.
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
    let up = stage("two regions", || Ok(lab::up(&options)?));
    let outcome = up.and_then(|facts| work(&TwoRegions { facts, built: options.built.clone() }));
    if outcome.is_err() {
        keep_evidence(&lab, &options.built);
    }
    if keep {
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
