//! The trace of each record: its column, and what the logs say of it.
//!
//! Logs of single records are for those who follow one: each stage tells of every record at level debug, with this file's
//! target. Refusals are told always, as many of a batch as a person reads.

use services_common::trace::{TraceId, Traceparent};
use tokio_postgres::Row;
use uuid::Uuid;

use crate::envelope::Record;

/// Refusals of one batch that are told one by one.
const REFUSALS_MAX: usize = 10;

/// The column of a row.
///
/// # Errors
/// There is none.
pub(crate) fn read(row: &Row) -> Result<Option<Traceparent>, tokio_postgres::Error> {
    let text: Option<&str> = row.try_get("traceparent")?;
    Ok(text.and_then(Traceparent::parse))
}

/// The column of rows to be written.
pub(crate) fn column(traces: impl Iterator<Item = Option<Traceparent>>) -> Vec<Option<String>> {
    traces.map(|one| one.map(|traceparent| traceparent.to_string())).collect()
}

/// Says that a stage has these records, to those who listen.
pub(crate) fn passed<'a, C: 'a>(stage: &'static str, records: impl IntoIterator<Item = &'a Record<C>>) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        for one in records {
            let (trace_id, record, id) = (one.trace_id(), one.record, one.id.as_str());
            tracing::debug!(stage, %trace_id, %record, id, "passed");
        }
    }
}

/// Says that one message of another kind was taken or sent.
pub(crate) fn sent(stage: &'static str, trace_id: TraceId, message: Uuid, id: &str) {
    tracing::debug!(stage, %trace_id, %message, id, "sent");
}

/// Says which messages of customers were refused, and why: of a flood, that it is one.
pub(crate) fn refused<'a>(stage: &'static str, refusals: impl Iterator<Item = (TraceId, &'a str, &'a str)>) {
    let mut more = 0_usize;
    for (count, (trace_id, id, reason)) in refusals.enumerate() {
        if count < REFUSALS_MAX {
            tracing::info!(stage, %trace_id, id, reason, "refused");
        } else {
            more += 1;
        }
    }
    if more > 0 {
        tracing::info!(stage, more, "refused; the reasons are in their answers");
    }
}
