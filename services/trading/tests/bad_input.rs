//! Every kind of bad input is answered or set apart with the reason, and the queue moves on.

mod support;

use std::time::Instant;

use region_lease::ConnectOptions;
use support::{World, eventually};
use trading::names::{self, Application};

/// The allocation of the good message.
const ALLOCATION: &str =
    r#""{\"allocationID\":1,\"quantity\":100,\"account\":\"1538552570\",\"status\":\"Unmatched\"}""#;
const GOOD: &str = r#"{"senderID":"QAINS012","imID":"QAINS012","brokerID":"QABRO010","tradeID":"3500017","security":"AMZN","transactionIndicator":"B","price":18.5,"quantity":2,"tradeDate":"2026-02-09T00:00:00Z","settlementDate":"2026-02-11T00:00:00Z","deliveryInstructions":"lorem","status":"Unmatched","allocations":["{\"allocationID\":1,\"quantity\":100,\"account\":\"1538552570\",\"status\":\"Unmatched\"}"]}"#;
const GOOD_ID: &str = "QAINS012-QAINS012-QABRO010-3500017";

/// Number of the trade, its body, and the beginning of the answer's description.
fn refused() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let with = |from: &str, to: &str| GOOD.replace(from, to);
    let change = |number: &'static str, body: String, description: &'static str| {
        (number, body.replace("3500017", number).into_bytes(), description)
    };
    let mut cases = vec![
        change("1", GOOD[..60].to_owned(), "MALFORMED: "),
        change("2", "[1,2]".into(), "MALFORMED: "),
        change("3", with(r#""security":"AMZN","#, ""), "MISSING security: "),
        change("4", with(r#""quantity":2"#, r#""quantity":null"#), "MISSING quantity: "),
        change("5", with(r#""price":18.5"#, r#""price":"18.5""#), "WRONG_TYPE price: "),
        change("6", with(r#""quantity":2"#, r#""quantity":2.5"#), "WRONG_TYPE quantity: "),
        change("7", with("AMZN", "AMZNAMZNAMZN"), "TOO_LONG security: "),
        change("8", with("18.5", "18.505"), "INVALID price: "),
        change("9", with("18.5", "123456789.00"), "INVALID price: "),
        change("10", with(r#""quantity":2"#, r#""quantity":0"#), "INVALID quantity: "),
        change("11", with("2026-02-09T00:00:00Z", "2026-02-09T10:00:00Z"), "INVALID tradeDate: "),
        change("19", with("2026-02-09T00:00:00Z", "-009998-01-01T00:00:00Z"), "INVALID tradeDate: "),
        change("12", with("2026-02-11T00:00:00Z", "soon"), "INVALID settlementDate: "),
        change("13", with(r#"\"allocationID\":1,"#, ""), "MISSING allocations[0].allocationID: "),
        change(
            "24",
            with(r#"\"allocationID\":1,"#, r#"\"allocationID\":0,"#),
            "INVALID allocations[0].allocationID: ",
        ),
        change("25", with(r#"\"quantity\":100"#, r#"\"quantity\":0"#), "INVALID allocations[0].quantity: "),
        change("26", with("1538552570", "153855257O"), "INVALID allocations[0].account: "),
        change(
            "27",
            with(r#""allocations":["#, &format!(r#""allocations":[{ALLOCATION},"#)),
            "INVALID allocations[1].allocationID: ",
        ),
        change("14", with(r#""tradeID":"3500017""#, r#""tradeID":"3500018""#), "INVALID correlationID: "),
        change(
            "15",
            with(r#""transactionIndicator":"B""#, r#""transactionIndicator":"X""#),
            "INVALID transactionIndicator: ",
        ),
        change(
            "16",
            with(r#""deliveryInstructions":"lorem""#, r#""deliveryInstructions":"a\u0000b""#),
            "INVALID deliveryInstructions: ",
        ),
        change("20", with("QABRO010", "QAINS012"), "INVALID brokerID: "),
        change("21", with(r#""status":"Unmatched""#, r#""status":"Canceled""#), "INVALID status: "),
        change("22", with(r#""quantity":2"#, r#""quantity":2,"version":0"#), "INVALID version: "),
        change("23", with(r#""quantity":2"#, r#""quantity":2,"version":"2""#), "WRONG_TYPE version: "),
        change("17", format!("{GOOD}{}", " ".repeat(70_000)), "OVERSIZED: "),
    ];
    cases.push(("18", vec![b'{', 0xff, 0xfe, b'}'], "NOT_TEXT: "));
    cases
}

#[tokio::test(flavor = "multi_thread")]
async fn every_bad_input_is_answered_with_its_reason_and_the_queue_moves_on() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let cases = refused();
    for (number, body, _) in &cases {
        world.publish(Some(&GOOD_ID.replace("3500017", number)), body).await;
    }
    world.publish(None, GOOD.as_bytes()).await;
    world.publish(Some(&"x".repeat(100)), b"whose?").await;
    world.publish_to(names::INGESTION, None, b"no envelope").await;
    world.publish_to(names::CORE, None, b"{\"records\":7}").await;
    world.publish_to(names::EGRESS, None, b"").await;
    world.publish_to(names::OUTBOUND, None, &[0xff; 1000]).await;
    world.publish(Some(GOOD_ID), GOOD.as_bytes()).await;
    let other = GOOD.replacen("QAINS012", "QABRO010", 1);
    let other_id = GOOD_ID.replacen("QAINS012", "QABRO010", 1);
    world.publish(Some(&other_id), other.as_bytes()).await;

    let answers = world.answers(cases.len() + 2).await;
    assert_eq!(answers[GOOD_ID].status, "MATCHED");
    assert_eq!(answers[&other_id].status, "MATCHED");
    for (number, _, description) in &cases {
        let answer = &answers[&GOOD_ID.replace("3500017", number)];
        assert_eq!(answer.status, "NACK", "{answer:?}");
        assert!(answer.description.starts_with(description), "{answer:?}, expected {description}");
        assert_eq!(answer.destination, "QAINS012");
    }
    let quarantined = "select count(*) from trading.quarantine";
    eventually("six in quarantine", async || (world.number(quarantined).await == 6).then_some(())).await;
    assert_eq!(world.number("select count(*) from trading.quarantine where reason = ''").await, 0);
    world.nothing_is_on_its_way().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_that_are_not_text_and_bottomless_headers_stop_nobody() {
    const HEADERS: u16 = 1 << 13;
    const CORRELATION_ID: u16 = 1 << 10;
    const MESSAGE_ID: u16 = 1 << 7;
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let short = |bytes: &[u8]| [&[u8::try_from(bytes.len()).unwrap()], bytes].concat();
    world.publish_bytes(CORRELATION_ID, &short(&[b'x', 0xff, 0xfe]), b"whose?").await;
    // Tables within tables, five thousand deep, with names that are no text.
    let mut headers = vec![0; 4];
    for _ in 0..5_000 {
        let entry = [&[1, 0xff, b'F'], &headers[..]].concat();
        headers = [&u32::try_from(entry.len()).unwrap().to_be_bytes()[..], &entry].concat();
    }
    let properties = [headers, short(GOOD_ID.as_bytes())].concat();
    world.publish_bytes(HEADERS | CORRELATION_ID, &properties, GOOD.as_bytes()).await;
    let other = GOOD.replacen("QAINS012", "QABRO010", 1);
    let other_id = GOOD_ID.replacen("QAINS012", "QABRO010", 1);
    let properties = [short(other_id.as_bytes()), short(&[0xc3])].concat();
    world.publish_bytes(CORRELATION_ID | MESSAGE_ID, &properties, other.as_bytes()).await;

    let answers = world.answers(2).await;
    assert!(answers.values().all(|answer| answer.status == "MATCHED"), "{answers:?}");
    let unattributable = "select count(*) from trading.quarantine where reason like '%not UTF-8%'";
    assert_eq!(world.number(unattributable).await, 1);
}

/// The largest and smallest values that pass validation, each as what it replaces and by what. Whatever is
/// longer, larger or smaller is refused before it comes to the database (see [`refused`]), so no value is known
/// that validation lets through and the database does not take.
fn limits() -> Vec<(&'static str, String)> {
    let rest = r#"\"quantity\":2147483647,\"account\":\"9999999999\",\"status\":\"ÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄÄ\"}""#;
    let allocation = |number: i64| format!(r#""{{\"allocationID\":{},{rest}"#, i64::MAX - number);
    let allocations: Vec<String> = (0..99).map(allocation).collect();
    vec![
        (r#""price":18.5"#, r#""price":99999999.99"#.into()),
        (r#""price":18.5"#, r#""price":0.01"#.into()),
        (r#""price":18.5"#, format!(r#""price":1.{}"#, "0".repeat(20))),
        (r#""quantity":2,"#, r#""quantity":2147483647,"#.into()),
        ("2026-02-09T", "1900-01-01T".into()),
        ("2026-02-11T", "2999-12-31T".into()),
        ("AMZN", "\u{10ffff}".repeat(10)),
        ("AMZN", "\u{fffe}'\\\\\u{2028}\u{feff}".into()),
        ("lorem", "\u{10ffff}".repeat(50)),
        // One is there already.
        (r#""allocations":["#, format!(r#""allocations":[{},"#, allocations.join(","))),
        ("QABRO010", "ক".repeat(20)),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn values_at_the_limits_of_validation_are_taken_by_the_database() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    let limits = limits();
    for (number, (from, to)) in limits.iter().enumerate() {
        // As long as a number may be.
        let number = format!("{number:010}");
        let body = GOOD.replace("3500017", &number).replace(from, to);
        let id = GOOD_ID.replace("3500017", &number).replace(from, to);
        assert_ne!(body, GOOD.replace("3500017", &number), "{from}");
        world.publish(Some(&id), body.as_bytes()).await;
    }
    let stored = i64::try_from(limits.len()).unwrap();
    let open = "select count(*) from trading.trades where status = 'UNMATCHED'";
    eventually("all are stored", async || (world.number(open).await == stored).then_some(())).await;
    world.nothing_is_on_its_way().await;
}

/// A customer's message as inbound passes it on to ingestion.
fn raw_record(number: u32, sender: &str) -> serde_json::Value {
    let number = number.to_string();
    let text = GOOD.replace("3500017", &number).replacen("QAINS012", sender, 1);
    let id = GOOD_ID.replace("3500017", &number).replacen("QAINS012", sender, 1);
    serde_json::json!({
        "record": uuid::Uuid::new_v4(), "id": id, "received_ms": 1, "content": { "Text": text }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn of_an_envelope_only_the_records_that_the_database_refuses_are_set_apart() {
    const INBOUND: u32 = 30;
    const INGESTION: u32 = 18;
    const CORE: u32 = 13;
    const EGRESS: u32 = 16;
    const OUTBOUND: u32 = 17;
    const CORE_AND_ANSWER: u32 = 7;
    let world = World::open().await;
    // A database that is stricter than validation.
    let strict = format!(
        "alter table trading.ingested add check (id not like '%-{INGESTION}');
         alter table trading.trades add check (trade_id not in ('{CORE}', '{CORE_AND_ANSWER}'));
         alter table trading.outbox add check (id not like '%-{CORE_AND_ANSWER}');
         alter table trading.egressed add check (id not like '%-{EGRESS}');
         alter table trading.sent add check (id not like '%-{OUTBOUND}');
         alter table trading.inbound_raw add check (correlation_id not like '%-{INBOUND}');"
    );
    world.sql.batch_execute(&strict).await.unwrap();
    let records: Vec<_> = ["QAINS012", "QABRO010"]
        .into_iter()
        .flat_map(|sender| (1..=20).map(move |number| raw_record(number, sender)))
        .collect();
    let pending: Vec<_> =
        records.iter().map(|record| format!("({}, {})", record["record"], record["received_ms"])).collect();
    let pending = pending.join(",").replace('"', "'");
    // As inbound would have written them; the trigger demands its guard.
    let insert = format!(
        "alter table trading.pending disable trigger user; insert into trading.pending (record, received_ms) values {pending}; \
         alter table trading.pending enable trigger user"
    );
    world.sql.batch_execute(&insert).await.unwrap();
    let envelope = serde_json::json!({ "records": records }).to_string();
    world.publish_to(names::INGESTION, None, envelope.as_bytes()).await;
    for number in [INBOUND, 31] {
        for sender in ["QAINS012", "QABRO010"] {
            let record = raw_record(number, sender);
            let text = record["content"]["Text"].as_str().unwrap();
            world.publish(record["id"].as_str(), text.as_bytes()).await;
        }
    }
    let _pipeline = world.pipeline().await;

    let answers = world.answers(40).await;
    for (id, answer) in &answers {
        let refused = [INGESTION, CORE].iter().any(|number| id.ends_with(&format!("-{number}")));
        assert_eq!(answer.status, if refused { "NACK" } else { "MATCHED" }, "{answer:?}");
        assert!(!refused || answer.description.starts_with("UNSTORABLE: "), "{answer:?}");
        assert!(id.starts_with(&answer.destination), "{answer:?}");
    }
    eventually("nothing is left", async || (world.in_flight().await == 0).then_some(())).await;
    assert_eq!(world.number("select count(*) from trading.trades where status = 'MATCHED'").await, 36);
    for (stage, records) in [("inbound", 2), ("ingestion", 2), ("core", 4), ("egress", 2), ("outbound", 2)] {
        let quarantined = format!(
            "select count(*) from trading.quarantine where stage = '{stage}' and reason like '%23514%'"
        );
        assert_eq!(world.number(&quarantined).await, records, "{stage}");
    }
    let elsewhere = "select count(*) from trading.quarantine";
    assert_eq!(world.number(elsewhere).await, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_trade_with_the_same_id_and_date_is_refused_and_the_first_stands() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    world.publish(Some(GOOD_ID), GOOD.as_bytes()).await;
    let stored = "select count(*) from trading.trades where quantity = 2";
    eventually("the first is stored", async || (world.number(stored).await == 1).then_some(())).await;
    // The same meaning in another writing is a repeat; another meaning is a conflict.
    world.publish(Some(GOOD_ID), GOOD.replace("18.5", "18.50").as_bytes()).await;
    world.publish(Some(GOOD_ID), GOOD.replace(r#""quantity":2"#, r#""quantity":3"#).as_bytes()).await;
    let answers = world.answers(1).await;
    assert!(answers[GOOD_ID].description.starts_with("CONFLICT: "), "{answers:?}");
    eventually("all decided", async || (world.in_flight().await == 0).then_some(())).await;
    assert_eq!(world.number("select count(*) from trading.trades").await, 1);
    assert_eq!(world.number("select count(*) from trading.conflicts").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_may_return_on_another_business_date() {
    let world = World::open().await;
    let _pipeline = world.pipeline().await;
    for day in ["2026-02-09", "2026-02-10"] {
        let one = GOOD.replace("2026-02-09", day);
        world.publish(Some(GOOD_ID), one.as_bytes()).await;
    }
    let open = "select count(*) from trading.trades where status = 'UNMATCHED'";
    eventually("two trades are open", async || (world.number(open).await == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_role_can_write_without_the_guard_or_outside_of_its_stage() {
    let world = World::open().await;
    let name: String = world.sql.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let inbound = region_lease::connect(&support::database_options(&name, "trading_inbound")).await.unwrap();
    let insert = "insert into trading.pending (record) values (gen_random_uuid())";
    let refused = inbound.execute(insert, &[]).await.unwrap_err();
    assert_eq!(refused.code().unwrap().code(), "TR006");
    let foreign = inbound.execute("update trading.outbox set sent_at = null", &[]).await.unwrap_err();
    assert_eq!(foreign.code().unwrap().code(), "42501");
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_changes_nothing_and_a_standby_confirms_that_all_has_arrived() {
    let world = World::start().await;
    let name: String = world.sql.query_one("select current_database()::text", &[]).await.unwrap().get(0);
    let options = support::database_options(&name, "postgres");
    let again =
        trading::migrate::database(Application::TradeMatching, &options, Instant::now() + support::PATIENCE)
            .await
            .unwrap();
    assert_eq!(again, Vec::<String>::new());
    let standby = support::standby().await;
    let options = ConnectOptions::new(standby.host(), standby.port(), name.as_str(), "postgres");
    let verified =
        trading::migrate::database(Application::TradeMatching, &options, Instant::now() + support::PATIENCE)
            .await
            .unwrap();
    assert_eq!(verified, ["standby: all 12 migrations have arrived"]);
}
