//! Settlements that are wrong, strange, or too early: everything is kept with a reason, and no queue stops. The names in
//! brackets are faults of the reference that ours must not have.

#![allow(clippy::unwrap_used, reason = "helpers of tests: failing is how they report")]

mod support;

use support::both::{ACCOUNT, BACK, Both, THERE, allocated, publish_pair};
use support::reports::{BROKER, IM};
use support::{World, eventually};
use trading::names::Application;
use trading::run::Settlements;
use trading::settlement::{Settlement, SettlementStatus, of_trade};

/// The settlement of an allocation of the manager's trade with this number.
fn settlement(number: u32, allocation: usize) -> Settlement {
    let (id, body) = allocated(IM, number, ACCOUNT);
    of_trade(&trading::parse::trade(&body, &id).unwrap(), 1_770_000_000_000).remove(allocation - 1)
}

/// Publishes what comes back to trade matching.
async fn come_back(world: &World, settlement: &Settlement, status: SettlementStatus) {
    world.publish_to(BACK, Some(&settlement.id()), settlement.text(status).as_bytes()).await;
}

/// The reasons of what came back and changed nothing, by id.
async fn reasons(world: &World) -> Vec<String> {
    world.texts("select id || ' ' || code from trading.returned where code is not null").await
}

/// Trade matching that takes what comes back, without a settlement application.
async fn trade_matching() -> World {
    let mut world = World::open().await;
    let nobody = support::broker_config_at(([127, 0, 0, 1], 9).into(), "none", "to nobody");
    world.settlements = Settlements::On(Some(Box::new(nobody)));
    world
}

/// None stops a queue [W20]; a refusal goes to the application that sent the settlement, which keeps it apart from
/// trades and settlements that are good [W21].
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_settlement_is_refused_to_its_sender_and_one_without_an_id_is_set_apart() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let good = settlement(1, 1);
    let (id, text) = (good.id(), good.text(SettlementStatus::Unmatched));
    let there = &both.settlement;
    there.publish_to(THERE, None, text.as_bytes()).await;
    there.publish_to(THERE, Some(&"x".repeat(94)), text.as_bytes()).await;
    there.publish_to(THERE, Some("no-settlement"), text.as_bytes()).await;
    there.publish_to(THERE, Some(&id), b"not a settlement").await;
    there.publish_to(THERE, Some(&id), b"\xff\xfe").await;
    there.publish_to(THERE, Some(&id), &vec![b'x'; 64 * 1024 + 1]).await;
    there.publish_to(THERE, Some(&id), text.replace("\"account\"", "\"acount\"").as_bytes()).await;
    there
        .publish_to(THERE, Some(&id), text.replace("\"quantity\":33", "\"quantity\":\"x\"").as_bytes())
        .await;
    there.publish_to(THERE, Some(&id), text.replace("Unmatched", "Settled").as_bytes()).await;
    publish_pair(&both.trading, 2).await;
    let settled = "select count(*) from trading.trades where status = 'SETTLED'";
    eventually("the queue moves on", async || (both.trading.number(settled).await == 2).then_some(())).await;
    let refused = there.texts("select code || coalesce(' ' || field, '') from trading.nacks").await;
    let expected = [
        "INVALID correlationID",
        "INVALID status",
        "MALFORMED",
        "MISSING account",
        "NOT_TEXT",
        "OVERSIZED",
        "WRONG_TYPE quantity",
    ];
    assert_eq!(refused, expected);
    let apart =
        "select seen from trading.quarantine where stage = 'inbound' and reason like '%correlation id%'";
    assert_eq!(there.number(apart).await, 2, "the same bytes twice");
    // Trade matching is told of each of them. It sent none of them itself.
    let came = "select count(*) from trading.returned where code = 'UNKNOWN_SETTLEMENT'";
    eventually("the sender is told", async || (both.trading.number(came).await == 7).then_some(())).await;
    let says =
        "select content::jsonb -> 'Nack' ->> 'description' from trading.returned where code is not null";
    let says = both.trading.texts(says).await;
    assert!(says.iter().any(|description| description.starts_with("MISSING account: ")), "{says:?}");
    both.nothing_is_on_its_way().await;
    assert_eq!(there.number("select count(*) from trading.settlements").await, 4, "those of the good trade");
}

/// Somebody else's settlement was there first: the refusal names ours, and its trade stays matched.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_of_ours_that_is_refused_is_kept_as_refused() {
    let both = Both::start().await;
    let _pipelines = both.pipelines().await;
    let foreign = Settlement { quantity: 1, ..settlement(3, 1) };
    let text = foreign.text(SettlementStatus::Unmatched);
    both.settlement.publish_to(THERE, Some(&foreign.id()), text.as_bytes()).await;
    let known = "select count(*) from trading.settlements";
    eventually("it is there first", async || (both.settlement.number(known).await == 1).then_some(())).await;
    publish_pair(&both.trading, 3).await;
    let refused = format!("{} REFUSED", foreign.id());
    eventually("ours is refused", async || reasons(&both.trading).await.contains(&refused).then_some(()))
        .await;
    assert_eq!(both.settlement.texts("select code from trading.conflicts").await, ["CONFLICT"]);
    // The foreign one comes back too, with a quantity that the allocation does not have.
    let other = format!("{} OTHER_QUANTITY", foreign.id());
    eventually("and the other one", async || reasons(&both.trading).await.contains(&other).then_some(()))
        .await;
    assert_eq!(reasons(&both.trading).await.len(), 2);
    let of_manager =
        format!("select count(*) from trading.trades where sender_id = '{IM}' and status = 'MATCHED'");
    assert_eq!(both.trading.number(&of_manager).await, 1);
}

