//! The RDS client against a server that scripts the service's answers.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

mod support;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use region_aws::{ErrorKind, Outcome, RdsClient, RdsLimits};
use tokio::net::TcpListener;

const GLOBAL: &str = "trade-matching-global";
const EAST: &str = "arn:aws:rds:us-east-1:123456789012:cluster:trade-matching-us-east-1";
const WEST: &str = "arn:aws:rds:us-west-2:123456789012:cluster:trade-matching-us-west-2";

enum Answer {
    Describe { writer: &'static str, change: String },
    Accepted,
    Fault(u16, &'static str),
    Silence,
}

struct Script {
    answers: Mutex<VecDeque<Answer>>,
    requests: Mutex<Vec<String>>,
}

async fn start(answers: impl Into<VecDeque<Answer>>) -> (RdsClient, Arc<Script>) {
    let script = Arc::new(Script { answers: Mutex::new(answers.into()), requests: Mutex::default() });
    let router = Router::new().route("/", post(answer)).with_state(script.clone());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let limits = RdsLimits { describe: Duration::from_millis(400), act: Duration::from_millis(400) };
    let access = support::access().await;
    let client = RdsClient::new("us-east-1", Some(&url), &access, limits);
    (client, script)
}

async fn answer(State(script): State<Arc<Script>>, body: String) -> Response {
    let action = body.split('&').find_map(|pair| pair.strip_prefix("Action=")).unwrap().to_owned();
    script.requests.lock().unwrap().push(action);
    let next = script.answers.lock().unwrap().pop_front();
    let xml = [(header::CONTENT_TYPE, "text/xml")];
    match next.expect("more calls than the script has answers") {
        Answer::Describe { writer, change } => (xml, describe_xml(writer, &change)).into_response(),
        Answer::Accepted => (
            xml,
            "<SwitchoverGlobalClusterResponse><SwitchoverGlobalClusterResult/></SwitchoverGlobalClusterResponse>",
        )
            .into_response(),
        Answer::Fault(status, code) => {
            let body = format!("<ErrorResponse><Error><Type>Sender</Type><Code>{code}</Code><Message>scripted</Message></Error><RequestId>r</RequestId></ErrorResponse>");
            (StatusCode::from_u16(status).unwrap(), xml, body).into_response()
        }
        Answer::Silence => std::future::pending().await,
    }
}

fn describe_xml(writer: &str, change: &str) -> String {
    let member = |arn: &str| {
        format!(
            "<GlobalClusterMember><DBClusterArn>{arn}</DBClusterArn><IsWriter>{}</IsWriter><SynchronizationStatus>feeling-fine</SynchronizationStatus></GlobalClusterMember>",
            arn == writer || writer == "both"
        )
    };
    format!(
        "<DescribeGlobalClustersResponse><DescribeGlobalClustersResult><GlobalClusters><GlobalClusterMember>\
         <GlobalClusterIdentifier>{GLOBAL}</GlobalClusterIdentifier><Status>brand-new-status</Status>\
         <GlobalClusterMembers>{}{}</GlobalClusterMembers><FailoverState>{change}</FailoverState>\
         </GlobalClusterMember></GlobalClusters></DescribeGlobalClustersResult></DescribeGlobalClustersResponse>",
        member(EAST),
        member(WEST)
    )
}

fn quiet(writer: &'static str) -> Answer {
    Answer::Describe { writer, change: String::new() }
}

fn under_way(to: &str, status: &str) -> Answer {
    let from = if to == EAST { WEST } else { EAST };
    let change = format!(
        "<Status>{status}</Status><FromDbClusterArn>{from}</FromDbClusterArn><ToDbClusterArn>{to}</ToDbClusterArn><IsDataLossAllowed>false</IsDataLossAllowed>"
    );
    Answer::Describe { writer: EAST, change }
}

fn switchovers(script: &Script) -> usize {
    let requests = script.requests.lock().unwrap();
    requests.iter().filter(|action| *action == "SwitchoverGlobalCluster").count()
}

#[tokio::test]
async fn words_that_this_version_does_not_know_are_kept_as_they_came() {
    let (client, _) = start([under_way(WEST, "switching-over")]).await;
    let view = client.describe(GLOBAL).await.unwrap();
    assert_eq!(view.status.as_deref(), Some("brand-new-status"));
    assert_eq!(view.writer.as_deref(), Some(EAST));
    assert_eq!(view.members[0].synchronization.as_deref(), Some("feeling-fine"));
    let change = view.change.clone().unwrap();
    assert_eq!(change.status.as_deref(), Some("switching-over"));
    assert_eq!(change.to.as_deref(), Some(WEST));
    assert!(!view.settled_on(EAST));
}

#[tokio::test]
async fn two_members_that_both_claim_to_write_are_no_writer() {
    let (client, _) = start([quiet("both")]).await;
    assert_eq!(client.describe(GLOBAL).await.unwrap().writer, None);
}

#[tokio::test]
async fn an_accepted_switchover_is_done() {
    let (client, script) = start([quiet(EAST), Answer::Accepted]).await;
    let outcome = client.switchover(GLOBAL, WEST).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    assert_eq!(switchovers(&script), 1);
}

#[tokio::test]
async fn a_target_that_writes_already_or_is_on_its_way_is_not_asked_for_again() {
    for before in [quiet(WEST), under_way(WEST, "switching-over")] {
        let (client, script) = start([before]).await;
        let outcome = client.switchover(GLOBAL, WEST).await;
        assert!(matches!(outcome, Outcome::AlreadyDone { .. }), "{outcome}");
        assert_eq!(switchovers(&script), 0);
    }
}

#[tokio::test]
async fn a_change_in_the_other_direction_or_being_cancelled_is_a_refusal() {
    for before in [under_way(EAST, "switching-over"), under_way(WEST, "cancelling")] {
        let (client, script) = start([before]).await;
        let outcome = client.switchover(GLOBAL, WEST).await;
        assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
        assert_eq!(switchovers(&script), 0);
    }
}

#[tokio::test]
async fn an_act_without_an_answer_is_unknown() {
    let (client, _) = start([quiet(EAST), Answer::Silence]).await;
    let outcome = client.switchover(GLOBAL, WEST).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome}");
}

#[tokio::test]
async fn an_internal_error_of_the_act_is_unknown_because_it_may_have_begun() {
    let (client, _) = start([quiet(EAST), Answer::Fault(500, "InternalFailure")]).await;
    let outcome = client.switchover(GLOBAL, WEST).await;
    assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome}");
}

