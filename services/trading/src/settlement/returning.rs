//! The settlement application's egress: makes what returns to trade matching from what core decided.

use lapin::message::Delivery;
use matching::Status;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use uuid::Uuid;

use super::outgoing::{self, Made, Noted};
use super::{Settlement, SettlementStatus};
use crate::egress::STAGE;
use crate::envelope::{Decided, Record, unpack};
use crate::message::{NACK, Response, json};
use crate::{names, store, trace};

/// The egress stage of the settlement application. What it makes are rows; outbound sends them.
pub(crate) struct Returning;

impl Stage for Returning {
    type Record = Record<Decided<Settlement>>;

    fn queue(&self) -> &'static str {
        names::SETTLEMENT_EGRESS
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Self::Record>, String> {
        unpack(message)
    }

    async fn store(&self, unit: &Guarded<'_>, records: &[Self::Record]) -> Result<Vec<Outgoing>, DbError> {
        store::probes_passed(unit, STAGE, &store::records_where(records, Decided::is_probe)).await?;
        let made: Vec<Made> = records.iter().filter_map(made).collect();
        trace::passed(STAGE, records);
        outgoing::insert(unit, &made, Noted::Sending).await?;
        let done: Vec<Uuid> = records.iter().map(|record| record.record).collect();
        answered(unit, &done).await?;
        Ok(Vec::new())
    }

    /// The row is the only way on, so the quarantine has the answer from here: a person sends it.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Self::Record,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::set_apart(unit, STAGE, record, reason).await?;
        answered(unit, &[record.record]).await?;
        Ok(Vec::new())
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }
}

/// From here on they wait for another application, which is nothing that a drain could wait for.
async fn answered(unit: &Guarded<'_>, messages: &[Uuid]) -> Result<(), DbError> {
    let done = "delete from trading.unanswered where message_id = any($1)";
    let statement = unit.transaction().prepare_cached(done).await?;
    unit.transaction().execute(&statement, &[&messages]).await?;
    Ok(())
}

/// What returns for one decision. A function of the record alone, so that a repeat gives the same bytes.
pub(crate) fn made(decided: &Record<Decided<Settlement>>) -> Option<Made> {
    let Record { record, id, received_ms, content, traceparent, .. } = decided;
    match content {
        Decided::Told { content, status, .. } => {
            let status = match status {
                Status::Settled => SettlementStatus::Settled,
                Status::Mismatched => SettlementStatus::Mismatched,
                // Core tells of pairs only; an open settlement has no answer.
                Status::Unmatched | Status::Matched | Status::Cancelled | Status::Expired => return None,
            };
            Some(Made::of(content, status, *traceparent))
        }
        Decided::Nack { destination, description, text } => {
            let response = Response {
                id: id.clone(),
                timestamp: *received_ms,
                status: NACK.to_owned(),
                description: description.clone(),
                destination: destination.clone(),
                message: text.clone(),
            };
            let (message_id, id, body) = (*record, id.clone(), json(&response));
            Some(Made { message_id, id, status: NACK, body, traceparent: *traceparent })
        }
        Decided::Probe => None,
    }
}
