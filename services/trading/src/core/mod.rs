//! Core: decides what reports mean, of trades or of settlements, in one transaction with the answers that follow from it.
//!
//! Both parties' reports take the same lock before they are looked at, so that two that come at once on two instances
//! still meet. The relay sends the answers; the hooks serve the operator.

pub(crate) mod expiry;
pub(crate) mod hooks;
pub(crate) mod reconciling;
pub(crate) mod relay;
pub(crate) mod replay;
pub(crate) mod returns;
mod sides;
pub(crate) mod tables;
mod trades;

use std::collections::BTreeSet;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use jiff::civil::Date;
use lapin::message::Delivery;
use matching::{Difference, Digester, Outcome, ReportError, Side, Status, Terms};
use services_common::amqp::Outgoing;
use services_common::gate::Needs;
use services_common::postgres::{DbError, Guarded};
use services_common::stage::Stage;
use services_common::trace::{TraceId, Traceparent};
use tokio::sync::Notify;
use uuid::Uuid;

use sides::match_reports;

use crate::envelope::{Decided, Parsed, Record, pack, unpack};
use crate::ingestion::Content;
use crate::message::NACK;
use crate::parse::{Refusal, RefusalCode};
use crate::{ids, store, trace};

/// Name of the stage in quarantine and probes.
pub(crate) const STAGE: &str = "core";

/// What two parties report, and its rules and tables.
pub(crate) trait Subject: Content {
    /// What both must agree on.
    type Terms: Terms + Send + Sync;

    /// What people call it.
    const WORD: &'static str;

    /// What egress takes from.
    const EGRESS: &'static str;

    /// The table of the reports that hold.
    const TABLE: &'static str;

    /// The report as the matching rules see it.
    ///
    /// # Errors
    /// Never for a report that was validated.
    fn side(&self, digester: &mut Digester) -> Result<Side<Self::Terms>, ReportError>;

    /// Business date and id: what the report is about.
    fn key(&self) -> (Date, String);

    /// Which of the sender's words about it this is.
    fn version(&self) -> u32;

    /// The lock that both parties' reports take.
    fn lock(&self) -> i32;

    /// The message id of the answer that tells a status.
    fn answer_id(&self, status: Status) -> Uuid;

    /// All stored reports that share an identity or a match key with the given ones.
    fn known(
        unit: &Guarded<'_>,
        reports: &[Report<Self>],
    ) -> impl Future<Output = Result<Vec<(Report<Self>, Status)>, DbError>> + Send;

    /// Writes reports that hold from now on.
    fn insert(unit: &Guarded<'_>, new: &[Holding<Self>]) -> impl Future<Output = Result<(), DbError>> + Send;

    /// What follows from reports that were decided before and came again.
    fn repeated(
        _unit: &Guarded<'_>,
        _reports: &[Report<Self>],
    ) -> impl Future<Output = Result<(), DbError>> + Send {
        async { Ok(()) }
    }

    /// What else follows from reports whose terms agree, in the same transaction.
    fn agreed(
        _unit: &Guarded<'_>,
        _keys: &[(Date, String)],
    ) -> impl Future<Output = Result<(), DbError>> + Send {
        async { Ok(()) }
    }
}

/// The core stage.
pub(crate) struct Core<C> {
    /// Tells the relay that there are answers to send.
    answers_written: Arc<Notify>,
    /// Whether more follows where terms agree: [`Subject::agreed`].
    follows_up: bool,
    subject: PhantomData<fn() -> C>,
}

impl<C> Core<C> {
    /// A core that tells of answers by `answers_written`, and asks what else follows where terms agree if `follows_up`.
    pub(crate) fn new(answers_written: Arc<Notify>, follows_up: bool) -> Self {
        Self { answers_written, follows_up, subject: PhantomData }
    }
}

impl<C: Subject> Stage for Core<C> {
    type Record = Record<Parsed<C>>;

    fn queue(&self) -> &'static str {
        C::LINE.core
    }

    fn needs(&self) -> Needs {
        Needs::Core
    }

    fn batch_limit(&self) -> usize {
        8
    }

    fn read(&self, message: &Delivery) -> Result<Vec<Record<Parsed<C>>>, String> {
        unpack(message)
    }

    async fn store(
        &self,
        unit: &Guarded<'_>,
        records: &[Record<Parsed<C>>],
    ) -> Result<Vec<Outgoing>, DbError> {
        let agreed = decide(unit, records).await?;
        if self.follows_up && !agreed.is_empty() {
            C::agreed(unit, &agreed).await?;
        }
        store::probes_passed(unit, STAGE, &store::records_where(records, Parsed::is_probe)).await?;
        let probes: Vec<Record<Decided<C>>> = records.iter().filter_map(probe).collect();
        Ok(pack(C::EGRESS, &probes, unit.grant()))
    }

