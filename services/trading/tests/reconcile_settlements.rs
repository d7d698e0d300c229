//! Reconciliation of settlements, within each application and between the two, on real servers: stores are damaged by hand,
//! found, and repaired through the normal path. The names in brackets are faults of the reference that ours must not have.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use jiff::civil::date;
use region_lease::ConnectOptions;
use support::both::{ACCOUNT, Both, THERE, allocated, publish_pair};
use support::reconciling::{
    CLEAN, SETTLEMENT, TRADING, compared, contents, counts, one_of_every_kind, plan, replayed,
};
use support::reports::{BROKER, IM};
use support::stores::damage;
use support::{PATIENCE, REGION, eventually};
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Plan as Customer, Scenario, SharedLedger};
use trading::reconcile::{self, Job, Plan, ReconcileArgs, ReconcileError};
use trading::run::StageName;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_while_settlements_flow_and_nothing_when_they_have_passed() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let scenario = Scenario::new(rand::random(), 0.05, date(2026, 2, 9));
    let customer = Customer { rate: 60.0, duration: Duration::from_secs(5), wait: PATIENCE, scenario };
    let (submit, answers) = (both.trading.target("submit"), both.trading.target("answers"));
    let traffic = generate::run(customer, submit, answers, SharedLedger::default(), CancellationToken::new());
    let traffic = tokio::spawn(traffic);
    let mut looks = 0;
    while !traffic.is_finished() {
        for application in [TRADING, SETTLEMENT] {
            let report = reconcile::run(&plan(&both, application, 30, false)).await.unwrap();
            assert!(report.agrees, "{report}");
            looks += 1;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(looks > 3, "{looks} looks");
    both.assert_conserved().await;
    for application in [TRADING, SETTLEMENT] {
        let report = compared(&both, application).await;
        assert_eq!(counts(&report), CLEAN, "{report}");
        assert!(report.boundaries.iter().all(|one| one.comparison.compared > 100), "{report}");
    }
}

/// Also a refused one is no stone in the way of the others, and what is sent again is what was there: ids, times, status
/// [W19, W21].
#[tokio::test(flavor = "multi_thread")]
async fn what_the_settlement_application_lost_between_its_stages_is_there_once_more() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let there = &both.settlement;
    there.publish_to(THERE, Some(&format!("{IM}-{IM}-{BROKER}-9-1")), b"not a settlement").await;
    let told =
        "select count(*) from trading.outgoing_settlements where status = 'NACK' and sent_at is not null";
    eventually("it is refused", async || (there.number(told).await == 1).then_some(())).await;
    there.nothing_is_on_its_way().await;
    let kept = "select count(*) from trading.returned where code = 'UNKNOWN_SETTLEMENT'";
    eventually("trade matching has the refusal", async || {
        (both.trading.number(kept).await == 1).then_some(())
    })
    .await;
    let before = contents(&both).await;
    damage(there, "ingested", "delete from trading.ingested where id like '%-1-1'").await;
    damage(there, "nacks", "delete from trading.nacks").await;
    // Both of a pair, as in a failover: they were decided in one transaction.
    damage(there, "settlements", "delete from trading.settlements where id like '%-2-2'").await;
    damage(there, "outbox", "delete from trading.outbox where id like '%-2-2'").await;
    damage(
        there,
        "outgoing_settlements",
        "delete from trading.outgoing_settlements where status = 'Mismatched' or id like '%-2-2' or status = 'NACK'",
    )
    .await;
    let found = compared(&both, SETTLEMENT).await;
    // Nobody sent the refused one: trade matching has it, and so far its answer.
    assert_eq!(counts(&found)[..3], [[3, 0, 0], [2, 3, 0], [3, 0, 0]], "{found}");
    let repaired = replayed(&both, SETTLEMENT).await;
    assert_eq!(counts(&repaired), CLEAN, "{repaired}");
    both.settlement.nothing_is_on_its_way().await;
    assert_eq!(contents(&both).await, before);
    let again = replayed(&both, SETTLEMENT).await;
    assert!(again.boundaries.iter().all(|one| one.replay.unwrap().replayed == 0), "{again}");
    let noted = "select count(*) from trading.reconciliations where finished is not null and outcome <> 'differences'";
    assert_eq!(there.number(noted).await, 8);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_trade_matching_lost_of_its_settlements_is_there_once_more() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let before = contents(&both).await;
    let here = &both.trading;
    damage(
        here,
        "outgoing_settlements",
        &format!("delete from trading.outgoing_settlements where id = '{IM}-{IM}-{BROKER}-1-1'"),
    )
    .await;
    damage(here, "returned_ingested", "delete from trading.returned_ingested where id like '%-2-1'").await;
    damage(here, "returned", "delete from trading.returned where id like '%-1-2'").await;
    let found = compared(&both, TRADING).await;
    // What was made and is gone is ahead in the other application; an allocation without what moved it is ahead too.
    assert_eq!(counts(&found), [[1, 0, 0], [2, 0, 0], [2, 4, 0], [0, 1, 0]], "{found}");
    let repaired = replayed(&both, TRADING).await;
    assert_eq!(counts(&repaired), CLEAN, "{repaired}");
    both.nothing_is_on_its_way().await;
    assert_eq!(contents(&both).await, before);
}

