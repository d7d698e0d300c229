//! Long-running programs of a lab: started in a process group of their own, remembered in a file with pid and
//! start time, so that a later command never signals a stranger that got the same pid.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::cache::create_folder;
use crate::command::last_bytes;
use crate::error::{Error, Result};
use crate::layout::{Lab, read_json, write_json};
use crate::region::Place;
use crate::wait::{Look, until};

/// How much of a log an error shows.
const LOG_TAIL: usize = 3000;

/// How long a killed process may take to vanish.
const VANISHING: Duration = Duration::from_secs(10);

/// A program of the lab and how to start it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// Unique in its place, for instance `etcd`.
    pub(crate) name: String,
    /// Where it belongs.
    pub(crate) place: Place,
    /// Position in the order of starting.
    pub(crate) order: u8,
    /// Program and arguments, wrappers that replace themselves included.
    pub(crate) command: Vec<String>,
    /// Its whole environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Signal that makes it end cleanly.
    pub(crate) stop_signal: StopSignal,
}

/// The signal that asks a program to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum StopSignal {
    /// SIGTERM.
    Terminate,
    /// SIGINT; PostgreSQL's fast shutdown.
    Interrupt,
}

/// What the state file of a program holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    program: Program,
    pid: i32,
    /// Clock ticks after boot, from `/proc/PID/stat`.
    start_time: u64,
}

impl Record {
    fn alive(&self) -> bool {
        start_time(self.pid) == Some(self.start_time)
    }
}

/// A program that was started, and whether it still runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ProcessStatus {
    /// Where it belongs.
    pub place: Place,
    /// Its name.
    pub name: String,
    /// Its process.
    pub pid: i32,
    /// Whether that process runs.
    pub alive: bool,
}

fn folder(lab: &Lab, place: Place) -> PathBuf {
    lab.place(place).join("processes")
}

fn record_file(lab: &Lab, place: Place, name: &str) -> PathBuf {
    folder(lab, place).join(format!("{name}.json"))
}

/// The log file of a program.
pub fn log_file(lab: &Lab, place: impl Into<Place>, name: &str) -> PathBuf {
    lab.place(place).join("logs").join(format!("{name}.log"))
}

/// Starts a program unless it runs already; it outlives this process.
pub(crate) fn start(lab: &Lab, program: &Program) -> Result<()> {
    let file = record_file(lab, program.place, &program.name);
    if file.exists() && read_json::<Record>(&file)?.alive() {
        return Ok(());
    }
    let log = log_file(lab, program.place, &program.name);
    create_folder(log.parent().unwrap_or(Path::new("/")))?;
    let output =
        OpenOptions::new().create(true).append(true).open(&log).map_err(Error::file("open log", &log))?;
    let errors = output.try_clone().map_err(Error::file("open log", &log))?;
    let line = program.command.join(" ");
    let mut child = Command::new(&program.command[0])
        .args(&program.command[1..])
        .env_clear()
        .envs(&program.environment)
        .current_dir(lab.place(program.place))
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(|source| Error::Start { command: line, source })?;
    let pid = child.id().cast_signed();
    let start_time = start_time(pid).unwrap_or_default();
    // While this process lives it must take the child's exit status, or the child would stay as a zombie.
    std::thread::spawn(move || child.wait());
    write_json(&file, &Record { program: program.clone(), pid, start_time })
}

/// Waits until `look` says that a program is ready; fails at once when the program has ended.
pub(crate) fn until_ready(
    lab: &Lab,
    program: &Program,
    bound: Duration,
    mut look: impl FnMut() -> Result<Look<()>>,
) -> Result<()> {
    let (place, name) = (program.place, program.name.as_str());
    until(&format!("{name} of {place}"), bound, || {
        if !is_alive(lab, place, name)? {
            let log = log_file(lab, place, name);
            return Err(Error::Ended {
                process: name.to_owned(),
                place: place.to_string(),
                tail: last_bytes(&fs::read_to_string(&log).unwrap_or_default(), LOG_TAIL),
                log,
            });
        }
        look()
    })
}

/// Whether a program was started and still runs.
pub(crate) fn is_alive(lab: &Lab, place: impl Into<Place>, name: &str) -> Result<bool> {
    let file = record_file(lab, place.into(), name);
    Ok(file.exists() && read_json::<Record>(&file)?.alive())
}

fn records(lab: &Lab, place: Place) -> Result<Vec<Record>> {
    let folder = folder(lab, place);
    let Ok(entries) = fs::read_dir(&folder) else { return Ok(Vec::new()) };
    let mut records = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| read_json(&path))
        .collect::<Result<Vec<Record>>>()?;
    records.sort_by_key(|record| (record.program.order, record.program.name.clone()));
    Ok(records)
}