    async fn refuse(
        &self,
        unit: &Guarded<'_>,
        record: &Record<Parsed<C>>,
        reason: &str,
    ) -> Result<Vec<Outgoing>, DbError> {
        store::set_apart(unit, STAGE, record, reason).await?;
        tables::write_refused(unit, record.record, unstorable(record)).await?;
        Ok(Vec::new())
    }

    async fn quarantine(&self, unit: &Guarded<'_>, body: &[u8], reason: &str) -> Result<(), DbError> {
        store::quarantine(unit, STAGE, body, reason).await
    }

    fn batch_done(&self) {
        self.answers_written.notify_one();
    }
}

/// A report with the facts that its answer needs.
#[derive(Clone, Debug)]
pub(crate) struct Report<C> {
    pub(crate) record: Uuid,
    pub(crate) received_ms: i64,
    pub(crate) content: C,
    pub(crate) traceparent: Option<Traceparent>,
}

/// A report that holds, with its status and the id of its counterpart.
pub(crate) type Holding<C> = (Report<C>, Status, Option<String>);

/// An answer to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer<C> {
    message_id: Uuid,
    /// The customer's id.
    id: String,
    received_ms: i64,
    /// When inbound took the message that this answer follows from: of two reports that met, the later one.
    caused_ms: i64,
    decided: Decided<C>,
    /// That of the report or message that it answers.
    traceparent: Option<Traceparent>,
}

/// A probe passes core without leaving anything to be told.
fn probe<C>(record: &Record<Parsed<C>>) -> Option<Record<Decided<C>>> {
    let Record { record, id, received_ms, content, traceparent, .. } = record;
    content.is_probe().then(|| Record {
        record: *record,
        id: id.clone(),
        received_ms: *received_ms,
        caused_ms: None,
        content: Decided::Probe,
        traceparent: *traceparent,
    })
}

/// What a batch changes.
pub(crate) struct Changes<C> {
    /// Reports that hold from now on, with status and counterpart: first ones, and ones in the place of a lower version.
    new: Vec<Holding<C>>,
    /// Known reports that found their counterpart, or whose wait has ended.
    updated: Vec<Update>,
    /// Reports refused because of what is known, with the code.
    refused: Vec<(Report<C>, RefusalCode)>,
    /// Answers of all of them.
    answers: Vec<Answer<C>>,
    /// Reports that may have been decided before: not pending, or pending once more because they came again days later.
    repeated: Vec<Report<C>>,
}

impl<C> Default for Changes<C> {
    fn default() -> Self {
        Self {
            new: Vec::new(),
            updated: Vec::new(),
            refused: Vec::new(),
            answers: Vec::new(),
            repeated: Vec::new(),
        }
    }
}

/// A known report that found its counterpart, or whose wait has ended; named by business date and id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Update {
    trade_date: Date,
    id: String,
    status: &'static str,
    counterpart: Option<String>,
}

/// Decides reports, and tells what both parties agree on since.
async fn decide<C: Subject>(
    unit: &Guarded<'_>,
    records: &[Record<Parsed<C>>],
) -> Result<Vec<(Date, String)>, DbError> {
    let decided: Vec<Uuid> = records.iter().map(|record| record.record).collect();
    let (mut reports, mut changes) = (Vec::new(), Changes::default());
    // What is not pending was decided before: a batch that comes again changes nothing, also where a later version has
    // taken the place of its report since.
    let open = tables::no_longer_pending(unit, &C::LINE, &decided).await?;
    for one in records {
        match &one.content {
            Parsed::Valid(content) => {
                let Record { record, received_ms, traceparent, .. } = *one;
                let report = Report { record, received_ms, content: content.as_ref().clone(), traceparent };
                if open.contains(&record) { reports.push(report) } else { changes.repeated.push(report) }
            }
            Parsed::Nack(refusal, text) if open.contains(&one.record) => {
                changes.answers.push(refused(one, refusal, text.clone()))
            }
            Parsed::Nack(..) | Parsed::Probe => {}
        }
    }
    if !reports.is_empty() {
        let locks: BTreeSet<i32> = reports.iter().map(|report| report.content.lock()).collect();
        tables::lock(unit, &locks.into_iter().collect::<Vec<_>>()).await?;
        let known = C::known(unit, &reports).await?;
        // A key that no customer knows; it does not matter to the result.
        let mut digester = Digester::new(Uuid::new_v4().as_u128());
        match_reports(&mut digester, reports, known, &mut changes);
    }
    if !changes.repeated.is_empty() {
        C::repeated(unit, &changes.repeated).await?;
    }
    tables::write(unit, &changes).await?;
    trace::passed(STAGE, records);
    trace::refused(STAGE, changes.answers.iter().filter_map(Answer::refusal));
    Ok(changes.agreed())
}

