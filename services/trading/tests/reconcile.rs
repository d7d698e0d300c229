//! Reconciliation on real servers: stores are damaged by hand, found, and repaired through the normal path.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jiff::civil::date;
use region_lease::ConnectOptions;
use support::reconciling::{CLEAN, NOTHING, counts};
use support::reports::{BROKER, IM, report, send};
use support::stores::{contents, damage, one_of_every_kind};
use support::{APP, REGION, World, eventually};
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Plan as Customer, Scenario, SharedLedger};
use trading::names::Application;
use trading::reconcile::{
    self, Job, Outcome, Plan, ReconcileArgs, ReconcileError, Replaying, Report, Window,
};
use trading::run::StageName;

/// A plan for all boundaries and everything that is stored, with core's role.
fn plan(world: &World, grace: u64, replay: bool) -> Plan {
    Plan {
        application: Application::TradeMatching,
        app: APP.into(),
        region: REGION.into(),
        database: support::database_options(&world.name, "trading_core"),
        jobs: Job::TRADES.to_vec(),
        peer: None,
        window: Window { since: None, grace: Duration::from_secs(grace) },
        resend_after: Duration::from_secs(600),
        replay: replay.then(|| Replaying {
            broker: support::broker_config(&world.name, "reconcile"),
            wait: support::PATIENCE,
            by: "a test".into(),
        }),
    }
}

async fn compared(world: &World) -> Report {
    reconcile::run(&plan(world, 0, false)).await.unwrap()
}

async fn replayed(world: &World) -> Report {
    reconcile::run(&plan(world, 0, true)).await.unwrap()
}

