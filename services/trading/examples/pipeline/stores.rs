//! The stores' part of the ceiling: the same rows and bytes into tables of the same shape, as many together, on bare
//! transactions: no guard, no lock, no waiting for one answer before the next question.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Instant;

use jiff::civil::{Date, date};
use rust_decimal::Decimal;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row, Statement};
use trading::message::{Trade, json};
use uuid::Uuid;

use crate::ceiling::{Batches, Part};
use crate::cpu::Cpu;
use crate::material::Side;
use crate::servers::{Pipeline, Servers};

/// A store by day costs what one of its partitions costs, so that is what is copied.
const TABLES: [(&str, &str); 9] = [
    ("inbound_raw", "inbound_raw_rest"),
    ("pending", "pending"),
    ("ingested", "ingested_rest"),
    ("trades", "trades"),
    ("outbox", "outbox_rest"),
    ("unsent", "unsent"),
    ("unanswered", "unanswered"),
    ("egressed", "egressed_rest"),
    ("sent", "sent_rest"),
];

const INBOUND: &str = "with raw as (insert into ceiling.inbound_raw (record, correlation_id, received_ms, body) \
        select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::bytea[]) returning record, received_ms) \
     insert into ceiling.pending (record, received_ms) select record, received_ms from raw";
const INGESTION: &str = "insert into ceiling.ingested (record, id, received_ms, content) \
     select * from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[])";
const DECIDED: &str = "delete from ceiling.pending where record = any($1)";
const KNOWN: &str = "select trade from ceiling.trades join unnest($1::text[], $2::text[], $3::text[], $4::date[]) \
        as given (im_id, broker_id, trade_id, trade_date) using (im_id, broker_id, trade_id, trade_date)";
const TRADES: &str = "insert into ceiling.trades (trade_date, id, record, received_ms, sender_id, im_id, broker_id, \
        trade_id, security, indicator, price, quantity, settlement_date, trade, status, counterpart, version, epoch) \
     select trade_date, id, record, received_ms, sender_id, im_id, broker_id, trade_id, security, indicator, price, \
        quantity, trade_date, trade, 'MATCHED', id, 1, 1 from unnest($1::date[], $2::text[], $3::uuid[], $4::bigint[], \
        $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::numeric[], $12::integer[], \
        $13::text[]) as given (trade_date, id, record, received_ms, sender_id, im_id, broker_id, trade_id, security, \
        indicator, price, quantity, trade)";
const OUTBOX: &str = "with told as (insert into ceiling.outbox (message_id, id, received_ms, status, body, epoch, sent_at, caused_ms) \
        select *, 1, clock_timestamp(), 1 from unnest($1::uuid[], $2::text[], $3::bigint[], $4::text[], $5::text[]) \
        returning message_id, seq), \
     unsent as (insert into ceiling.unsent (seq, caused_ms) select seq, 1 from told) \
     insert into ceiling.unanswered (message_id, caused_ms) select message_id, 1 from told";
const UNSENT: &str = "with listed as ( \
        select seq from ceiling.unsent order by seq limit $1 for update skip locked) \
     select seq, message_id, id, received_ms, body from ceiling.outbox \
     where seq = any(array(select seq from listed)) order by seq";
const RELAYED: &str = "delete from ceiling.unsent where seq = any($1)";
const EGRESS: &str = "insert into ceiling.egressed (message_id, id, status, body, caused_ms) \
     select *, 1 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])";
const OUTBOUND: &str = "insert into ceiling.sent (message_id, id, status, body, caused_ms) \
     select *, 1 from unnest($1::uuid[], $2::text[], $3::text[], $4::text[])";
const DELIVERED: &str =
    "delete from ceiling.unanswered where message_id = any($1) returning message_id, caused_ms";

/// Which store.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Inbound,
    Ingestion,
    Core,
    Relay,
    Egress,
    Outbound,
}

/// All sides as columns.
struct Rows {
    records: Vec<Uuid>,
    ids: Vec<String>,
    received: Vec<i64>,
    dates: Vec<Date>,
    trades: Vec<Trade>,
    raw: Vec<Vec<u8>>,
    contents: Vec<String>,
    decided: Vec<String>,
    answers: Vec<String>,
    statuses: Vec<&'static str>,
}