/// Into the other application nothing is written: outbound sends the same bytes, which are taken and not refused [W19].
#[tokio::test(flavor = "multi_thread")]
async fn what_the_other_application_lost_is_sent_to_it_again_by_the_one_that_made_it() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let before = contents(&both).await;
    let lost = "delete from trading.inbound_raw where correlation_id like '%-1-1'";
    damage(&both.settlement, "inbound_raw", lost).await;
    let lost = "delete from trading.returned_raw where correlation_id like '%-3-2'";
    damage(&both.trading, "returned_raw", lost).await;
    for (application, other, word) in
        [(TRADING, "settlement", "Unmatched"), (SETTLEMENT, "trade-matching", "Mismatched")]
    {
        let found = compared(&both, application).await;
        assert_eq!(counts(&found)[3], [2, 0, 0], "{found}");
        assert!(found.to_string().contains(&format!(" of {other}")), "{found}");
        assert!(found.to_string().contains(word), "{found}");
        let mut between = plan(&both, application, 0, true);
        between.jobs = vec![Job::between(application)];
        let repaired = reconcile::run(&between).await.unwrap();
        assert!(repaired.agrees, "{repaired}");
        let replay = repaired.boundaries[0].replay.unwrap();
        assert_eq!((replay.found, replay.replayed, replay.left), (2, 2, 0), "{repaired}");
    }
    both.nothing_is_on_its_way().await;
    assert_eq!(contents(&both).await, before);
    assert_eq!(both.settlement.number("select count(*) from trading.nacks").await, 0);
    for application in [TRADING, SETTLEMENT] {
        let report = compared(&both, application).await;
        assert_eq!(counts(&report), CLEAN, "{report}");
    }
    for world in [&both.trading, &both.settlement] {
        let noted = "select count(*) from trading.reconciliations \
            where outcome = 'repaired' and missing = 2 and replayed = 2 and remaining = 0";
        assert_eq!(world.number(noted).await, 1);
    }
}

/// Whichever application lost its last transactions, what the other one has and it has not is told [W18].
#[tokio::test(flavor = "multi_thread")]
async fn the_other_application_ahead_of_the_one_that_made_it_is_told() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let lost = "delete from trading.outgoing_settlements where id like '%-1-1'";
    damage(&both.trading, "outgoing_settlements", lost).await;
    damage(&both.settlement, "outgoing_settlements", lost).await;
    let nobodys = allocated(IM, 1, ACCOUNT).0;
    let invented = format!(
        "insert into trading.returned_raw (record, correlation_id, received_ms, body) \
         values (gen_random_uuid(), '{nobodys}-7', 1, 'by nobody')"
    );
    damage(&both.trading, "returned_raw", &invented).await;
    let report = compared(&both, TRADING).await;
    assert_eq!(counts(&report)[3], [0, 2, 0], "{report}");
    assert!(report.to_string().contains("trading.inbound_raw of settlement and was not made"), "{report}");
    let report = compared(&both, SETTLEMENT).await;
    assert_eq!(counts(&report)[3], [0, 3, 0], "{report}");
    assert!(report.to_string().contains("returned_raw of trade-matching and was not made"), "{report}");
}

/// Whose database, whose reconciliation tells it, at which of its boundaries, the table, the change, how many differ then.
const CHANGES: &str = "\
TM|TM|0|outgoing_settlements|status = 'Settled' where id like '%-1-1'|2
TM|TM|1|returned_ingested|content = replace(content, 'AMZN', 'TSLA') where id like '%-1-1'|2
TM|TM|2|returned|content = replace(content, 'AMZN', 'TSLA') where id like '%-1-1'|2
TM|TM|2|allocations|status = 'MISMATCHED' where trade like '%-1' and allocation_id = 1|4
TM|TM|2|trades|status = 'MATCHED' where id like '%-2'|2
ST|ST|0|ingested|content = replace(content, 'AMZN', 'TSLA') where id like '%-1-1'|2
ST|ST|1|settlements|settlement = replace(settlement, 'AMZN', 'TSLA') where id like '%-1-1'|2
ST|ST|1|settlements|status = 'MISMATCHED' where id like '%-2-1'|2
ST|ST|2|outgoing_settlements|body = replace(body, '18.5', '18.6') where id like '%-1-1'|2
ST|TM|3|inbound_raw|body = convert_to(replace(convert_from(body, 'UTF8'), '18.5', '18.6'), 'UTF8') where correlation_id like '%-1-1'|2
TM|TM|3|outgoing_settlements|body = replace(body, '18.5', '18.6') where id like '%-2-2'|2
TM|ST|3|returned_raw|body = convert_to(replace(convert_from(body, 'UTF8'), 'Settled', 'Mismatched'), 'UTF8') where correlation_id like '%-1-1'|2";

