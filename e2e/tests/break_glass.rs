//! Every SQL block of `docs/break-glass.md`, in the order of the page, on a real server.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the failure of the test"
)]

use lab::temporary::Postgres;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage, SimpleQueryRow};

const PAGE: &str = include_str!("../../docs/break-glass.md");

/// One SQL block: the role that its first line names, and the statement.
struct Block<'a> {
    role: &'a str,
    sql: &'a str,
}

fn blocks() -> Vec<Block<'static>> {
    PAGE.split("```sql\n")
        .skip(1)
        .map(|rest| {
            let sql = rest.split("```").next().unwrap();
            let role =
                sql.lines().next().unwrap().trim().strip_prefix("-- as ").expect("a block names its role");
            Block { role, sql }
        })
        .collect()
}

async fn connect(server: &Postgres, role: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(role, "postgres"), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn rows(client: &Client, sql: &str) -> Vec<SimpleQueryRow> {
    let answers = client.simple_query(sql).await.unwrap_or_else(|error| panic!("{sql}\n{error:?}"));
    let row = |answer| if let SimpleQueryMessage::Row(row) = answer { Some(row) } else { None };
    answers.into_iter().filter_map(row).collect()
}

/// Holder, how far it is opened, and until when; empty text for null.
async fn lease(client: &Client) -> [String; 3] {
    let all =
        rows(client, "SELECT holder, opened, valid_until FROM region.lease WHERE app = 'trade-matching'")
            .await;
    [0, 1, 2].map(|column| all[0].get(column).unwrap_or_default().to_owned())
}

#[tokio::test]
async fn the_page_moves_an_application_without_the_operator() {
    let server = Postgres::start().await.unwrap();
    let mut admin = connect(&server, "postgres").await;
    region_lease::migrate(&mut admin).await.unwrap();
    // As it is on the day: us-east-1 holds the lease by an even epoch and is open.
    rows(
        &admin,
        "SELECT region.grant('trade-matching', 0, 2, gen_random_uuid(), 'us-east-1', gen_random_uuid());
         SELECT region.renew(l.app, l.holder, l.epoch, l.grant_id, c.now, c.server_start) FROM region.lease l, region.clock() c;
         SELECT region.open(app, epoch, grant_id, 'intake') FROM region.lease;",
    )
    .await;

    let mut seen = Vec::new();
    for block in blocks() {
        let client = connect(&server, block.role).await;
        let answered = rows(&client, block.sql).await;
        // A block that changes the lease names exactly one row; an empty answer would have changed nothing.
        if block.sql.contains("FROM region.lease") {
            assert_eq!(answered.len(), 1, "{}", block.sql);
        }
        let [holder, opened, until] = lease(&admin).await;
        let state = match until.as_str() {
            "infinity" => format!("{holder} {opened} without a limit"),
            "-infinity" => format!("{holder} {opened} closed"),
            _ => format!("{holder} {opened}"),
        };
        if seen.last() != Some(&state) {
            seen.push(state);
        }
    }
    let expected = [
        "us-east-1 intake",
        "us-east-1 intake without a limit",
        " none closed",
        "us-west-2 core closed",
        "us-west-2 core",
        "us-west-2 intake",
    ];
    assert_eq!(seen, expected);
    let epoch = rows(&admin, "SELECT epoch FROM region.lease").await[0].get(0).map(str::to_owned);
    assert_eq!(epoch.as_deref(), Some("3"), "the second region takes odd numbers");
}