impl Rows {
    /// Pairs under numbers of their own with the contents of the sample.
    fn of(sides: &[Side], count: usize) -> Self {
        let side = |number: usize| &sides[number % sides.len()];
        let trade = |number: usize| {
            let Trade { im, broker, .. } = sides[number / 2 % sides.len()].trade.clone();
            let sender = if number.is_multiple_of(2) { im.clone() } else { broker.clone() };
            Trade { im, broker, sender, trade: format!("{:07}", number / 2), ..side(number).trade.clone() }
        };
        let trades: Vec<Trade> = (0..count).map(trade).collect();
        let texts =
            |of: &dyn Fn(&Side) -> String| (0..count).map(|number| of(side(number))).collect::<Vec<_>>();
        Self {
            records: (0..count).map(|_| Uuid::new_v4()).collect(),
            ids: trades.iter().map(Trade::id).collect(),
            received: vec![1_770_000_000_000; count],
            dates: vec![date(2026, 2, 9); count],
            raw: texts(&|side| side.text.clone()).into_iter().map(String::into_bytes).collect(),
            contents: texts(&|side| json(&side.trade)),
            decided: texts(&|side| json(&side.decided.content)),
            answers: texts(&|side| json(&side.response)),
            statuses: vec!["MATCHED"; count],
            trades,
        }
    }
}

/// Runs the stores one after the other, each with as many connections as there are processors.
pub(crate) async fn run(
    servers: &Servers,
    pipeline: &Pipeline,
    sides: &[Side],
    batches: &Batches,
    count: usize,
) -> Vec<Part> {
    let copies: String = TABLES
        .map(|(name, of)| format!("create table ceiling.{name} (like trading.{of} including all);"))
        .concat();
    let fresh = "drop schema if exists ceiling cascade; create schema ceiling;";
    pipeline.sql().batch_execute(&format!("{fresh}{copies}")).await.unwrap();
    let rows = Rows::of(sides, count);
    let together = &batches.records;
    let stores = [
        ("store: inbound", Store::Inbound, together[0]),
        ("store: ingestion", Store::Ingestion, together[1]),
        ("store: core", Store::Core, together[2]),
        ("store: core's relay", Store::Relay, batches.relayed),
        ("store: egress", Store::Egress, together[3]),
        ("store: outbound, and its note", Store::Outbound, together[4]),
    ];
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parts = Vec::new();
    for (name, store, batch) in stores {
        let mut sessions = Vec::new();
        for _ in 0..workers {
            let options = servers.database(pipeline.database(), "postgres");
            sessions.push(Session::new(region_lease::connect(&options).await.unwrap()).await);
        }
        let (cpu, began) = (Cpu::now(&[]), Instant::now());
        let share = count / workers;
        let ranges = (0..workers).map(|number| number * share..(number + 1) * share);
        let working =
            sessions.iter().zip(ranges).map(|(session, range)| session.work(store, &rows, range, batch));
        futures::future::join_all(working).await;
        let sides = (share * workers) as f64;
        parts.push(Part::of(
            &format!("{name} ({batch} together)"),
            sides,
            began.elapsed(),
            &Cpu::now(&[]).since(&cpu),
        ));
    }
    parts
}

type Values<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection with everything prepared.
struct Session {
    client: Client,
    statements: HashMap<&'static str, Statement>,
}

impl Session {
    async fn new(client: Client) -> Self {
        let mut statements = HashMap::new();
        for text in
            [INBOUND, INGESTION, DECIDED, KNOWN, TRADES, OUTBOX, UNSENT, RELAYED, EGRESS, OUTBOUND, DELIVERED]
        {
            statements.insert(text, client.prepare(text).await.unwrap());
        }
        Self { client, statements }
    }

    async fn work(&self, store: Store, rows: &Rows, range: Range<usize>, batch: usize) {
        if store == Store::Relay {
            return self.relay(batch).await;
        }
        for first in range.clone().step_by(batch) {
            let part = first..(first + batch).min(range.end);
            match store {
                Store::Inbound => self.inbound(rows, part).await,
                Store::Ingestion => self.ingestion(rows, part).await,
                Store::Core => self.core(rows, part).await,
                Store::Egress => self.answers(EGRESS, rows, part).await,
                Store::Outbound => {
                    self.answers(OUTBOUND, rows, part.clone()).await;
                    self.commit(&[(DELIVERED, &[&&rows.records[part]])]).await;
                }
                Store::Relay => unreachable!("above"),
            }
        }
    }

