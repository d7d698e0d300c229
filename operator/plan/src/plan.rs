//! The answer of a decision.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::intent::HookPoint;
use crate::step::{Step, StepKind};

/// What to do now, what is waited for, and how to tell it to people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Effects to make now. They do not depend on each other and may run side by side.
    /// A [`Step::Record`] always stands alone: what follows rests on its having been written.
    pub steps: Vec<Step>,
    /// What stands between now and the next step.
    pub waits: Vec<Wait>,
    /// Where the object stands, for people and alerts.
    pub phase: Phase,
    /// One sentence for people.
    pub reason: String,
    /// What stands in the way of readiness or of the run, each with a stable code.
    pub findings: Vec<Finding>,
    /// Steps of the open run whose proof was seen in this decision: their time ends now.
    pub proved: Vec<StepKind>,
    /// Hooks of the open run that answered success and are not on record yet. They are written with whatever is written
    /// next; an operator that dies before calls them again, which they stand by run and epoch.
    pub hooks_done: Vec<HookPoint>,
}

macro_rules! phases {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Where the object stands. For people and alerts: few, stable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Phase { $($(#[$doc])* $name),* }

        impl Phase {
            /// All phases.
            pub const ALL: &'static [Phase] = &[$(Phase::$name),*];

            /// The name as it stands in status, events and metrics.
            pub fn name(self) -> &'static str {
                match self { $(Phase::$name => stringify!($name)),* }
            }
        }
    };
}

phases! {
    /// Only watching: `managed: Observe`.
    Observing,
    /// The first grant, or a new one after an interrupted run, is on its way.
    Starting,
    /// Not known here who holds the lease, so nothing is decided here. Trading may well go on.
    Unknown,
    /// Nothing to do: this side is active or on standby as wanted.
    Steady,
    /// A run is open and the new side warms up. Customers notice nothing.
    Preparing,
    /// Ingress is closed and the old side empties.
    Draining,
    /// The old side is fenced; controls and database move.
    Promoting,
    /// The new side holds the lease and opens stage by stage.
    Opening,
    /// A run was given up and the old side reopens.
    Aborting,
    /// A person is needed; the reason says for what and whether anyone can write now.
    WaitForUser,
    /// The object is being deleted and trading handed back.
    Releasing,
}

/// Something that is waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Wait {
    /// On what.
    pub on: String,
    /// Since when, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Until when, and what happens then is in the protocol.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A fact that a person should know of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// Stable code, `TR-1xxx`; `kubectl region explain` knows it.
    pub code: Code,
    /// The fact itself, with where it was read.
    pub message: String,
}

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal, $blocks:ident;)*) => {
        /// Stable codes of findings.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub enum Code { $($(#[$doc])* #[serde(rename = $text)] $name),* }

        impl Code {
            /// All codes.
            pub const ALL: &'static [Code] = &[$(Code::$name),*];

            /// The code as people see it.
            pub fn text(self) -> &'static str {
                match self { $(Code::$name => $text),* }
            }

            /// Whether a planned run is not started while the finding stands.
            pub fn blocks(self) -> bool {
                match self { $(Code::$name => codes!(@$blocks)),* }
            }
        }
    };
    (@blocks) => { true };
    (@informs) => { false };
}

codes! {
    /// The two copies do not ask for the same.
    SpecDisagreed = "TR-1001", blocks;
    /// The other cluster's object could not be read.
    PeerUnknown = "TR-1002", blocks;
    /// The database could not be read.
    DatabaseUnknown = "TR-1003", blocks;
    /// Fewer than three ARC endpoints agree on a control.
    ControlsUnknown = "TR-1004", blocks;
    /// The broker could not be read.
    BrokerUnknown = "TR-1005", blocks;
    /// The selector matches no Deployment.
    NothingSelected = "TR-1006", blocks;
    /// Deployments could not be listed.
    WorkloadsUnknown = "TR-1007", blocks;
    /// An older object selects the same Deployment.
    SelectedByOlder = "TR-1008", blocks;
    /// `mode: Failover` is not available in this version.
    FailoverUnavailable = "TR-1009", blocks;
    /// The database's writer is not in the region that holds the lease.
    WriterElsewhere = "TR-1010", blocks;
    /// The global cluster could not be described.
    GlobalDatabaseUnknown = "TR-1011", blocks;
    /// The lease of the holder has run out.
    LeaseExpired = "TR-1012", blocks;
    /// The application has no lease row: its migrations have not run.
    LeaseMissing = "TR-1013", blocks;
    /// A drain check gives no number.
    DrainUnknown = "TR-1014", blocks;
    /// A hook failed.
    HookFailed = "TR-1015", informs;
    /// The run was given up.
    RunAborted = "TR-1016", informs;
    /// A step after the point of no return takes longer than expected.
    RunSlow = "TR-1017", informs;
    /// The application's DNS name does not answer the active region.
    DnsElsewhere = "TR-1018", informs;
    /// Workloads of the active region are not ready.
    WorkloadsNotReady = "TR-1019", informs;
    /// ARC lacks a safety rule that lets at most one region's control be On.
    SafetyRuleMissing = "TR-1020", blocks;
    /// The safety rules could not be read.
    SafetyRulesUnknown = "TR-1021", informs;
    /// The object asks for an approval, which this version cannot give.
    ApprovalUnavailable = "TR-1022", blocks;
    /// Nobody holds the lease, and no run is about to change that.
    NobodyHolds = "TR-1023", blocks;
    /// The lease row is older than one that was seen before: the database was restored from an old copy.
    EpochBehind = "TR-1024", blocks;
}