/// An unparseable one is neither lost nor in the way [W20].
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_back_and_fits_nothing_is_kept_with_its_reason() {
    let world = trade_matching().await;
    let _pipeline = world.pipeline().await;
    publish_pair(&world, 4).await;
    let matched = "select count(*) from trading.trades where status = 'MATCHED'";
    eventually("a matched trade", async || (world.number(matched).await == 2).then_some(())).await;
    let good = settlement(4, 1);
    let settled = SettlementStatus::Settled;
    come_back(&world, &settlement(5, 1), settled).await;
    come_back(&world, &Settlement { allocation_id: 3, ..good.clone() }, settled).await;
    come_back(&world, &Settlement { account: ACCOUNT.into(), ..good.clone() }, settled).await;
    come_back(&world, &Settlement { quantity: 34, ..good.clone() }, settled).await;
    come_back(&world, &Settlement { version: 2, ..good.clone() }, settled).await;
    let id = good.id();
    for body in ["not a settlement", "{}", r#"{"status":"NACK"}"#] {
        world.publish_to(BACK, Some(&id), body.as_bytes()).await;
    }
    world.publish_to(BACK, None, good.text(settled).as_bytes()).await;
    // The queue moves on: a good one still counts, and afterwards nothing takes it back.
    come_back(&world, &good, settled).await;
    let counts = "select count(*) from trading.allocations where status = 'SETTLED'";
    eventually("a good one counts", async || (world.number(counts).await == 1).then_some(())).await;
    come_back(&world, &good, SettlementStatus::Mismatched).await;
    let expected = [
        format!("{id} BACKWARDS"),
        format!("{id} OTHER_ACCOUNT"),
        format!("{id} OTHER_QUANTITY"),
        format!("{id} OTHER_TRADE"),
        format!("{IM}-{IM}-{BROKER}-4-3 UNKNOWN_ALLOCATION"),
        format!("{IM}-{IM}-{BROKER}-5-1 NOT_MATCHED"),
    ];
    eventually("each has its reason", async || (reasons(&world).await == expected).then_some(())).await;
    let refused = world.texts("select code from trading.returned_nacks").await;
    assert_eq!(refused, ["MALFORMED", "MALFORMED", "MISSING"]);
    let apart = "select count(*) from trading.quarantine where reason like '%correlation id%'";
    assert_eq!(world.number(apart).await, 1);
    assert_eq!(world.number(counts).await, 1);
    assert_eq!(world.number("select count(*) from trading.returned_pending").await, 0);
    assert_eq!(world.texts("select distinct status from trading.sent").await, ["MATCHED"]);
}

/// The settlement application may know more than trade matching, after a loss there [W18]: what comes too early is kept
/// and counts as soon as its trade is matched.
#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_that_comes_back_before_its_trade_is_matched_counts_when_it_is() {
    let world = trade_matching().await;
    let _pipeline = world.pipeline().await;
    for allocation in [1, 2] {
        come_back(&world, &settlement(6, allocation), SettlementStatus::Settled).await;
    }
    let early = "select count(*) from trading.returned where code = 'NOT_MATCHED'";
    eventually("both wait", async || (world.number(early).await == 2).then_some(())).await;
    let (id, body) = allocated(IM, 6, ACCOUNT);
    world.publish(Some(&id), body.as_bytes()).await;
    let open = "select count(*) from trading.trades where status = 'UNMATCHED'";
    eventually("half of the trade", async || (world.number(open).await == 1).then_some(())).await;
    assert_eq!(world.number(early).await, 2, "half of a trade is not matched");
    let (other, body) = allocated(BROKER, 6, ACCOUNT);
    world.publish(Some(&other), body.as_bytes()).await;
    world.nothing_is_on_its_way().await;
    eventually("the manager's side is settled", async || {
        (world.number("select count(*) from trading.sent").await == 3).then_some(())
    })
    .await;
    let told = world.texts("select id || ' ' || status from trading.sent").await;
    assert_eq!(told, [format!("{other} MATCHED"), format!("{id} MATCHED"), format!("{id} SETTLED")]);
    assert_eq!(world.number(early).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_of_the_settlement_application_can_write_outside_of_its_stage_or_without_the_guard() {
    let world = World::open_of(Application::Settlement).await;
    for (role, statement, code) in [
        ("inbound", "insert into trading.pending (record) values (gen_random_uuid())", "TR006"),
        ("inbound", "select * from trading.settlements", "42501"),
        ("ingestion", "insert into trading.outbox (message_id) values (gen_random_uuid())", "42501"),
        ("core", "update trading.outgoing_settlements set sent_at = null", "TR006"),
        ("core", "update trading.outgoing_settlements set body = 'x'", "42501"),
        ("egress", "update trading.settlements set status = 'SETTLED'", "42501"),
        ("outbound", "insert into trading.outgoing_settlements (id) values ('x')", "42501"),
        ("outbound", "update trading.outgoing_settlements set body = 'x'", "42501"),
    ] {
        let options = support::database_options(&world.name, &format!("trading_{role}"));
        let client = region_lease::connect(&options).await.unwrap();
        let refused = client.execute(statement, &[]).await.unwrap_err();
        assert_eq!(refused.code().unwrap().code(), code, "{role}: {statement}");
    }
}
