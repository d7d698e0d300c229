//! Names that the pipeline shares with its broker and its database. The list for people is `docs/wiring.md`.

/// Customers → inbound gateway.
pub const IN: &str = "trade-matching.in.trades";
/// Inbound → ingestion.
pub const INGESTION: &str = "trade-matching.ingestion.trades";
/// Ingestion → core.
pub const CORE: &str = "trade-matching.core.trades";
/// Core's relay → customers.
pub const OUT: &str = "trade-matching.out.trades";

/// All queues, in the order in which a trade passes them. Each has a fan-out exchange of its own name, so that the
/// right to publish can be given for one queue alone.
pub const QUEUES: [&str; 4] = [IN, INGESTION, CORE, OUT];
