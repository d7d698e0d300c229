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

/// What a broker user may do: regular expressions for configure, write, read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permissions {
    /// Broker user.
    pub user: &'static str,
    /// Resources it may declare.
    pub configure: &'static str,
    /// Exchanges it may publish to, queues it may bind.
    pub write: &'static str,
    /// Queues it may consume from.
    pub read: &'static str,
}

/// The least that each user needs. Core publishes to the inner queues to replay what was left between stages, and
/// to the first one for the probe.
pub const PERMISSIONS: [Permissions; 6] = [
    Permissions {
        user: "customer-submit",
        configure: "^$",
        write: r"^trade-matching\.in\.trades$",
        read: "^$",
    },
    Permissions {
        user: "customer-answers",
        configure: "^$",
        write: "^$",
        read: r"^trade-matching\.out\.trades$",
    },
    Permissions {
        user: "tm-inbound",
        configure: "^$",
        write: r"^trade-matching\.ingestion\.trades$",
        read: r"^trade-matching\.in\.trades$",
    },
    Permissions {
        user: "tm-ingestion",
        configure: "^$",
        write: r"^trade-matching\.core\.trades$",
        read: r"^trade-matching\.ingestion\.trades$",
    },
    Permissions {
        user: "tm-core",
        configure: "^$",
        write: r"^trade-matching\.(in|ingestion|core|out)\.trades$",
        read: r"^trade-matching\.core\.trades$",
    },
    Permissions {
        user: "trading-migrator",
        configure: r"^trade-matching\.",
        write: r"^trade-matching\.",
        read: r"^trade-matching\.",
    },
];
