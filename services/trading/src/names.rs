//! Names that the pipelines share with their brokers and databases. The list for people is `docs/wiring.md`.

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

/// The settlement application → trade matching's inbound gateway: settlements that come back.
pub const RETURNED_IN: &str = "trade-matching.in.settlements";
/// Inbound → ingestion.
pub const RETURNED_INGESTION: &str = "trade-matching.ingestion.settlements";
/// Ingestion → core.
pub const RETURNED_CORE: &str = "trade-matching.core.settlements";

/// Trade matching → the settlement application's inbound gateway.
pub const SETTLEMENT_IN: &str = "settlement.in.settlements";
/// Inbound → ingestion.
pub const SETTLEMENT_INGESTION: &str = "settlement.ingestion.settlements";
/// Ingestion → core.
pub const SETTLEMENT_CORE: &str = "settlement.core.settlements";
/// Core's relay → egress, which writes what outbound sends.
pub const SETTLEMENT_EGRESS: &str = "settlement.egress.settlements";

/// The queues of trade matching, in the order in which messages pass them. Each has a fan-out exchange of its own name, so
/// that the right to publish can be given for one queue alone.
pub const QUEUES: [&str; 9] =
    [IN, INGESTION, CORE, EGRESS, OUTBOUND, OUT, RETURNED_IN, RETURNED_INGESTION, RETURNED_CORE];
/// The queues of the settlement application.
pub const SETTLEMENT_QUEUES: [&str; 4] =
    [SETTLEMENT_IN, SETTLEMENT_INGESTION, SETTLEMENT_CORE, SETTLEMENT_EGRESS];

/// One of the two applications that trade passes: each has its own broker, database and lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Application {
    /// Trades: from a customer's report to the answer.
    TradeMatching,
    /// Settlements: from trade matching and back to it.
    Settlement,
}

impl Application {
    /// Its queues.
    pub fn queues(self) -> &'static [&'static str] {
        match self {
            Self::TradeMatching => &QUEUES,
            Self::Settlement => &SETTLEMENT_QUEUES,
        }
    }

    /// The queue of the other application that it sends settlements to.
    pub(crate) fn peer_queue(self) -> &'static str {
        match self {
            Self::TradeMatching => SETTLEMENT_IN,
            Self::Settlement => RETURNED_IN,
        }
    }
}

/// A line of messages: the queues and tables that take it from the gateway to core.
#[derive(Debug)]
pub(crate) struct Line {
    /// What inbound takes from.
    pub(crate) input: &'static str,
    /// What ingestion takes from.
    pub(crate) ingestion: &'static str,
    /// What core takes from.
    pub(crate) core: &'static str,
    /// Longest id of a sender.
    pub(crate) id_max: usize,
    /// Inbound's store.
    pub(crate) raw: &'static str,
    /// Stored by inbound, not decided by core.
    pub(crate) pending: &'static str,
    /// Ingestion's store of what is valid.
    pub(crate) ingested: &'static str,
    /// Ingestion's store of what is not.
    pub(crate) nacks: &'static str,
}

/// Longest id of a trade: three names of 20, a trade number of 10, three dashes.
const TRADE_ID_MAX: usize = 73;
/// The same with a dash and the number of an allocation.
const SETTLEMENT_ID_MAX: usize = TRADE_ID_MAX + 20;

/// Customers' trades.
pub(crate) const TRADES: Line = Line {
    input: IN,
    ingestion: INGESTION,
    core: CORE,
    id_max: TRADE_ID_MAX,
    raw: "trading.inbound_raw",
    pending: "trading.pending",
    ingested: "trading.ingested",
    nacks: "trading.nacks",
};

/// What comes back to trade matching.
pub(crate) const RETURNED: Line = Line {
    input: RETURNED_IN,
    ingestion: RETURNED_INGESTION,
    core: RETURNED_CORE,
    id_max: SETTLEMENT_ID_MAX,
    raw: "trading.returned_raw",
    pending: "trading.returned_pending",
    ingested: "trading.returned_ingested",
    nacks: "trading.returned_nacks",
};

/// What the settlement application takes; its tables lie in its own database.
pub(crate) const SETTLEMENTS: Line = Line {
    input: SETTLEMENT_IN,
    ingestion: SETTLEMENT_INGESTION,
    core: SETTLEMENT_CORE,
    id_max: SETTLEMENT_ID_MAX,
    ..TRADES
};
