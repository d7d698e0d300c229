//! The contract as the Rust SDKs see it, and each fault that a test may set.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod common;

use std::time::{Duration, Instant};

use aws_sdk_rds::error::ProvideErrorMetadata;
use aws_sdk_route53recoverycluster::error::SdkError;
use aws_sdk_route53recoverycluster::types::{RoutingControlState, UpdateRoutingControlStateEntry};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use common::{KEY, LIMIT, REGIONS, Running, SECRET, ZONE, cluster_arn, control_arn, wait_until};
use serde_json::{Value, json};

type Arc = aws_sdk_route53recoverycluster::Client;
type Rds = aws_sdk_rds::Client;

fn http_client(running: &Running) -> aws_smithy_runtime_api::client::http::SharedHttpClient {
    let trust = TrustStore::empty().with_pem_certificate(std::fs::read(running.ca_file()).unwrap());
    let context = TlsContext::builder().with_trust_store(trust).build().unwrap();
    let builder = aws_smithy_http_client::Builder::new().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
    builder.tls_context(context).build_https()
}

fn arc(running: &Running, region: &'static str) -> Arc {
    use aws_sdk_route53recoverycluster::config;
    let timeouts = config::timeout::TimeoutConfig::builder().operation_timeout(LIMIT).build();
    let config = config::Builder::new()
        .behavior_version_latest()
        .http_client(http_client(running))
        .endpoint_url(running.arc_url(region))
        .region(config::Region::new(region))
        .credentials_provider(config::Credentials::new(KEY, SECRET, None, None, "test"))
        .retry_config(config::retry::RetryConfig::disabled())
        .timeout_config(timeouts)
        .build();
    Arc::from_conf(config)
}

fn rds(running: &Running, region: &'static str) -> Rds {
    use aws_sdk_rds::config;
    let config = config::Builder::new()
        .behavior_version_latest()
        .http_client(http_client(running))
        .endpoint_url(running.rds_url())
        .region(config::Region::new(region))
        .credentials_provider(config::Credentials::new(KEY, SECRET, None, None, "test"))
        .retry_config(config::retry::RetryConfig::disabled())
        .build();
    Rds::from_conf(config)
}

async fn state(client: &Arc, control: &str) -> RoutingControlState {
    let answer = client.get_routing_control_state().routing_control_arn(control_arn(control)).send().await;
    answer.unwrap().routing_control_state
}

