//! Where stores can be damaged, in which ways, and what reconciliation must tell of each.

use trading::names::Application::{self, Settlement as ST, TradeMatching as TM};
use trading::reconcile::Job;

use Kind::{Ahead, Content, Missing, Status};

/// A way of damaging a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rows behind the boundary are deleted.
    Missing,
    /// Rows behind it get another content.
    Content,
    /// Rows behind it get another status.
    Status,
    /// Rows before it are deleted: what is behind is ahead.
    Ahead,
}

impl Kind {
    pub const ALL: [Self; 4] = [Missing, Content, Status, Ahead];

    /// The name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Missing => "missing",
            Content => "content",
            Status => "status",
            Ahead => "ahead",
        }
    }
}

/// One way of damaging one boundary.
#[derive(Debug)]
pub struct Place {
    pub job: Job,
    pub kind: Kind,
    /// Whose database is damaged, the table, and its key.
    pub whose: Application,
    pub table: &'static str,
    pub key: &'static str,
    /// In whose database the rows are chosen: keys of the damaged table, each with an id that is told then.
    pub chosen_in: Application,
    pub candidates: &'static str,
    /// What is changed in a row; it is deleted if nothing is.
    pub change: Option<&'static str>,
    /// Whether replays of both applications bring it back.
    pub mended: bool,
}

impl Place {
    /// Whose database is damaged, in words.
    pub fn whose_word(&self) -> &'static str {
        match self.whose {
            TM => "trade-matching",
            ST => "settlement",
        }
    }
}

const RECORD: &str = "record";
const MESSAGE: &str = "message_id";

const SECURITY_OF_CONTENT: &str = r#"content = replace(content, '"security":"', '"security":"X')"#;
const SECURITY_OF_BODY: &str = r#"body = replace(body, '"security":"', '"security":"X')"#;
const SECURITY_OF_BYTES: &str =
    r#"body = convert_to(replace(convert_from(body, 'UTF8'), '"security":"', '"security":"X'), 'UTF8')"#;
const DESCRIPTION: &str = r#"body = replace(body, '"description":"', '"description":"X')"#;
const OTHER_STATUS: &str = "status = 'OTHER'";
const UNPAIRED_TO_PAIRED: &str = "status = 'MISMATCHED', counterpart = 'nobody'";

const INGESTED: &str = "select record, record from trading.ingested";
const RAW: &str = "select record, record from trading.inbound_raw join trading.ingested using (record)";
/// Reports that wait; one that was said twice in other words has two records.
const LONE: &str = "select record, record from trading.trades where status = 'UNMATCHED' and version = 1 \
    and (select count(*) from trading.ingested where ingested.id = trades.id) = 1";
const TRADES: &str = "select record, record from trading.trades join trading.ingested using (record)";
const OUTBOX_OF_REFUSED: &str = "select outbox.message_id, outbox.message_id from trading.outbox \
    join trading.nacks on outbox.message_id = trading.nack_id(nacks.record) join trading.egressed using (message_id)";
const EGRESSED: &str = "select message_id, message_id from trading.egressed";
const SENT: &str = "select message_id, message_id from trading.sent";
const MADE: &str = "select message_id, message_id from trading.outgoing_settlements where status <> 'NACK'";
/// A matched trade has a settlement for each allocation.
const OUTBOX_OF_MATCHED: &str = "select outbox.message_id, made.message_id \
    from trading.outbox join trading.outgoing_settlements as made \
      on left(made.id, length(outbox.id) + 1) = outbox.id || '-' where outbox.status = 'MATCHED'";
const RETURNED_INGESTED: &str =
    "select record, record from trading.returned_ingested join trading.returned using (record)";
const RETURNED_SETTLED: &str = r#"select record, record from trading.returned_ingested
    where content like '%"status":"Settled"%'"#;
const RETURNED_RAW: &str =
    "select record, record from trading.returned_raw join trading.returned_ingested using (record)";
const RETURNED: &str = "select record, record from trading.returned join trading.returned_ingested using (record) where code is null";
const SETTLED_TRADES: &str = "select record, record from trading.trades where status = 'SETTLED'";
/// The taker's key, and the id by which the maker tells of it.
const TAKEN: &str = "select trading.record_id(id, convert_to(body, 'UTF8')), message_id \
    from trading.outgoing_settlements where sent_at is not null and status <> 'NACK'";
