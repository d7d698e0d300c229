//! Names that the pipeline shares with its broker and its database. The list for people is `docs/wiring.md`.

/// Customers → inbound gateway.
pub const IN: &str = "trade-matching.in.trades";
/// Inbound → ingestion.
pub const INGESTION: &str = "trade-matching.ingestion.trades";
/// Ingestion → core.
pub const CORE: &str = "trade-matching.core.trades";
/// Core's relay → egress.
pub const EGRESS: &str = "trade-matching.egress.trades";
/// Egress → outbound gateway.
pub const OUTBOUND: &str = "trade-matching.outbound.trades";
/// Outbound gateway → customers.
pub const OUT: &str = "trade-matching.out.trades";

/// All queues, in the order in which a trade passes them. Each has a fan-out exchange of its own name, so that the
/// right to publish can be given for one queue alone.
pub const QUEUES: [&str; 6] = [IN, INGESTION, CORE, EGRESS, OUTBOUND, OUT];
