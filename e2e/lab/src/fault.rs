//! Faults that tests and people make: dead processes, dead regions, cut links.

use std::time::Duration;

use crate::cgroup;
use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::network::namespace_file;
pub use crate::network::{Cut, cut, cuts, mend, mend_all};
use crate::process::{self, kill_all, pids_sharing};
use crate::region::{Place, Region};
use crate::wait::{Look, until};

const ENDING: Duration = Duration::from_secs(20);
const RETURN: Duration = Duration::from_secs(90);

/// For so many looks in a row all processes must live before a restored place counts as steady.
const STEADY_LOOKS: u32 = 20;

/// Kills one process of a place, as a crash would.
///
/// # Errors
/// When there is no such process.
pub fn kill(lab: &Lab, place: Place, name: &str) -> Result<()> {
    process::kill_hard(lab, place, name)
}

/// Starts a killed process again, with the command and data it had.
///
/// # Errors
/// When there is no such process.
pub fn restore(lab: &Lab, place: Place, name: &str) -> Result<()> {
    process::restart(lab, place, name)
}

/// Kills the processes of one container of a region's pods, as a crash would. `container` is its id as kubelet reports it.
///
/// # Errors
/// When no process of that container runs.
pub fn kill_container(lab: &Lab, region: Region, container: &str) -> Result<()> {
    let id = container.rsplit('/').next().unwrap_or(container);
    let pids = cgroup::pids_of_container(lab, region, id)?;
    if pids.is_empty() {
        return Err(Error::Request(format!("no process of container {id} runs in {region}")));
    }
    kill_all(&pids);
    Ok(())
}

/// Kills everything that runs in a place, pods included, as the loss of a data centre's power would.
///
/// # Errors
/// When the processes do not vanish.
pub fn kill_place(lab: &Lab, place: Place) -> Result<()> {
    until(&format!("the end of all processes in {place}"), ENDING, || {
        let mut pids = pids_sharing("ns/net", &namespace_file(lab, place));
        if let Place::Region(region) = place {
            pids.extend(cgroup::pids(lab, region)?);
        }
        kill_all(&pids);
        // A process leaves its namespaces a moment before it is gone.
        let ending =
            process::status(lab)?.into_iter().filter(|process| process.place == place && process.alive);
        pids.extend(ending.map(|process| process.pid));
        Ok(if pids.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("{pids:?} run")) })
    })
}

/// Starts everything of a place again in order; what ends because another part is not there yet is started again.
///
/// # Errors
/// When the place does not become steady.
pub fn restore_place(lab: &Lab, place: Place) -> Result<()> {
    let mut steady = 0;
    until(&format!("all processes of {place}"), RETURN, || {
        let dead: Vec<String> = process::status(lab)?
            .into_iter()
            .filter(|process| process.place == place && !process.alive)
            .map(|process| process.name)
            .collect();
        for name in &dead {
            process::restart(lab, place, name)?;
        }
        steady = if dead.is_empty() { steady + 1 } else { 0 };
        Ok(if steady >= STEADY_LOOKS { Look::Ready(()) } else { Look::NotYet(format!("started {dead:?}")) })
    })
}
