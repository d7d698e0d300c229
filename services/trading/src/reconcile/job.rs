//! The boundaries, by application.

use serde::Serialize;

use crate::names::Application;

/// A boundary between two stages; the names follow those of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Job {
    /// Inbound's raw messages → ingestion's trades and refusals.
    InboundIngress,
    /// Ingestion's trades and refusals → core's trades, refused reports and answers.
    IngressCore,
    /// Core's decisions → egress's answers.
    CoreEgress,
    /// Egress's answers → what outbound has sent.
    EgressOutbound,
    /// Core's matched trades → the settlements that egress made of them.
    CoreSettlements,
    /// What came back from the settlement application → what ingestion made of it.
    ReturnInboundIngress,
    /// What came back and is valid → what core made of it, of allocations and of trades.
    ReturnIngressCore,
    /// Settlements that trade matching made → the settlement application's inbound store.
    OutboundSettlementInbound,
    /// The settlement application's raw messages → its ingestion's settlements and refusals.
    SettlementInboundIngress,
    /// Its ingestion's settlements and refusals → its core's settlements, refused ones and answers.
    SettlementIngressCore,
    /// Its core's decisions → what its egress made to be sent back.
    SettlementCoreEgress,
    /// What the settlement application sends back → trade matching's inbound store.
    SettlementOutboundSettlementInbound,
}

impl Job {
    /// Those of trades, in the order in which a trade passes them.
    pub const TRADES: [Self; 4] =
        [Self::InboundIngress, Self::IngressCore, Self::CoreEgress, Self::EgressOutbound];
    /// What else trade matching has where matched trades are settled.
    pub const SETTLING: [Self; 3] =
        [Self::CoreSettlements, Self::ReturnInboundIngress, Self::ReturnIngressCore];
    /// Those of the settlement application, in the order in which a settlement passes them.
    pub const SETTLEMENTS: [Self; 3] =
        [Self::SettlementInboundIngress, Self::SettlementIngressCore, Self::SettlementCoreEgress];

    /// All boundaries within an application; of trade matching those of settlements only where it makes any.
    pub fn within(application: Application, settling: bool) -> Vec<Self> {
        match application {
            Application::TradeMatching if settling => [&Self::TRADES[..], &Self::SETTLING].concat(),
            Application::TradeMatching => Self::TRADES.to_vec(),
            Application::Settlement => Self::SETTLEMENTS.to_vec(),
        }
    }

    /// From what an application made for the other one to what that one took.
    pub fn between(application: Application) -> Self {
        match application {
            Application::TradeMatching => Self::OutboundSettlementInbound,
            Application::Settlement => Self::SettlementOutboundSettlementInbound,
        }
    }

    /// The application whose store is before the boundary; it compares, and it sends again.
    pub fn application(self) -> Application {
        match self {
            Self::InboundIngress
            | Self::IngressCore
            | Self::CoreEgress
            | Self::EgressOutbound
            | Self::CoreSettlements
            | Self::ReturnInboundIngress
            | Self::ReturnIngressCore
            | Self::OutboundSettlementInbound => Application::TradeMatching,
            Self::SettlementInboundIngress
            | Self::SettlementIngressCore
            | Self::SettlementCoreEgress
            | Self::SettlementOutboundSettlementInbound => Application::Settlement,
        }
    }

    /// Whether the store behind it is the other application's.
    pub fn is_between(self) -> bool {
        self == Self::between(self.application())
    }

    /// The name on the command line and in audit rows.
    pub fn word(self) -> &'static str {
        match self {
            Self::InboundIngress => "InboundIngress",
            Self::IngressCore => "IngressCore",
            Self::CoreEgress => "CoreEgress",
            Self::EgressOutbound => "EgressOutbound",
            Self::CoreSettlements => "CoreSettlements",
            Self::ReturnInboundIngress => "ReturnInboundIngress",
            Self::ReturnIngressCore => "ReturnIngressCore",
            Self::OutboundSettlementInbound => "OutboundSettlementInbound",
            Self::SettlementInboundIngress => "SettlementInboundIngress",
            Self::SettlementIngressCore => "SettlementIngressCore",
            Self::SettlementCoreEgress => "SettlementCoreEgress",
            Self::SettlementOutboundSettlementInbound => "SettlementOutboundSettlementInbound",
        }
    }
}
