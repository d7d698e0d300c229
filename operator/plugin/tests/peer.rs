//! A region that does not answer costs two seconds, not more, and the other one is still told.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

use std::time::{Duration, Instant};

use kube::config::Kubeconfig;
use kubectl_region::{Cluster, CopyError, read_both};

fn kubeconfig(port: u16) -> Kubeconfig {
    let text = format!(
        "{{apiVersion: v1, kind: Config, clusters: [{{name: c, cluster: {{server: 'http://127.0.0.1:{port}'}}}}], \
         users: [], contexts: [{{name: us-east-1, context: {{cluster: c, user: ''}}}}]}}"
    );
    Kubeconfig::from_yaml(&text).expect("the kubeconfig is understood")
}

#[tokio::test]
async fn a_region_that_accepts_and_never_answers_is_unknown_within_its_deadline() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cluster =
        Cluster::of_context(&kubeconfig(silent.local_addr().unwrap().port()), "us-east-1", None).await;
    let began = Instant::now();
    let copies = read_both(&[cluster], Some("trade-matching")).await;
    assert!(began.elapsed() < Duration::from_millis(2_500), "took {:?}", began.elapsed());
    let why = copies[0].object.as_ref().unwrap_err();
    assert!(matches!(why, CopyError::Unreachable { .. }), "{why}");
    assert_eq!(why.to_string(), "context us-east-1: no answer within 2 s");
}

#[tokio::test]
async fn a_region_that_refuses_connections_is_unknown_at_once() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let cluster = Cluster::of_context(&kubeconfig(closed), "us-east-1", None).await;
    let copies = read_both(&[cluster], Some("trade-matching")).await;
    assert!(matches!(copies[0].object, Err(CopyError::Unreachable { .. })), "{:?}", copies[0].object);
}

#[tokio::test]
async fn a_context_that_does_not_exist_is_named_with_what_to_do() {
    let cluster = Cluster::of_context(&kubeconfig(1), "us-west-2", None).await;
    let why = cluster.read(None).await.unwrap_err().to_string();
    assert!(why.contains("context us-west-2") && why.contains("--contexts"), "{why}");
}
