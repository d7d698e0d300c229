//! Core's decisions against the answers that egress made of them.

use tokio_postgres::Row;
use uuid::Uuid;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::{ANSWERED_SINCE, Job, ReconcileError, given_to_relay};
use crate::core::relay;
use crate::egress;
use crate::envelope::{Emitted, Record};
use crate::message::{Trade, json};

/// A decision is under way as long as no customer's queue has its answer; its age is that of the decision, not that of
/// the report, which may have waited for days. The mark is of when the relay was given it; what it
/// has not sent is compared however old it is.
fn decided() -> String {
    format!(
        "select outbox.message_id, outbox.id, outbox.received_ms, outbox.caused_ms, outbox.status, outbox.body, \
            egressed.id as egressed_id, egressed.status as egressed_status, egressed.body as egressed_body, \
            coalesce(unanswered.since > now() - make_interval(secs => $2), false) as young \
         from trading.outbox \
         left join trading.egressed on egressed.message_id = outbox.message_id and egressed.caused_ms = outbox.caused_ms \
            and egressed.caused_ms >= {ANSWERED_SINCE} \
         left join trading.unanswered on unanswered.message_id = outbox.message_id \
         where {}",
        given_to_relay()
    )
}

fn answers_ahead() -> String {
    format!(
        "select message_id, id, status from trading.egressed \
         where at >= to_timestamp($1::bigint / 1000.0) and caused_ms >= {ANSWERED_SINCE} \
           and not exists (select from trading.outbox \
                where outbox.message_id = egressed.message_id and outbox.caused_ms = egressed.caused_ms \
                  and outbox.caused_ms >= {ANSWERED_SINCE})"
    )
}

/// Compares the boundary.
pub(super) async fn compare(snapshot: &Snapshot<'_>) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(Job::CoreEgress);
    let mut pages = snapshot.pages(&decided(), true).await?;
    while let Some(page) = pages.next().await? {
        let mut absent = Vec::new();
        for row in &page {
            comparison.compared += 1;
            if let Some(record) = judge(row, &mut comparison).map_err(snapshot.unreadable())? {
                absent.push(record);
            }
        }
        let what = |id: &str| format!("the answer to {id} is not in trading.egressed");
        super::note_absent(snapshot, &mut comparison, egress::STAGE, absent, what).await?;
    }
    let told = |row: &Row| {
        let (message, id, status) = super::answer_row(row)?;
        let what = || format!("{status} to {id} is in trading.egressed and was not decided");
        comparison.ahead.add(message, what);
        Ok(())
    };
    snapshot.each(&answers_ahead(), false, told).await?;
    Ok(comparison)
}

/// Compares the stored answer with the one that egress would make now; gives that if there is none and should be.
fn judge(row: &Row, comparison: &mut Comparison) -> Result<Option<Record<Emitted>>, tokio_postgres::Error> {
    let message: Uuid = row.try_get("message_id")?;
    let Ok(decided) = relay::decision::<Trade>(row)? else {
        comparison.differs.add(message, || "the decision in trading.outbox cannot be read".to_owned());
        return Ok(None);
    };
    let expected = egress::emitted(decided);
    let Some(body) = row.try_get::<_, Option<&str>>("egressed_body")? else {
        if row.try_get("young")? {
            comparison.under_way += 1;
            return Ok(None);
        }
        return Ok(Some(expected));
    };
    if let Some(difference) = difference(row, &expected, body)? {
        comparison.differs.add(message, || format!("the answer to {} {difference}", expected.id));
    }
    Ok(None)
}

fn difference(
    row: &Row,
    expected: &Record<Emitted>,
    body: &str,
) -> Result<Option<&'static str>, tokio_postgres::Error> {
    let Emitted::Answer(response) = &expected.content else {
        return Ok(Some("is a probe, which leaves nothing to be told"));
    };
    let (id, status): (&str, &str) = (row.try_get("egressed_id")?, row.try_get("egressed_status")?);
    let decided: &str = row.try_get("status")?;
    Ok(if decided != response.status {
        Some("has another status in trading.outbox than its decision says")
    } else if status != response.status {
        Some("has another status in trading.egressed than core decided")
    } else if id != response.id {
        Some("has another id in trading.egressed than in trading.outbox")
    } else if body != json(response) {
        Some("has another content in trading.egressed than follows from the decision")
    } else {
        None
    })
}