#[tokio::test]
async fn an_invalid_state_that_turns_out_to_be_our_own_change_is_already_done() {
    let fault = || Answer::Fault(400, "InvalidGlobalClusterStateFault");
    let (client, _) = start([quiet(EAST), fault(), under_way(WEST, "pending")]).await;
    let outcome = client.switchover(GLOBAL, WEST).await;
    assert!(matches!(outcome, Outcome::AlreadyDone { .. }), "{outcome}");

    let (client, _) = start([quiet(EAST), fault(), quiet(EAST)]).await;
    let Outcome::Refused(refusal) = client.switchover(GLOBAL, WEST).await else {
        panic!("an invalid state is a refusal");
    };
    assert!(!refusal.permanent);
}

#[tokio::test]
async fn a_failed_look_asks_for_nothing() {
    let (client, script) = start([Answer::Silence]).await;
    let outcome = client.switchover(GLOBAL, WEST).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome}");
    assert_eq!(switchovers(&script), 0);
}

#[tokio::test]
async fn an_unknown_global_cluster_and_denied_credentials_are_told_apart() {
    let (client, _) = start([
        Answer::Fault(404, "GlobalClusterNotFoundFault"),
        Answer::Fault(403, "SignatureDoesNotMatch"),
    ])
    .await;
    let missing = client.describe(GLOBAL).await.unwrap_err();
    assert_eq!(missing.kind, ErrorKind::NotFound);
    let denied = client.describe(GLOBAL).await.unwrap_err();
    assert_eq!(denied.kind, ErrorKind::AccessDenied);
    assert!(denied.to_string().contains("RDS us-east-1"), "{denied}");
}
