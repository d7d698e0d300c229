//! Egress's answers against what the outbound gateway has sent. Both keep the same bytes, so the server compares: sums first,
//! and rows where those differ.

use tokio_postgres::Row;
use uuid::Uuid;

use super::finding::Comparison;
use super::snapshot::Snapshot;
use super::sums::{self, GROUP};
use super::{ANSWERED_SINCE, Job, ReconcileError};
use crate::envelope::{Emitted, Record};
use crate::message::Response;
use crate::{egress, ids, outbound};

/// What a window has of one of the two stores.
fn digests(store: &str) -> String {
    format!(
        "select message_id, digest from {store} \
         where at >= to_timestamp($1::bigint / 1000.0) and caused_ms >= $2::bigint"
    )
}

/// `keys` of the rows that only one of the stores has, or that differ, in the groups $2. One that is only behind may be there
/// before, and older than the mark.
fn keys() -> String {
    let of = |store: &str| {
        format!(
            "select message_id, caused_ms, digest from {store} \
             where at >= to_timestamp($1::bigint / 1000.0) and caused_ms >= {ANSWERED_SINCE} and ({GROUP}) = any($2)"
        )
    };
    format!(
        "with before as materialized ({}), behind as materialized ({}), keys as materialized ( \
            select message_id, caused_ms, before.digest is null as only_behind \
            from before full join behind using (message_id, caused_ms) \
            where before.digest is distinct from behind.digest)",
        of("trading.egressed"),
        of("trading.sent")
    )
}

fn different() -> String {
    format!(
        "{} select message_id, egressed.id, egressed.status, egressed.body, caused_ms, \
            sent.id is null as absent, sent.status is distinct from egressed.status as other_status, \
            egressed.at > now() - make_interval(secs => $3) as young \
         from keys \
         join trading.egressed using (message_id, caused_ms) \
         left join trading.sent using (message_id, caused_ms) \
         where not only_behind and (sent.id, sent.status, sent.body) is distinct from (egressed.id, egressed.status, egressed.body) \
         order by message_id",
        keys()
    )
}

fn answers_ahead() -> String {
    format!(
        "{} select message_id, id, status, body, caused_ms from keys join trading.sent using (message_id, caused_ms) \
         where only_behind \
           and not exists (select from trading.egressed \
                where egressed.message_id = keys.message_id and egressed.caused_ms = keys.caused_ms)",
        keys()
    )
}

/// Compares the boundary.
pub(super) async fn compare(snapshot: &Snapshot<'_>) -> Result<Comparison, ReconcileError> {
    let mut comparison = Comparison::new(Job::EgressOutbound);
    let summed = sums::compare(snapshot, &digests("trading.egressed"), &digests("trading.sent")).await?;
    comparison.compared = summed.before;
    if !summed.differing.is_empty() {
        behind(snapshot, &mut comparison, &summed.differing).await?;
        ahead(snapshot, &mut comparison, &summed.differing).await?;
    }
    Ok(comparison)
}

async fn behind(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    groups: &[i32],
) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages_in(&different(), groups, true).await?;
    while let Some(page) = pages.next().await? {
        let mut absent = Vec::new();
        for row in &page {
            absent.extend(judge(row, comparison).map_err(snapshot.unreadable())?);
        }
        let set_apart = snapshot.set_apart(&apart(outbound::STAGE, &absent)).await?;
        for answer in &absent {
            if answer.digest(outbound::STAGE).is_some_and(|digest| set_apart.contains(&digest)) {
                comparison.set_apart += 1;
            } else {
                let Answer { message, id, status, .. } = answer;
                comparison.missing(*message, || format!("{status} to {id} is not in trading.sent"));
            }
        }
    }
    Ok(())
}

/// An answer as a store keeps it.
struct Answer {
    message: Uuid,
    id: String,
    status: String,
    body: String,
    caused_ms: i64,
}

impl Answer {
    fn read(row: &Row) -> Result<Self, tokio_postgres::Error> {
        let (message, id, status) = super::answer_row(row)?;
        let (id, status) = (id.to_owned(), status.to_owned());
        let (body, caused_ms) = (row.try_get("body")?, row.try_get("caused_ms")?);
        Ok(Self { message, id, status, body, caused_ms })
    }

    /// Where quarantine would have it, had the database refused the copy of this stage.
    fn digest(&self, stage: &str) -> Option<Uuid> {
        let record = emitted(self.message, &self.id, &self.body, self.caused_ms)?;
        Some(ids::quarantined(stage, record.apart().as_bytes()))
    }
}

fn apart(stage: &str, answers: &[Answer]) -> Vec<Uuid> {
    answers.iter().filter_map(|answer| answer.digest(stage)).collect()
}

/// A stored answer as the record that travels; `None` if it cannot be read.
pub(super) fn emitted(message: Uuid, id: &str, body: &str, caused_ms: i64) -> Option<Record<Emitted>> {
    let response: Response = serde_json::from_str(body).ok()?;
    let (received_ms, caused_ms) = (response.timestamp, Some(caused_ms));
    let (record, id, content) = (message, id.to_owned(), Emitted::Answer(response));
    Some(Record { record, id, received_ms, caused_ms, content, traceparent: None })
}

/// Notes a difference; gives the answer if it was not sent and should have been.
fn judge(row: &Row, comparison: &mut Comparison) -> Result<Option<Answer>, tokio_postgres::Error> {
    let answer = Answer::read(row)?;
    if row.try_get("absent")? {
        if row.try_get("young")? {
            comparison.under_way += 1;
            return Ok(None);
        }
        return Ok(Some(answer));
    }
    let what = if row.try_get("other_status")? { "status" } else { "id or content" };
    let Answer { message, id, status, .. } = answer;
    comparison.differs.add(message, || format!("{status} to {id} was sent with another {what}"));
    Ok(None)
}

async fn ahead(
    snapshot: &Snapshot<'_>,
    comparison: &mut Comparison,
    groups: &[i32],
) -> Result<(), ReconcileError> {
    let mut pages = snapshot.pages_in(&answers_ahead(), groups, false).await?;
    while let Some(page) = pages.next().await? {
        let sent: Result<Vec<Answer>, _> = page.iter().map(Answer::read).collect();
        let sent = sent.map_err(snapshot.unreadable())?;
        // Sent all the same although the database refused egress's copy.
        let set_apart = snapshot.set_apart(&apart(egress::STAGE, &sent)).await?;
        for answer in &sent {
            if answer.digest(egress::STAGE).is_some_and(|digest| set_apart.contains(&digest)) {
                continue;
            }
            let Answer { message, id, status, .. } = answer;
            comparison
                .ahead
                .add(*message, || format!("{status} to {id} was sent and is not in trading.egressed"));
        }
    }
    Ok(())
}
