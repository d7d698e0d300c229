//! What operations do to a running pipeline: rotated passwords, migrations beside others, a schema that is wrong.

mod support;

use std::time::{Duration, Instant};

use region_lease::ConnectOptions;
use services_common::amqp::BrokerConfig;
use services_common::config::{BrokerArgs, DatabaseArgs};
use services_common::postgres::Database;
use support::{PATIENCE, World, eventually, management};
use trading::migrate::{self, MigrateError};
use trading::names::Application;
use trading::run::StageName;

const GOOD: &str = r#"{"senderID":"QAINS012","imID":"QAINS012","brokerID":"QABRO010","tradeID":"3500017","security":"AMZN","transactionIndicator":"B","price":18.5,"quantity":2,"tradeDate":"2026-02-09T00:00:00Z","settlementDate":"2026-02-11T00:00:00Z","deliveryInstructions":"lorem","status":"Unmatched","allocations":["{\"allocationID\":1,\"quantity\":100,\"account\":\"1538552570\",\"status\":\"Unmatched\"}"]}"#;
const GOOD_ID: &str = "QAINS012-QAINS012-QABRO010-3500017";

/// Demands a password of one role, and trusts the others as before.
const ASK_FOR_PASSWORD: &str = "create role rotated login;
    do $$ begin execute format($f$
        copy (values ('host all rotated 127.0.0.1/32 scram-sha-256'), ('host all all 127.0.0.1/32 trust'),
                     ('host replication all 127.0.0.1/32 trust')) to %L $f$, current_setting('hba_file')); end $$;
    select pg_reload_conf()";