    /// One transaction, sent as a whole before the first answer is looked at.
    async fn commit(&self, statements: &[(&str, Values<'_>)]) {
        let asked = statements.iter().map(|(text, values)| self.client.query(&self.statements[text], values));
        let all = futures::future::try_join_all(asked);
        futures::try_join!(self.client.batch_execute("begin"), all, self.client.batch_execute("commit"))
            .unwrap();
    }

    async fn inbound(&self, rows: &Rows, part: Range<usize>) {
        let Range { start, end } = part;
        let values: Values<'_> = &[
            &&rows.records[start..end],
            &&rows.ids[start..end],
            &&rows.received[start..end],
            &&rows.raw[start..end],
        ];
        self.commit(&[(INBOUND, values)]).await;
    }

    async fn ingestion(&self, rows: &Rows, part: Range<usize>) {
        let Range { start, end } = part;
        let (records, ids) = (&rows.records[start..end], &rows.ids[start..end]);
        self.commit(&[(
            INGESTION,
            &[&records, &ids, &&rows.received[start..end], &&rows.contents[start..end]],
        )])
        .await;
    }

    async fn core(&self, rows: &Rows, part: Range<usize>) {
        fn column<'a, T>(trades: &'a [Trade], of: impl Fn(&'a Trade) -> T) -> Vec<T> {
            trades.iter().map(of).collect()
        }
        let Range { start, end } = part;
        let trades = &rows.trades[start..end];
        let (records, ids, received) =
            (&rows.records[start..end], &rows.ids[start..end], &rows.received[start..end]);
        let dates = &rows.dates[start..end];
        let senders: Vec<&str> = column(trades, |trade| trade.sender.as_str());
        let ims: Vec<&str> = column(trades, |trade| trade.im.as_str());
        let brokers: Vec<&str> = column(trades, |trade| trade.broker.as_str());
        let numbers: Vec<&str> = column(trades, |trade| trade.trade.as_str());
        let securities: Vec<&str> = column(trades, |trade| trade.security.as_str());
        let indicators: Vec<&str> = column(trades, |trade| trade.indicator.letter());
        let prices: Vec<Decimal> = column(trades, |trade| trade.price);
        let quantities: Vec<i32> = column(trades, |trade| trade.quantity);
        let texts = &rows.contents[start..end];
        let trades: Values<'_> = &[
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
            &texts,
        ];
        let told: Values<'_> =
            &[&records, &ids, &received, &&rows.statuses[start..end], &&rows.decided[start..end]];
        let known: Values<'_> = &[&ims, &brokers, &numbers, &dates];
        self.commit(&[(DECIDED, &[&records]), (KNOWN, known), (TRADES, trades), (OUTBOX, told)]).await;
    }

    async fn answers(&self, insert: &str, rows: &Rows, part: Range<usize>) {
        let Range { start, end } = part;
        let (records, ids, statuses) =
            (&rows.records[start..end], &rows.ids[start..end], &rows.statuses[start..end]);
        self.commit(&[(insert, &[&records, &ids, &statuses, &&rows.answers[start..end]])]).await;
    }

    async fn relay(&self, batch: usize) {
        let limit = i64::try_from(batch).unwrap();
        let limits: [&(dyn ToSql + Sync); 1] = [&limit];
        loop {
            let begin = self.client.batch_execute("begin");
            let take = self.client.query(&self.statements[UNSENT], &limits);
            let rows: Vec<Row> = futures::try_join!(begin, take).unwrap().1;
            let taken: Vec<i64> = rows.iter().map(|row| row.get("seq")).collect();
            let marked: Values<'_> = &[&taken];
            let mark = self.client.execute(&self.statements[RELAYED], marked);
            futures::try_join!(mark, self.client.batch_execute("commit")).unwrap();
            if taken.is_empty() {
                return;
            }
        }
    }
}