async fn set(client: &Arc, control: &str, state: RoutingControlState) -> Result<(), String> {
    let update = client.update_routing_control_state().routing_control_arn(control_arn(control));
    let answer = update.routing_control_state(state).send().await;
    answer.map(drop).map_err(|error| error.into_service_error().code().unwrap_or("none").to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_off_and_on_moves_a_permission_everywhere() {
    let running = Running::start().await;
    let entry = |control: &str, state| {
        let entry = UpdateRoutingControlStateEntry::builder().routing_control_arn(control_arn(control));
        entry.routing_control_state(state).build().unwrap()
    };
    arc(&running, "eu-west-1")
        .update_routing_control_states()
        .update_routing_control_state_entries(entry("app-us-east-1", RoutingControlState::Off))
        .update_routing_control_state_entries(entry("app-us-west-2", RoutingControlState::On))
        .send()
        .await
        .unwrap();
    for region in REGIONS {
        let client = arc(&running, region);
        assert_eq!(state(&client, "app-us-east-1").await, RoutingControlState::Off, "{region}");
        assert_eq!(state(&client, "app-us-west-2").await, RoutingControlState::On, "{region}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_carry_the_fields_of_the_model() {
    let running = Running::start().await;
    let client = arc(&running, "us-east-1");
    let none = client.get_routing_control_state().routing_control_arn("arn:none").send().await.unwrap_err();
    let none = none.into_service_error();
    assert!(none.is_resource_not_found_exception(), "{none:?}");

    let refused = client
        .update_routing_control_state()
        .routing_control_arn(control_arn("app-us-west-2"))
        .routing_control_state(RoutingControlState::On)
        .send()
        .await
        .unwrap_err()
        .into_service_error();
    assert!(refused.is_conflict_exception(), "{refused:?}");
    assert!(refused.message().unwrap().contains("one-app"), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_old_on_other_endpoints_until_it_has_propagated() {
    let running = Running::start().await;
    running.set(json!({"propagation": {"min_ms": 700, "mean_ms": 700, "max_ms": 700}})).await;
    let (here, there) = (arc(&running, "us-east-1"), arc(&running, "us-west-2"));
    let before = Instant::now();
    set(&here, "app-us-east-1", RoutingControlState::Off).await.unwrap();
    assert_eq!(state(&here, "app-us-east-1").await, RoutingControlState::Off);
    let read = || state(&there, "app-us-east-1");
    wait_until("propagation", read, |state| *state == RoutingControlState::Off).await;
    assert!(before.elapsed() >= Duration::from_millis(700), "{:?}", before.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_endpoint_refuses_connections_and_comes_back() {
    let running = Running::start().await;
    let client = arc(&running, "us-west-2");
    assert_eq!(state(&client, "app-us-east-1").await, RoutingControlState::On);
    let address = running.addresses.arc["us-west-2"];
    running.set(json!({"arc": {"us-west-2": {"mode": "dead"}}})).await;
    let connection = || async move {
        let connected = tokio::net::TcpStream::connect(address).await;
        connected.map_or_else(|error| error.kind().to_string(), |_| "open".to_owned())
    };
    wait_until("the endpoint to die", connection, |connection| connection == "connection refused").await;
    let read =
        client.get_routing_control_state().routing_control_arn(control_arn("app-us-east-1")).send().await;
    assert!(matches!(read, Err(SdkError::DispatchFailure(_))), "{read:?}");
    assert_eq!(state(&arc(&running, "us-east-1"), "app-us-east-1").await, RoutingControlState::On);
    running.set(json!({"arc": {"us-west-2": {"mode": "ok"}}})).await;
    wait_until("the endpoint to live", connection, |connection| connection == "open").await;
    assert_eq!(state(&client, "app-us-east-1").await, RoutingControlState::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_endpoint_can_lose_the_answer_of_a_change_that_landed() {
    let running = Running::start().await;
    let (hung, other) = (arc(&running, "us-west-2"), arc(&running, "us-east-1"));
    running.set(json!({"arc": {"us-west-2": {"mode": "hung", "effect": true}}})).await;
    let waiting = tokio::spawn(async move { set(&hung, "app-us-east-1", RoutingControlState::Off).await });
    let read = || state(&other, "app-us-east-1");
    wait_until("the change to land", read, |state| *state == RoutingControlState::Off).await;
    assert!(!waiting.is_finished(), "no answer came");
    running.set(json!({"arc": {"us-west-2": {"mode": "ok"}}})).await;
    let answered = tokio::time::timeout(LIMIT, waiting).await.expect("the call ends").unwrap();
    assert!(answered.is_err(), "the connection was closed without an answer: {answered:?}");
    let first = running.calls().await.into_iter().find(|(operation, _)| operation.starts_with("Update"));
    assert_eq!(first.unwrap().1, "hung after ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_endpoint_without_effect_changes_nothing() {
    let running = Running::start().await;
    let (hung, other) = (arc(&running, "us-west-2"), arc(&running, "us-east-1"));
    running.set(json!({"arc": {"us-west-2": {"mode": "hung"}}})).await;
    let waiting = tokio::spawn(async move { set(&hung, "app-us-east-1", RoutingControlState::Off).await });
    let calls = wait_until("the call to arrive", || running.calls(), |calls| !calls.is_empty()).await;
    assert_eq!(calls[0].1, "hung");
    assert_eq!(state(&other, "app-us-east-1").await, RoutingControlState::On);
    assert!(!waiting.is_finished());
    waiting.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_endpoint_answers_late() {
    let running = Running::start().await;
    running.set(json!({"arc": {"us-west-2": {"mode": "slow", "ms": 400}}})).await;
    let before = Instant::now();
    assert_eq!(state(&arc(&running, "us-west-2"), "app-us-east-1").await, RoutingControlState::On);
    assert!(before.elapsed() >= Duration::from_millis(400));
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_takes_its_number_of_endpoints_down() {
    let running = Running::start().await;
    running.set(json!({"maintenance": {"turn_seconds": 3600, "down_at_once": 2}})).await;
    let mut down = 0;
    for region in REGIONS {
        let call = arc(&running, region)
            .get_routing_control_state()
            .routing_control_arn(control_arn("app-us-east-1"));
        if let Err(error) = call.send().await {
            assert!(error.into_service_error().is_endpoint_temporarily_unavailable_exception(), "{region}");
            down += 1;
        }
    }
    assert_eq!(down, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_out_of_bounds_are_refused_and_leave_the_old_ones() {
    let running = Running::start().await;
    for (wrong, says) in [
        (json!({"arc": {"mars-1": {"mode": "dead"}}}), "mars-1"),
        (json!({"propagation": {"min_ms": 5, "mean_ms": 1, "max_ms": 9}}), "propagation"),
        (json!({"maintenance": {"turn_seconds": 9, "down_at_once": 3}}), "maintenance"),
        (json!({"switchover": {"total_seconds": -1.0}}), "switchover"),
        (json!({"absent_rules": ["no-such-rule"]}), "no-such-rule"),
        (json!({"switchover": {"cluster": "no-such-global"}}), "no-such-global"),
        (json!({"no_such_setting": 1}), "no_such_setting"),
        (json!({"arc": {"us-east-1": {"mode": "asleep"}}}), "asleep"),
    ] {
        let (status, answer) = running.try_control("PUT", "/faults", wrong.clone()).await;
        assert_eq!(status, 400, "{wrong}");
        assert!(answer["error"].as_str().unwrap().contains(says), "{wrong}: {answer}");
    }
    let now = running.control("GET", "/faults", Value::Null).await;
    assert_eq!(now["arc"], json!({}));
}

#[derive(Debug, PartialEq)]
struct Seen {
    status: String,
    writer: String,
    failover: Option<String>,
}

async fn describe(client: &Rds) -> Seen {
    describe_one(client, "app-global").await
}

async fn describe_one(client: &Rds, id: &str) -> Seen {
    let answer = client.describe_global_clusters().global_cluster_identifier(id).send().await.unwrap();
    let cluster = &answer.global_clusters()[0];
    let writer =
        cluster.global_cluster_members().iter().find(|member| member.is_writer() == Some(true)).unwrap();
    Seen {
        status: cluster.status().unwrap().to_owned(),
        writer: writer.db_cluster_arn().unwrap().to_owned(),
        failover: cluster.failover_state().map(|state| state.status().unwrap().as_str().to_owned()),
    }
}

async fn switch_over(client: &Rds, to: &str) -> Result<(), String> {
    switch_one_over(client, "app-global", &cluster_arn(to)).await
}

async fn switch_one_over(client: &Rds, id: &str, to: &str) -> Result<(), String> {
    let call = client.switchover_global_cluster().global_cluster_identifier(id);
    let answer = call.target_db_cluster_identifier(to).send().await;
    answer.map(drop).map_err(|error| error.into_service_error().code().unwrap_or("none").to_owned())
}

async fn until_available(client: &Rds) -> Seen {
    wait_until("the switchover", || describe(client), |seen| seen.status == "available").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switchover_stops_the_old_primary_before_it_promotes_the_new_one() {
    let running = Running::start().await;
    let client = rds(&running, "us-east-1");
    switch_over(&client, "us-west-2").await.unwrap();
    let seen = until_available(&client).await;
    assert_eq!(seen.writer, cluster_arn("us-west-2"));
    assert_eq!(seen.failover, None);
    let expected = ["stop us-east-1 ", "promote us-west-2 0/3000028", "follow us-east-1 10.99.2.2:5432"]
        .map(str::to_owned);
    assert_eq!(running.commands(), expected);
    let cluster = &running.state().await["global_clusters"][0];
    assert_eq!(cluster["last_switchover"]["outcome"], "completed");
    assert_eq!(cluster["last_switchover"]["commands"].as_array().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_switchover_does_nothing_until_it_is_let_go() {
    let running = Running::start().await;
    let client = rds(&running, "us-east-1");
    running.set(json!({"switchover": {"hang": true}})).await;
    switch_over(&client, "us-west-2").await.unwrap();
    let seen = describe(&client).await;
    assert_eq!((seen.status.as_str(), seen.failover.as_deref()), ("switching-over", Some("switching-over")));
    assert_eq!(running.commands(), Vec::<String>::new());
    running.set(json!({"switchover": {"hang": false}})).await;
    assert_eq!(until_available(&client).await.writer, cluster_arn("us-west-2"));
}

fn of_other(arn: &str) -> String {
    arn.replace(":app-", ":other-")
}

/// A second global cluster, `other-global`, whose commands begin with that word.
fn with_another(config: &mut aws_simulator::Config) {
    let mut other = config.global_clusters[0].clone();
    other.id = "other-global".to_owned();
    other.writer_endpoint = format!("writer.other.{ZONE}");
    other.writer = of_other(&other.writer);
    for member in &mut other.members {
        member.arn = of_other(&member.arn);
        for command in [&mut member.stop, &mut member.promote, &mut member.follow] {
            command[2] = command[2].replacen("echo \"", "echo \"other ", 1);
        }
    }
    config.global_clusters.push(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn global_clusters_move_alone_and_a_script_may_be_about_one_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start_in(folder.path(), with_another).await;
    let client = rds(&running, "us-east-1");
    running.set(json!({"switchover": {"cluster": "other-global", "hang": true}})).await;
    let other = of_other(&cluster_arn("us-west-2"));
    switch_one_over(&client, "other-global", &other).await.unwrap();
    switch_over(&client, "us-west-2").await.unwrap();
    assert_eq!(until_available(&client).await.writer, cluster_arn("us-west-2"), "the script is not about it");
    assert_eq!(describe_one(&client, "other-global").await.status, "switching-over");
    let first = ["stop us-east-1 ", "promote us-west-2 0/3000028", "follow us-east-1 10.99.2.2:5432"];
    assert_eq!(running.commands(), first, "no server of the other one was touched");

    running.set(json!({"switchover": {"hang": false}})).await;
    let seen = || describe_one(&client, "other-global");
    let seen = wait_until("the other switchover", seen, |seen| seen.status == "available").await;
    assert_eq!(seen.writer, other);
    let second: Vec<String> = first.iter().map(|command| format!("other {command}")).collect();
    assert_eq!(running.commands()[3..], second);
    assert_eq!(describe(&client).await.writer, cluster_arn("us-west-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn scripted_durations_are_kept() {
    let running = Running::start().await;
    let client = rds(&running, "us-east-1");
    running.set(json!({"switchover": {"before_effect_seconds": 0.4, "total_seconds": 1.0}})).await;
    let before = Instant::now();
    switch_over(&client, "us-west-2").await.unwrap();
    wait_until("the effect", || async { running.commands() }, |commands| !commands.is_empty()).await;
    assert!(before.elapsed() >= Duration::from_millis(400));
    until_available(&client).await;
    assert!(before.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_can_be_available_before_its_endpoint_has_moved() {
    let running = Running::start().await;
    let client = rds(&running, "us-east-1");
    running.set(json!({"switchover": {"endpoint_lag_seconds": 2.0}})).await;
    switch_over(&client, "us-west-2").await.unwrap();
    assert_eq!(until_available(&client).await.writer, cluster_arn("us-west-2"));
    let endpoint = || async { running.state().await["dns"][format!("writer.{ZONE}")].clone() };
    assert_eq!(endpoint().await, "10.99.1.2");
    wait_until("the writer endpoint", endpoint, |address| address == "10.99.2.2").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_end_counts_as_failed() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start_in(folder.path(), |config| {
        config.global_clusters[0].command_timeout_seconds = 1;
        config.global_clusters[0].members[0].stop = vec!["sleep".to_owned(), "3600".to_owned()];
    })
    .await;
    let client = rds(&running, "us-east-1");
    switch_over(&client, "us-west-2").await.unwrap();
    assert_eq!(until_available(&client).await.writer, cluster_arn("us-east-1"));
    assert_eq!(
        running.commands(),
        ["promote us-east-1 "].map(str::to_owned),
        "the new one was never promoted"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reset_heals_everything_but_leaves_the_writer() {
    let running = Running::start().await;
    let client = arc(&running, "us-east-1");
    set(&client, "app-us-east-1", RoutingControlState::Off).await.unwrap();
    switch_over(&rds(&running, "us-east-1"), "us-west-2").await.unwrap();
    until_available(&rds(&running, "us-east-1")).await;
    running.set(json!({"arc": {"us-east-1": {"mode": "error", "kind": "internal"}}})).await;
    running.control("POST", "/reset", Value::Null).await;
    assert_eq!(state(&client, "app-us-east-1").await, RoutingControlState::On);
    assert_eq!(running.calls().await.len(), 1, "only the read after the reset");
    assert_eq!(describe(&rds(&running, "us-east-1")).await.writer, cluster_arn("us-west-2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_lags_still_answers_the_old_writer() {
    let running = Running::start().await;
    let (east, west) = (rds(&running, "us-east-1"), rds(&running, "us-west-2"));
    running.set(json!({"rds_lag_ms": {"us-west-2": 1500}})).await;
    switch_over(&east, "us-west-2").await.unwrap();
    until_available(&east).await;
    let moved = Instant::now();
    assert_eq!(describe(&west).await.writer, cluster_arn("us-east-1"));
    wait_until("the lagging region", || describe(&west), |s| s.writer == cluster_arn("us-west-2")).await;
    assert!(moved.elapsed() >= Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_promotion_brings_the_old_primary_back() {
    let running = Running::start().await;
    let client = rds(&running, "us-east-1");
    std::fs::write(running.folder.join("fail-promote-us-west-2"), "").unwrap();
    switch_over(&client, "us-west-2").await.unwrap();
    assert_eq!(until_available(&client).await.writer, cluster_arn("us-east-1"));
    let expected =
        ["stop us-east-1 ", "promote us-west-2 0/3000028", "promote us-east-1 "].map(str::to_owned);
    assert_eq!(running.commands(), expected);
    let last = &running.state().await["global_clusters"][0]["last_switchover"];
    assert_eq!(last["outcome"], "cancelled");
    assert!(last["commands"][1]["result"].as_str().unwrap().contains("as set"), "{last}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_cannot_follow_is_out_of_sync_and_no_target() {
    let running = Running::start().await;
    let client = rds(&running, "us-east-1");
    std::fs::write(running.folder.join("fail-follow-us-east-1"), "").unwrap();
    switch_over(&client, "us-west-2").await.unwrap();
    assert_eq!(until_available(&client).await.writer, cluster_arn("us-west-2"));
    let back = switch_over(&rds(&running, "us-west-2"), "us-east-1").await;
    assert_eq!(back, Err("InvalidDBClusterStateFault".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_controls_and_writer_and_takes_up_an_unfinished_switchover() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start_in(folder.path(), |_| {}).await;
    set(&arc(&running, "us-east-1"), "app-us-east-1", RoutingControlState::Off).await.unwrap();
    running.set(json!({"switchover": {"hang": true}})).await;
    switch_over(&rds(&running, "us-east-1"), "us-west-2").await.unwrap();
    running.stop().await;

    let running = Running::start_in(folder.path(), |_| {}).await;
    assert_eq!(state(&arc(&running, "us-west-2"), "app-us-east-1").await, RoutingControlState::Off);
    assert_eq!(until_available(&rds(&running, "us-east-1")).await.writer, cluster_arn("us-west-2"));
    running.stop().await;

    let running = Running::start_in(folder.path(), |_| {}).await;
    assert_eq!(describe(&rds(&running, "us-east-1")).await.writer, cluster_arn("us-west-2"));
    assert_eq!(running.commands().iter().filter(|line| line.starts_with("stop")).count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_log_tells_who_asked_what_in_order() {
    let running = Running::start().await;
    let client = arc(&running, "us-east-1");
    state(&client, "app-us-east-1").await;
    set(&client, "app-us-west-2", RoutingControlState::On).await.unwrap_err();
    describe(&rds(&running, "us-west-2")).await;
    let answer = running.control("GET", "/calls", Value::Null).await;
    let calls = answer["calls"].as_array().unwrap();
    let shown: Vec<_> =
        calls.iter().map(|c| (c["endpoint"].as_str().unwrap(), c["outcome"].as_str().unwrap())).collect();
    assert_eq!(
        shown,
        [("arc:us-east-1", "ok"), ("arc:us-east-1", "ConflictException"), ("rds:us-west-2", "ok")]
    );
    assert!(calls.iter().all(|call| call["caller"] == KEY));
    assert_eq!(calls[1]["parameters"]["RoutingControlState"], "On");
    assert_eq!(calls[2]["parameters"], json!({"GlobalClusterIdentifier": "app-global"}));
    running.control("DELETE", "/calls", Value::Null).await;
    assert_eq!(running.calls().await, []);
}
