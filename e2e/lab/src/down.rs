//! Ends a lab and leaves nothing of it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::Flock;
use nix::mount::{MntFlags, umount2};

use crate::cache::{self, remove_folder};
use crate::cgroup;
use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::network;
use crate::process::{kill_all, pids_sharing};
use crate::progress::part;
use crate::region::{Place, Region};
use crate::wait::{Look, until};

const ENDING: Duration = Duration::from_secs(30);

/// Ends all processes of a lab and removes its namespaces, links, mounts, cgroups and files. A lab that is not
/// there is fine.
///
/// # Errors
/// When something of the lab cannot be removed.
pub fn down(lab: &Lab) -> Result<()> {
    let _lock = lock(lab)?;
    remove(lab)
}

/// Holds the lab for one command at a time.
pub(crate) fn lock(lab: &Lab) -> Result<Flock<File>> {
    cache::lock(&crate::up::lock_file(lab)?)
}

/// What of a lab is on this machine, in words; empty after `down`.
///
/// # Errors
/// When the machine's state cannot be read.
pub fn left(lab: &Lab) -> Result<Vec<String>> {
    let mut left: Vec<String> = pids(lab)?.into_iter().map(|pid| format!("process {pid}")).collect();
    left.extend(mounts(lab)?.into_iter().map(|mount| format!("mount {}", mount.display())));
    for region in Region::ALL {
        left.extend(
            cgroup::folders(lab, region)?.iter().map(|folder| format!("cgroup {}", folder.display())),
        );
    }
    let links = Place::ALL.map(|place| Path::new("/sys/class/net").join(lab.plan.link(place)));
    let namespaces = Place::ALL.map(|place| network::namespace_file(lab, place));
    let files = [lab.folder(), lab.runtime_root()];
    let paths = links.into_iter().chain(namespaces).chain(files).filter(|path| path.exists());
    left.extend(paths.map(|path| path.display().to_string()));
    Ok(left)
}

/// Whether anything of a lab is on this machine; what cannot be read counts as there.
pub(crate) fn remains(lab: &Lab) -> bool {
    left(lab).map_or(true, |left| !left.is_empty())
}

pub(crate) fn remove(lab: &Lab) -> Result<()> {
    part("end processes", || end_processes(lab))?;
    part("remove mounts, links, cgroups, files", || remove_rest(lab))
}

fn end_processes(lab: &Lab) -> Result<()> {
    until(&format!("the end of all processes of lab {}", lab.plan.name()), ENDING, || {
        // Again and again, because what is being killed may have started something a moment ago.
        let pids = pids(lab)?;
        kill_all(&pids);
        Ok(if pids.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("{pids:?} run")) })
    })
}

fn remove_rest(lab: &Lab) -> Result<()> {
    for mount in mounts(lab)?.into_iter().rev() {
        umount2(&mount, MntFlags::MNT_DETACH)
            .map_err(|errno| Error::file("unmount", &mount)(std::io::Error::from(errno)))?;
    }
    network::close_firewall(lab)?;
    for place in Place::ALL {
        network::remove(lab, place)?;
    }
    for region in Region::ALL {
        cgroup::remove(lab, region)?;
    }
    remove_folder(&lab.runtime_root())?;
    remove_folder(&lab.folder())
}

/// All processes of a lab: those in its network namespaces and those in its cgroups (pods).
pub(crate) fn pids(lab: &Lab) -> Result<Vec<i32>> {
    let mut pids: Vec<i32> = Place::ALL
        .iter()
        .flat_map(|place| pids_sharing("ns/net", &network::namespace_file(lab, *place)))
        .collect();
    for region in Region::ALL {
        pids.extend(cgroup::pids(lab, region)?);
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Mounts below the lab's folders, outer before inner.
fn mounts(lab: &Lab) -> Result<Vec<PathBuf>> {
    let table = Path::new("/proc/self/mounts");
    let text = fs::read_to_string(table).map_err(Error::file("read", table))?;
    let (folder, runtime) = (lab.folder(), lab.runtime_root());
    let below = |path: &PathBuf| path.starts_with(&folder) || path.starts_with(&runtime);
    Ok(text.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from).filter(below).collect())
}