/// A customer of so many messages a second; a fifth of them are bad.
fn customer(world: &World, rate: f64, seconds: u64) -> impl Future<Output = generate::Verdict> + use<> {
    let scenario = Scenario::new(rand::random(), 0.2, date(2026, 2, 9));
    let customer =
        Customer { rate, duration: Duration::from_secs(seconds), wait: support::PATIENCE, scenario };
    let (submit, answers) = (world.target("submit"), world.target("answers"));
    generate::run(customer, submit, answers, SharedLedger::default(), CancellationToken::new())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_while_messages_flow_and_nothing_when_they_have_passed() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    let traffic = customer(&world, 150.0, 5);
    let traffic = tokio::spawn(traffic);
    let (mut looks, mut seen_under_way) = (0, 0);
    while !traffic.is_finished() {
        let report = reconcile::run(&plan(&world, 30, false)).await.unwrap();
        assert!(report.agrees, "{report}");
        looks += 1;
        seen_under_way += report.boundaries.iter().map(|one| one.comparison.under_way).sum::<u64>();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(looks > 3 && seen_under_way > 0, "{looks} looks saw {seen_under_way} records under way");
    world.nothing_is_on_its_way().await;
    let report = compared(&world).await;
    assert_eq!(counts(&report), CLEAN, "{report}");
    assert!(report.boundaries.iter().all(|one| one.comparison.compared > 500), "{report}");
    assert_eq!(
        world.number("select count(*) from trading.reconciliations").await,
        0,
        "only replays are noted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_lost_are_found_sent_again_and_there_once_more() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    let before = contents(&world).await;
    let id = |number| format!("{IM}-{IM}-{BROKER}-{number}");
    let waiting = format!("{BROKER}-{IM}-{BROKER}-5");
    damage(&world, "ingested", &format!("delete from trading.ingested where id = '{}'", id(1))).await;
    damage(&world, "nacks", &format!("delete from trading.nacks where id = '{}'", id(7))).await;
    damage(&world, "trades", &format!("delete from trading.trades where id in ('{waiting}', '{}')", id(4)))
        .await;
    damage(&world, "conflicts", "delete from trading.conflicts where code = 'TOO_LATE'").await;
    damage(&world, "outbox", &format!("delete from trading.outbox where id = '{}'", id(6))).await;
    damage(&world, "egressed", &format!("delete from trading.egressed where id = '{}'", id(2))).await;
    damage(&world, "sent", "delete from trading.sent where status = 'CANCELLED'").await;
    let found = compared(&world).await;
    // What is gone on one side of a store is ahead on the other. Of trade 4, both versions look lost.
    assert_eq!(counts(&found), [[2, 0, 0], [5, 3, 0], [1, 1, 0], [1, 1, 0]], "{found}");
    assert!(found.to_string().contains(&format!("{waiting} is neither in trading.trades")), "{found}");

    let repaired = replayed(&world).await;
    assert!(repaired.agrees, "{repaired}");
    assert_eq!(counts(&repaired), CLEAN, "{repaired}");
    let replays: Vec<_> = repaired.boundaries.iter().map(|one| one.replay.unwrap()).collect();
    assert!(
        replays.iter().all(|replay| replay.outcome == Outcome::Repaired && replay.left == 0),
        "{repaired}"
    );
    world.nothing_is_on_its_way().await;
    assert_eq!(contents(&world).await, before);

    let again = replayed(&world).await;
    assert!(again.boundaries.iter().all(|one| one.replay.unwrap().replayed == 0), "{again}");
    let audited = |outcome: &str, more: &str| {
        format!(
            "select count(*) from trading.reconciliations where outcome = '{outcome}' and finished >= started \
             and performed_by = 'a test' and region = '{REGION}' and epoch = 1 and remaining = 0 and {more}"
        )
    };
    assert_eq!(world.number(&audited("repaired", "missing > 0 and replayed > 0")).await, 4);
    assert_eq!(world.number(&audited("clean", "missing = 0 and replayed = 0")).await, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_one_round_of_missing_rows_is_replayed_round_after_round() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let verdict = customer(&world, 600.0, 4).await;
    assert!(verdict.good() && verdict.answered > 2_000, "{verdict:#?}");
    world.nothing_is_on_its_way().await;
    damage(&world, "sent", "delete from trading.sent").await;
    let found = compared(&world).await.boundaries[3].comparison.missing.clone();
    assert!(found.count > 2_000, "{found:?}");
    assert_eq!(found.first.len(), 20);
    let report = replayed(&world).await;
    assert!(report.agrees, "{report}");
    let replay = report.boundaries[3].replay.unwrap();
    assert_eq!((replay.replayed, replay.left), (found.count, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_decision_that_was_told_is_left_to_people() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    damage(&world, "trades", &format!("delete from trading.trades where id = '{IM}-{IM}-{BROKER}-1'")).await;
    let left = replayed(&world).await;
    assert!(!left.agrees, "{left}");
    assert_eq!(counts(&left)[1], [1, 0, 0], "{left}");
    assert!(left.to_string().contains("was paired and told"), "{left}");
    let noted = "select count(*) from trading.reconciliations where job = 'IngressCore' and outcome = 'differences' \
                 and missing = 1 and replayed = 0 and remaining = 1";
    assert_eq!(world.number(noted).await, 1);
    let waiting = "select count(*) from trading.trades where id like '%-1' and status = 'UNMATCHED'";
    assert_eq!(world.number(waiting).await, 0, "it was not decided anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_anything_before_it_is_told_as_ahead() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    damage(&world, "inbound_raw", "delete from trading.inbound_raw where correlation_id like '%-6'").await;
    damage(&world, "nacks", "delete from trading.nacks where id like '%-7'").await;
    let raw = "delete from trading.inbound_raw where correlation_id like '%-7'";
    damage(&world, "inbound_raw", raw).await;
    damage(&world, "ingested", "delete from trading.ingested where id like '%-5'").await;
    damage(&world, "outbox", "delete from trading.outbox where status = 'CANCELLED'").await;
    let invented = "insert into trading.sent (message_id, id, status, body, caused_ms) \
                    values (gen_random_uuid(), 'nobody', 'MATCHED', '{}', 1)";
    damage(&world, "sent", invented).await;
    let report = replayed(&world).await;
    assert!(!report.agrees);
    // The raw message of trade 5 is there, so its replay brings the row back; a cancel without its answer differs.
    assert_eq!(counts(&report), [[0, 1, 0], [0, 1, 1], [0, 1, 0], [0, 1, 0]], "{report}");
    let text = report.to_string();
    assert!(text.contains("MATCHED to nobody was sent and is not in trading.egressed"), "{text}");
    assert!(text.contains("nothing was refused"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_or_status_under_the_same_id_is_told() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    let changes = [
        (
            Job::InboundIngress,
            "ingested",
            "content = replace(content, 'AMZN', 'TSLA') where id like '%-4'",
            2,
        ),
        (Job::InboundIngress, "nacks", "description = 'because' where id like '%-6'", 1),
        (Job::InboundIngress, "nacks", "body = 'other' where id like '%-7'", 1),
        (Job::IngressCore, "trades", "trade = replace(trade, 'AMZN', 'TSLA') where id like '%-5'", 1),
        (Job::IngressCore, "trades", "status = 'MISMATCHED' where status = 'MATCHED' and id like '%-1'", 2),
        (Job::IngressCore, "trades", "status = 'UNMATCHED', counterpart = null where id like '%-2'", 2),
        (Job::IngressCore, "outbox", "body = '{}' where id like '%-7'", 1),
        (Job::CoreEgress, "egressed", "body = replace(body, '18.5', '18.6') where id like '%-1'", 2),
        (Job::CoreEgress, "egressed", "status = 'MATCHED' where id like '%-2'", 2),
        (Job::EgressOutbound, "sent", "body = replace(body, '18.5', '18.6') where id like '%-1'", 2),
        (Job::EgressOutbound, "sent", "status = 'MATCHED' where id like '%-2'", 2),
        (Job::EgressOutbound, "sent", "id = 'nobody' where id like '%-6'", 1),
        (
            Job::EgressOutbound,
            "sent",
            "body = (select body from trading.sent as other where other.id like '%-1' and other.id <> sent.id) \
             where id like '%-1'",
            2,
        ),
    ];
    for (job, table, change, differ) in changes {
        damage(&world, table, &format!("create table kept as select * from trading.{table}")).await;
        damage(&world, table, &format!("update trading.{table} set {change}")).await;
        let report = compared(&world).await;
        let found = counts(&report)[job as usize];
        assert!(!report.agrees);
        assert_eq!(found, [0, 0, differ], "{table} {change}: {report}");
        let overriding = if table == "outbox" { "overriding system value" } else { "" };
        // What the server computes it computes anew.
        let columns = format!(
            "select string_agg(attname, ', ') from pg_attribute \
             where attrelid = 'trading.{table}'::regclass and attnum > 0 and not attisdropped and attgenerated = ''"
        );
        let columns = world.texts(&columns).await.concat();
        let restore = format!(
            "delete from trading.{table}; \
             insert into trading.{table} ({columns}) {overriding} select {columns} from kept; drop table kept"
        );
        damage(&world, table, &restore).await;
    }
    let restored = compared(&world).await;
    assert_eq!(counts(&restored), CLEAN, "{restored}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_younger_than_the_grace_is_under_way_and_what_is_older_is_missing() {
    let world = World::open().await;
    let _inbound = world.stage(StageName::Inbound).await;
    for number in 1..=3 {
        let (id, body) = report(IM, number, "18.5", 1, "Unmatched");
        world.publish(Some(&id), body.as_bytes()).await;
    }
    eventually("inbound has them", async || (world.in_flight().await == 3).then_some(())).await;
    let young = reconcile::run(&plan(&world, 3600, false)).await.unwrap();
    assert!(young.agrees, "{young}");
    assert_eq!(young.boundaries[0].comparison.under_way, 3);
    assert_eq!(counts(&compared(&world).await)[0], [3, 0, 0]);
    // Nobody takes what a replay sends: it says so, and what it put on its way does not count as repaired.
    let mut impatient = plan(&world, 0, true);
    impatient.replay.as_mut().unwrap().wait = Duration::from_secs(1);
    let left = reconcile::run(&impatient).await.unwrap();
    assert!(!left.agrees);
    assert_eq!(left.boundaries[0].replay.unwrap().left, 3, "{left}");

    let mut rest = Vec::new();
    for stage in [StageName::Ingestion, StageName::Core, StageName::Egress, StageName::Outbound] {
        rest.push(world.stage(stage).await);
    }
    world.nothing_is_on_its_way().await;
    assert_eq!(counts(&compared(&world).await), CLEAN);
    damage(&world, "ingested", "delete from trading.ingested").await;
    let mut recent = plan(&world, 0, false);
    recent.window.since = Some(Duration::ZERO);
    let report = reconcile::run(&recent).await.unwrap();
    assert!(report.agrees && report.boundaries[0].comparison.compared == 0, "before the mark: {report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_database_refused_is_set_apart_and_not_missing() {
    let world = World::open().await;
    // A database that is stricter than validation: one trade for each stage.
    let strict = "alter table trading.ingested add check (id not like '%-1');
        alter table trading.trades add check (trade_id <> '2');
        alter table trading.egressed add check (id not like '%-3');
        alter table trading.sent add check (id not like '%-4')";
    world.sql.batch_execute(strict).await.unwrap();
    let _pipeline = world.pipeline().await;
    for number in 1..=5 {
        for sender in [IM, BROKER] {
            send(&world, &report(sender, number, "18.5", 1, "Unmatched")).await;
        }
    }
    world.nothing_is_on_its_way().await;
    let report = compared(&world).await;
    assert_eq!(counts(&report), CLEAN, "{report}");
    assert!(report.boundaries.iter().all(|one| one.comparison.set_apart == 2), "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_gate_refuses_the_replay_and_a_standby_refuses_even_to_look() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    world.fence().await;
    damage(&world, "sent", "delete from trading.sent where status = 'CANCELLED'").await;
    let refused = reconcile::run(&plan(&world, 0, true)).await.unwrap_err();
    assert!(matches!(&refused, ReconcileError::Elsewhere { holder } if holder == "nobody"), "{refused:?}");
    assert_eq!(counts(&compared(&world).await)[3], [1, 0, 0]);
    assert_eq!(world.number("select count(*) from trading.reconciliations").await, 0);

    let standby = support::standby().await;
    let elsewhere = ConnectOptions::new(standby.host(), standby.port(), world.name.as_str(), "trading_core");
    let looking = Plan { database: elsewhere, ..plan(&world, 0, false) };
    let refused = reconcile::run(&looking).await.unwrap_err();
    assert!(matches!(refused, ReconcileError::Standby), "{refused:?}");
}

/// Its mark is older than what is looked at, and so is that of nothing that has been sent.
#[tokio::test(flavor = "multi_thread")]
async fn a_decision_that_the_relay_has_not_sent_is_compared_however_old_it_is() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    world.fence().await;
    let aged = "update trading.outbox set sent_at = sent_at - interval '1 hour'";
    damage(&world, "outbox", aged).await;
    damage(&world, "egressed", "delete from trading.egressed where status = 'MATCHED'").await;
    let mut plan = plan(&world, 0, false);
    plan.jobs = vec![Job::CoreEgress];
    plan.window.since = Some(Duration::from_secs(60));
    assert_eq!(counts(&reconcile::run(&plan).await.unwrap()), [NOTHING], "the relay has sent them");
    let unsent =
        "insert into trading.unsent select seq, caused_ms from trading.outbox where status = 'MATCHED'";
    damage(&world, "unsent", unsent).await;
    assert_eq!(counts(&reconcile::run(&plan).await.unwrap()), [[4, 0, 0]]);
}

/// What is not read is not known; the other boundaries are told all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_boundary_that_cannot_be_read_is_untold_and_never_clean() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    world.sql.batch_execute("revoke select on trading.egressed from trading_core").await.unwrap();
    let report = compared(&world).await;
    assert!(!report.agrees && !report.differs(), "{report}");
    let untold: Vec<Job> = report.untold.iter().map(|one| one.job).collect();
    assert_eq!(
        (report.boundaries.len(), untold),
        (2, vec![Job::CoreEgress, Job::EgressOutbound]),
        "{report}"
    );
    assert!(report.untold[0].reason.contains("permission denied"), "{report}");
    assert_eq!(command(&world, &[]).await, ExitCode::from(3));
    damage(&world, "nacks", "delete from trading.nacks where id like '%-7'").await;
    assert_eq!(command(&world, &[]).await, ExitCode::from(1), "what is known to differ comes first");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_audit_row_cannot_be_written_past_the_guard_or_changed_afterwards() {
    let world = World::open().await;
    let core = region_lease::connect(&support::database_options(&world.name, "trading_core")).await.unwrap();
    let insert = "insert into trading.reconciliations (id, job, performed_by, region, epoch, missing, ahead, differs) \
                  values (gen_random_uuid(), 'IngressCore', 'somebody', 'us-east-1', 1, 0, 0, 0)";
    let refused = core.execute(insert, &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "TR006");
    for rewrite in ["delete from trading.reconciliations", "update trading.reconciliations set missing = 0"] {
        let refused = core.execute(rewrite, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501", "{rewrite}");
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: ReconcileArgs,
}

/// Runs the command as the program does, with core's role and these options more.
async fn command(world: &World, more: &[&str]) -> ExitCode {
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "guest\n").unwrap();
    let server = support::database_options(&world.name, "trading_core");
    let broker = support::broker_url(&world.name);
    let given = [
        "reconcile",
        &format!("--region={REGION}"),
        &format!("--database-host={}", server.host),
        &format!("--database-name={}", server.dbname),
        "--database-user=trading_core",
        &format!("--database-password-file={}", password.display()),
        &format!("--broker-url={broker}"),
        "--broker-user=guest",
        &format!("--broker-password-file={}", password.display()),
        "--grace=0",
        "--output=json",
    ]
    .map(str::to_owned);
    let port = format!("--database-port={}", server.port);
    let port =
        if more.iter().any(|option| option.starts_with("--database-port")) { None } else { Some(port) };
    let more = more.iter().map(|option| (*option).to_owned());
    let all = given.into_iter().chain(port).chain(more);
    reconcile::from_args(None, Command::try_parse_from(all).unwrap().args).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_whether_the_stores_agree_differ_or_could_not_be_compared() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    one_of_every_kind(&world).await;
    assert_eq!(command(&world, &[]).await, ExitCode::SUCCESS);
    damage(&world, "sent", "delete from trading.sent where status = 'CANCELLED'").await;
    assert_eq!(command(&world, &["--job=CoreEgress"]).await, ExitCode::SUCCESS);
    assert_eq!(command(&world, &["--job=EgressOutbound", "--since=1h"]).await, ExitCode::from(1));
    assert_eq!(command(&world, &["--replay"]).await, ExitCode::SUCCESS);
    let by = "select count(*) from trading.reconciliations where performed_by = 'trading_core'";
    assert_eq!(world.number(by).await, 4);
    assert_eq!(command(&world, &["--database-ca-file=/does/not/exist"]).await, ExitCode::from(2));
    // A port that nobody listens on.
    assert_eq!(command(&world, &["--database-port=1"]).await, ExitCode::from(3));
    world.fence().await;
    assert_eq!(command(&world, &["--replay"]).await, ExitCode::from(3));
    assert_eq!(command(&world, &["--replay", "--only-where-active"]).await, ExitCode::SUCCESS);
    assert_eq!(command(&world, &["--database-port=1", "--only-where-active"]).await, ExitCode::from(3));
    assert_eq!(command(&world, &[]).await, ExitCode::SUCCESS);
}