/// All programs that were started, in the order of starting.
///
/// # Errors
/// When a state file cannot be read.
pub fn status(lab: &Lab) -> Result<Vec<ProcessStatus>> {
    let mut all = Vec::new();
    for place in Place::ALL {
        all.extend(records(lab, place)?.into_iter().map(|record| ProcessStatus {
            place,
            alive: record.alive(),
            name: record.program.name,
            pid: record.pid,
        }));
    }
    Ok(all)
}

fn find(lab: &Lab, place: Place, name: &str) -> Result<Record> {
    let file = record_file(lab, place, name);
    if file.exists() {
        return read_json(&file);
    }
    let known: Vec<String> = records(lab, place)?.into_iter().map(|record| record.program.name).collect();
    Err(Error::Request(format!("no process {name:?} in {place}; there are: {}", known.join(", "))))
}

/// Asks a program to end and waits for it; one that is not running is fine.
pub(crate) fn stop(lab: &Lab, place: impl Into<Place>, name: &str, bound: Duration) -> Result<()> {
    let record = find(lab, place.into(), name)?;
    if record.alive() {
        let signal = match record.program.stop_signal {
            StopSignal::Terminate => Signal::SIGTERM,
            StopSignal::Interrupt => Signal::SIGINT,
        };
        // It may end between the two lines; then there is nothing to signal.
        let _ = kill(Pid::from_raw(record.pid), signal);
    }
    until_gone(&record, bound)
}

/// Kills a program and all its children, as a crash would. What it handed over to process 1 (pods) lives on.
///
/// # Errors
/// When no such program was ever started, or it does not vanish.
pub(crate) fn kill_hard(lab: &Lab, place: impl Into<Place>, name: &str) -> Result<()> {
    let record = find(lab, place.into(), name)?;
    if record.alive() {
        // PostgreSQL's children have groups of their own, so the whole family is listed before it is killed.
        kill_all(&family(record.pid));
    }
    until_gone(&record, VANISHING)
}

fn until_gone(record: &Record, bound: Duration) -> Result<()> {
    let what = format!("the end of {} in {}", record.program.name, record.program.place);
    until(&what, bound, || {
        Ok(if record.alive() {
            Look::NotYet(format!("process {} runs", record.pid))
        } else {
            Look::Ready(())
        })
    })
}

/// Starts a program again with the command it was first started with.
///
/// # Errors
/// When no such program was ever started, or it cannot be started.
pub(crate) fn restart(lab: &Lab, place: impl Into<Place>, name: &str) -> Result<()> {
    start(lab, &find(lab, place.into(), name)?.program)
}

/// Start time of a process in clock ticks after boot; `None` when there is none, or only its zombie.
pub(crate) fn start_time(pid: i32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse_stat(&stat)
}

/// Fields are counted behind the name, which stands in parentheses and may itself hold spaces and parentheses.
fn parse_stat(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?;
    if state == "Z" || state == "X" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// A process, its children, and theirs.
pub(crate) fn family(ancestor: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> =
        all_pids().into_iter().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let mut family = vec![ancestor];
    let mut next = 0;
    while next < family.len() {
        let member = family[next];
        family.extend(parents.iter().filter(|(_, parent)| *parent == member).map(|(pid, _)| *pid));
        next += 1;
    }
    family
}

fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn all_pids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The processes of the machine whose `/proc/PID/RELATIVE` is the same file as `reference`.
pub(crate) fn pids_sharing(relative: &str, reference: &Path) -> Vec<i32> {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    let Some(wanted) = identity(reference) else { return Vec::new() };
    let mut pids = all_pids();
    pids.retain(|pid| identity(Path::new(&format!("/proc/{pid}/{relative}"))) == Some(wanted));
    pids
}

/// Kills processes that are known to be the lab's because they live in its namespaces or cgroups.
pub(crate) fn kill_all(pids: &[i32]) {
    let own = std::process::id().cast_signed();
    for pid in pids.iter().filter(|pid| **pid != own) {
        let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_is_read_behind_a_name_with_spaces_and_parentheses() {
        let tail = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4242 99";
        assert_eq!(parse_stat(&format!("77 (a (b) c) {tail}")), Some(4242));
        assert_eq!(parse_stat(&format!("77 (x) Z{}", &tail[1..])), None);
        assert_eq!(parse_stat("77 (x"), None);
    }

    #[test]
    fn a_family_holds_grandchildren() {
        let mut child = Command::new("sh").args(["-c", "sleep 60 & wait"]).spawn().unwrap();
        let pid = child.id().cast_signed();
        let found = until("the grandchild", VANISHING, || {
            let family = family(pid);
            Ok(if family.len() == 2 { Look::Ready(family) } else { Look::NotYet(format!("{family:?}")) })
        });
        kill_all(&found.unwrap());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn this_process_has_a_start_time() {
        assert!(start_time(std::process::id().cast_signed()).is_some());
    }
}