const END_SESSIONS: &str = "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'rotated'";

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_database_password_is_used_from_the_next_connection_on() {
    let world = World::start().await;
    world.sql.batch_execute(ASK_FOR_PASSWORD).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    let server = support::database_options(&world.name, "rotated");
    let args = DatabaseArgs {
        database_host: server.host,
        database_port: server.port,
        database_name: server.dbname,
        database_user: server.user,
        database_password_file: password_file.clone(),
        database_ca_file: None,
    };
    std::fs::write(&password_file, "before the first\n").unwrap();
    let database = Database::from_args(&args, "test", 1).await.unwrap();
    eventually("a wrong password is refused", async || database.connection().await.err()).await;
    for password in ["first", "second"] {
        world.sql.batch_execute(&format!("alter role rotated password '{password}'")).await.unwrap();
        std::fs::write(&password_file, format!("{password}\n")).unwrap();
        world.sql.query(END_SESSIONS, &[]).await.unwrap();
        eventually("connected", async || database.connection().await.ok().map(drop)).await;
    }
    // A secret that is not there for a moment stops nobody whom the older password still admits.
    std::fs::remove_file(&password_file).unwrap();
    world.sql.batch_execute("alter role rotated password 'before the first'").await.unwrap();
    world.sql.query(END_SESSIONS, &[]).await.unwrap();
    eventually("connected without the file", async || database.connection().await.ok().map(drop)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotated_broker_password_is_used_from_the_next_connection_on() {
    let world = World::start().await;
    let folder = tempfile::tempdir().unwrap();
    let password_file = folder.path().join("password");
    let args = BrokerArgs {
        broker_url: support::broker_url(&world.name),
        broker_user: world.name.clone(),
        broker_password_file: password_file.clone(),
        broker_ca_file: None,
    };
    BrokerConfig::from_args(&args, "test").await.unwrap_err();
    std::fs::write(&password_file, "before the first\n").unwrap();
    let config = BrokerConfig::from_args(&args, "test").await.unwrap();
    config.connect().await.unwrap_err();
    for password in ["first", "second"] {
        let user = format!("{{\"password\":\"{password}\",\"tags\":\"\"}}");
        management("PUT", &format!("/api/users/{}", world.name), &user).await;
        let all = r#"{"configure":".*","write":".*","read":".*"}"#;
        management("PUT", &format!("/api/permissions/{0}/{0}", world.name), all).await;
        config.connect().await.unwrap_err();
        std::fs::write(&password_file, format!("{password}\n")).unwrap();
        config.connect().await.unwrap().close(200, "".into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_migrator_outlives_a_held_lock_and_a_broken_session_and_names_a_missing_right_at_once() {
    let world = World::start().await;
    let mut options = support::database_options(&world.name, "postgres");
    options.application_name = "the migrator".into();
    options.statement_timeout = Duration::from_millis(700);
    world.sql.batch_execute("select pg_advisory_lock(29812, 0)").await.unwrap();
    let until = Instant::now() + PATIENCE;
    let _turn = support::MIGRATING.lock().await;
    let migrating = migrate::database(Application::TradeMatching, &options, until);
    let sessions = "select count(pg_terminate_backend(pid)) from pg_stat_activity where wait_event = 'advisory' \
                    and application_name = 'the migrator' and datname = current_database()";
    let disturbing = async {
        for attempt in ["first", "second"] {
            let ended = format!("the session of the {attempt} attempt is ended while it waits");
            eventually(&ended, async || (world.number(sessions).await == 1).then_some(())).await;
        }
        // The next one is left to its statement's timeout.
        let began = "select count(*) from pg_stat_activity where wait_event = 'advisory' and datname = current_database()";
        eventually("a third attempt", async || (world.number(began).await == 1).then_some(())).await;
        eventually("is given up", async || (world.number(began).await == 0).then_some(())).await;
        world.sql.batch_execute("select pg_advisory_unlock(29812, 0)").await.unwrap();
    };
    let (migrated, ()) = tokio::join!(migrating, disturbing);
    assert_eq!(migrated.unwrap(), Vec::<String>::new());

    world
        .sql
        .batch_execute("create role without_rights login; grant region_owner to without_rights")
        .await
        .unwrap();
    let without = ConnectOptions { user: "without_rights".into(), ..options.clone() };
    let refused = migrate::database(Application::TradeMatching, &without, until).await.unwrap_err();
    assert!(matches!(refused, MigrateError::Rights(_)), "{refused:?}");

    world.sql.batch_execute("select pg_advisory_lock(29812, 0)").await.unwrap();
    let busy = migrate::database(Application::TradeMatching, &options, Instant::now()).await.unwrap_err();
    assert!(busy.to_string().contains("wait for other migrators"), "{busy}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_wrong_refuses_nobodys_trade() {
    let world = World::open().await;
    let pipeline = world.pipeline().await;
    let core = &pipeline[StageName::Core as usize];
    world.sql.batch_execute("alter table trading.trades rename to elsewhere").await.unwrap();
    for number in 3_500_017..3_500_047 {
        let number = number.to_string();
        let (body, id) = (GOOD.replace("3500017", &number), GOOD_ID.replace("3500017", &number));
        world.publish(Some(&id), body.as_bytes()).await;
        let other = body.replacen("QAINS012", "QABRO010", 1);
        world.publish(Some(&id.replacen("QAINS012", "QABRO010", 1)), other.as_bytes()).await;
    }
    eventually("core gives messages back", async || {
        let (_, metrics) = support::http(core.http, "GET", "/metrics", "", "").await;
        let line = metrics.lines().find(|line| line.contains("stage=\"core\",fate=\"Requeued\""))?;
        line.rsplit(' ').next()?.parse::<u64>().ok().filter(|requeued| *requeued > 0)
    })
    .await;
    assert_eq!(world.number("select count(*) from trading.quarantine").await, 0);
    assert_eq!(world.number("select count(*) from trading.outbox").await, 0);
    world.sql.batch_execute("alter table trading.elsewhere rename to trades").await.unwrap();
    let answers = world.answers(60).await;
    assert!(answers.values().all(|answer| answer.status == "MATCHED"), "{answers:?}");
}

/// A transaction has five seconds.
#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_takes_longer_than_a_transaction_may_goes_through_in_parts() {
    const MESSAGES: i64 = 120;
    let world = World::open().await;
    let slow = "create function trading.slow() returns trigger language plpgsql \
            as $$ begin perform pg_sleep(0.06); return new; end $$; \
        create trigger slow before insert on trading.inbound_raw for each row execute function trading.slow()";
    world.sql.batch_execute(slow).await.unwrap();
    for number in 0..MESSAGES {
        world.publish(Some(&format!("id {number}")), b"no trade").await;
    }
    let inbound = world.stage(StageName::Inbound).await;
    eventually("all are stored", async || {
        (world.number("select count(*) from trading.inbound_raw").await == MESSAGES).then_some(())
    })
    .await;
    let (_, metrics) = support::http(inbound.http, "GET", "/metrics", "", "").await;
    let line = metrics.lines().find(|line| line.contains("fate=\"Requeued\"")).unwrap();
    assert!(!line.ends_with(" 0"), "no batch was too long for a transaction: {line}");
}
