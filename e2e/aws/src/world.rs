//! The simulated account's state behind one lock, with its settings and its file.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

use crate::Error;
use crate::arc::endpoint::Throttle;
use crate::arc::register::Register;
use crate::calls::{Call, CallLog};
use crate::clock;
use crate::config::{Config, Member};
use crate::faults::Faults;
use crate::rds::cluster::{Cluster, MemberIndex, Running, Step};
use crate::rds::switchover::{CommandReport, SwitchoverReport};
use crate::state_file::{self, Saved, SavedCluster, SavedSwitchover};

/// Most commands shown in a switchover's report.
const MOST_REPORTS: usize = 32;

/// Everything that changes, guarded by [`World`]'s lock.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) account: String,
    pub(crate) register: Register,
    /// By ARC endpoint.
    pub(crate) throttles: Vec<Throttle>,
    pub(crate) clusters: Vec<Cluster>,
    /// The last switchover of each global cluster.
    pub(crate) reports: BTreeMap<String, SwitchoverReport>,
    pub(crate) calls: CallLog,
    pub(crate) rng: StdRng,
    pub(crate) seed: u64,
    pub(crate) started: Instant,
}

impl Inner {
    pub(crate) fn cluster_mut(&mut self, id: &str) -> Option<&mut Cluster> {
        self.clusters.iter_mut().find(|cluster| cluster.config.id == id)
    }

    fn cluster(&self, id: &str) -> Option<&Cluster> {
        self.clusters.iter().find(|cluster| cluster.config.id == id)
    }

    fn snapshot(&self) -> Saved {
        let states = self.register.controls().enumerate();
        let controls = states.map(|(i, control)| (control.arn.clone(), self.register.accepted(i))).collect();
        let clusters =
            self.clusters.iter().map(|cluster| (cluster.config.id.clone(), saved_cluster(cluster)));
        Saved { controls, clusters: clusters.collect() }
    }
}

fn saved_cluster(cluster: &Cluster) -> SavedCluster {
    let record = cluster.current();
    let arn = |member: MemberIndex| cluster.member(member).arn.clone();
    SavedCluster {
        writer: arn(record.writer),
        out_of_sync: record.out_of_sync.iter().map(|&member| arn(member)).collect(),
        running: record.running.as_ref().map(|running| SavedSwitchover {
            from: arn(running.from),
            to: arn(running.to),
            step: running.step,
            position: running.position.clone(),
        }),
    }
}

/// The account, shared by all listeners.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) config: Config,
    /// Settings; listeners and hung calls watch them.
    pub(crate) faults: watch::Sender<Faults>,
    inner: Mutex<Inner>,
    /// Held from taking a snapshot until it is on the disk, so that an older one never overwrites a newer one.
    writing: tokio::sync::Mutex<()>,
}

