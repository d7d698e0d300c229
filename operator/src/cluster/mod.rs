//! Clusters: the own one, which is written, and the other one, of which only TradingRegions are read.

mod client;
mod peer;
mod secrets;

pub use client::{ClientLimits, ClusterError, from_kubeconfig_text, own};
pub use peer::{PeerCopy, PeerReader, Peers, ReadPeer, Wish};
pub use secrets::{SecretData, SecretError, Secrets};