/// What is waited for is sent again by itself, and so it is told later.
const TAKEN_AND_ANSWERED: &str = "select trading.record_id(id, convert_to(body, 'UTF8')), message_id \
    from trading.outgoing_settlements where sent_at is not null \
      and not exists (select from trading.unreturned where unreturned.message_id = outgoing_settlements.message_id)";
const RAW_AND_ANSWERED: &str = "select record, record from trading.inbound_raw \
    join trading.ingested using (record) join trading.settlements using (record) where status <> 'UNMATCHED'";
const TAKEN_SETTLED: &str = "select trading.record_id(id, convert_to(body, 'UTF8')), message_id \
    from trading.outgoing_settlements where sent_at is not null and status = 'Settled'";
const MADE_AND_TAKEN: &str = "select message_id, trading.record_id(id, convert_to(body, 'UTF8')) \
    from trading.outgoing_settlements where sent_at is not null and status <> 'NACK'";
const UNPAIRED: &str = "select record, record from trading.settlements where status = 'UNMATCHED'";
const PAIRED: &str = "select record, record from trading.settlements where status = 'SETTLED'";
const SETTLEMENTS: &str =
    "select record, record from trading.settlements join trading.ingested using (record)";
const OUTBOX_OF_PAIRED: &str = "select message_id, message_id from trading.outbox \
    join trading.outgoing_settlements using (message_id) where outbox.status <> 'NACK'";

const MENDED: bool = true;
const LEFT: bool = false;

type Line = (Job, Kind, Application, &'static str, &'static str, &'static str, Option<&'static str>, bool);

