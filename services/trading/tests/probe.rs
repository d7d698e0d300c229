//! The probe of a switch, in either application on real servers: it passes all five stages under the present epoch, counts as
//! business nowhere, and reaches nobody else.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use serde_json::json;
use support::both::{BACK, Both};
use support::reconciling::{SETTLEMENT, TRADING, compared, one_of_every_kind};
use support::stores::damage;
use support::{Process, World, broker_config_at, eventually};
use trading::run::{Settlements, StageName};

const STAGES: [&str; 5] = ["inbound", "ingestion", "core", "egress", "outbound"];

/// What every table has, and the reports by status. The tables that are left out say nothing of business.
async fn business(world: &World) -> Vec<String> {
    let tables = "select relname::text from pg_class where relnamespace = 'trading'::regnamespace \
        and relkind in ('r', 'p') and not relispartition \
        and relname not in ('probes', 'reconciliations', 'standings', 'days', 'stores_by_day', 'schema_history')";
    let mut tables = world.texts(tables).await;
    assert!(tables.len() >= 10, "{tables:?}");
    tables.push("breakdown".to_owned());
    let mut all = Vec::new();
    for table in tables {
        let rows = world.texts(&format!("select one::text from trading.{table} as one")).await;
        all.push(format!("{table}: {rows:?}"));
    }
    all
}

/// How many answers a stage has counted.
async fn answers_counted(outbound: &Process) -> Vec<String> {
    let (_, metrics) = support::http(outbound.http, "GET", "/metrics", "", "").await;
    let counts = metrics.lines().filter(|line| line.starts_with("services_answer_seconds_count"));
    counts.map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_passes_the_five_stages_of_either_application_and_is_no_business_of_any() {
    let both = Both::start().await;
    let processes = one_of_every_kind(&both).await;
    let (trading, settlement) = processes.split_at(STAGES.len());
    for (world, pipeline) in [(&both.trading, trading), (&both.settlement, settlement)] {
        let answered = answers_counted(&trading[StageName::Outbound as usize]).await;
        assert!(!answered.is_empty());
        let stored = [business(&both.trading).await, business(&both.settlement).await];
        let (status, answer) = world.hook(&pipeline[StageName::Core as usize], "probe", 1).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!((&answer["did"]["stages"], &answer["did"]["epoch"]), (&json!(STAGES), &json!(1)));
        assert_eq!([business(&both.trading).await, business(&both.settlement).await], stored);
        assert_eq!(answers_counted(&trading[StageName::Outbound as usize]).await, answered);
    }
    for (world, application) in [(&both.trading, TRADING), (&both.settlement, SETTLEMENT)] {
        assert_eq!(world.in_flight().await, 0);
        let report = compared(&both, application).await;
        assert!(report.agrees, "{report}");
        let raw = match application {
            TRADING => "trading.returned_raw",
            SETTLEMENT => "trading.inbound_raw",
        };
        let first = &report.boundaries[usize::from(application == TRADING)].comparison;
        let taken = world.number(&format!("select count(*) from {raw}")).await;
        assert_eq!(first.compared, u64::try_from(taken).unwrap(), "{report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_of_settlement_waits_for_its_outbound_but_not_for_the_other_application() {
    let mut both = Both::start().await;
    let away = broker_config_at(both.gateway.address, &both.trading.name, "to trade matching");
    both.settlement.settlements = Settlements::On(Some(Box::new(away)));
    both.gateway.close().await;
    let world = &both.settlement;
    // One that an earlier epoch left in the middle.
    let earlier = "insert into trading.probes (probe, stage, epoch) values (gen_random_uuid(), 'egress', 0)";
    damage(world, "probes", earlier).await;
    let mut processes = Vec::new();
    for stage in [StageName::Inbound, StageName::Ingestion, StageName::Core, StageName::Egress] {
        processes.push(world.stage(stage).await);
    }
    let at = |stage: &str| format!("select count(*) from trading.probes where stage = '{stage}'");
    let outbound = async {
        eventually("it passes egress", async || (world.number(&at("egress")).await == 2).then_some(())).await;
        assert_eq!(world.number(&at("outbound")).await, 0);
        world.stage(StageName::Outbound).await
    };
    let core = &processes[StageName::Core as usize];
    let ((status, answer), _outbound) = tokio::join!(world.hook(core, "probe", 1), outbound);
    assert_eq!((status, &answer["did"]["stages"]), (200, &json!(STAGES)), "{answer}");
    assert_eq!(world.number(&at("outbound")).await, 1);
    assert_eq!(both.trading.purge(BACK).await, 0);
}
