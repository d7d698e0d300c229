//! The steps that a plan may hold. Each names its object, region, expected token: the executor has no choice left.

use serde::{Deserialize, Serialize};

use crate::ids::{Epoch, Region, RunId};
use crate::intent::HookPoint;
use crate::report::{Grant, RunReport};
use crate::world::{ControlKey, Switch};

/// One effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Write my own report of the run, by compare-and-set on the object's resourceVersion.
    Record {
        /// What the record stands for.
        what: Recorded,
        /// The report to write.
        run: Box<RunReport>,
        /// The highest epoch to write beside it.
        highest_epoch: Epoch,
    },
    /// Scale Deployments of my own cluster.
    Scale {
        /// Why.
        to: ScaleTo,
        /// Names and counts, lowest tier first; only what differs.
        targets: Vec<ScaleTarget>,
    },
    /// Change routing controls in one batch.
    Flip {
        /// Why.
        what: Flipped,
        /// The batch.
        batch: Vec<(ControlKey, Switch)>,
    },
    /// Take the customers' permission to publish and close their connections.
    CloseBroker,
    /// Close the connections of those who read answers: nothing more will come here.
    CloseAnswers,
    /// Give the customers' permission to publish.
    OpenBroker,
    /// Note in the lease row that this run will not be fenced for.
    AbortRun {
        /// The run.
        run: RunId,
    },
    /// Give the lease up for this run.
    Fence {
        /// The grant that ends.
        grant: Grant,
        /// The run.
        run: RunId,
        /// Who may go on.
        to: Region,
    },
    /// Move the global cluster's writer to my own region.
    SwitchDatabase {
        /// The present writer, whose region's API takes the call.
        from: Region,
    },
    /// Take the lease: compare-and-set on the epoch that it had.
    Grant {
        /// The epoch in the row now.
        from_epoch: Epoch,
        /// The new grant.
        grant: Grant,
        /// The run; a fresh identity outside runs.
        run: RunId,
    },
    /// Let the holder take what customers send: its edge beside its core stages.
    OpenIntake {
        /// The grant.
        grant: Grant,
    },
    /// Call the application's hooks of one point. Idempotent by run and epoch.
    Hook {
        /// The point.
        point: HookPoint,
        /// The run.
        run: RunId,
        /// The epoch that the hook acts in.
        epoch: Epoch,
    },
    /// Hand the lease to its present holder without a limit: the object goes, trading stays.
    ReleaseUnlimited {
        /// The grant.
        grant: Grant,
    },
    /// Ask for a limit of a lease that was handed back without one: the keeper's next permitted renewal sets it.
    LimitAgain {
        /// The grant.
        grant: Grant,
    },
    /// Let the API server delete the object.
    RemoveFinalizer,
}

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Recorded {
    /// [`crate::Mark::Proposed`].
    Proposed,
    /// [`crate::Mark::Accepted`].
    Accepted,
    /// The new side is warm.
    Warm,
    /// The old side begins to close its ingress.
    Closing,
    /// The drain checks turned zero, or did not stay zero.
    Drained,
    /// [`crate::Mark::Fenced`].
    Fenced,
    /// [`crate::Mark::Begun`].
    Begun,
    /// The grant that is made next.
    Epoch,
    /// [`crate::Mark::Declined`].
    Declined,
    /// [`crate::Mark::Aborted`].
    Aborted,
    /// [`crate::Mark::Finished`].
    Finished,
}

/// Why Deployments are scaled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ScaleTo {
    /// Their counts for an active region.
    Active,
    /// Their counts for a region on standby.
    Standby,
}

/// One Deployment and its wanted count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScaleTarget {
    /// Name.
    pub name: String,
    /// Identity that was seen; a recreated one is left for the next decision.
    pub uid: String,
    /// Wanted count.
    pub replicas: i32,
}

/// Why routing controls change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Flipped {
    /// The old side closes its ingress.
    IngressOff,
    /// The new side takes the application's control in one batch.
    AppOver,
    /// The holder's, or first, application control.
    AppOn,
    /// A side that does not hold the lease turns its own controls off.
    OwnOff,
    /// The edge may consume.
    IntakeOn,
    /// Traffic may come.
    IngressOn,
}

