//! The cgroup that holds a region's pods, on machines with cgroup v1 (a folder in each hierarchy) and v2 (one).

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::region::Region;
use crate::wait::{Look, until};

const ROOT: &str = "/sys/fs/cgroup";
const EMPTYING: Duration = Duration::from_secs(20);

/// The name kubelet knows it by.
pub(crate) fn name(lab: &Lab, region: Region) -> String {
    format!("/lab-{}", lab.plan.namespace(region))
}

/// On v2 the root itself holds the hierarchy, on v1 (and hybrid) there is one in each folder.
fn hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let entries = fs::read_dir(root).map_err(Error::file("list", root))?;
    // Names like `cpu,cpuacct` come with links `cpu` and `cpuacct` to them: the real folders suffice.
    Ok(entries
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect())
}

/// Makes the region's cgroup in every hierarchy.
pub(crate) fn create(lab: &Lab, region: Region) -> Result<()> {
    let name = name(lab, region);
    for hierarchy in hierarchies()? {
        let folder = hierarchy.join(name.trim_start_matches('/'));
        if !folder.exists() {
            fs::create_dir(&folder).map_err(Error::file("create cgroup", &folder))?;
        }
        if hierarchy == Path::new(ROOT) {
            delegate(&hierarchy)?;
            delegate(&folder)?;
        }
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // A new v1 cpuset is empty, and no process can join it so.
            if folder.join("cgroup.clone_children").exists()
                && let Ok(value) = fs::read(hierarchy.join(file))
            {
                let target = folder.join(file);
                fs::write(&target, value).map_err(Error::file("set", &target))?;
            }
        }
    }
    Ok(())
}

/// What kubelet needs of a v2 cgroup.
const CONTROLLERS: [&str; 6] = ["cpu", "cpuset", "hugetlb", "io", "memory", "pids"];

/// Gives those controllers that a v2 cgroup has to its children.
fn delegate(folder: &Path) -> Result<()> {
    let controllers = folder.join("cgroup.controllers");
    let listed = fs::read_to_string(&controllers).map_err(Error::file("read", &controllers))?;
    let wanted: Vec<String> = listed
        .split_whitespace()
        .filter(|controller| CONTROLLERS.contains(controller))
        .map(|controller| format!("+{controller}"))
        .collect();
    let control = folder.join("cgroup.subtree_control");
    fs::write(&control, wanted.join(" ")).map_err(Error::file("set", &control))
}

/// The region's cgroup folders that exist.
pub(crate) fn folders(lab: &Lab, region: Region) -> Result<Vec<PathBuf>> {
    let name = name(lab, region);
    let mut folders = hierarchies()?;
    for folder in &mut folders {
        folder.push(name.trim_start_matches('/'));
    }
    folders.retain(|folder| folder.exists());
    Ok(folders)
}

/// All processes in the region's cgroup.
pub(crate) fn pids(lab: &Lab, region: Region) -> Result<Vec<i32>> {
    pids_where(lab, region, |_| true)
}

/// The processes of a container of the region: the runtime names a container's cgroup by its id.
pub(crate) fn pids_of_container(lab: &Lab, region: Region, id: &str) -> Result<Vec<i32>> {
    pids_where(lab, region, |cgroup| {
        cgroup.file_name().is_some_and(|name| name.to_string_lossy().contains(id))
    })
}

fn pids_where(lab: &Lab, region: Region, wanted: impl Fn(&Path) -> bool) -> Result<Vec<i32>> {
    let mut pids = Vec::new();
    for folder in folders(lab, region)? {
        visit(&folder, &mut |cgroup| {
            if !wanted(cgroup) {
                return;
            }
            let listed = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
            pids.extend(listed.lines().filter_map(|pid| pid.parse::<i32>().ok()));
        });
    }
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

/// Removes the region's cgroup once its processes have ended.
pub(crate) fn remove(lab: &Lab, region: Region) -> Result<()> {
    until(&format!("the end of the cgroup {}", name(lab, region)), EMPTYING, || {
        for folder in folders(lab, region)? {
            // Children come before parents; a cgroup with a dying process is busy for a moment.
            visit(&folder, &mut |cgroup| drop(fs::remove_dir(cgroup)));
        }
        let left = folders(lab, region)?;
        Ok(if left.is_empty() { Look::Ready(()) } else { Look::NotYet(format!("{left:?} are there")) })
    })
}

/// Visits a cgroup and all below it, children first.
fn visit(folder: &Path, work: &mut impl FnMut(&Path)) {
    if let Ok(entries) = fs::read_dir(folder) {
        for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
            visit(&entry.path(), work);
        }
    }
    work(folder);
}