/// Boundary, kind, whose table, key, rows to choose from, change, whether replays bring it back.
#[rustfmt::skip]
const LINES: [Line; 47] = [
    (Job::InboundIngress, Missing, TM, "ingested", RECORD, INGESTED, None, MENDED),
    (Job::InboundIngress, Content, TM, "ingested", RECORD, INGESTED, Some(SECURITY_OF_CONTENT), LEFT),
    (Job::InboundIngress, Status, TM, "nacks", RECORD, "select record, record from trading.nacks", Some("description = 'because'"), LEFT),
    (Job::InboundIngress, Ahead, TM, "inbound_raw", RECORD, RAW, None, LEFT),
    (Job::IngressCore, Missing, TM, "trades", RECORD, LONE, None, MENDED),
    (Job::IngressCore, Content, TM, "trades", RECORD, TRADES, Some(r#"trade = replace(trade, '"security":"', '"security":"X')"#), LEFT),
    (Job::IngressCore, Status, TM, "trades", RECORD, LONE, Some(UNPAIRED_TO_PAIRED), LEFT),
    (Job::IngressCore, Ahead, TM, "ingested", RECORD, TRADES, None, MENDED),
    (Job::CoreEgress, Missing, TM, "egressed", MESSAGE, EGRESSED, None, MENDED),
    (Job::CoreEgress, Content, TM, "egressed", MESSAGE, EGRESSED, Some(DESCRIPTION), LEFT),
    (Job::CoreEgress, Status, TM, "egressed", MESSAGE, EGRESSED, Some(OTHER_STATUS), LEFT),
    (Job::CoreEgress, Ahead, TM, "outbox", MESSAGE, OUTBOX_OF_REFUSED, None, MENDED),
    (Job::EgressOutbound, Missing, TM, "sent", MESSAGE, SENT, None, MENDED),
    (Job::EgressOutbound, Content, TM, "sent", MESSAGE, SENT, Some(DESCRIPTION), LEFT),
    (Job::EgressOutbound, Status, TM, "sent", MESSAGE, SENT, Some(OTHER_STATUS), LEFT),
    (Job::EgressOutbound, Ahead, TM, "egressed", MESSAGE, EGRESSED, None, MENDED),
    (Job::CoreSettlements, Missing, TM, "outgoing_settlements", MESSAGE, MADE, None, MENDED),
    (Job::CoreSettlements, Content, TM, "outgoing_settlements", MESSAGE, MADE, Some(SECURITY_OF_BODY), LEFT),
    (Job::CoreSettlements, Status, TM, "outgoing_settlements", MESSAGE, MADE, Some(OTHER_STATUS), LEFT),
    (Job::CoreSettlements, Ahead, TM, "outbox", MESSAGE, OUTBOX_OF_MATCHED, None, LEFT),
    (Job::ReturnInboundIngress, Missing, TM, "returned_ingested", RECORD, RETURNED_INGESTED, None, MENDED),
    (Job::ReturnInboundIngress, Content, TM, "returned_ingested", RECORD, RETURNED_INGESTED, Some(SECURITY_OF_CONTENT), LEFT),
    (Job::ReturnInboundIngress, Status, TM, "returned_ingested", RECORD, RETURNED_SETTLED,
        Some(r#"content = replace(content, '"status":"Settled"', '"status":"Mismatched"')"#), LEFT),
    // The settlement application sends it again.
    (Job::ReturnInboundIngress, Ahead, TM, "returned_raw", RECORD, RETURNED_RAW, None, MENDED),
    (Job::ReturnIngressCore, Missing, TM, "returned", RECORD, RETURNED, None, MENDED),
    (Job::ReturnIngressCore, Content, TM, "returned", RECORD, RETURNED, Some(SECURITY_OF_CONTENT), LEFT),
    (Job::ReturnIngressCore, Status, TM, "trades", RECORD, SETTLED_TRADES, Some("status = 'MATCHED'"), LEFT),
    (Job::ReturnIngressCore, Ahead, TM, "returned_ingested", RECORD, RETURNED_INGESTED, None, MENDED),
    (Job::OutboundSettlementInbound, Missing, ST, "inbound_raw", RECORD, TAKEN_AND_ANSWERED, None, MENDED),
    (Job::OutboundSettlementInbound, Content, ST, "inbound_raw", RECORD, TAKEN, Some(SECURITY_OF_BYTES), LEFT),
    (Job::OutboundSettlementInbound, Status, ST, "inbound_raw", RECORD, TAKEN,
        Some("body = convert_to(replace(convert_from(body, 'UTF8'), 'Unmatched', 'Settled'), 'UTF8')"), LEFT),
    (Job::OutboundSettlementInbound, Ahead, TM, "outgoing_settlements", MESSAGE, MADE_AND_TAKEN, None, MENDED),
    (Job::SettlementInboundIngress, Missing, ST, "ingested", RECORD, INGESTED, None, MENDED),
    (Job::SettlementInboundIngress, Content, ST, "ingested", RECORD, INGESTED, Some(SECURITY_OF_CONTENT), LEFT),
    // Trade matching sends it again.
    (Job::SettlementInboundIngress, Ahead, ST, "inbound_raw", RECORD, RAW_AND_ANSWERED, None, MENDED),
    (Job::SettlementIngressCore, Missing, ST, "settlements", RECORD, UNPAIRED, None, MENDED),
    (Job::SettlementIngressCore, Content, ST, "settlements", RECORD, SETTLEMENTS,
        Some(r#"settlement = replace(settlement, '"security":"', '"security":"X')"#), LEFT),
    (Job::SettlementIngressCore, Status, ST, "settlements", RECORD, PAIRED, Some("status = 'MISMATCHED'"), LEFT),
    (Job::SettlementIngressCore, Ahead, ST, "ingested", RECORD, SETTLEMENTS, None, MENDED),
    (Job::SettlementCoreEgress, Missing, ST, "outgoing_settlements", MESSAGE, MADE, None, MENDED),
    (Job::SettlementCoreEgress, Content, ST, "outgoing_settlements", MESSAGE, MADE, Some(SECURITY_OF_BODY), LEFT),
    (Job::SettlementCoreEgress, Status, ST, "outgoing_settlements", MESSAGE, MADE, Some(OTHER_STATUS), LEFT),
    (Job::SettlementCoreEgress, Ahead, ST, "outbox", MESSAGE, OUTBOX_OF_PAIRED, None, LEFT),
    (Job::SettlementOutboundSettlementInbound, Missing, TM, "returned_raw", RECORD, TAKEN, None, MENDED),
    (Job::SettlementOutboundSettlementInbound, Content, TM, "returned_raw", RECORD, TAKEN, Some(SECURITY_OF_BYTES), LEFT),
    (Job::SettlementOutboundSettlementInbound, Status, TM, "returned_raw", RECORD, TAKEN_SETTLED,
        Some("body = convert_to(replace(convert_from(body, 'UTF8'), 'Settled', 'Mismatched'), 'UTF8')"), LEFT),
    (Job::SettlementOutboundSettlementInbound, Ahead, ST, "outgoing_settlements", MESSAGE, MADE_AND_TAKEN, None, MENDED),
];

/// All of them, in the order of the boundaries.
pub fn all() -> impl Iterator<Item = Place> {
    LINES.into_iter().map(|(job, kind, whose, table, key, candidates, change, mended)| {
        // What lies between the applications is chosen by who made it, and so is everything else.
        let chosen_in = if job.is_between() { job.application() } else { whose };
        Place { job, kind, whose, table, key, chosen_in, candidates, change, mended }
    })
}
