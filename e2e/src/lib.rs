//! The rig of the end-to-end tests, the demo and the benchmarks: charts installed with Helm into the lab's two
//! clusters, the TradingRegion applied in both, a customer who keeps a ledger, and waits on values with named bounds.

pub mod clusters;
pub mod customer;
pub mod deploy;
pub mod helm;
pub mod kubectl;
pub mod object;
pub mod reconciliation;
pub mod run;
pub mod stores;
pub mod timeline;
pub mod timeouts;
pub mod wait;

pub use clusters::Clusters;
