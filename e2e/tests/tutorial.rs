//! Every SQL block of `docs/tutorial.md`, in the order of the page, on a real server: what must go well does, and what
//! must be refused is, with the SQLSTATE that the page names.

#![expect(clippy::unwrap_used, reason = "a failure here is the failure of the test")]

use std::time::Duration;

use lab::temporary::Postgres;
use tokio_postgres::{Client, NoTls};

const PAGE: &str = include_str!("../../docs/tutorial.md");

/// A SQL block: the role that its first line names, the SQLSTATE with which it must end, and the statements.
struct Block {
    role: &'static str,
    refused: Option<&'static str>,
    sql: &'static str,
}

fn blocks() -> Vec<Block> {
    let block = |rest: &'static str| {
        let sql = rest.split("```").next().unwrap();
        let title = sql.lines().next().unwrap().strip_prefix("-- as ").expect("a block names its role");
        let (role, refused) =
            title.split_once(": refused with ").map_or((title, None), |(role, state)| (role, Some(state)));
        Block { role, refused, sql }
    };
    PAGE.split("```sql\n").skip(1).map(block).collect()
}

async fn connect(server: &Postgres, role: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(role, "postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn the_page_makes_a_service_region_safe() {
    let server = Postgres::start().await.unwrap();
    let admin = connect(&server, "postgres").await;
    let prepared = "CREATE ROLE orders_migrator LOGIN CREATEROLE; \
        GRANT pg_monitor, pg_signal_backend TO orders_migrator WITH ADMIN OPTION; \
        ALTER DATABASE postgres OWNER TO orders_migrator";
    admin.batch_execute(prepared).await.unwrap();
    // What its first command does.
    let mut migrator = connect(&server, "orders_migrator").await;
    region_lease::migrate(&mut migrator).await.unwrap();
    region_lease::enroll(&migrator, "orders", Duration::from_secs(20)).await.unwrap();

    let mut refusals = 0;
    for Block { role, refused, sql } in blocks() {
        let answer = connect(&server, role).await.simple_query(sql).await;
        let state = answer
            .as_ref()
            .err()
            .map(|error| error.code().unwrap_or_else(|| panic!("{sql}\n{error:?}")).code());
        assert_eq!(state, refused, "{sql}\n{answer:?}");
        refusals += usize::from(refused.is_some());
    }
    assert_eq!(refusals, 3, "blocks that must be refused");
    let rows = admin.query_one("SELECT count(*), max(id) FROM orders", &[]).await.unwrap();
    assert_eq!((rows.get::<_, i64>(0), rows.get::<_, i64>(1)), (1, 1), "only the guarded write is there");
}
