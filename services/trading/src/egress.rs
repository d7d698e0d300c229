//! Egress: makes the customer's answer from what core decided, and stores it; of a matched side also its settlements.

use lapin::message::Delivery;
use matching::Status;
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use services_common::telemetry::chain;

use crate::envelope::{Decided, Emitted, Record, pack, unpack};
use crate::message::{NACK, Response};
use crate::settlement::outgoing::{self, Made, Noted};
use crate::settlement::{SettlementStatus, of_trade};
use crate::{names, store, trace};

/// Name of the stage in quarantine and probes.
pub(crate) const STAGE: &str = "egress";

/// The egress stage.
pub(crate) struct Egress {
    /// Whether matched trades are settled.
    pub(crate) settlements: bool,
}

/// What follows from one decision.
pub(crate) struct Follows {
    answer: Record<Emitted>,
    settlements: Vec<Made>,
}

impl Stage for Egress {
    type Record = Follows;

    fn queue(&self) -> &'static str {
        names::EGRESS
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Follows>, String> {
        let follows = |decided: Record<Decided>| {
            let settlements = if self.settlements { settlements(&decided) } else { Vec::new() };
            Follows { answer: emitted(decided), settlements }
        };
        Ok(unpack::<Decided>(message)?.into_iter().map(follows).collect())
    }

    async fn store(&self, unit: &Guarded<'_>, records: &[Follows]) -> Result<Vec<Outgoing>, DbError> {
        let answers = || records.iter().map(|record| &record.answer);
        store::probes_passed(unit, STAGE, &store::records_where(answers(), Emitted::is_probe)).await?;
        store::answers(unit, store::EGRESSED, answers()).await?;
        trace::passed(STAGE, answers());
        let made: Vec<&Made> = records.iter().flat_map(|record| &record.settlements).collect();
        outgoing::insert(unit, &made, Noted::Returning).await?;
        Ok(pack(names::OUTBOUND, answers(), unit.grant()))
    }

    /// The answer goes on to its customer all the same: what is missing is only this stage's copy. Its settlements are
    /// kept, or set apart too if it is they that the database refuses.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Follows,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::set_apart(unit, STAGE, &record.answer, reason).await?;
        for made in &record.settlements {
            unit.transaction().batch_execute("savepoint settlement").await?;
            match outgoing::insert(unit, &[made], Noted::Returning).await {
                Err(error @ DbError::Data { .. }) => {
                    unit.transaction().batch_execute("rollback to savepoint settlement").await?;
                    let whose = (made.id.as_str(), record.answer.trace_id());
                    store::quarantine_of(unit, STAGE, made.body.as_bytes(), &chain(&error), whose).await?;
                }
                outcome => outcome?,
            }
        }
        Ok(pack(names::OUTBOUND, [&record.answer], unit.grant()))
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }
}

/// The settlements of a side that was matched just now. A function of the record alone, as the answer is.
pub(crate) fn settlements(decided: &Record<Decided>) -> Vec<Made> {
    match &decided.content {
        Decided::Told { content, status: Status::Matched, .. } => of_trade(content, decided.received_ms)
            .iter()
            .map(|settlement| Made::of(settlement, SettlementStatus::Unmatched, decided.traceparent))
            .collect(),
        Decided::Told { .. } | Decided::Nack { .. } | Decided::Probe => Vec::new(),
    }
}

/// The answer to one decision. A function of the record alone, so that a repeat gives the same bytes.
pub(crate) fn emitted(decided: Record<Decided>) -> Record<Emitted> {
    let (id, timestamp) = (decided.id.clone(), decided.received_ms);
    decided.with(|content| {
        let (status, description, destination, message) = match content {
            Decided::Told { content, status, description } => {
                (status.word().to_owned(), description, content.sender.clone(), content.text(status))
            }
            Decided::Nack { destination, description, text } => {
                (NACK.to_owned(), description, destination, text)
            }
            Decided::Probe => return Emitted::Probe,
        };
        Emitted::Answer(Response { id, timestamp, status, description, destination, message })
    })
}