impl<C: Subject> Changes<C> {
    /// What both parties agree on since this batch.
    fn agreed(&self) -> Vec<(Date, String)> {
        let new = self.new.iter().filter(|(_, status, _)| *status == C::Terms::AGREED);
        let updated = self.updated.iter().filter(|update| update.status == C::Terms::AGREED.word());
        new.map(|(report, ..)| report.content.key())
            .chain(updated.map(|update| (update.trade_date, update.id.clone())))
            .collect()
    }
}

fn answer<C: Subject>(report: &Report<C>, outcome: Outcome, caused_ms: i64) -> Answer<C> {
    let status = outcome.status();
    let description = match outcome {
        Outcome::Agreed(status) => format!("{}: both parties reported the same terms", status.word()),
        Outcome::Mismatched(differences) => {
            let codes: Vec<_> = differences.iter().map(Difference::code).collect();
            format!("MISMATCHED: {}", codes.join(", "))
        }
    };
    Answer { caused_ms, ..told(report, status, description) }
}

fn cancelled<C: Subject>(report: &Report<C>) -> Answer<C> {
    let description = "CANCELLED: withdrawn by the party that reported it".to_owned();
    told(report, Status::Cancelled, description)
}

fn told<C: Subject>(report: &Report<C>, status: Status, description: String) -> Answer<C> {
    let content = report.content.clone();
    Answer {
        message_id: content.answer_id(status),
        id: content.key().1,
        received_ms: report.received_ms,
        caused_ms: report.received_ms,
        decided: Decided::Told { content: Box::new(content), status, description },
        traceparent: report.traceparent,
    }
}

/// Who a refusal goes to: the sender is the first part of the id; with anything else there is nobody better to name.
pub(crate) fn destination(id: &str) -> &str {
    id.split('-').next().unwrap_or_default()
}

/// The answer to a message of which the record is.
fn refused<C, P>(of: &Record<P>, refusal: &Refusal, text: String) -> Answer<C> {
    let destination = destination(&of.id).to_owned();
    let decided = Decided::Nack { destination, description: refusal.description(), text };
    Answer {
        message_id: ids::nack(of.record),
        id: of.id.clone(),
        received_ms: of.received_ms,
        caused_ms: of.received_ms,
        decided,
        traceparent: of.traceparent,
    }
}

/// Why a well formed report changes nothing.
fn not_taken<C: Subject>(content: &C, why: matching::Refusal) -> Refusal {
    use matching::Refusal as Why;
    let (word, day, version) = (C::WORD, content.key().0, content.version());
    let (code, expected) = match why {
        Why::Conflict => (
            RefusalCode::Conflict,
            format!(
                "another {word} with this id, trade date {day} and version {version} was accepted before; \
                 to amend or cancel it, send a higher version"
            ),
        ),
        Why::Superseded => (
            RefusalCode::Superseded,
            format!("a version above {version} of this {word} of {day} was accepted before"),
        ),
        Why::TooLate => (
            RefusalCode::TooLate,
            format!("the {word} of {day} was decided before its version {version} came"),
        ),
    };
    Refusal::whole(code, expected)
}

fn refused_report<C: Subject>(report: &Report<C>, refusal: &Refusal) -> Answer<C> {
    let Report { record, received_ms, traceparent, content } = report;
    let of = Record {
        record: *record,
        id: content.key().1,
        received_ms: *received_ms,
        caused_ms: None,
        content: (),
        traceparent: *traceparent,
    };
    refused(&of, refusal, content.text())
}

/// The answer to a record that the database refuses; a probe has nobody to answer to.
fn unstorable<C: Content>(record: &Record<Parsed<C>>) -> Option<Answer<C>> {
    let text = match &record.content {
        Parsed::Valid(content) => content.text(),
        Parsed::Nack(_, text) => text.clone(),
        Parsed::Probe => return None,
    };
    let refusal = Refusal::unstorable(record.record);
    Some(refused(record, &refusal, text))
}

impl<C> Answer<C> {
    /// Whose message it refuses and why, for the log; `None` if it refuses none.
    fn refusal(&self) -> Option<(TraceId, &str, &str)> {
        let Decided::Nack { description, .. } = &self.decided else { return None };
        let trace_id = self.traceparent.map_or_else(|| ids::trace(&self.id), Traceparent::trace_id);
        Some((trace_id, &self.id, description))
    }

    fn status(&self) -> &'static str {
        match &self.decided {
            Decided::Told { status, .. } => status.word(),
            Decided::Nack { .. } | Decided::Probe => NACK,
        }
    }
}

#[cfg(test)]
mod tests;
