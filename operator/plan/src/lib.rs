//! The deciding part of the operator.
//!
//! [`decide`] takes what people want ([`Intent`]) and what was observed ([`World`]) and answers a [`Plan`]:
//! steps that leave the executor no choice, waits, and words for people. Both regions' operators call the same
//! function. It is pure: time, random numbers and everything read are inputs, so it can be run by golden tests,
//! properties and a model checker. The rules are those of `docs/protocol.md`.

mod context;
mod decide;
mod fact;
mod findings;
mod holder;
mod ids;
mod intent;
mod plan;
mod preview;
mod proofs;
mod release;
mod report;
mod source;
mod start;
mod steady;
mod step;
mod target;
mod world;

pub use decide::decide;
pub use fact::Fact;
pub use ids::{Epoch, GrantId, Region, RunId};
pub use intent::{DrainPolicy, HookPoint, Intent, Limits, Management, Mode, OnDeadline, Wanted};
pub use plan::{Code, Finding, Phase, Plan, Wait};
pub use preview::{Preview, PreviewStep, preview};
pub use report::{Grant, Mark, RunReport, SideReport, StepRecord};
pub use step::{Flipped, Recorded, ScaleTarget, ScaleTo, Step, StepKind};
pub use world::{
    Broker, ControlKey, ControlRole, ControlState, Fresh, GlobalDatabase, HookResult, LeaseView, Opened,
    Released, Switch, Validity, Workload, Workloads, World,
};
