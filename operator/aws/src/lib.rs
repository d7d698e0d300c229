//! The AWS calls of the operator and the keeper, and nothing else: the data plane of Application
//! Recovery Controller ([`ArcClient`], five endpoints), its safety rules ([`RulesClient`], read
//! only) and the global database of RDS ([`RdsClient`]).
//!
//! Every call has a deadline and no hidden retry. An act ends in an [`Outcome`]; what may or may
//! not have happened is [`Outcome::Unknown`], and the caller reads back before it decides again.
//! This crate takes no decision about regions: it reports.

mod access;
mod arc;
mod error;
mod health;
mod outcome;
mod rds;
mod rules;

pub use access::{AccessError, AwsAccess, CallTimeouts, CredentialSource};
pub use arc::{
    ArcClient, ArcConfigError, ArcEndpoint, ArcReading, ControlState, EndpointReading, FlipLimits, MAX_BATCH,
    MAX_ENDPOINTS, NameError, ReadLimits, panel_of,
};
pub use error::{CallError, ErrorKind};
pub use health::EndpointHealth;
pub use outcome::{Outcome, Refusal};
pub use rds::{ChangeUnderWay, GlobalClusterView, GlobalMember, RdsClient, RdsLimits};
pub use rules::{AssertionRule, RulesClient};
