//! The outbound gateway: sends each answer to the customers' queue as a message of its own.

use std::collections::HashMap;

use lapin::message::Delivery;
use services_common::amqp::{Outgoing, grant_headers};
use services_common::clock;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use services_common::trace::traced;
use uuid::Uuid;

use crate::envelope::{Emitted, Record, unpack};
use crate::figures::Figures;
use crate::message::json;
use crate::{names, store, trace};

/// Name of the stage in quarantine and probes; the last one that a probe passes.
pub(crate) const STAGE: &str = "outbound";

/// The outbound stage.
pub(crate) struct Outbound {
    /// Told of each answer that was delivered.
    pub(crate) figures: Figures,
}

impl Stage for Outbound {
    type Record = Record<Emitted>;

    const NOTES_DELIVERY: bool = true;

    fn queue(&self) -> &'static str {
        names::OUTBOUND
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Record<Emitted>>, String> {
        unpack(message)
    }

    async fn store(&self, unit: &Guarded<'_>, records: &[Record<Emitted>]) -> Result<Vec<Outgoing>, DbError> {
        store::probes_passed(unit, STAGE, &store::records_where(records, Emitted::is_probe)).await?;
        store::answers(unit, store::SENT, records).await?;
        trace::passed(STAGE, records);
        Ok(answers(unit, records))
    }

    /// The answer is sent all the same: what is missing is only this stage's copy.
    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Record<Emitted>,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::set_apart(unit, STAGE, record, reason).await?;
        Ok(answers(unit, std::slice::from_ref(record)))
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }

    /// Only now the customers' queue has them: until then an answer counts as on its way, and a replay sends it again.
    async fn delivered(&self, unit: &Guarded<'_>, records: &[Record<Emitted>]) -> Result<(), DbError> {
        let status = |record: &Record<Emitted>| match &record.content {
            Emitted::Answer(response) => Some((record.record, response.status.clone())),
            Emitted::Probe => None,
        };
        let statuses: HashMap<Uuid, String> = records.iter().filter_map(status).collect();
        let answered: Vec<Uuid> = statuses.keys().copied().collect();
        let done =
            "delete from trading.unanswered where message_id = any($1) returning message_id, caused_ms";
        let statement = unit.transaction().prepare_cached(done).await?;
        let now_ms = clock::now().as_millisecond();
        // A repeat finds none: each answer counts once.
        for row in unit.transaction().query(&statement, &[&answered]).await? {
            let message: Uuid = row.try_get("message_id")?;
            if let Some(status) = statuses.get(&message) {
                self.figures.answered(status, row.try_get("caused_ms")?, now_ms);
            }
        }
        Ok(())
    }
}

fn answers(unit: &Guarded<'_>, records: &[Record<Emitted>]) -> Vec<Outgoing> {
    let headers = grant_headers(unit.grant());
    let answer = |record: &Record<Emitted>| match &record.content {
        Emitted::Probe => None,
        Emitted::Answer(response) => Some(Outgoing {
            exchange: names::OUT.to_owned(),
            body: json(response).into_bytes(),
            message_id: record.record.to_string(),
            correlation_id: Some(record.id.clone()),
            headers: traced(&headers, record.traceparent),
            user_id: None,
        }),
    };
    records.iter().filter_map(answer).collect()
}
