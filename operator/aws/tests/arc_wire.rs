//! The ARC client against servers that fail in every way the service can.

mod support;

use std::time::{Duration, Instant};

use region_aws::{ControlState, ErrorKind, FlipLimits, Outcome, ReadLimits};
use serde_json::json;
use support::Behaviour::{Dead, Fails, FailsOnce, HangsAfterApplying, RefusesUpdates, Works};
use support::{Behaviour, Cluster, REGIONS, control};

const BATCH_STATES: [(&str, &str); 3] = [("app-a", "On"), ("app-b", "Off"), ("other", "On")];

fn works() -> [Behaviour; 5] {
    [Works, Works, Works, Works, Works]
}

fn maintenance() -> Behaviour {
    let message = json!({"message": "maintenance"});
    Fails(503, "EndpointTemporarilyUnavailableException", message)
}

fn batch() -> Vec<(String, ControlState)> {
    vec![(control("app-a"), ControlState::Off), (control("app-b"), ControlState::On)]
}

/// Gives up after this long; a flip among the tests' servers is over well before.
fn limits() -> FlipLimits {
    FlipLimits { deadline: Duration::from_secs(6) }
}

#[tokio::test]
async fn all_five_are_asked_at_once_and_a_listing_is_read_to_its_last_page() {
    let cluster = Cluster::start(works(), &BATCH_STATES).await;
    let controls = [control("app-a"), control("other")];
    let reading = cluster.client.read_all(&controls, ReadLimits::default()).await;
    assert_eq!(reading.count(&controls[0], ControlState::On), 5, "{reading:?}");
    assert_eq!(reading.count(&controls[1], ControlState::On), 5);
    assert_eq!(cluster.calls("ListRoutingControls"), 10);
}

#[tokio::test]
async fn each_call_is_signed_for_the_region_of_its_endpoint() {
    let cluster = Cluster::start(works(), &BATCH_STATES).await;
    cluster.client.read_all(&[control("app-a")], ReadLimits::default()).await;
    for (server, region) in cluster.servers.iter().zip(REGIONS) {
        let signatures = server.signatures.lock().unwrap();
        let scope = format!("/{region}/route53-recovery-cluster/aws4_request");
        assert!(signatures[0].contains(&scope), "{signatures:?}");
    }
}

#[tokio::test]
async fn a_hung_endpoint_costs_its_timeout_and_no_more() {
    let [_, b, c, d, e] = works();
    let cluster = Cluster::start([HangsAfterApplying, b, c, d, e], &BATCH_STATES).await;
    let started = Instant::now();
    let reading = cluster.client.read_all(&[control("app-a")], ReadLimits::default()).await;
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(reading.answered(), 4);
    let errors: Vec<_> = reading.errors().collect();
    assert_eq!(errors[0].kind, ErrorKind::Timeout, "{errors:?}");
    assert_eq!(errors[0].endpoint, "ARC us-east-1");
}

#[tokio::test]
async fn agreement_of_three_ends_the_round_before_the_hung_ones_time_out() {
    let cluster =
        Cluster::start([HangsAfterApplying, HangsAfterApplying, Works, Works, Works], &BATCH_STATES).await;
    let started = Instant::now();
    let limits = ReadLimits { enough: Some(3), ..ReadLimits::default() };
    let reading = cluster.client.read_all(&[control("app-a")], limits).await;
    assert!(started.elapsed() < Duration::from_millis(350), "{reading:?}");
    assert_eq!(reading.agreed(&control("app-a"), 3), Some(ControlState::On));
    assert!(reading.errors().all(|error| error.kind == ErrorKind::NotAwaited));
}

#[tokio::test]
async fn an_unknown_state_and_an_unknown_control_have_no_state() {
    let cluster = Cluster::start(works(), &[("app-a", "Dimmed")]).await;
    let controls = [control("app-a")];
    let reading = cluster.client.read_all(&controls, ReadLimits::default()).await;
    assert_eq!((reading.answered(), reading.known(&controls[0])), (5, 0));
    let controls = [control("nowhere")];
    let reading = cluster.client.read_all(&controls, ReadLimits::default()).await;
    assert_eq!((reading.answered(), reading.known(&controls[0])), (5, 0));
}

#[tokio::test]
async fn a_flip_is_one_call_where_the_first_endpoint_accepts() {
    let cluster = Cluster::start(works(), &BATCH_STATES).await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    assert_eq!(cluster.calls("UpdateRoutingControlStates"), 1);
    assert_eq!(cluster.holding("app-b", "On"), 1);
}

