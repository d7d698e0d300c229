//! What people want: the spec of both copies of the object, reduced to what the decision needs.

use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;
use crate::ids::{Epoch, Region};

/// What both copies of the object ask for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The application: the object's name.
    pub app: String,
    /// The two regions, in the order of the spec. The position is the region's residue class for epochs.
    pub regions: Vec<Region>,
    /// My copy.
    pub mine: Wanted,
    /// The other region's copy, read from the other cluster.
    pub peer: Fact<Wanted>,
    /// When a drain counts as done, and what to do when it does not end.
    pub drain: DrainPolicy,
    /// Points of a run at which the application wants to be called.
    pub hooks: Vec<HookPoint>,
    /// The name that customers resolve, if the object gives one.
    pub dns_name: Option<String>,
    /// Planned runs need an approval, which this version cannot ask for.
    pub approval_required: bool,
    /// Whether effects are wanted at all.
    pub management: Management,
    /// The object is being deleted: trading must go on without it.
    pub deleting: bool,
    /// Least time between the acceptance of a run and its drain deadline, and other bounds of a run.
    pub limits: Limits,
}

/// One copy's wish.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// The region that should be active.
    pub active: Region,
    /// How the change is to be made.
    pub mode: Mode,
    /// `metadata.generation` of that copy.
    pub generation: i64,
    /// A digest of the parts of the spec that both copies must share.
    pub fingerprint: String,
}

/// How the active region changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// Nothing may be lost; needs both regions.
    Planned,
    /// The other region is lost; data up to a bound may be lost. Names the epoch that it ends.
    Failover {
        /// The epoch that this failover ends.
        from_epoch: Epoch,
    },
}

/// Whether the operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Management {
    /// Decide, show, and change nothing.
    Observe,
    /// Decide and act.
    Manage,
}

/// When the old side counts as empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPolicy {
    /// All checks must have read zero for this long.
    pub hold: SignedDuration,
    /// Counted from the moment at which ingress was ordered to close.
    pub deadline: SignedDuration,
    /// What to do at the deadline.
    pub on_deadline: OnDeadline,
}

/// What to do when the drain does not end in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnDeadline {
    /// Give up the run and reopen the old side.
    Abort,
    /// Go on; what was left is listed. Gives up "nothing acknowledged is lost".
    Proceed,
    /// Stop and ask.
    WaitForUser,
}

/// A named point of a run at which the application does something itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum HookPoint {
    /// In the new region, beside scaling up.
    PreWarm,
    /// In the old region, after the fence.
    Drained,
    /// In the new region, once its core stages may write.
    AfterGrant,
    /// In the new region, before traffic: a record travels the whole pipeline.
    Probe,
    /// In the new region, once traffic is there.
    AfterOpen,
}

impl HookPoint {
    /// All points, in the order of a run.
    pub const ALL: [HookPoint; 5] = [
        HookPoint::PreWarm,
        HookPoint::Drained,
        HookPoint::AfterGrant,
        HookPoint::Probe,
        HookPoint::AfterOpen,
    ];
}

/// Bounds of waits that the spec does not set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// The other side must accept a proposed run within this time.
    pub accept: SignedDuration,
    /// The new side must be warm within this time.
    pub warm: SignedDuration,
    /// After the point of no return: how long before a person is asked. The run goes on beside it.
    pub attention: SignedDuration,
    /// How long after a run the old side closes connections of customers who are still there.
    pub stand_down: SignedDuration,
    /// A fact older than this is not used for a step.
    pub fact_age: SignedDuration,
    /// How long a refusal by a safety rule is remembered. A rule may have been changed since.
    pub refusal: SignedDuration,
    /// The list of safety rules is read rarely: an older one is not known any more.
    pub rules_age: SignedDuration,
    /// After a run, how long the customers' name may still answer the old side: caches and health checks.
    pub name_settles: SignedDuration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            accept: SignedDuration::from_secs(30),
            warm: SignedDuration::from_secs(300),
            attention: SignedDuration::from_secs(600),
            stand_down: SignedDuration::from_secs(30),
            fact_age: SignedDuration::from_secs(10),
            refusal: SignedDuration::from_secs(600),
            rules_age: SignedDuration::from_secs(300),
            name_settles: SignedDuration::from_secs(30),
        }
    }
}

impl Intent {
    /// The region that both copies name, when the other copy is known and both agree in everything shared.
    pub fn agreed(&self) -> Option<&Region> {
        let peer = self.peer.get()?;
        (peer.active == self.mine.active
            && peer.fingerprint == self.mine.fingerprint
            && peer.mode == self.mine.mode)
            .then_some(&self.mine.active)
    }

    /// The region that is not `me`.
    pub fn other(&self, me: &Region) -> Option<&Region> {
        self.regions.iter().find(|region| *region != me)
    }
}
