//! The settlement application's core: the two parties' settlements of an allocation meet, by the rules of matching.

use jiff::civil::Date;
use matching::{Digester, ReportError, SettlementTerms, Side, Status};
use services_common::postgres::{DbError, Guarded};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{Settlement, SettlementStatus, parse};
use crate::core::tables::{self, column};
use crate::core::{Holding, Report, Subject};
use crate::ids;
use crate::ingestion::Content;
use crate::message::json;
use crate::names::{self, Line};
use crate::parse::Refusal;
use crate::trace;

impl Content for Settlement {
    const LINE: Line = names::SETTLEMENTS;

    fn read(text: &str, id: &str, received_ms: i64) -> Result<Self, Refusal> {
        parse::settlement(text, Some(id), received_ms)
    }

    fn text(&self) -> String {
        self.text(SettlementStatus::Unmatched)
    }
}

impl Subject for Settlement {
    type Terms = SettlementTerms;

    const WORD: &'static str = "settlement";
    const EGRESS: &'static str = names::SETTLEMENT_EGRESS;
    const TABLE: &'static str = "trading.settlements";

    fn side(&self, digester: &mut Digester) -> Result<Side<SettlementTerms>, ReportError> {
        self.side(digester)
    }

    fn key(&self) -> (Date, String) {
        (self.trade_date, self.id())
    }

    fn version(&self) -> u32 {
        self.version
    }

    /// One for all allocations of a trade.
    fn lock(&self) -> i32 {
        self.lock()
    }

    fn answer_id(&self, status: Status) -> Uuid {
        let told = match status {
            Status::Settled => SettlementStatus::Settled,
            Status::Mismatched => SettlementStatus::Mismatched,
            Status::Unmatched | Status::Matched | Status::Cancelled | Status::Expired => {
                SettlementStatus::Unmatched
            }
        };
        ids::settlement(self, told)
    }

    async fn known(
        unit: &Guarded<'_>,
        reports: &[Report<Self>],
    ) -> Result<Vec<(Report<Self>, Status)>, DbError> {
        let settlements = || reports.iter().map(|report| &report.content);
        let ims: Vec<&str> = settlements().map(|one| one.im.as_str()).collect();
        let brokers: Vec<&str> = settlements().map(|one| one.broker.as_str()).collect();
        let trades: Vec<&str> = settlements().map(|one| one.trade.as_str()).collect();
        let dates: Vec<Date> = settlements().map(|one| one.trade_date).collect();
        let numbers: Vec<i64> = settlements().map(|one| one.allocation_id).collect();
        let statement = unit.transaction().prepare_cached(KNOWN).await?;
        let values: [&(dyn ToSql + Sync); 5] = [&ims, &brokers, &trades, &dates, &numbers];
        tables::known_rows(&unit.transaction().query(&statement, &values).await?)
    }

    /// Trade matching sends again what has not come back: its answer may have been lost with a broker.
    async fn repeated(unit: &Guarded<'_>, reports: &[Report<Self>]) -> Result<(), DbError> {
        let answers = |report: &Report<Self>| {
            let told = [SettlementStatus::Settled, SettlementStatus::Mismatched];
            let [settled, mismatched] = told.map(|status| report.content.message_id(status));
            [settled, mismatched, ids::nack(report.record)]
        };
        let answers: Vec<Uuid> = reports.iter().flat_map(answers).collect();
        let statement = unit.transaction().prepare_cached(AGAIN).await?;
        unit.transaction().execute(&statement, &[&answers]).await?;
        Ok(())
    }

    async fn insert(unit: &Guarded<'_>, new: &[Holding<Self>]) -> Result<(), DbError> {
        let dates: Vec<Date> = column(new, |(report, ..)| report.content.trade_date);
        let ids: Vec<String> = column(new, |(report, ..)| report.content.id());
        let records: Vec<Uuid> = column(new, |(report, ..)| report.record);
        let received: Vec<i64> = column(new, |(report, ..)| report.received_ms);
        let ims: Vec<&str> = column(new, |(report, ..)| report.content.im.as_str());
        let brokers: Vec<&str> = column(new, |(report, ..)| report.content.broker.as_str());
        let trades: Vec<&str> = column(new, |(report, ..)| report.content.trade.as_str());
        let numbers: Vec<i64> = column(new, |(report, ..)| report.content.allocation_id);
        let settlements: Vec<String> = column(new, |(report, ..)| json(&report.content));
        let statuses: Vec<&str> = column(new, |(_, status, _)| status.word());
        let counterparts: Vec<Option<&str>> = column(new, |(_, _, counterpart)| counterpart.as_deref());
        let versions: Vec<i32> =
            column(new, |(report, ..)| i32::try_from(report.content.version).unwrap_or(i32::MAX));
        let traces = trace::column(new.iter().map(|(report, ..)| report.traceparent));
        let statement = unit.transaction().prepare_cached(INSERT).await?;
        let epoch = unit.epoch();
        let values: [&(dyn ToSql + Sync); 14] = [
            &dates,
            &ids,
            &records,
            &received,
            &ims,
            &brokers,
            &trades,
            &numbers,
            &settlements,
            &statuses,
            &counterparts,
            &versions,
            &traces,
            &epoch,
        ];
        unit.transaction().execute(&statement, &values).await?;
        Ok(())
    }
}

/// Whatever the answer to the first one was: those that were sent, as unsent.
const AGAIN: &str = "with those as ( \
        select message_id from trading.outgoing_settlements \
        where message_id = any($1) and sent_at is not null order by message_id for update) \
     update trading.outgoing_settlements as sent set sent_at = null from those \
     where sent.message_id = those.message_id";

const KNOWN: &str = "select known.record, known.received_ms, known.settlement as content, known.status, \
        known.traceparent \
     from trading.settlements as known join ( \
        select distinct * from unnest($1::text[], $2::text[], $3::text[], $4::date[], $5::bigint[]) \
            as given (im_id, broker_id, trade_id, trade_date, allocation_id)) as given \
     using (im_id, broker_id, trade_id, trade_date, allocation_id)";

const INSERT: &str = "insert into trading.settlements (trade_date, id, record, received_ms, im_id, broker_id, \
        trade_id, allocation_id, settlement, status, counterpart, version, traceparent, epoch) \
     select *, $14::bigint from unnest($1::date[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], \
        $7::text[], $8::bigint[], $9::text[], $10::text[], $11::text[], $12::integer[], $13::text[]) \
     on conflict (trade_date, id) do update set record = excluded.record, received_ms = excluded.received_ms, \
        settlement = excluded.settlement, status = excluded.status, counterpart = excluded.counterpart, \
        version = excluded.version, traceparent = excluded.traceparent, epoch = excluded.epoch";