#[tokio::test]
async fn with_two_of_five_dead_a_flip_is_still_done_within_a_second() {
    for _ in 0..8 {
        let cluster = Cluster::start([Dead, Works, Dead, Works, Works], &BATCH_STATES).await;
        let started = Instant::now();
        let outcome = cluster.client.flip(&batch(), limits()).await;
        assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
        assert!(started.elapsed() < Duration::from_secs(1));
    }
}

#[tokio::test]
async fn with_two_of_five_hung_a_flip_costs_at_most_two_timeouts() {
    let cluster =
        Cluster::start([HangsAfterApplying, Works, HangsAfterApplying, Works, Works], &BATCH_STATES).await;
    let started = Instant::now();
    let outcome = cluster.client.flip(&batch(), limits()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    assert!(started.elapsed() < Duration::from_millis(2 * 400 + 500));
}

#[tokio::test]
async fn endpoints_in_maintenance_are_passed_over_at_once() {
    let cluster =
        Cluster::start([maintenance(), maintenance(), Works, maintenance(), maintenance()], &BATCH_STATES)
            .await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    let by = "ARC eu-west-1".to_owned();
    assert_eq!(outcome, Outcome::Done { by });
}

#[tokio::test]
async fn when_nobody_answers_the_outcome_is_unknown() {
    let hung = || HangsAfterApplying;
    let cluster = Cluster::start([hung(), hung(), hung(), hung(), hung()], &BATCH_STATES).await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome}");
    assert!(cluster.holding("app-b", "On") > 0, "it did happen");
    assert!(cluster.calls("UpdateRoutingControlStates") <= 10);
}

#[tokio::test]
async fn when_all_are_in_maintenance_nothing_happened_and_it_may_be_asked_again() {
    let all = std::array::from_fn(|_| maintenance());
    let cluster = Cluster::start(all, &BATCH_STATES).await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome}");
    };
    assert!(!refusal.permanent);
    assert_eq!(cluster.calls("UpdateRoutingControlStates"), 10);
}

#[tokio::test]
async fn a_conflict_is_asked_once_and_told_with_the_rules_name() {
    let all = std::array::from_fn(|_| RefusesUpdates);
    let cluster = Cluster::start(all, &BATCH_STATES).await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome}");
    };
    assert!(refusal.reason.contains("at-most-one") && !refusal.permanent);
    assert_eq!(cluster.calls("UpdateRoutingControlStates"), 1);
}

#[tokio::test]
async fn a_conflict_over_states_that_already_hold_is_already_done() {
    let all = std::array::from_fn(|_| RefusesUpdates);
    let cluster = Cluster::start(all, &[("app-a", "Off"), ("app-b", "On")]).await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    assert!(matches!(outcome, Outcome::AlreadyDone { .. }), "{outcome}");
}

#[tokio::test]
async fn throttled_endpoints_are_asked_again_only_after_the_time_they_named() {
    let throttled = || {
        let hint = json!({"message": "slow down", "retryAfterSeconds": 1});
        FailsOnce(429, "ThrottlingException", hint)
    };
    let all = std::array::from_fn(|_| throttled());
    let cluster = Cluster::start(all, &BATCH_STATES).await;
    let started = Instant::now();
    let outcome = cluster.client.flip(&batch(), limits()).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    assert_eq!(cluster.calls("UpdateRoutingControlStates"), 6);
}

#[tokio::test]
async fn denied_credentials_are_refused_for_good_after_each_endpoint_said_so_once() {
    let all =
        std::array::from_fn(|_| Fails(403, "AccessDeniedException", json!({"message": "not authorised"})));
    let cluster = Cluster::start(all, &BATCH_STATES).await;
    let outcome = cluster.client.flip(&batch(), limits()).await;
    let Outcome::Refused(refusal) = outcome else {
        panic!("{outcome}");
    };
    assert!(refusal.permanent);
    assert_eq!(cluster.calls("UpdateRoutingControlStates"), 5);
}

#[tokio::test]
async fn health_tells_who_answered_how_fast_and_who_did_not() {
    let cluster = Cluster::start([Dead, Works, Works, Works, Works], &BATCH_STATES).await;
    cluster.client.read_all(&[control("app-a")], ReadLimits::default()).await;
    let health = cluster.client.health();
    assert_eq!(health[0].failures, 1);
    assert_eq!(health[0].last_error.unwrap().0, ErrorKind::Unreachable);
    assert!(health[0].last_success.is_none());
    assert!(health[1].latency.is_some() && health[1].successes == 1);
}