/// Puts the rows of table `kept` back.
fn restored(table: &str) -> String {
    let all = format!("delete from trading.{table}; insert into trading.{table}");
    match table {
        // Trades have rows that refer to them.
        "trades" => "update trading.trades set status = kept.status from kept \
            where kept.trade_date = trades.trade_date and kept.id = trades.id; drop table kept"
            .to_owned(),
        "outgoing_settlements" => {
            format!("{all} overriding system value select * from kept; drop table kept")
        }
        _ => format!("{all} select * from kept; drop table kept"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_content_or_status_of_a_settlement_is_told() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    for line in CHANGES.lines() {
        let [whose, told_by, boundary, table, change, differ] =
            line.split('|').collect::<Vec<_>>().try_into().unwrap();
        let world = if whose == "TM" { &both.trading } else { &both.settlement };
        let application = if told_by == "TM" { TRADING } else { SETTLEMENT };
        damage(world, table, &format!("create table kept as select * from trading.{table}")).await;
        damage(world, table, &format!("update trading.{table} set {change}")).await;
        let report = compared(&both, application).await;
        assert!(!report.agrees, "{line}");
        let [missing, _, different] = counts(&report)[boundary.parse::<usize>().unwrap()];
        assert_eq!((missing, different.to_string().as_str()), (0, differ), "{line}: {report}");
        damage(world, table, &restored(table)).await;
    }
    for application in [TRADING, SETTLEMENT] {
        let report = compared(&both, application).await;
        assert_eq!(counts(&report), CLEAN, "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_will_be_sent_again_by_itself_is_on_its_way_and_what_will_not_be_is_missing_and_made_due() {
    let both = Both::start().await;
    let mut processes = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion, StageName::Core, StageName::Egress] {
        processes.push(both.trading.stage(stage).await);
    }
    publish_pair(&both.trading, 1).await;
    let made = "select count(*) from trading.outgoing_settlements";
    eventually("settlements are made", async || (both.trading.number(made).await == 4).then_some(())).await;
    let mut between = plan(&both, TRADING, 0, false);
    between.jobs = vec![Job::OutboundSettlementInbound];
    let unsent = reconcile::run(&between).await.unwrap();
    assert!(unsent.agrees && unsent.boundaries[0].comparison.under_way == 4, "{unsent}");

    let outbound = both.trading.stage(StageName::Outbound).await;
    let sent = "select count(*) from trading.outgoing_settlements where sent_at is not null";
    eventually("they are sent", async || (both.trading.number(sent).await == 4).then_some(())).await;
    outbound.kill();
    eventually("they are lost", async || (both.settlement.purge(THERE).await > 0).then_some(())).await;
    let waiting = reconcile::run(&between).await.unwrap();
    assert!(waiting.agrees && waiting.boundaries[0].comparison.under_way == 4, "{waiting}");
    let late = "update trading.unreturned set due = due - interval '2 hours'";
    damage(&both.trading, "unreturned", late).await;
    let late = reconcile::run(&between).await.unwrap();
    assert_eq!(counts(&late), [[4, 0, 0]], "{late}");
    assert!(late.to_string().contains("although it was or will be sent again"), "{late}");
    let exhausted = "update trading.unreturned set due = null, attempts = 13";
    damage(&both.trading, "unreturned", exhausted).await;
    let exhausted = reconcile::run(&between).await.unwrap();
    assert_eq!(counts(&exhausted), [[4, 0, 0]], "{exhausted}");
    assert!(exhausted.to_string().contains("will not be sent again by itself"), "{exhausted}");

    processes.push(both.trading.stage(StageName::Outbound).await);
    processes.extend(both.settlement.pipeline().await);
    between.replay = plan(&both, TRADING, 0, true).replay;
    let repaired = reconcile::run(&between).await.unwrap();
    assert!(repaired.agrees, "{repaired}");
    let settled = "select count(*) from trading.trades where status = 'SETTLED'";
    eventually("they settle", async || (both.trading.number(settled).await == 2).then_some(())).await;
    assert_eq!(both.trading.number("select count(*) from trading.unreturned").await, 0);
}

/// What is not known to be the store that counts is no store to compare with.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_or_a_database_whose_region_does_not_hold_the_lease_is_compared_with_nothing() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let standby = support::standby().await;
    let at = |name: &str, role: &str| ConnectOptions::new(standby.host(), standby.port(), name, role);
    let mut own = plan(&both, TRADING, 0, false);
    own.jobs = vec![Job::OutboundSettlementInbound];
    let mut peer = own.clone();
    own.database = at(&both.trading.name, "trading_core");
    let refused = reconcile::run(&own).await.unwrap_err();
    assert!(matches!(refused, ReconcileError::Standby), "{refused:?}");

    peer.jobs = plan(&both, TRADING, 0, false).jobs;
    peer.peer.as_mut().unwrap().database = at(&both.settlement.name, "trading_peer");
    let untold = async |plan: &Plan, why: &str| {
        let report = reconcile::run(plan).await.unwrap();
        assert!(!report.agrees && !report.differs(), "{report}");
        assert_eq!(report.boundaries.len(), 3, "the others are told: {report}");
        assert!(report.untold[0].reason.contains(why), "{report}");
    };
    untold(&peer, "it is a standby").await;
    let nowhere = ConnectOptions::new("127.0.0.1", 1, both.settlement.name.as_str(), "trading_peer");
    peer.peer.as_mut().unwrap().database = nowhere;
    untold(&peer, "could not be asked").await;
    both.settlement.fence().await;
    untold(&plan(&both, TRADING, 0, false), "nobody holds the lease").await;
    untold(&plan(&both, SETTLEMENT, 0, false), "nobody holds the lease").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_role_for_the_other_application_reads_what_a_comparison_needs_and_writes_nothing() {
    let both = Both::start().await;
    for (world, readable) in [
        (&both.settlement, &["inbound_raw"][..]),
        (&both.trading, &["outgoing_settlements", "returned_raw", "unreturned"][..]),
    ] {
        let options = support::database_options(&world.name, "trading_peer");
        let role = region_lease::connect(&options).await.unwrap();
        let tables = world
            .texts("select relname::text from pg_class where relnamespace = 'trading'::regnamespace and relkind in ('r', 'p', 'v') \
                    and has_any_column_privilege('trading_peer', oid, 'select')")
            .await;
        let expected: Vec<&str> = [readable, &["kept", "quarantine"][..]].concat();
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        expected.sort();
        assert_eq!(tables, expected);
        let writable = "select count(*) from pg_tables where schemaname in ('trading', 'region') and \
            (has_table_privilege('trading_peer', schemaname || '.' || tablename, 'insert, update, delete, truncate') \
             or has_any_column_privilege('trading_peer', schemaname || '.' || tablename, 'insert, update'))";
        assert_eq!(world.number(writable).await, 0);
        let refused = role.execute("delete from trading.quarantine", &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), "42501");
    }
}

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    args: ReconcileArgs,
}

/// A run that could not compare says so: the reference ends with 0 whatever happened [W19].
#[tokio::test(flavor = "multi_thread")]
async fn the_exit_code_says_whether_the_two_applications_agree_differ_or_could_not_be_compared() {
    let both = Both::start().await;
    let _pipelines = one_of_every_kind(&both).await;
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("password");
    std::fs::write(&password, "guest\n").unwrap();
    let server = support::database_options(&both.settlement.name, "trading_core");
    let run = async |more: &[&str]| {
        let given = [
            "reconcile".to_owned(),
            "--app=settlement".to_owned(),
            format!("--region={REGION}"),
            format!("--database-host={}", server.host),
            format!("--database-port={}", server.port),
            format!("--database-name={}", server.dbname),
            "--database-user=trading_core".to_owned(),
            format!("--database-password-file={}", password.display()),
            format!("--peer-database-host={}", server.host),
            format!("--peer-database-name={}", both.trading.name),
            format!("--peer-database-password-file={}", password.display()),
            "--grace=0".to_owned(),
        ];
        let all = given.into_iter().chain(more.iter().map(|option| (*option).to_owned()));
        reconcile::from_args(None, Command::try_parse_from(all).unwrap().args).await
    };
    let port = format!("--peer-database-port={}", server.port);
    assert_eq!(run(&[&port]).await, ExitCode::SUCCESS);
    assert_eq!(run(&["--peer-database-port=1"]).await, ExitCode::from(3));
    assert_eq!(run(&[&port, "--job=CoreEgress"]).await, ExitCode::from(2));
    let lost = "delete from trading.returned_raw where correlation_id like '%-1-1'";
    damage(&both.trading, "returned_raw", lost).await;
    assert_eq!(run(&[&port]).await, ExitCode::from(1));
    assert_eq!(run(&[&port, "--job=SettlementCoreEgress"]).await, ExitCode::SUCCESS);
}
