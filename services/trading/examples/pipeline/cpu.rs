//! Processor time by process, as the kernel counts it: what a figure costs says more on a shared machine than how long it took.

use std::collections::{BTreeMap, HashMap};

use crate::servers::Process;

/// Ticks of the kernel's counters in a second, on every Linux.
const TICKS: f64 = 100.0;

/// Seconds of processor time so far, by who spent them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cpu(pub(crate) BTreeMap<String, f64>);

/// What the kernel says of one process.
struct Stat {
    parent: u32,
    name: String,
    own: f64,
    /// Of children that have ended.
    ended: f64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = text.rsplit_once(')')?;
    let name = before.split_once('(')?.1.to_owned();
    // Numbered as in proc(5), where the state, first behind the name, is 3.
    let fields: Vec<&str> = after.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<f64>().ok());
    let parent = fields.get(1)?.parse().ok()?;
    Some(Stat {
        parent,
        name,
        own: (field(14)? + field(15)?) / TICKS,
        ended: (field(16)? + field(17)?) / TICKS,
    })
}

impl Cpu {
    /// Of this program (the customer, or who measures a ceiling), of the stages, and of the servers below this program.
    pub(crate) fn now(stages: &[Process]) -> Self {
        let own = std::process::id();
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let stats: HashMap<u32, Stat> = pids
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter_map(|pid| Some((pid, stat(pid)?)))
            .collect();
        let below_this = |mut pid: u32| {
            while let Some(stat) = stats.get(&pid) {
                if stat.parent == own {
                    return true;
                }
                pid = stat.parent;
            }
            false
        };
        let mut seconds = BTreeMap::new();
        for (pid, stat) in &stats {
            let (name, spent) = match stat.name.as_str() {
                _ if *pid == own => ("customer".to_owned(), stat.own),
                "postgres" if below_this(*pid) => ("postgres".to_owned(), stat.own + stat.ended),
                "beam.smp" if below_this(*pid) => ("rabbitmq".to_owned(), stat.own),
                _ => match stages.iter().find(|stage| stage.pid() == *pid) {
                    Some(stage) => (stage.name.clone(), stat.own),
                    None => continue,
                },
            };
            *seconds.entry(name).or_default() += spent;
        }
        Self(seconds)
    }

    /// What was spent since an earlier look.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let spent = |(name, now): (&String, &f64)| {
            (name.clone(), (now - before.0.get(name).copied().unwrap_or_default()).max(0.0))
        };
        Self(self.0.iter().map(spent).collect())
    }

    pub(crate) fn total(&self) -> f64 {
        self.0.values().sum()
    }
}
