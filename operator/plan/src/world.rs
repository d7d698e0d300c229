//! What was observed before a decision: each fact with its age or the reason for not knowing it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::ids::{Epoch, GrantId, Region, RunId};
use crate::intent::HookPoint;
use crate::report::SideReport;
use crate::step::Flipped;

/// Everything that one decision may rest on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct World {
    /// My own report, as last written to my copy's status.
    pub mine: SideReport,
    /// The other side's report. `None`: its object has no report yet.
    pub peer: Fact<Option<SideReport>>,
    /// The lease row, read from my own region's database instance. `None`: the application has no row.
    pub lease: Fact<Option<LeaseView>>,
    /// My own region's database instance takes writes (it is not a standby).
    pub writable: Fact<bool>,
    /// The global cluster, asked in my own region.
    pub global_database: Fact<GlobalDatabase>,
    /// ARC's routing controls.
    pub controls: BTreeMap<ControlKey, ControlState>,
    /// Why an endpoint of ARC gave no answer, for one that did not.
    pub controls_unanswered: Option<String>,
    /// When a safety rule last refused a change of that kind; such a batch goes out in two parts.
    pub refused: BTreeMap<Flipped, Timestamp>,
    /// Roles of which a safety rule lets at most one region's control be On.
    pub guarded: Fact<BTreeSet<ControlRole>>,
    /// The selected Deployments of my own cluster.
    pub workloads: Fact<Workloads>,
    /// My own region's broker.
    pub broker: Fact<Broker>,
    /// Drain checks of my own region, by name.
    pub drain: BTreeMap<String, Fact<u64>>,
    /// What hooks of the open run answered since the last decision.
    pub hook_results: BTreeMap<HookPoint, HookResult>,
    /// The region whose address the application's DNS name answers. `None` in it: another address.
    pub dns: Fact<Option<Region>>,
    /// Fresh identities, should the decision need one. Random numbers are an input.
    pub fresh: Fresh,
}

/// Identities made by the caller for this decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    /// For a run that is proposed now.
    pub run: RunId,
    /// For a grant that is made now.
    pub grant: GrantId,
}

/// The lease row as one database shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseView {
    /// Number of the present or last grant.
    pub epoch: Epoch,
    /// Identity of the present or last grant.
    pub grant_id: GrantId,
    /// Who holds it. `None`: released or never granted.
    pub holder: Option<Region>,
    /// How far the holder has been opened.
    pub opened: Opened,
    /// Whether the lease is valid by that database's own clock.
    pub validity: Validity,
    /// What the last fence gave up, and to whom.
    pub released: Option<Released>,
    /// The run that was last given up before its fence.
    pub aborted_run: Option<RunId>,
}

/// Validity of a lease by the clock of the database that was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Validity {
    /// Granted and not yet opened by a renewal.
    NeverRenewed,
    /// Guards accept.
    Valid,
    /// Guards refuse until the holder's keeper renews it.
    Expired,
    /// A standby's copy whose limit has passed: the writer may have renewed it since.
    Unconfirmed,
    /// Without a limit by a person's act, which is not undone by itself.
    Unlimited,
    /// Handed back without a limit when an object was deleted.
    HandedBack,
    /// Without a limit still; the keeper's next permitted renewal sets one.
    LimitAsked,
}

impl Validity {
    /// Whether guards accept.
    pub fn is_open(self) -> bool {
        match self {
            Validity::Valid | Validity::Unlimited | Validity::HandedBack | Validity::LimitAsked => true,
            Validity::NeverRenewed | Validity::Expired | Validity::Unconfirmed => false,
        }
    }
}

/// Which stages of the holder may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Opened {
    /// None.
    None,
    /// Stages behind the intake.
    Core,
    /// All.
    Intake,
}

/// Proof of a fence, replicated with the data that it closes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Released {
    /// The epoch that ended.
    pub epoch: Epoch,
    /// The region that may go on.
    pub to: Region,
    /// The run that it was done for.
    pub run: RunId,
}

/// What the global cluster's API says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GlobalDatabase {
    /// Region of the member that is marked as writer. `None`: no or several members are.
    pub writer: Option<Region>,
    /// A switch of the writer is scheduled or running.
    pub switching: bool,
    /// The status text, as it came.
    pub status: String,
}

/// One routing control of the application.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ControlKey {
    /// What it stands for.
    pub role: ControlRole,
    /// Whose it is.
    pub region: Region,
}

/// What a routing control stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ControlRole {
    /// Traffic of customers goes there (DNS).
    Ingress,
    /// The edge there may consume.
    Intake,
    /// The application there may hold the lease.
    App,
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

/// What the five endpoints say of one control.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlState {
    /// Endpoints that answered On.
    pub on: u8,
    /// Endpoints that answered Off.
    pub off: u8,
}

impl ControlState {
    /// Endpoints that must agree before a reading counts: more than half of five.
    pub const QUORUM: u8 = 3;

    /// The state that at least [`Self::QUORUM`] endpoints answered.
    pub fn agreed(self) -> Option<Switch> {
        if self.on >= Self::QUORUM {
            Some(Switch::On)
        } else if self.off >= Self::QUORUM {
            Some(Switch::Off)
        } else {
            None
        }
    }
}

/// The selected Deployments, summed up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workloads {
    /// One entry for each.
    pub items: Vec<Workload>,
    /// Names that an older object selects too; they are left alone.
    pub conflicts: Vec<String>,
}

/// One Deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Identity, so that a deleted and recreated one is not taken for the same.
    pub uid: String,
    /// Order of scaling up; lower tiers first.
    pub tier: i32,
    /// Replicas that it should have when its region is active.
    pub active_replicas: i32,
    /// Replicas that it should have when its region is on standby.
    pub standby_replicas: i32,
    /// `spec.replicas` now.
    pub replicas: i32,
    /// Available replicas of the current generation.
    pub ready: i32,
    /// The Deployment controller has seen the current generation.
    pub current: bool,
    /// An autoscaler owns the count: the operator only raises from zero.
    pub autoscaled: bool,
}

/// The broker of my own region.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Broker {
    /// Whether any customer may publish: closed means none.
    pub customers_may_write: bool,
    /// Whether every customer may publish: open means all.
    pub all_customers_may_write: bool,
    /// Open connections of users who submit.
    pub customer_connections: u32,
    /// Those of them that may be older than the taking of the permission to publish; all while it is given.
    pub old_customer_connections: u32,
    /// Open connections of users who only read answers.
    pub answer_connections: u32,
}

/// What a hook answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HookResult {
    /// Done.
    Succeeded,
    /// Still at work.
    Running,
    /// Refused or failed; it is called again after a pause until its deadline.
    Failed {
        /// What it said.
        why: String,
        /// When.
        at: Timestamp,
        /// Its deadline has passed.
        late: bool,
    },
}
