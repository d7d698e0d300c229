//! Trade matching and the settlement application together, on real servers, judged by the customer's own books and by what
//! each stage has stored. The names in brackets are faults of the reference that ours must not have.

#![allow(clippy::panic, clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use std::sync::Mutex;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use jiff::civil::date;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use support::both::{ACCOUNT, BACK, Both, THERE, allocated, carry, publish_pair};
use support::reports::{BROKER, IM};
use support::{APP, PATIENCE, Process, REGION, World, eventually};
use tokio_util::sync::CancellationToken;
use trading::generate::{self, Answer, Ledger, Mix, Plan, Scenario, SharedLedger, Verdict};
use trading::message::Response;
use trading::names::{self, Application};
use trading::reconcile::{self, Boundary, Job, Window};
use trading::run::StageName;

/// Runs the customer until everything is answered.
async fn customer(world: &World, ledger: &SharedLedger, rate: f64, seconds: u64, bad_share: f64) -> Verdict {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let scenario = Scenario::new(seed, bad_share, date(2026, 2, 9));
    let plan = Plan { rate, duration: Duration::from_secs(seconds), wait: PATIENCE, scenario };
    let (submit, answers) = (world.target("submit"), world.target("answers"));
    generate::run(plan, submit, answers, ledger.clone(), CancellationToken::new()).await
}

/// Enters what is left in the customers' queue into the customer's books, until they hold as many answers as were sent.
async fn read_the_rest(world: &World, ledger: &SharedLedger) -> Verdict {
    let connection = support::connected(&world.name, "answers").await;
    let channel = connection.create_channel().await.unwrap();
    let options = BasicConsumeOptions::default();
    let mut answers =
        channel.basic_consume(names::OUT.into(), "".into(), options, FieldTable::default()).await.unwrap();
    let sent = u64::try_from(world.number("select count(*) from trading.sent").await).unwrap();
    loop {
        let verdict = ledger.lock().unwrap().verdict(Timestamp::UNIX_EPOCH);
        if verdict.statuses.values().sum::<u64>() >= sent {
            return verdict;
        }
        let next = tokio::time::timeout(PATIENCE, answers.next()).await;
        let delivery = next.unwrap_or_else(|_| panic!("of {sent} only {verdict:#?}")).unwrap().unwrap();
        let response: Response = serde_json::from_slice(&delivery.data).unwrap();
        let message_id = delivery.properties.message_id().as_ref().unwrap().as_str();
        let answer = Answer {
            id: &response.id,
            status: &response.status,
            message_id,
            body: &delivery.data,
            epoch: None,
        };
        ledger.lock().unwrap().answered(answer, Timestamp::UNIX_EPOCH);
        delivery.ack(BasicAckOptions::default()).await.unwrap();
    }
}

/// Waits until so many settlements were made to be sent.
async fn made(world: &World, settlements: i64) {
    let made = "select count(*) from trading.outgoing_settlements";
    eventually("settlements to be made", async || (world.number(made).await == settlements).then_some(()))
        .await;
}

