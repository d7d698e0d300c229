//! The lab: two real regions on one Linux machine, each a network namespace with a whole Kubernetes
//! cluster, RabbitMQ and PostgreSQL in it, and a third namespace where AWS is played.
//!
//! Everything here but [`temporary`] blocks: call it from `spawn_blocking` in asynchronous code.

pub mod address;
mod application;
pub mod binaries;
mod broker;
mod bundle;
pub mod cache;
mod certificates;
mod cgroup;
mod command;
pub mod control;
mod credentials;
pub mod database;
mod down;
mod error;
mod facts;
pub mod fault;
mod images;
mod kubernetes;
mod layout;
mod network;
pub mod packages;
mod process;
mod progress;
mod region;
pub mod rootfs;
mod simulator;
mod standing;
pub mod temporary;
mod up;
pub mod wait;

pub use application::{Application, Queue};
pub use bundle::bundle;
pub use credentials::{AwsKey, Credentials};
pub use down::{down, left};
pub use error::{Error, Result};
pub use facts::{ArcEndpoint, AwsFacts, Facts, RegionFacts, read_credentials};
pub use layout::Lab;
pub use network::enter;
pub use process::{ProcessStatus, log_file, status};
pub use region::{AwsPlace, Place, Region};
pub use simulator::AwsNames;
pub use standing::{Standing, standings};
pub use up::{Options, image_key, up};
