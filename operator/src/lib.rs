//! The operator of one region.
//!
//! One pass over an object: observe (all sources at once, each with a deadline) → decide (`region_plan`, pure) → apply
//! (each step with a deadline and a typed end) → status (pure functions). Files follow that order.

pub mod apply;
pub mod args;
pub mod backoff;
pub mod caller;
pub mod clock;
pub mod cluster;
pub mod controller;
pub mod deadline;
pub mod error;
pub mod events;
mod follow;
pub mod http;
pub mod intent;
pub mod leader;
pub mod metrics;
pub mod observe;
mod run;
pub mod sources;
pub mod status;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod workloads;

pub use run::{RunError, run};
