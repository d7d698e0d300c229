//! Observing: every source is asked at once, each under its own deadline; what does not answer is unknown.

mod drain;
pub mod global;
mod name;
mod needs;
pub mod routing;
mod workloads;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crds::TradingRegion;
use jiff::SignedDuration;
use kube::ResourceExt;
use region_plan::{
    Broker, ControlState, Fact, Fresh, GlobalDatabase, GrantId, Intent, Region, RunId, SideReport, World,
};
use tokio::time::Instant;
use uuid::Uuid;

pub use drain::Samples;
pub use needs::{Questions, needs};
pub use workloads::Rival;
use workloads::Wanted;

use crate::apply::HookBoard;
use crate::cluster::{PeerCopy, Peers, ReadPeer};
use crate::sources::Sources;
use crate::sources::database::Seen;
use crate::workloads::Workloads;
use crate::{clock, intent};

/// What is asked through.
pub struct Observer<'a> {
    /// Own region.
    pub me: &'a Region,
    /// Cached Deployments.
    pub workloads: &'a Workloads,
    /// The other cluster.
    pub peers: &'a Peers,
    /// Hooks under way.
    pub hooks: &'a HookBoard,
    /// Earlier samples of the drain checks.
    pub samples: &'a Samples,
    /// Bound of one observation.
    pub deadline: Duration,
}

/// What one pass saw.
pub struct Observation {
    /// What people want.
    pub intent: Intent,
    /// What is so.
    pub world: World,
    /// How long guards still accept without a renewal; `None` in it: no limit.
    pub lease_remaining: Fact<Option<SignedDuration>>,
    /// How far the own standby is behind; `None`: the own database is no standby.
    pub lag: Option<Fact<SignedDuration>>,
}

impl Observer<'_> {
    /// Asks what the next decision needs.
    pub async fn observe(
        &self,
        object: &TradingRegion,
        sources: &Arc<Sources>,
        rivals: &[Rival],
    ) -> Observation {
        sources.rules.ask_when_due();
        let mine = own_report(self.me, object);
        let questions = needs(self.me, &mine);
        let run_open = mine.open_run().is_some();
        let (peer, database, global, controls, broker, drain, name) = tokio::join!(
            self.peer(object, questions.peer),
            database(sources),
            global(sources, run_open),
            controls(sources, self.deadline),
            broker(sources),
            async {
                if questions.drain { self.drain(object, sources, &mine).await } else { BTreeMap::new() }
            },
            async {
                if questions.dns {
                    name::observe(sources).await
                } else {
                    Fact::unknown("not asked in this phase")
                }
            },
        );
        let intent = intent::intent(object, &peer);
        let dns = if sources.name.is_none() { name::by_controls(&controls.states) } else { name };
        let peer_report = peer.clone().map(|copy| copy.and_then(|copy| copy.status.as_ref()?.side.clone()));
        let hook_results = mine.run.as_ref().map(|run| self.hooks.results(run.id)).unwrap_or_default();
        let sizes = sizes(self.me, &mine, peer_report.get().and_then(Option::as_ref), &database);
        let workloads = workloads::observe(
            self.workloads,
            &Wanted { object, rivals, sizes },
            clock::now(),
            intent.limits.fact_age,
        );
        let world = World {
            mine,
            peer: peer_report,
            lease: database.clone().map(|seen| seen.lease),
            writable: database.clone().map(|seen| seen.writable),
            global_database: global,
            controls: controls.states,
            controls_unanswered: controls.unanswered,
            refused: sources.refused.all(),
            guarded: sources.rules.last(),
            workloads,
            broker,
            drain,
            hook_results,
            dns,
            fresh: Fresh { run: RunId(Uuid::now_v7()), grant: GrantId(Uuid::new_v4()) },
        };
        Observation {
            intent,
            world,
            lag: lag(&database),
            lease_remaining: database.map(|seen| seen.remaining),
        }
    }

    async fn drain(
        &self,
        object: &TradingRegion,
        sources: &Sources,
        mine: &SideReport,
    ) -> BTreeMap<String, Fact<u64>> {
        let recorded = mine.open_run().is_some_and(|run| run.drained_since.is_some());
        let sample = drain::observe(sources, &object.spec.drain.checks, self.deadline).await;
        let uid = object.uid().unwrap_or_default();
        self.samples.checked(&uid, recorded, sample, Instant::now(), self.deadline)
    }

    async fn peer(&self, object: &TradingRegion, when: ReadPeer) -> Fact<PeerCopy> {
        let namespace = object.namespace().unwrap_or_default();
        let Some(other) = object.spec.other(self.me.as_str()) else {
            return Fact::unknown(format!("the spec names no region besides {}", self.me));
        };
        let secret = &other.peer.secret_ref;
        self.peers.read((&namespace, &object.name_any()), (&secret.name, &secret.key), when).await
    }
}

/// The counts that my Deployments should have when active, where they are told by a report: in a run those of the side
/// that gives, else those of the other region. A steady active region keeps what it has.
fn sizes<'a>(
    me: &Region,
    mine: &'a SideReport,
    peer: Option<&'a SideReport>,
    database: &Fact<Seen>,
) -> Option<&'a BTreeMap<String, i32>> {
    let holder = database.get().and_then(|seen| seen.lease.as_ref()?.holder.as_ref());
    match mine.open_run() {
        Some(run) if run.from == *me && !run.is_start() => Some(&mine.sizes),
        None if holder == Some(me) => None,
        _ => peer.map(|report| &report.sizes),
    }
}

/// My own report as last written, or an empty one.
pub fn own_report(me: &Region, object: &TradingRegion) -> SideReport {
    let written = object.status.as_ref().and_then(|status| status.side.clone());
    written.unwrap_or_else(|| SideReport::new(me))
}

async fn database(sources: &Sources) -> Fact<Seen> {
    match &sources.database {
        Err(why) => Fact::unknown(why.clone()),
        Ok(database) => match database.look().await {
            Ok(seen) => Fact::known(seen, clock::now()),
            Err(why) => Fact::unknown(why),
        },
    }
}

fn lag(database: &Fact<Seen>) -> Option<Fact<SignedDuration>> {
    match database {
        Fact::Known { value, at } => value.lag.map(|lag| Fact::known(lag, *at)),
        Fact::Unknown { why } => Some(Fact::unknown(why.clone())),
    }
}

async fn global(sources: &Sources, run_open: bool) -> Fact<GlobalDatabase> {
    match &sources.global {
        Ok(global) => global.observe(run_open).await,
        Err(why) => Fact::unknown(why.clone()),
    }
}

async fn controls(sources: &Sources, deadline: Duration) -> routing::Reading {
    match &sources.arc {
        Ok(arc) => routing::observe(arc, &sources.controls, deadline).await,
        // Nobody answered: no endpoint counts for any state.
        Err(why) => routing::Reading {
            states: sources.controls.keys().map(|key| (key.clone(), ControlState::default())).collect(),
            unanswered: Some(why.clone()),
        },
    }
}

async fn broker(sources: &Sources) -> Fact<Broker> {
    match &sources.broker {
        Err(why) => Fact::unknown(why.clone()),
        Ok(broker) => match broker.management.observe().await {
            Ok(seen) => Fact::known(seen, clock::now()),
            Err(error) => Fact::unknown(error.to_string()),
        },
    }
}