macro_rules! step_kinds {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {
        /// Every kind of step: the kill cases of the end-to-end tests are generated from this list.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        #[allow(missing_docs, reason = "each is named after the step that it stands for")]
        pub enum StepKind { $($(#[$doc])* $name),* }

        impl StepKind {
            /// All kinds.
            pub const ALL: &'static [StepKind] = &[$(StepKind::$name),*];

            /// The name as it stands in status, events and metrics.
            pub fn name(self) -> &'static str {
                match self { $(StepKind::$name => stringify!($name)),* }
            }

            /// The kind of that name.
            pub fn parse(name: &str) -> Option<StepKind> {
                match name { $(stringify!($name) => Some(StepKind::$name),)* _ => None }
            }
        }
    };
}

step_kinds! {
    RecordProposed, RecordAccepted, RecordWarm, RecordClosing, RecordDrained, RecordFenced, RecordBegun,
    RecordEpoch, RecordDeclined, RecordAborted, RecordFinished,
    ScaleActive, ScaleStandby,
    FlipIngressOff, FlipAppOver, FlipAppOn, FlipOwnOff, FlipIntakeOn, FlipIngressOn,
    CloseBroker, CloseAnswers, OpenBroker,
    AbortRun, Fence, SwitchDatabase, Grant, OpenIntake,
    HookPreWarm, HookDrained, HookAfterGrant, HookProbe, HookAfterOpen,
    ReleaseUnlimited, LimitAgain, RemoveFinalizer,
}

impl Step {
    /// The kind of this step. A new step without a kind does not compile.
    pub fn kind(&self) -> StepKind {
        match self {
            Step::Record { what, .. } => match what {
                Recorded::Proposed => StepKind::RecordProposed,
                Recorded::Accepted => StepKind::RecordAccepted,
                Recorded::Warm => StepKind::RecordWarm,
                Recorded::Closing => StepKind::RecordClosing,
                Recorded::Drained => StepKind::RecordDrained,
                Recorded::Fenced => StepKind::RecordFenced,
                Recorded::Begun => StepKind::RecordBegun,
                Recorded::Epoch => StepKind::RecordEpoch,
                Recorded::Declined => StepKind::RecordDeclined,
                Recorded::Aborted => StepKind::RecordAborted,
                Recorded::Finished => StepKind::RecordFinished,
            },
            Step::Scale { to: ScaleTo::Active, .. } => StepKind::ScaleActive,
            Step::Scale { to: ScaleTo::Standby, .. } => StepKind::ScaleStandby,
            Step::Flip { what, .. } => match what {
                Flipped::IngressOff => StepKind::FlipIngressOff,
                Flipped::AppOver => StepKind::FlipAppOver,
                Flipped::AppOn => StepKind::FlipAppOn,
                Flipped::OwnOff => StepKind::FlipOwnOff,
                Flipped::IntakeOn => StepKind::FlipIntakeOn,
                Flipped::IngressOn => StepKind::FlipIngressOn,
            },
            Step::CloseBroker => StepKind::CloseBroker,
            Step::CloseAnswers => StepKind::CloseAnswers,
            Step::OpenBroker => StepKind::OpenBroker,
            Step::AbortRun { .. } => StepKind::AbortRun,
            Step::Fence { .. } => StepKind::Fence,
            Step::SwitchDatabase { .. } => StepKind::SwitchDatabase,
            Step::Grant { .. } => StepKind::Grant,
            Step::OpenIntake { .. } => StepKind::OpenIntake,
            Step::Hook { point, .. } => match point {
                HookPoint::PreWarm => StepKind::HookPreWarm,
                HookPoint::Drained => StepKind::HookDrained,
                HookPoint::AfterGrant => StepKind::HookAfterGrant,
                HookPoint::Probe => StepKind::HookProbe,
                HookPoint::AfterOpen => StepKind::HookAfterOpen,
            },
            Step::ReleaseUnlimited { .. } => StepKind::ReleaseUnlimited,
            Step::LimitAgain { .. } => StepKind::LimitAgain,
            Step::RemoveFinalizer => StepKind::RemoveFinalizer,
        }
    }
}
