//! Trades as core sees them, and their table.

use jiff::civil::Date;
use matching::{Digester, ReportError, Side, Status, TradeTerms};
use rust_decimal::Decimal;
use services_common::postgres::{DbError, Guarded};
use uuid::Uuid;

use super::tables::column;
use super::{Holding, Report, Subject, returns, tables};
use crate::message::{Trade, json};
use crate::{ids, names, trace};

impl Subject for Trade {
    type Terms = TradeTerms;

    const WORD: &'static str = "trade";
    const EGRESS: &'static str = names::EGRESS;
    const TABLE: &'static str = "trading.trades";

    fn side(&self, digester: &mut Digester) -> Result<Side<TradeTerms>, ReportError> {
        self.side(digester)
    }

    fn key(&self) -> (Date, String) {
        (self.trade_date, self.id())
    }

    fn version(&self) -> u32 {
        self.version
    }

    fn lock(&self) -> i32 {
        ids::lock(&self.im, &self.broker, &self.trade, self.trade_date)
    }

    fn answer_id(&self, status: Status) -> Uuid {
        ids::answer(self.trade_date, &self.id(), self.version, status)
    }

    async fn known(
        unit: &Guarded<'_>,
        reports: &[Report<Self>],
    ) -> Result<Vec<(Report<Self>, Status)>, DbError> {
        known_trades(unit, reports).await
    }

    async fn insert(unit: &Guarded<'_>, new: &[Holding<Self>]) -> Result<(), DbError> {
        insert_trades(unit, new).await
    }

    /// A settlement may have come back before its trade was known here as matched: after a loss, or from another region.
    async fn agreed(unit: &Guarded<'_>, keys: &[(Date, String)]) -> Result<(), DbError> {
        returns::apply_early(unit, keys).await
    }
}

const KNOWN: &str = "select trades.record, trades.received_ms, trades.trade as content, trades.status, \
        trades.traceparent \
     from trading.trades join ( \
        select distinct * from unnest($1::text[], $2::text[], $3::text[], $4::date[]) \
            as given (im_id, broker_id, trade_id, trade_date)) as given \
     using (im_id, broker_id, trade_id, trade_date)";

async fn known_trades(
    unit: &Guarded<'_>,
    reports: &[Report<Trade>],
) -> Result<Vec<(Report<Trade>, Status)>, DbError> {
    let trades = || reports.iter().map(|report| &report.content);
    let ims: Vec<&str> = trades().map(|trade| trade.im.as_str()).collect();
    let brokers: Vec<&str> = trades().map(|trade| trade.broker.as_str()).collect();
    let numbers: Vec<&str> = trades().map(|trade| trade.trade.as_str()).collect();
    let dates: Vec<Date> = trades().map(|trade| trade.trade_date).collect();
    let statement = unit.transaction().prepare_cached(KNOWN).await?;
    let rows = unit.transaction().query(&statement, &[&ims, &brokers, &numbers, &dates]).await?;
    tables::known_rows(&rows)
}

const INSERT_TRADES: &str = "insert into trading.trades (trade_date, id, record, received_ms, sender_id, im_id, \
        broker_id, trade_id, security, indicator, price, quantity, settlement_date, trade, status, counterpart, \
        version, traceparent, epoch) \
     select *, $19::bigint from unnest($1::date[], $2::text[], $3::uuid[], $4::bigint[], $5::text[], $6::text[], \
        $7::text[], $8::text[], $9::text[], $10::text[], $11::numeric[], $12::integer[], $13::date[], $14::text[], \
        $15::text[], $16::text[], $17::integer[], $18::text[]) \
     on conflict (trade_date, id) do update set record = excluded.record, received_ms = excluded.received_ms, \
        security = excluded.security, indicator = excluded.indicator, price = excluded.price, \
        quantity = excluded.quantity, settlement_date = excluded.settlement_date, trade = excluded.trade, \
        status = excluded.status, counterpart = excluded.counterpart, version = excluded.version, \
        traceparent = excluded.traceparent, epoch = excluded.epoch";

async fn insert_trades(unit: &Guarded<'_>, new: &[Holding<Trade>]) -> Result<(), DbError> {
    let dates: Vec<Date> = column(new, |(report, ..)| report.content.trade_date);
    let ids: Vec<String> = column(new, |(report, ..)| report.content.id());
    let records: Vec<Uuid> = column(new, |(report, ..)| report.record);
    let received: Vec<i64> = column(new, |(report, ..)| report.received_ms);
    let senders: Vec<&str> = column(new, |(report, ..)| report.content.sender.as_str());
    let ims: Vec<&str> = column(new, |(report, ..)| report.content.im.as_str());
    let brokers: Vec<&str> = column(new, |(report, ..)| report.content.broker.as_str());
    let numbers: Vec<&str> = column(new, |(report, ..)| report.content.trade.as_str());
    let securities: Vec<&str> = column(new, |(report, ..)| report.content.security.as_str());
    let indicators: Vec<&str> = column(new, |(report, ..)| report.content.indicator.letter());
    let prices: Vec<Decimal> = column(new, |(report, ..)| report.content.price);
    let quantities: Vec<i32> = column(new, |(report, ..)| report.content.quantity);
    let settlements: Vec<Date> = column(new, |(report, ..)| report.content.settlement_date);
    let trades: Vec<String> = column(new, |(report, ..)| json(&report.content));
    let statuses: Vec<&str> = column(new, |(_, status, _)| status.word());
    let counterparts: Vec<Option<&str>> = column(new, |(_, _, counterpart)| counterpart.as_deref());
    let versions: Vec<i32> =
        column(new, |(report, ..)| i32::try_from(report.content.version).unwrap_or(i32::MAX));
    let traces = trace::column(new.iter().map(|(report, ..)| report.traceparent));
    let statement = unit.transaction().prepare_cached(INSERT_TRADES).await?;
    unit.transaction()
        .execute(
            &statement,
            &[
                &dates,
                &ids,
                &records,
                &received,
                &senders,
                &ims,
                &brokers,
                &numbers,
                &securities,
                &indicators,
                &prices,
                &quantities,
                &settlements,
                &trades,
                &statuses,
                &counterparts,
                &versions,
                &traces,
                &unit.epoch(),
            ],
        )
        .await?;
    Ok(())
}
