//! Ids that are functions of content, so that a repeat has the same one.

use jiff::civil::Date;
use matching::Status;
use services_common::trace::TraceId;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::settlement::{Settlement, SettlementStatus};

fn digest(parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let hash: [u8; 32] = hash.finalize().into();
    let mut half = [0; 16];
    half.copy_from_slice(&hash[..16]);
    Uuid::from_bytes(half)
}

/// The record of one customer message: the same id and body always give the same record.
pub(crate) fn record(correlation_id: &str, body: &[u8]) -> Uuid {
    digest(&[b"record", correlation_id.as_bytes(), body])
}

/// Something that was set apart by a stage.
pub(crate) fn quarantined(stage: &str, body: &[u8]) -> Uuid {
    digest(&[b"quarantine", stage.as_bytes(), body])
}

/// The message id of the answer about a trade that reached a status by a version of its report.
pub(crate) fn answer(trade_date: Date, id: &str, version: u32, status: Status) -> Uuid {
    let version = version.to_be_bytes();
    digest(&[b"answer", trade_date.to_string().as_bytes(), id.as_bytes(), &version, status.word().as_bytes()])
}

/// The message id of a settlement with a status. Its allocation is told apart by account and quantity too: a trade may
/// name one number twice, and then neither settlement may pass for a repetition of the other.
pub(crate) fn settlement(settlement: &Settlement, status: SettlementStatus) -> Uuid {
    let Settlement { trade_date, version, account, quantity, .. } = settlement;
    digest(&[
        b"settlement",
        trade_date.to_string().as_bytes(),
        settlement.id().as_bytes(),
        &version.to_be_bytes(),
        account.as_bytes(),
        &quantity.to_be_bytes(),
        status.word().as_bytes(),
    ])
}

/// The id of the trade's side that a settlement with this id is of.
pub(crate) fn trade_of_settlement(id: &str) -> &str {
    id.rsplit_once('-').map_or(id, |(trade, _)| trade)
}

/// The trace of a message that names none, for logs alone: a function of the customer's id of the trade's side, which every
/// stage of both applications has. That of a settlement has the number of an allocation behind it.
pub(crate) fn trace(id: &str) -> TraceId {
    let side = id.match_indices('-').nth(3).map_or(id, |(end, _)| &id[..end]);
    TraceId(digest(&[b"trace", side.as_bytes()]).as_u128())
}

/// The message id of a refusal. Refusals have an id space of their own: that of records, not of trades.
pub(crate) fn nack(record: Uuid) -> Uuid {
    digest(&[b"nack", record.as_bytes()])
}

/// The id of a message between stages: the same records always travel under the same id.
pub(crate) fn envelope(queue: &str, records: impl Iterator<Item = Uuid>) -> Uuid {
    let mut bytes = Vec::new();
    for record in records {
        bytes.extend_from_slice(record.as_bytes());
    }
    digest(&[b"envelope", queue.as_bytes(), &bytes])
}

/// A digest of an answer's bytes.
pub(crate) fn content(body: &[u8]) -> Uuid {
    digest(&[b"content", body])
}

/// Number of locks that all match keys share.
const LOCKS: u32 = 4096;

/// The lock that both reports of a trade, and every report with the same identity, take before they are decided.
pub(crate) fn lock(im: &str, broker: &str, trade: &str, trade_date: Date) -> i32 {
    let parts = [im.as_bytes(), broker.as_bytes(), trade.as_bytes()];
    let id = digest(&[b"lock", parts[0], parts[1], parts[2], trade_date.to_string().as_bytes()]);
    let (first, _, _, _) = id.as_fields();
    i32::try_from(first % LOCKS).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trade_and_its_settlements_have_one_trace_in_the_logs() {
        let side = trace("QAINS012-QAINS012-QABRO010-7");
        assert_eq!(trace("QAINS012-QAINS012-QABRO010-7-2"), side);
        assert_ne!(trace("QABRO010-QAINS012-QABRO010-7"), side);
        assert_ne!(trace("no id at all"), trace(""));
    }

    #[test]
    fn parts_cannot_be_shifted_into_each_other() {
        assert_ne!(record("ab", b"c"), record("a", b"bc"));
        assert_eq!(record("ab", b"c"), record("ab", b"c"));
    }
}
