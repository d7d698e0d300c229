//! The migration to stores by day on a database that is in use: rows, rights and numbers are carried over, and what was on its
//! way goes on.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::time::Duration;

use region_lease::ConnectOptions;
use support::reports::{BROKER, IM, report, send};
use support::stores::one_of_every_kind;
use support::{APP, REGION, World, eventually};
use tokio_postgres::Client;
use trading::names::Application;
use trading::reconcile::{self, Job, Plan, Window};
use trading::run::StageName;

mod shared {
    refinery::embed_migrations!("migrations/shared");
}
mod trade_matching {
    refinery::embed_migrations!("migrations/trade_matching");
}

const STORES: [&str; 12] = [
    "inbound_raw",
    "pending",
    "quarantine",
    "ingested",
    "nacks",
    "conflicts",
    "outbox",
    "unsent",
    "unanswered",
    "trades",
    "egressed",
    "sent",
];

/// The last migration before stores are by day.
const BEFORE: i32 = 8;

/// Who may do what with which table or column.
const RIGHTS: &str = "select relname || ' ' || pg_get_userbyid(grantee) || ' ' || privilege_type || ' ' || of as rights \
    from (select oid, relname, relowner from pg_class where relnamespace = 'trading'::regnamespace and relkind in ('r', 'p') \
          and not relispartition) as tables \
    cross join lateral ( \
        select grantee, privilege_type, '' as of from pg_class, aclexplode(relacl) where pg_class.oid = tables.oid \
        union all select grantee, privilege_type, attname::text from pg_attribute, aclexplode(attacl) \
            where attrelid = tables.oid) as acl \
    where grantee <> relowner order by 1";

async fn texts(client: &Client, query: &str) -> Vec<String> {
    client.query(query, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

/// The database as the version before left it: its schema, and the rows of another one.
async fn as_before(options: &ConnectOptions, rows: &[(&str, Vec<String>)]) -> Vec<String> {
    let mut client = region_lease::connect(options).await.unwrap();
    region_lease::migrate(&mut client).await.unwrap();
    client.batch_execute(include_str!("../bootstrap.sql")).await.unwrap();
    client.batch_execute("set role trading_owner").await.unwrap();
    let mut all = shared::migrations::runner().get_migrations().clone();
    all.extend_from_slice(trade_matching::migrations::runner().get_migrations());
    let mut runner = refinery::Runner::new(&all).set_target(refinery::Target::Version(BEFORE));
    runner.set_migration_table_name("trading.schema_history");
    runner.run_async(&mut client).await.unwrap();
    for (store, rows) in rows {
        let copy = format!(
            "insert into trading.{store} overriding system value \
             select row.* from unnest($1::text[]) as text, jsonb_populate_record(null::trading.{store}, text::jsonb) as row"
        );
        client
            .batch_execute(&format!("alter table trading.{store} disable trigger region_guard"))
            .await
            .unwrap();
        client.execute(&copy, &[rows]).await.unwrap();
    }
    // A core of an older version did not list what it had not sent.
    client
        .batch_execute(
            "update trading.outbox set sent_at = null where id like '%-4';
             select setval(pg_get_serial_sequence('trading.outbox', 'seq'), (select max(seq) from trading.outbox))",
        )
        .await
        .unwrap();
    for (store, _) in rows {
        let protect = format!("alter table trading.{store} enable always trigger region_guard");
        client.batch_execute(&protect).await.unwrap();
    }
    texts(&client, RIGHTS).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_in_use_is_carried_over_and_what_was_on_its_way_goes_on() {
    let source = World::open().await;
    let mut pipeline = source.pipeline().await;
    one_of_every_kind(&source).await;
    // One trade is decided and not answered, another one is not decided.
    pipeline.drain(StageName::Egress as usize..).for_each(support::Process::kill);
    for sender in [IM, BROKER] {
        send(&source, &report(sender, 8, "18.5", 1, "Unmatched")).await;
    }
    pipeline.drain(StageName::Core as usize..).for_each(support::Process::kill);
    for sender in [IM, BROKER] {
        let (id, body) = report(sender, 9, "18.5", 1, "Unmatched");
        source.publish(Some(&id), body.as_bytes()).await;
    }
    let pending = "select count(*) from trading.pending";
    eventually("both are stored", async || (source.number(pending).await == 2).then_some(())).await;
    drop(pipeline);
    let mut rows = Vec::new();
    for store in STORES {
        rows.push((
            store,
            source.texts(&format!("select to_jsonb(row)::text from trading.{store} as row")).await,
        ));
    }
    let count = |store: &str| rows.iter().find(|(name, _)| *name == store).unwrap().1.len();

    let mut rights = Vec::new();
    let prepare = async |options: ConnectOptions| rights = as_before(&options, &rows).await;
    let world = World::prepared(Application::TradeMatching, prepare).await;
    for (store, rows) in &rows {
        let there = world.number(&format!("select count(*) from trading.{store}")).await;
        let listed = if *store == "unsent" { 1 } else { 0 };
        assert_eq!(there, i64::try_from(rows.len()).unwrap() + listed, "{store}");
    }
    let new = ["quarantine trading_core UPDATE dealt_with", "trades trading_core UPDATE traceparent"];
    rights.extend(new.map(str::to_owned));
    rights.sort();
    let mut rights_now = texts(&world.sql, RIGHTS).await;
    rights_now.sort();
    assert_eq!(rights_now, rights);
    let parts = "select distinct tableoid::regclass::text from trading.outbox";
    assert_eq!(world.texts(parts).await, ["trading.outbox_before"]);

    world.grant(0, 1).await;
    let pipeline = world.pipeline().await;
    let (status, did) = world.hook(&pipeline[StageName::Core as usize], "after-grant", 1).await;
    assert_eq!(status, 200, "{did}");
    // The two trades that were on their way, and the cancel that was not sent.
    let answers = world.answers(5).await;
    assert_eq!(answers.values().filter(|answer| answer.status == "MATCHED").count(), 4, "{answers:?}");
    world.nothing_is_on_its_way().await;
    let (id, body) = report(IM, 1, "18.5", 1, "Unmatched");
    world.publish(Some(&id), body.as_bytes()).await;
    for sender in [IM, BROKER] {
        send(&world, &report(sender, 10, "18.5", 1, "Unmatched")).await;
    }
    world.nothing_is_on_its_way().await;
    let stored = world.number("select count(*) from trading.inbound_raw").await;
    assert_eq!(stored, i64::try_from(count("inbound_raw")).unwrap() + 2);
    let plan = Plan {
        application: Application::TradeMatching,
        app: APP.into(),
        region: REGION.into(),
        database: support::database_options(&world.name, "trading_core"),
        jobs: Job::TRADES.to_vec(),
        peer: None,
        window: Window { since: None, grace: Duration::ZERO },
        resend_after: Duration::from_secs(600),
        replay: None,
    };
    let report = reconcile::run(&plan).await.unwrap();
    assert!(report.agrees, "{report}");
}