/// Every trade that was matched is settled, and the customer was told both, once.
async fn assert_all_settled(both: &Both, ledger: &SharedLedger) {
    both.assert_conserved().await;
    let verdict = read_the_rest(&both.trading, ledger).await;
    assert!(verdict.good(), "{verdict:#?}");
    assert_eq!((verdict.answered, verdict.unknown), (verdict.sent, 0), "{verdict:#?}");
    assert!(verdict.statuses["MATCHED"] > 20, "{verdict:#?}");
    assert_eq!(verdict.statuses["MATCHED"], verdict.statuses["SETTLED"], "{verdict:#?}");
    let open = "select count(*) from trading.settlements where status <> 'SETTLED'";
    assert_eq!(both.settlement.number(open).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trades_that_match_are_settled_and_the_customer_is_told_of_both_once() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let ledger = SharedLedger::default();
    customer(&both.trading, &ledger, 100.0, 4, 0.05).await;
    assert_all_settled(&both, &ledger).await;
    // Prices keep their digits on the way there and back [W24].
    let prices = "select count(*) from trading.returned r join trading.trades t on t.id = r.trade \
        and t.trade_date = r.trade_date \
        where (r.content::jsonb -> 'Settlement' -> 'settlement' ->> 'price')::numeric is distinct from t.price";
    assert_eq!(both.trading.number(prices).await, 0);
    // That a trade was told twice of is no finding of a reconciliation.
    let plan = reconcile::Plan {
        application: Application::TradeMatching,
        app: APP.into(),
        region: REGION.into(),
        database: support::database_options(&both.trading.name, "trading_core"),
        jobs: Job::TRADES.to_vec(),
        peer: None,
        window: Window { since: None, grace: Duration::ZERO },
        resend_after: Duration::from_secs(600),
        replay: None,
    };
    let report = reconcile::run(&plan).await.unwrap();
    assert!(report.boundaries.iter().all(Boundary::agrees), "{report:#?}");
}

/// How often sessions that have ended looked at a table.
async fn looks_at(world: &World, table: &str) -> i64 {
    let looks =
        "select seq_scan + idx_scan from pg_stat_user_tables where schemaname = 'trading' and relname";
    world.number(&format!("{looks} = '{table}'")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_settlements_a_matched_trade_stays_matched_and_nothing_is_made() {
    let world = World::open().await;
    // Making indexes was to look at the tables.
    let migrated = async || (looks_at(&world, "returned").await > 0).then_some(());
    eventually("the migrator's session ends", migrated).await;
    let before = (looks_at(&world, "trades").await, looks_at(&world, "returned").await);
    let pipeline = world.pipeline().await;
    publish_pair(&world, 1).await;
    let answers = world.answers(2).await;
    assert!(answers.values().all(|answer| answer.status == "MATCHED"), "{answers:?}");
    world.nothing_is_on_its_way().await;
    assert_eq!(world.number("select count(*) from trading.outgoing_settlements").await, 0);
    drop(pipeline);
    // A session that has ended has told what it read.
    let sessions = "select count(*) from pg_stat_activity where usename = 'trading_core' and datname = current_database()";
    eventually("core's sessions end", async || (world.number(sessions).await == 0).then_some(())).await;
    assert!(looks_at(&world, "trades").await > before.0);
    assert_eq!(looks_at(&world, "returned").await, before.1, "nobody asks for what came back");
}

/// Runs a customer with `--settled`, who waits at most so long for what is due at the end.
async fn demanding_customer(world: &World, wait: Duration) -> Verdict {
    let seed = rand::random();
    eprintln!("seed {seed}");
    let odds = "matched,mismatched,unmatched,amended,cancelled".parse().unwrap();
    let bad = "truncated,no-allocations,null-instructions,no-correlation-id".parse().unwrap();
    let scenario = Scenario::new(seed, 0.3, date(2026, 2, 9)).with(Mix { odds, bad, ..Mix::default() });
    let plan = Plan { rate: 100.0, duration: Duration::from_secs(4), wait, scenario };
    let (submit, answers) = (world.target("submit"), world.target("answers"));
    let ledger = SharedLedger::new(Mutex::new(Ledger::demanding_settled()));
    generate::run(plan, submit, answers, ledger, CancellationToken::new()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_who_demands_that_trades_are_settled_waits_for_it_and_is_content() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let verdict = demanding_customer(&both.trading, PATIENCE).await;
    let told = verdict.settlement.clone().unwrap();
    assert!(verdict.good() && told.settled > 50 && told.stay_matched > 0, "{verdict:#?}");
    assert_eq!(verdict.statuses["SETTLED"], told.settled);
    assert_eq!(verdict.statuses["MATCHED"], told.settled + told.stay_matched, "{verdict:#?}");
    assert_eq!(verdict.sent, verdict.answered + verdict.details.not_owed, "{verdict:#?}");
    let (matched, settled) = (verdict.details.latency, told.settled_latency);
    assert!(settled.count > 20 && settled.count < matched.count && settled.p50 > 0.0, "{verdict:#?}");
    let stored = "select count(*) from trading.trades where status = 'SETTLED'";
    assert_eq!(u64::try_from(both.trading.number(stored).await).unwrap(), told.settled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_who_demands_that_trades_are_settled_says_that_none_is_where_settlement_does_not_run() {
    /// All of it passes, because the last answer never comes.
    const WAIT: Duration = Duration::from_secs(30);
    let both = Both::start().await;
    let _trading = both.trading.pipeline().await;
    let verdict = demanding_customer(&both.trading, WAIT).await;
    let told = verdict.settlement.clone().unwrap();
    assert!(!verdict.good() && told.settled == 0 && told.unsettled > 50, "{verdict:#?}");
    assert_eq!(verdict.statuses["MATCHED"], told.unsettled + told.stay_matched, "{verdict:#?}");
    assert_eq!((verdict.lost, verdict.doubled, verdict.details.unexpected), (0, 0, 0), "{verdict:#?}");
    let text = verdict.to_string();
    assert!(text.contains(&format!("unsettled    {:>9} ", told.unsettled)), "{text}");
    assert!(text.ends_with("NOT GOOD"), "{text}");
}

/// Two instances of each stage of the settlement application, so that both sides of a pair often come at once [W16].
#[tokio::test(flavor = "multi_thread")]
async fn settlements_of_both_sides_at_once_on_two_instances_always_meet() {
    let both = Both::start().await;
    let mut pipelines = both.pipelines().await;
    pipelines.extend(both.settlement.pipeline().await);
    let ledger = SharedLedger::default();
    customer(&both.trading, &ledger, 200.0, 3, 0.0).await;
    assert_all_settled(&both, &ledger).await;
    let alone = "select count(*) from trading.settlements one where not exists ( \
        select from trading.settlements other where other.id = one.counterpart \
          and other.trade_date = one.trade_date and other.counterpart = one.id and other.status = one.status)";
    assert_eq!(both.settlement.number(alone).await, 0, "pairs point at each other");
}

/// A crash between any two steps repeats a batch and neither forgets nor doubles what follows from it [W13, W14, W15].
#[tokio::test(flavor = "multi_thread")]
async fn killing_any_stage_of_either_application_loses_and_doubles_nothing() {
    let both = Both::start().await;
    let ledger = SharedLedger::default();
    let kills = async {
        let others = both.pipelines().await;
        for world in [&both.trading, &both.settlement] {
            for stage in StageName::ALL {
                let process = world.stage(stage).await;
                let rows = "select count(*) from trading.inbound_raw";
                let before = world.number(rows).await;
                eventually("messages move on", async || {
                    (world.number(rows).await > before + 15).then_some(())
                })
                .await;
                process.kill();
            }
        }
        others.into_iter().for_each(Process::kill);
        both.pipelines().await
    };
    let (_, _pipelines) = tokio::join!(customer(&both.trading, &ledger, 60.0, 12, 0.05), kills);
    assert_all_settled(&both, &ledger).await;
}

/// Every settlement and every returned one comes twice, the broker's before the manager's, the last allocation first; and
/// the same once more in other words [W17].
#[tokio::test(flavor = "multi_thread")]
async fn order_and_repetitions_of_settlements_change_nothing() {
    let mut both = Both::start().await;
    both.gateway.close().await;
    let _trading = both.trading.pipeline().await;
    let mut settlement = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion, StageName::Core, StageName::Egress] {
        settlement.push(both.settlement.stage(stage).await);
    }
    for number in 1..=3 {
        publish_pair(&both.trading, number).await;
    }
    made(&both.trading, 12).await;
    both.trading.nothing_is_on_its_way().await;
    let brokers_first =
        "select id, body from trading.outgoing_settlements order by id collate \"C\", seq desc";
    for _ in 0..2 {
        assert_eq!(carry(&both.trading, brokers_first, &both.settlement, THERE).await, 12);
    }
    let in_other_words = "select id, replace(body, ',', ', ') as body from trading.outgoing_settlements";
    carry(&both.trading, in_other_words, &both.settlement, THERE).await;
    let decided = "select count(*) from trading.inbound_raw";
    eventually("all were taken", async || (both.settlement.number(decided).await == 24).then_some(())).await;
    both.settlement.nothing_is_on_its_way().await;
    assert_eq!(both.settlement.number("select count(*) from trading.outgoing_settlements").await, 12);

    let last_first = "select id, body from trading.outgoing_settlements order by id collate \"C\" desc";
    for _ in 0..2 {
        assert_eq!(carry(&both.settlement, last_first, &both.trading, BACK).await, 12);
    }
    let again = "select id, replace(body, ',', ', ') as body from trading.outgoing_settlements";
    carry(&both.settlement, again, &both.trading, BACK).await;
    let looked = "select count(*) from trading.returned";
    eventually("all came back", async || (both.trading.number(looked).await == 24).then_some(())).await;
    both.trading.nothing_is_on_its_way().await;
    let told = "select id || ' ' || status from trading.sent";
    let mut expected = Vec::new();
    for sender in [BROKER, IM] {
        for number in 1..=3 {
            expected
                .extend(["MATCHED", "SETTLED"].map(|word| format!("{sender}-{IM}-{BROKER}-{number} {word}")));
        }
    }
    assert_eq!(both.trading.texts(told).await, expected);
    assert_eq!(both.trading.number("select count(*) from trading.returned where code is not null").await, 0);
}

/// Whoever sends a round again because no confirm came has each message in the queue twice, one behind the other.
#[tokio::test(flavor = "multi_thread")]
async fn settlements_that_come_back_twice_in_one_batch_count_once() {
    let mut both = Both::start().await;
    both.gateway.close().await;
    let mut processes = Vec::new();
    for stage in [StageName::Ingestion, StageName::Core, StageName::Egress] {
        processes.push(both.trading.stage(stage).await);
        processes.push(both.settlement.stage(stage).await);
    }
    processes.push(both.trading.stage(StageName::Outbound).await);
    processes.push(both.settlement.stage(StageName::Inbound).await);
    let inbound = both.trading.stage(StageName::Inbound).await;
    publish_pair(&both.trading, 1).await;
    made(&both.trading, 4).await;
    inbound.kill();
    let all = "select id, body from trading.outgoing_settlements order by id";
    assert_eq!(carry(&both.trading, all, &both.settlement, THERE).await, 4);
    made(&both.settlement, 4).await;
    let twice = "select id, body from trading.outgoing_settlements, (values (1), (2)) as copies order by id";
    assert_eq!(carry(&both.settlement, twice, &both.trading, BACK).await, 8);
    processes.push(both.trading.stage(StageName::Inbound).await);
    let settled = "select count(*) from trading.sent where status = 'SETTLED'";
    eventually("both sides are settled", async || (both.trading.number(settled).await == 2).then_some(()))
        .await;
    for nothing in ["returned_pending", "unreturned", "quarantine"] {
        assert_eq!(
            both.trading.number(&format!("select count(*) from trading.{nothing}")).await,
            0,
            "{nothing}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_allocation_on_which_the_parties_differ_is_mismatched_and_its_trade_stays_matched() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    for (sender, account) in [(IM, ACCOUNT), (BROKER, "0000000001")] {
        let (id, body) = allocated(sender, 7, account);
        both.trading.publish(Some(&id), body.as_bytes()).await;
    }
    let allocations = "select count(*) from trading.allocations";
    eventually("all came back", async || (both.trading.number(allocations).await == 4).then_some(())).await;
    both.assert_conserved().await;
    let statuses = both
        .trading
        .texts("select trade || '-' || allocation_id || ' ' || status from trading.allocations")
        .await;
    let expected = [BROKER, IM].map(|sender| {
        [(1, "SETTLED"), (2, "MISMATCHED")]
            .map(|(number, status)| format!("{sender}-{IM}-{BROKER}-7-{number} {status}"))
    });
    assert_eq!(statuses, expected.concat());
    assert_eq!(both.trading.texts("select distinct status from trading.trades").await, ["MATCHED"]);
    assert_eq!(both.trading.texts("select distinct status from trading.sent").await, ["MATCHED"]);
    let why =
        both.settlement.texts("select body::jsonb -> 'Told' ->> 'description' from trading.outbox").await;
    let differs = "MISMATCHED: ACCOUNT_DIFFERS";
    assert_eq!(why.iter().filter(|description| *description == differs).count(), 2, "{why:?}");
}

/// Neither application waits for the other, and the drain of neither does [W30].
#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_settlement_broker_delays_no_answer_and_settlements_catch_up_later() {
    let mut both = Both::start().await;
    let pipelines = both.pipelines().await;
    publish_pair(&both.trading, 1).await;
    let settled = "select count(*) from trading.sent where status = 'SETTLED'";
    eventually("settlements flow", async || (both.trading.number(settled).await == 2).then_some(())).await;
    both.gateway.close().await;
    let ledger = SharedLedger::default();
    let verdict = customer(&both.trading, &ledger, 150.0, 2, 0.0).await;
    assert_eq!((verdict.lost, verdict.answered), (0, verdict.sent), "{verdict:#?}");
    both.trading.nothing_is_on_its_way().await;
    let unsent = "select count(*) from trading.outgoing_settlements where sent_at is null";
    assert!(both.trading.number(unsent).await > 20, "they wait");
    assert_eq!(both.trading.number(settled).await, 2);
    let core = pipelines[StageName::Core as usize].http;
    let (_, backlog) = support::http(core, "GET", "/backlog", "", "").await;
    let backlog: serde_json::Value = serde_json::from_str(&backlog).unwrap();
    assert_eq!((&backlog["total"], &backlog["oldestSeconds"]), (&0.into(), &serde_json::Value::Null));
    eventually("the metrics tell what waits", async || {
        let (_, metrics) = support::http(core, "GET", "/metrics", "", "").await;
        let name = "services_backlog_records{stage=\"core\",part=\"settlements\"} ";
        let waits = metrics.lines().find_map(|line| line.strip_prefix(name))?;
        waits.parse::<f64>().ok().filter(|records| *records > 20.0)
    })
    .await;
    both.gateway.open().await;
    eventually("settlements catch up", async || (both.trading.number(unsent).await == 0).then_some(())).await;
    both.assert_conserved().await;
    let stays = "select count(*) from trading.trades where status = 'MATCHED'";
    assert_eq!(both.trading.number(stays).await, 0);
}

/// Loses what is in a queue, once it is there.
async fn lose(world: &World, queue: &str) {
    eventually("something to lose", async || (world.purge(queue).await > 0).then_some(())).await;
}

/// What a lost broker held is in the databases, and both applications send it again after a grant [W12].
#[tokio::test(flavor = "multi_thread")]
async fn what_was_lost_between_the_stages_is_replayed_in_both_applications_after_a_grant() {
    let both = Both::start().await;
    let _trading = both.trading.pipeline().await;
    let inbound = both.settlement.stage(StageName::Inbound).await;
    publish_pair(&both.trading, 1).await;
    let taken = async || (both.settlement.in_flight().await == 4).then_some(());
    eventually("all settlements are stored", taken).await;
    inbound.kill();
    let epoch = both.settlement.fence().await;
    lose(&both.settlement, names::SETTLEMENT_INGESTION).await;
    let core = both.settlement.stage(StageName::Core).await;
    let mut settlement = Vec::new();
    for stage in [StageName::Ingestion, StageName::Egress, StageName::Outbound, StageName::Inbound] {
        settlement.push(both.settlement.stage(stage).await);
    }
    both.settlement.grant(epoch, epoch + 2).await;
    let (status, answer) = both.settlement.hook(&core, "after-grant", epoch + 2).await;
    assert_eq!((status, &answer["did"]["replayed"]["to_ingestion"]), (200, &4.into()), "{answer}");
    let (status, answer) = both.settlement.hook(&core, "probe", epoch + 2).await;
    let passed = serde_json::json!(["inbound", "ingestion", "core", "egress", "outbound"]);
    assert_eq!((status, &answer["did"]["stages"]), (200, &passed), "{answer}");
    both.assert_conserved().await;
    assert_eq!(both.trading.texts("select distinct status from trading.trades").await, ["SETTLED"]);
}

/// Neither application can tell what the other one's broker held when it was lost: who waits for an answer sends again,
/// and who has answered before answers again [W12].
#[tokio::test(flavor = "multi_thread")]
async fn settlements_that_a_broker_lost_on_the_way_there_or_back_are_sent_again() {
    let mut both = Both::start().await;
    both.trading.resend_after = Duration::from_secs(1);
    let mut processes = Vec::new();
    for stage in [StageName::Ingestion, StageName::Core, StageName::Egress, StageName::Outbound] {
        processes.push(both.trading.stage(stage).await);
        processes.push(both.settlement.stage(stage).await);
    }
    let inbound = both.trading.stage(StageName::Inbound).await;
    publish_pair(&both.trading, 1).await;
    let made = "select count(*) from trading.outgoing_settlements where sent_at is not null";
    eventually("all were sent", async || (both.trading.number(made).await == 4).then_some(())).await;
    inbound.kill();
    let again = "select count(*) from trading.unreturned where attempts > 1";
    lose(&both.settlement, THERE).await;
    processes.push(both.settlement.stage(StageName::Inbound).await);
    eventually("sent again", async || (both.trading.number(again).await == 4).then_some(())).await;
    eventually("answered", async || (both.settlement.number(made).await == 4).then_some(())).await;
    lose(&both.trading, BACK).await;
    processes.push(both.trading.stage(StageName::Inbound).await);
    let settled = "select count(*) from trading.trades where status = 'SETTLED'";
    eventually("settled", async || (both.trading.number(settled).await == 2).then_some(())).await;
    both.assert_conserved().await;
    assert_eq!(both.trading.number("select count(*) from trading.unreturned").await, 0);
    assert_eq!(both.settlement.number("select count(*) from trading.conflicts").await, 0);
}

/// What came back and was lost between the stages of trade matching is not forgotten either.
#[tokio::test(flavor = "multi_thread")]
async fn settlements_that_came_back_and_were_lost_are_replayed_after_a_grant() {
    let both = Both::start().await;
    let mut others = both.settlement.pipeline().await;
    for stage in [StageName::Inbound, StageName::Core, StageName::Egress, StageName::Outbound] {
        others.push(both.trading.stage(stage).await);
    }
    let ingestion = both.trading.stage(StageName::Ingestion).await;
    publish_pair(&both.trading, 1).await;
    let made = "select count(*) from trading.outgoing_settlements";
    eventually("the trade is matched", async || (both.trading.number(made).await == 4).then_some(())).await;
    let pending = "select count(*) from trading.returned_pending";
    let settled = "select count(*) from trading.trades where status = 'SETTLED'";
    eventually("it is settled", async || (both.trading.number(settled).await == 2).then_some(())).await;
    ingestion.kill();
    publish_pair(&both.trading, 2).await;
    // Only ingestion is missing, so the second trade gets no further: settlements for it are made up by hand.
    let by_hand = "select replace(id, '-1-', '-2-') as id, \
        replace(replace(body, '\"tradeID\":\"1\"', '\"tradeID\":\"2\"'), 'QABRO010-1-', 'QABRO010-2-') as body \
        from trading.outgoing_settlements";
    assert_eq!(carry(&both.settlement, by_hand, &both.trading, BACK).await, 4);
    eventually("they are stored", async || (both.trading.number(pending).await == 4).then_some(())).await;
    let epoch = both.trading.fence().await;
    lose(&both.trading, names::RETURNED_INGESTION).await;
    lose(&both.trading, names::INGESTION).await;
    others.push(both.trading.stage(StageName::Ingestion).await);
    both.trading.grant(epoch, epoch + 2).await;
    let core = both.trading.stage(StageName::Core).await;
    let (status, answer) = both.trading.hook(&core, "after-grant", epoch + 2).await;
    assert_eq!((status, &answer["did"]["replayed"]["to_ingestion"]), (200, &6.into()), "{answer}");
    eventually("both are settled", async || (both.trading.number(settled).await == 4).then_some(())).await;
}
