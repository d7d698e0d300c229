//! Conservation, by id, over the stores of both applications at rest: what each stage has is what the one before gave it.

use trading::names::Application::{self, Settlement, TradeMatching};

/// Two queries, each over the store of an application, that give the same texts equally often.
pub struct Equation {
    pub name: &'static str,
    pub one: Application,
    pub first: &'static str,
    pub other: Application,
    pub second: &'static str,
}

pub const EQUATIONS: &[Equation] = &[
    Equation {
        name: "messages = valid ones + refused ones",
        one: TradeMatching,
        first: "select record::text from trading.inbound_raw",
        other: TradeMatching,
        second: "select record::text from trading.ingested union all select record::text from trading.nacks",
    },
    Equation {
        name: "allocations of matched trades = settlements out",
        one: TradeMatching,
        first: "select id || '-' || (allocation ->> 'allocationID') from trading.trades, \
                jsonb_array_elements(trade::jsonb -> 'allocations') as allocation \
                where status in ('MATCHED', 'SETTLED')",
        other: TradeMatching,
        second: "select id from trading.outgoing_settlements",
    },
    Equation {
        name: "settlements out = settlement inbound",
        one: TradeMatching,
        first: "select id || body from trading.outgoing_settlements",
        other: Settlement,
        second: "select correlation_id || convert_from(body, 'UTF8') from trading.inbound_raw",
    },
    Equation {
        name: "settlement inbound = valid ones + refused ones",
        one: Settlement,
        first: "select record::text from trading.inbound_raw",
        other: Settlement,
        second: "select record::text from trading.ingested union all select record::text from trading.nacks",
    },
    Equation {
        name: "settlement ingestion = settlement core",
        one: Settlement,
        first: "select record::text from trading.ingested",
        other: Settlement,
        second: "select record::text from trading.settlements union all select record::text from trading.conflicts",
    },
    Equation {
        name: "settlement core = settlements back",
        one: Settlement,
        first: "select id || ' ' || status from trading.settlements where status <> 'UNMATCHED'",
        other: Settlement,
        second: "select id || ' ' || upper(status) from trading.outgoing_settlements where status <> 'NACK'",
    },
    Equation {
        name: "settlements back = returned",
        one: Settlement,
        first: "select id || body from trading.outgoing_settlements",
        other: TradeMatching,
        second: "select correlation_id || convert_from(body, 'UTF8') from trading.returned_raw",
    },
    Equation {
        name: "returned = taken + refused",
        one: TradeMatching,
        first: "select record::text from trading.returned_raw",
        other: TradeMatching,
        second: "select record::text from trading.returned union all select record::text from trading.returned_nacks",
    },
    Equation {
        name: "returned and taken = allocations that are told",
        one: TradeMatching,
        first: "select id from trading.returned where code is null",
        other: TradeMatching,
        second: "select trade || '-' || allocation_id from trading.allocations",
    },
    Equation {
        name: "decided trades = answers out",
        one: TradeMatching,
        first: "select id || ' ' || status from trading.trades where status <> 'UNMATCHED' \
                union all select id || ' MATCHED' from trading.trades where status = 'SETTLED'",
        other: TradeMatching,
        second: "select id || ' ' || status from trading.sent where status <> 'NACK'",
    },
    Equation {
        name: "answers made = answers out",
        one: TradeMatching,
        first: "select message_id::text || id || status || body from trading.egressed",
        other: TradeMatching,
        second: "select message_id::text || id || status || body from trading.sent",
    },
];
