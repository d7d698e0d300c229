//! Names as a resolver sees them, over UDP and TCP.
#![expect(clippy::panic, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::net::Ipv4Addr;
use std::time::Duration;

use common::{LIMIT, Running, ZONE, cluster_arn, control_arn, wait_until};
use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn query(name: &str, kind: RecordType) -> Vec<u8> {
    let mut message = Message::new(4_711, MessageType::Query, OpCode::Query);
    message.add_query(Query::query(Name::from_ascii(format!("{name}.")).unwrap(), kind));
    message.to_vec().unwrap()
}

async fn over_udp(running: &Running, question: Vec<u8>) -> Message {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.send_to(&question, running.addresses.dns).await.unwrap();
    let mut answer = vec![0; 4_096];
    let length =
        tokio::time::timeout(LIMIT, socket.recv(&mut answer)).await.expect("answers in time").unwrap();
    Message::from_vec(&answer[..length]).unwrap()
}

async fn over_tcp(running: &Running, question: Vec<u8>) -> Message {
    let exchange = async {
        let mut stream = tokio::net::TcpStream::connect(running.addresses.dns).await.unwrap();
        stream.write_u16(question.len().try_into().unwrap()).await.unwrap();
        stream.write_all(&question).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        answer
    };
    Message::from_vec(&tokio::time::timeout(LIMIT, exchange).await.expect("answers in time")).unwrap()
}

/// Address and TTL of a name with one A record.
async fn address(running: &Running, name: &str) -> (Ipv4Addr, u32) {
    let message = over_udp(running, query(name, RecordType::A)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::NoError, "{name}");
    let [record] = message.answers.as_slice() else { panic!("{name}: {message:?}") };
    let RData::A(address) = &record.data else { panic!("{name}: {record:?}") };
    (address.0, record.ttl)
}

const EAST: Ipv4Addr = Ipv4Addr::new(10, 99, 1, 2);
const WEST: Ipv4Addr = Ipv4Addr::new(10, 99, 2, 2);

#[tokio::test(flavor = "multi_thread")]
async fn udp_and_tcp_give_the_same_authoritative_answer() {
    let running = Running::start().await;
    let question = || query(&format!("us-east-1.{ZONE}"), RecordType::A);
    let (udp, tcp) = (over_udp(&running, question()).await, over_tcp(&running, question()).await);
    assert_eq!(udp.answers, tcp.answers);
    assert!(udp.metadata.authoritative && tcp.metadata.authoritative);
    assert_eq!(udp.metadata.id, 4_711);
    assert_eq!(address(&running, &format!("us-east-1.{ZONE}")).await, (EAST, 5));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_found_in_any_case_and_other_types_are_empty() {
    let running = Running::start().await;
    assert_eq!(address(&running, "US-East-1.Trading.LAB").await.0, EAST);
    let message = over_udp(&running, query(&format!("us-east-1.{ZONE}"), RecordType::AAAA)).await;
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert!(message.answers.is_empty());
    assert_eq!(message.authorities.len(), 1, "an SOA, so that the answer can be cached");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_name_does_not_exist_and_a_foreign_one_is_refused() {
    let running = Running::start().await;
    let unknown = over_udp(&running, query(&format!("none.{ZONE}"), RecordType::A)).await;
    assert_eq!(unknown.metadata.response_code, ResponseCode::NXDomain);
    let foreign = over_udp(&running, query("example.com", RecordType::A)).await;
    assert_eq!(foreign.metadata.response_code, ResponseCode::Refused);
    let lookalike = over_udp(&running, query(&format!("not{ZONE}"), RecordType::A)).await;
    assert_eq!(lookalike.metadata.response_code, ResponseCode::Refused);
}

/// Sets the two ingress controls past the API, which has its own tests: through the state file.
async fn with_ingress(east: &str, west: &str) -> (tempfile::TempDir, Running) {
    let folder = tempfile::tempdir().unwrap();
    let controls = json!({control_arn("ingress-us-east-1"): east, control_arn("ingress-us-west-2"): west});
    let saved = json!({"controls": controls, "clusters": {}});
    std::fs::write(folder.path().join("aws.json"), saved.to_string()).unwrap();
    let running = Running::start_in(folder.path(), |_| {}).await;
    (folder, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failover_name_follows_the_health_of_its_controls_and_falls_back_to_primary() {
    for (east, west, expected) in
        [("On", "Off", EAST), ("Off", "On", WEST), ("Off", "Off", EAST), ("On", "On", EAST)]
    {
        let (_folder, running) = with_ingress(east, west).await;
        assert_eq!(address(&running, &format!("mq.{ZONE}")).await, (expected, 1), "{east} {west}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_writer_endpoint_follows_the_writer() {
    let folder = tempfile::tempdir().unwrap();
    let east = cluster_arn("us-east-1");
    let unfinished =
        json!({"from": east, "to": cluster_arn("us-west-2"), "step": "accepted", "position": null});
    let cluster = json!({"writer": east, "out_of_sync": [], "running": unfinished});
    let saved = json!({"controls": {}, "clusters": {"app-global": cluster}});
    std::fs::write(folder.path().join("aws.json"), saved.to_string()).unwrap();
    let running = Running::start_in(folder.path(), |_| {}).await;
    let writer = format!("writer.{ZONE}");
    wait_until("the writer endpoint", || address(&running, &writer), |(ip, ttl)| (*ip, *ttl) == (WEST, 1))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_server_stays_silent_and_a_failing_one_says_servfail() {
    let running = Running::start().await;
    let question = || query(&format!("us-east-1.{ZONE}"), RecordType::A);
    running.set(json!({"dns": "servfail"})).await;
    assert_eq!(over_udp(&running, question()).await.metadata.response_code, ResponseCode::ServFail);
    running.set(json!({"dns": "hung"})).await;
    let silent = tokio::time::timeout(Duration::from_millis(300), over_udp(&running, question())).await;
    assert!(silent.is_err(), "an answer came: {silent:?}");
}
