//! What holds the pipeline where it is: the stages' own counters, and the database's statements.

use tokio_postgres::Client;

use crate::load::Seen;

const PARTS: [&str; 7] = ["Read", "Store", "Publish", "Note", "Acknowledge", "RelayStore", "RelayPublish"];
const STATEMENTS: &str = "select calls::float8, rows::float8, total_exec_time, wal_bytes::float8, \
        left(regexp_replace(query, '\\s+', ' ', 'g'), 110) from pg_stat_statements \
     order by total_exec_time desc";
/// Statements that are printed.
const SHOWN: usize = 16;

/// What the database did for one statement.
pub(crate) struct Statement {
    pub(crate) text: String,
    pub(crate) calls: f64,
    pub(crate) rows: f64,
    milliseconds: f64,
    wal_bytes: f64,
}

/// All statements since the counters were reset, the longest first.
pub(crate) async fn statements(sql: &Client) -> Vec<Statement> {
    let statement = |row: &tokio_postgres::Row| Statement {
        calls: row.get(0),
        rows: row.get(1),
        milliseconds: row.get(2),
        wal_bytes: row.get(3),
        text: row.get(4),
    };
    sql.query(STATEMENTS, &[]).await.unwrap().iter().map(statement).collect()
}

pub(crate) fn print(seen: &Seen) {
    println!(
        "  stage             busy   a batch: messages, sides, ms   share of the time of {}",
        PARTS.join(", ")
    );
    for stage in seen.metrics.keys() {
        let counter = |name: &str| seen.counter(stage, name);
        let batches = counter("services_batch_messages_count{}").max(1.0);
        let busy = counter("services_batch_seconds_sum{}");
        let shares: Vec<_> = PARTS
            .map(|part| {
                counter(&format!("services_part_seconds_total{{part=\"{part}\"}}")) / seen.seconds * 100.0
            })
            .map(|share| format!("{share:3.0} %"))
            .to_vec();
        println!(
            "  {stage:<16} {:3.0} %   {:>7.1} {:>7.1} {:>7.1}   {}",
            busy / seen.seconds * 100.0,
            counter("services_batch_messages_sum{}") / batches,
            counter("services_records_total{}") / batches,
            busy / batches * 1000.0,
            shares.join("  "),
        );
    }
    println!("  statement: ms, calls and KiB of log per 1000 sides, rows a call");
    let thousands = seen.sides / 1000.0;
    for Statement { text, calls, rows, milliseconds, wal_bytes } in seen.statements.iter().take(SHOWN) {
        println!(
            "  {:>7.1} {:>7.2} {:>7.0} {:>7.1}   {text}",
            milliseconds / thousands,
            calls / thousands,
            wal_bytes / 1024.0 / thousands,
            rows / calls,
        );
    }
}
