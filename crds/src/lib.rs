//! The API that people write: [`TradingRegion`], one object per application, the same YAML in both clusters.
//!
//! Every rule that a schema can state is stated here, as schema or as CEL with a message that says what to do, so
//! that a wrong object is refused when it is applied. `cargo run -p crds --bin crdgen` writes the YAML.
#![expect(unreachable_pub, reason = "the schema derive copies each struct into a function body, pub and all")]

pub mod conditions;
mod database;
mod drain;
mod duration;
mod hooks;
mod reading;
mod reference;
mod region;
mod routing;
mod run;
mod status;
mod trading_region;
mod transition;
mod workloads;
mod yaml;

pub use database::{AuroraCluster, AuroraGlobal, Connection, Database, Lease, WitnessLoss};
pub use drain::{Drain, DrainCheck, HttpCheck, OnDeadline, RabbitmqCheck, SqlCheck};
pub use duration::{AcceptedLoss, Duration, DurationError};
pub use hooks::{Hook, HttpHook, JobHook};
pub use reading::{CheckReading, DurationReading, LeaseReading};
pub use reference::{SecretKeyRef, SecretRef};
pub use region::{Broker, Instance, Peer, RegionSpec};
pub use routing::{Arc, ArcEndpoint, Controls, Dns, Routing};
pub use run::{Outcome, Preview, PreviewStep, RunStep, RunSummary, RunTimes};
pub use status::{MAX_HISTORY, MAX_HISTORY_WITH_STEPS, TradingRegionStatus};
pub use trading_region::{Managed, TradingRegion, TradingRegionSpec};
pub use transition::{Approval, ApprovalRequired, Transition, TransitionMode};
pub use workloads::{Active, Selector, Standby, Workloads};
pub use yaml::{YamlError, definition, definition_yaml};

/// Annotation with the hash of the plan that a person saw when they changed `spec.activeRegion`. The run's record keeps it.
pub const PLAN_HASH_ANNOTATION: &str = "regions.trading.dev/plan-hash";

/// Finalizer: the object goes only after the lease was handed back to its holder, so that trading goes on.
pub const FINALIZER: &str = "regions.trading.dev/release";

/// Label that gives the order in which workloads are scaled up; lower first.
pub const TIER_LABEL: &str = "regions.trading.dev/tier";

/// Annotation on a Deployment: its wanted replicas when its region is active.
pub const ACTIVE_REPLICAS_ANNOTATION: &str = "regions.trading.dev/active-replicas";