impl World {
    /// Builds the account from its configuration and, if there is one, its state file.
    ///
    /// # Errors
    /// [`Error::State`] if the state file can't be read.
    pub(crate) fn new(config: Config, seed: u64) -> Result<Self, Error> {
        let now = clock::now().instant;
        let saved =
            config.state_file.as_deref().map(state_file::load).transpose()?.flatten().unwrap_or_default();
        let mut register = Register::new(&config.routing_controls, &config.safety_rules);
        for (arn, state) in &saved.controls {
            register.settle(arn, *state);
        }
        let clusters = config
            .global_clusters
            .iter()
            .map(|c| restore_cluster(c.clone(), saved.clusters.get(&c.id), now))
            .collect();
        let inner = Inner {
            account: config.account.clone(),
            register,
            throttles: config.arc_endpoints.iter().map(|_| Throttle::default()).collect(),
            clusters,
            reports: BTreeMap::new(),
            calls: CallLog::new(config.call_log_limit),
            rng: StdRng::seed_from_u64(seed),
            seed,
            started: now,
        };
        Ok(Self {
            config,
            faults: watch::Sender::new(Faults::default()),
            inner: Mutex::new(inner),
            writing: tokio::sync::Mutex::new(()),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn log(&self, call: Call) {
        self.lock().calls.push(call);
    }

    /// Writes the state file, if there is one. Returns when the present state is on the disk.
    ///
    /// # Errors
    /// [`Error::State`].
    pub(crate) async fn persist(&self) -> Result<(), Error> {
        let Some(path) = self.config.state_file.clone() else { return Ok(()) };
        let _writing = self.writing.lock().await;
        let saved = self.lock().snapshot();
        tokio::task::spawn_blocking(move || state_file::save(&path, &saved))
            .await
            .map_err(|error| Error::Task(error.to_string()))?
    }

    /// As [`persist`](Self::persist), where nobody waits for the answer.
    pub(crate) async fn persist_or_log(&self) {
        if let Err(error) = self.persist().await {
            tracing::error!(%error, "state not saved");
        }
    }

    /// Ids of the clusters whose switchover is under way: after a restart, those to take up again.
    pub(crate) fn unfinished(&self) -> Vec<String> {
        let inner = self.lock();
        let running = inner.clusters.iter().filter(|cluster| cluster.current().running.is_some());
        running.map(|cluster| cluster.config.id.clone()).collect()
    }

    pub(crate) fn running(&self, cluster: &str) -> Option<Running> {
        self.lock().cluster(cluster)?.current().running.clone()
    }

    pub(crate) fn member(&self, cluster: &str, member: MemberIndex) -> Option<Member> {
        Some(self.lock().cluster(cluster)?.member(member).clone())
    }

    pub(crate) fn command_timeout(&self, cluster: &str) -> Duration {
        let seconds =
            self.lock().cluster(cluster).map_or(0, |cluster| cluster.config.command_timeout_seconds);
        Duration::from_secs(seconds)
    }

    pub(crate) fn set_step(&self, cluster: &str, step: Step, position: Option<String>) {
        self.change(cluster, |cluster, now| {
            cluster.record(now, |record| {
                if let Some(running) = &mut record.running {
                    running.step = step;
                    running.position = position;
                }
            });
        });
    }

    pub(crate) fn set_in_sync(&self, cluster: &str, member: MemberIndex, in_sync: bool) {
        self.change(cluster, |cluster, now| {
            cluster.record(now, |record| {
                if in_sync {
                    record.out_of_sync.remove(&member);
                } else {
                    record.out_of_sync.insert(member);
                }
            });
        });
    }

    pub(crate) fn finish_switchover(
        &self,
        cluster: &str,
        writer: MemberIndex,
        endpoint_lag: Duration,
        outcome: &'static str,
    ) {
        self.change(cluster, |cluster, now| cluster.finish(writer, endpoint_lag, now));
        if let Some(report) = self.lock().reports.get_mut(cluster) {
            report.outcome = outcome;
        }
    }

    pub(crate) fn set_report(&self, cluster: &str, report: SwitchoverReport) {
        self.lock().reports.insert(cluster.to_owned(), report);
    }

    pub(crate) fn report_command(&self, cluster: &str, report: CommandReport) {
        if let Some(last) = self.lock().reports.get_mut(cluster)
            && last.commands.len() < MOST_REPORTS
        {
            last.commands.push(report);
        }
    }

    fn change(&self, cluster: &str, change: impl FnOnce(&mut Cluster, Instant)) {
        let now = clock::now().instant;
        if let Some(cluster) = self.lock().cluster_mut(cluster) {
            change(cluster, now);
        }
    }

    /// Healthy settings, an empty log, controls as configured. Writers stay where the real servers are.
    pub(crate) fn reset(&self) {
        self.faults.send_replace(Faults::default());
        let mut inner = self.lock();
        inner.calls.clear();
        inner.throttles.iter_mut().for_each(|throttle| *throttle = Throttle::default());
        inner.register = Register::new(&self.config.routing_controls, &self.config.safety_rules);
    }

    /// Regions of the ARC endpoints.
    pub(crate) fn arc_regions(&self) -> Vec<&str> {
        self.config.arc_endpoints.iter().map(|endpoint| endpoint.region.as_str()).collect()
    }

    /// Names of the safety rules.
    pub(crate) fn rule_names(&self) -> Vec<&str> {
        self.config.safety_rules.iter().map(|rule| rule.name.as_str()).collect()
    }

    /// Identifiers of the global clusters.
    pub(crate) fn cluster_ids(&self) -> Vec<&str> {
        self.config.global_clusters.iter().map(|cluster| cluster.id.as_str()).collect()
    }

    /// Regions that the RDS API serves: those of the clusters' members.
    pub(crate) fn rds_regions(&self) -> Vec<&str> {
        let members = self.config.global_clusters.iter().flat_map(|cluster| &cluster.members);
        let mut regions: Vec<_> = members.map(|member| member.region.as_str()).collect();
        regions.sort_unstable();
        regions.dedup();
        regions
    }
}

/// A cluster as the state file left it.
fn restore_cluster(
    config: crate::config::GlobalCluster,
    saved: Option<&SavedCluster>,
    now: Instant,
) -> Cluster {
    let mut cluster = Cluster::new(config, saved.map(|saved| saved.writer.as_str()), now);
    let Some(saved) = saved else { return cluster };
    let find = |arn: &String| cluster.find_member(arn);
    let out_of_sync = saved.out_of_sync.iter().filter_map(find).collect();
    let running = saved.running.as_ref().and_then(|running| {
        Some(Running {
            from: find(&running.from)?,
            to: find(&running.to)?,
            step: running.step,
            status_word: "switching-over".to_owned(),
            position: running.position.clone(),
        })
    });
    cluster.record(now, |record| {
        record.out_of_sync = out_of_sync;
        record.running = running;
    });
    cluster
}
