//! The lab: two real regions on one Linux machine, each a network namespace with a whole Kubernetes
//! cluster, RabbitMQ and PostgreSQL in it, and a third namespace where AWS is played.
//!
//! Everything here but [`temporary`] blocks: call it from `spawn_blocking` in asynchronous code.

pub mod address;
pub mod cache;
mod command;
mod error;
pub mod packages;
mod progress;
mod region;
pub mod rootfs;
pub mod temporary;
pub mod wait;

pub use error::{Error, Result};
pub use region::{AwsPlace, Place, Region};
