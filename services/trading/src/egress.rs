//! Egress: makes the customer's answer from what core decided, and stores it.

use lapin::message::Delivery;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;

use crate::envelope::{Decided, Emitted, Record, pack, unpack};
use crate::message::{NACK, Response, json};
use crate::{names, store};

/// Name of the stage in quarantine and probes.
pub(crate) const STAGE: &str = "egress";

/// The egress stage.
pub(crate) struct Egress;

impl Stage for Egress {
    type Record = Record<Emitted>;

    fn queue(&self) -> &'static str {
        names::EGRESS
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Record<Emitted>>, String> {
        Ok(unpack::<Decided>(message)?.into_iter().map(emitted).collect())
    }

    async fn store(&self, unit: &Guarded<'_>, records: &[Record<Emitted>]) -> Result<Vec<Outgoing>, DbError> {
        store::probes_passed(unit, STAGE, &store::records_where(records, Emitted::is_probe)).await?;
        store::answers(unit, store::EGRESSED, records).await?;
        Ok(pack(names::OUTBOUND, records, unit.grant()))
    }

    /// The answer goes on to its customer all the same: what is missing is only this stage's copy.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Record<Emitted>,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::quarantine(unit, STAGE, json(record).as_bytes(), reason).await?;
        Ok(pack(names::OUTBOUND, std::slice::from_ref(record), unit.grant()))
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }
}

/// The answer to one decision. A function of the record alone, so that a repeat gives the same bytes.
pub(crate) fn emitted(decided: Record<Decided>) -> Record<Emitted> {
    let Record { record, id, received_ms, content } = decided;
    let (status, description, destination, message) = match content {
        Decided::Trade { trade, status, description } => {
            (status.word().to_owned(), description, trade.sender.clone(), trade.text(status))
        }
        Decided::Nack { destination, description, text } => (NACK.to_owned(), description, destination, text),
        Decided::Probe => return Record { record, id, received_ms, content: Emitted::Probe },
    };
    let response =
        Response { id: id.clone(), timestamp: received_ms, status, description, destination, message };
    Record { record, id, received_ms, content: Emitted::Answer(response) }
}
