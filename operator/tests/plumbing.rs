//! The operator's plumbing against an API server in this process: leadership, compare-and-set, dead peers, bounded
//! retries, objects that cannot be decoded.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod support;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use crds::{TradingRegion, TradingRegionStatus};
use futures::stream;
use http::StatusCode;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use region_aws::{AwsAccess, CallTimeouts, CredentialSource};
use region_operator::apply::{HookBoard, ObjectWriter, Pauses, WriteError};
use region_operator::backoff::Backoff;
use region_operator::cluster::{ClientLimits, PeerReader, Peers, ReadPeer, Secrets, from_kubeconfig_text};
use region_operator::controller::{self, Operator};
use region_operator::events::Events;
use region_operator::leader::{Election, LeadershipLost, Timings, while_leading};
use region_operator::metrics::Metrics;
use region_operator::observe::Samples;
use region_operator::sources::{ApiEndpoints, SourceBook};
use region_operator::workloads::Workloads;
use region_plan::{Fact, Limits, Region};
use serde_json::{Value, json};
use support::{ApiServer, example, until};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const REGIONS: &str = "/apis/regions.trading.dev/v1alpha1/namespaces/trading/tradingregions";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/operator/leases";

fn kubeconfig(address: SocketAddr) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "peer",
        "clusters": [{"name": "peer", "cluster": {"server": format!("http://{address}")}}],
        "users": [{"name": "peer", "user": {}}],
        "contexts": [{"name": "peer", "context": {"cluster": "peer", "user": "peer"}}],
    })
    .to_string()
}

#[tokio::test]
async fn a_server_that_is_overloaded_is_asked_once_in_each_call() {
    let asked = Arc::new(AtomicUsize::new(0));
    let app = Router::new().fallback(async |State(asked): State<Arc<AtomicUsize>>| {
        asked.fetch_add(1, Ordering::Relaxed);
        StatusCode::SERVICE_UNAVAILABLE
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app.with_state(Arc::clone(&asked))).into_future());
    let client = from_kubeconfig_text("test", &kubeconfig(address), ClientLimits::default()).await.unwrap();
    assert!(Api::<ConfigMap>::default_namespaced(client).get("any").await.is_err());
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

fn lease(holder: &str) -> Value {
    json!({"metadata": {"name": "lead", "namespace": "operator", "resourceVersion": "5"},
           "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z"}})
}

fn election(server: &ApiServer, me: &str) -> Election {
    let api: Api<Lease> = Api::namespaced(server.client(), "operator");
    Election::new(api, "lead", me, Timings::default())
}

#[tokio::test(start_paused = true)]
async fn work_ends_when_another_replica_leads() {
    let server = ApiServer::default();
    server.put(LEASES, lease("other"));
    let ended = while_leading(&election(&server, "me"), std::future::pending::<()>()).await;
    assert!(matches!(ended, Err(LeadershipLost::TakenBy(other)) if other == "other"));
}

#[tokio::test(start_paused = true)]
async fn work_ends_before_others_may_take_over_when_the_lease_cannot_be_renewed() {
    let server = ApiServer::default();
    server.fail("leases", StatusCode::INTERNAL_SERVER_ERROR);
    let began = Instant::now();
    let ended = while_leading(&election(&server, "me"), std::future::pending::<()>()).await;
    assert!(matches!(ended, Err(LeadershipLost::NotRenewed(..))));
    let timings = Timings::default();
    assert!(
        began.elapsed() >= timings.renew_deadline && began.elapsed() < timings.duration,
        "{:?}",
        began.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn a_standby_replica_waits_for_the_whole_duration_of_a_silent_leader() {
    let server = ApiServer::default();
    server.put(LEASES, lease("gone"));
    let began = Instant::now();
    election(&server, "me").acquire().await;
    assert!(began.elapsed() >= Timings::default().duration, "{:?}", began.elapsed());
    let taken = server.writes("leases/lead");
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].body["metadata"]["resourceVersion"], "5", "a compare-and-set on what was read");
    assert_eq!(taken[0].body["spec"]["holderIdentity"], "me");
}

#[tokio::test(start_paused = true)]
async fn leadership_is_given_back_at_a_clean_end() {
    let server = ApiServer::default();
    server.put(LEASES, lease("me"));
    while_leading(&election(&server, "me"), async {}).await.unwrap();
    assert_eq!(server.writes("leases/lead")[0].body["spec"]["holderIdentity"], "");
}

#[tokio::test]
async fn a_status_that_somebody_else_changed_meanwhile_is_a_conflict_and_is_not_forced() {
    let server = ApiServer::default();
    server.fail("/status", StatusCode::CONFLICT);
    let object: TradingRegion = serde_json::from_value(example()).unwrap();
    let writer = ObjectWriter::new(&server.client(), &object);
    let ended = writer.write_status(&object, &TradingRegionStatus::default()).await;
    assert!(matches!(ended, Err(WriteError::Conflict)), "{ended:?}");
    assert_eq!(server.writes("/status").len(), 1);
}

/// A server that accepts and answers nothing until it is told to.
async fn silent_peer() -> (SocketAddr, Arc<AtomicBool>) {
    let answers = Arc::new(AtomicBool::new(false));
    let app = Router::new().fallback(async |State(answers): State<Arc<AtomicBool>>| {
        if !answers.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "", "reason": "NotFound", "code": 404});
        (StatusCode::NOT_FOUND, axum::Json(status))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, app.with_state(Arc::clone(&answers))).into_future());
    (address, answers)
}

fn secret(name: &str, values: &[(&str, String)]) -> Value {
    use base64::Engine;
    let data: BTreeMap<_, _> =
        values.iter().map(|(key, value)| (*key, base64::prelude::BASE64_STANDARD.encode(value))).collect();
    json!({"metadata": {"name": name, "namespace": "trading", "resourceVersion": "1"}, "data": data})
}

#[tokio::test]
async fn a_dead_peer_costs_one_read_and_is_asked_beside_the_passes_until_it_answers() {
    let server = ApiServer::default();
    let (address, answers) = silent_peer().await;
    server.put("/api/v1/namespaces/trading/secrets", secret("peer", &[("kubeconfig", kubeconfig(address))]));
    let (wish, mut wishes) = mpsc::channel(1);
    let peers = Peers::new(Arc::new(Secrets::new(server.client())), wish);
    assert!(peers.read(("trading", "app"), ("peer", "kubeconfig"), ReadPeer::Now).await.get().is_none());

    let began = std::time::Instant::now();
    for _ in 0..50 {
        assert!(peers.read(("trading", "app"), ("peer", "kubeconfig"), ReadPeer::Now).await.get().is_none());
    }
    assert!(
        began.elapsed() < Duration::from_millis(500),
        "50 reads of a dead peer took {:?}",
        began.elapsed()
    );

    answers.store(true, Ordering::Relaxed);
    tokio::time::timeout(support::SOON, wishes.recv()).await.expect("the peer's return asks for a pass");
    let found = peers.read(("trading", "app"), ("peer", "kubeconfig"), ReadPeer::Now).await;
    assert_eq!(found.get(), Some(&None), "it answers, and has no such object");
}

fn read_at<T>(fact: &Fact<T>) -> Option<Timestamp> {
    match fact {
        Fact::Known { at, .. } => Some(*at),
        Fact::Unknown { .. } => None,
    }
}

#[tokio::test]
async fn a_side_that_has_begun_gets_the_last_copy_at_once_while_one_read_is_under_way() {
    let server = ApiServer::default();
    let object = example();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    server.put("/apis/regions.trading.dev/v1alpha1/namespaces/trading/tradingregions", object);
    let reader = PeerReader::start(server.client(), "trading", "the peer", mpsc::channel(1).0);
    let found = reader.read_beside(&name).await;
    assert!(found.get().is_some_and(Option::is_some), "the first one is waited for: {found:?}");
    let path = format!("tradingregions/{name}");
    let reads = || server.asked().iter().filter(|asked| asked.path.ends_with(&path)).count();
    server.silence(&path);
    let (before, began) = (reads(), std::time::Instant::now());
    for _ in 0..20 {
        let again = reader.read_beside(&name).await;
        assert_eq!(read_at(&again), read_at(&found), "the same copy, with its own age");
        tokio::task::yield_now().await;
    }
    assert!(began.elapsed() < Duration::from_millis(500), "20 reads took {:?}", began.elapsed());
    assert_eq!(reads() - before, 1);
    let unknown = async {
        while reader.read_beside(&name).await.get().is_some() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(support::SOON, unknown)
        .await
        .expect("a peer that fell silent is not known any more");
}

/// A clock that goes with the test's virtual time.
fn virtual_clock() -> impl Fn() -> Timestamp + Clone + Send + Sync + 'static {
    let began = Instant::now();
    move || Timestamp::UNIX_EPOCH + began.elapsed()
}

/// How old the cache's reading is after each of so many virtual seconds.
async fn ages(cache: &Workloads, now: &impl Fn() -> Timestamp, seconds: usize) -> Vec<i64> {
    let mut ages = Vec::new();
    for _ in 0..seconds {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let read = cache.selected("trading", &BTreeMap::new()).unwrap();
        assert_eq!(read.deployments.len(), 1);
        ages.push(now().duration_since(read.at).as_secs());
    }
    ages
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_stays_fresh_and_one_that_nobody_answers_grows_old_until_it_is_answered_again() {
    let limit = Limits::default().fact_age.as_secs();
    let server = ApiServer::default();
    let metadata = json!({"name": "core", "namespace": "trading", "resourceVersion": "3"});
    server.put("/apis/apps/v1/namespaces/trading/deployments", json!({"metadata": metadata}));
    let now = virtual_clock();
    let (cache, mut synced) = Workloads::start_by(&server.client(), now.clone());
    synced.wait_for(|synced| *synced).await.unwrap();
    let quiet = ages(&cache, &now, 120).await;
    assert!(quiet.iter().all(|age| *age < limit), "{quiet:?}");

    // Half of it is enough: one kind of two, its connection open and mute.
    server.silence("horizontalpodautoscalers");
    let mute = ages(&cache, &now, 40).await;
    assert!(mute.last().is_some_and(|age| *age > 2 * limit), "{mute:?}");
    let broken = cache.selected("trading", &BTreeMap::new()).unwrap().broken;
    assert!(broken.is_some_and(|why| why.contains("no answer")));

    server.recover();
    let again = ages(&cache, &now, 60).await;
    assert!(again[20..].iter().all(|age| *age < limit), "{again:?}");
    assert_eq!(cache.selected("trading", &BTreeMap::new()).unwrap().broken, None);

    server.fail("deployments", StatusCode::FORBIDDEN);
    ages(&cache, &now, 20).await;
    assert!(cache.selected("trading", &BTreeMap::new()).unwrap().broken.is_some());
}

async fn operator(server: &ApiServer) -> Arc<Operator> {
    let client = server.client();
    let (wish, _) = mpsc::channel(1);
    let secrets = Arc::new(Secrets::new(client.clone()));
    let deadline = Duration::from_millis(200);
    let keys = aws_credential_types::Credentials::new("AKIDEXAMPLE", "no-secret", None, None, "test");
    let timeouts = CallTimeouts { connect: deadline, attempt: deadline };
    let access = AwsAccess::new(CredentialSource::Keys(keys), None, timeouts).await.unwrap();
    let me = Region::from("us-east-1");
    let nowhere = ApiEndpoints { arc_config: Some("https://127.0.0.1:9".to_owned()), ..Default::default() };
    Arc::new(Operator {
        me: me.clone(),
        workloads: Workloads::start(&client).0,
        peers: Arc::new(Peers::new(Arc::clone(&secrets), wish.clone())),
        hooks: HookBoard::new(client.clone(), wish),
        sources: SourceBook::new(me, secrets, access, nowhere, deadline),
        events: Events::start(client.clone(), "test", "test"),
        metrics: Arc::new(Metrics::default()),
        backoff: Backoff::default(),
        pauses: Pauses::default(),
        samples: Samples::default(),
        observe_deadline: deadline,
        failpoints: false,
        written: std::sync::Mutex::default(),
        client,
    })
}

/// The example with endpoints on a port of this machine where nobody listens.
fn unreachable(name: &str, uid: &str) -> Value {
    let mut object = example();
    object["metadata"]["name"] = json!(name);
    object["metadata"]["uid"] = json!(uid);
    for (index, endpoint) in
        object["spec"]["routing"]["arc"]["endpoints"].as_array_mut().unwrap().iter_mut().enumerate()
    {
        endpoint["url"] = json!(format!("https://127.0.0.{}:9", index + 1));
    }
    for (_, cluster) in object["spec"]["database"]["auroraGlobal"]["clusters"].as_object_mut().unwrap() {
        cluster["endpoint"] = json!("https://127.0.0.1:9");
    }
    object["spec"]["routing"].as_object_mut().unwrap().remove("dns");
    object
}

#[tokio::test]
async fn an_object_that_cannot_be_decoded_is_reported_and_the_next_one_is_served() {
    let server = ApiServer::default();
    let mut broken = unreachable("broken", "uid-broken");
    broken["spec"]["regions"] = json!("not a list");
    broken["status"] = json!({"phase": "Steady", "side": {"region": "us-east-1", "highestEpoch": 4}});
    server.put(REGIONS, broken);
    server.put(REGIONS, unreachable("whole", "uid-whole"));
    let operator = operator(&server).await;
    operator.metrics.leads(true);
    let stop = CancellationToken::new();
    let running = tokio::spawn(controller::run(Arc::clone(&operator), stream::pending(), stop.clone()));

    let status =
        until("a status of the whole object", || server.writes("tradingregions/whole/status").pop()).await;
    until("the undecodable object in the metrics", || {
        operator.metrics.text().ok().filter(|text| text.contains("undecodable_objects 1"))
    })
    .await;
    until("an event about it", || {
        server.writes("/events").into_iter().find(|event| event.body["reason"] == "Undecodable")
    })
    .await;
    let told = until("its status", || server.writes("tradingregions/broken").pop()).await;
    assert!(told.path.ends_with("/status") && told.query.contains("not-understood"), "{told:?}");
    let told = told.body["status"].as_object().unwrap().clone();
    assert_eq!(told.keys().collect::<Vec<_>>(), ["conditions"], "its report and all else stay as they are");
    let said: Vec<_> =
        told["conditions"].as_array().unwrap().iter().map(|c| (&c["type"], &c["status"])).collect();
    assert_eq!(said, [(&json!("Valid"), &json!("False")), (&json!("Ready"), &json!("Unknown"))]);

    // Everything outside is out of reach: nothing is known, so nothing is done, and people are told why.
    let status = &status.body["status"];
    let condition = |wanted: &str| {
        status["conditions"].as_array().unwrap().iter().find(|c| c["type"] == wanted).unwrap()["status"]
            .clone()
    };
    assert_eq!(condition("Valid"), "False");
    assert_eq!(condition("LeaseHeld"), "Unknown");
    assert_eq!(condition("Ready"), "Unknown");
    assert!(server.writes("deployments").is_empty());
    stop.cancel();
    tokio::time::timeout(support::SOON, running).await.expect("the controller ends").unwrap();
}

#[tokio::test]
async fn an_object_that_is_only_observed_gets_a_status_and_nothing_else() {
    let server = ApiServer::default();
    let mut object = unreachable("watched", "uid-watched");
    object["spec"]["managed"] = json!("Observe");
    server.put(REGIONS, object);
    let operator = operator(&server).await;
    let stop = CancellationToken::new();
    tokio::spawn(controller::run(operator, stream::pending(), stop.clone()));
    let written = until("a status", || server.writes("tradingregions/watched").pop()).await;
    assert_eq!(written.body["status"]["phase"], "Observing");
    let others: Vec<_> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.method != http::Method::GET)
        .filter(|asked| !asked.path.ends_with("/status") && !asked.path.contains("/events"))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    stop.cancel();
}

/// The notes of the events with that reason and action, in their order.
fn notes(server: &ApiServer, reason: &str, action: &str) -> Vec<String> {
    let events = server.writes("/events").into_iter().map(|event| event.body);
    let told = events.filter(|body| body["reason"] == reason && body["action"] == action);
    told.filter_map(|body| body["note"].as_str().map(str::to_owned)).collect()
}

#[tokio::test]
async fn a_step_is_told_before_its_first_attempt_even_if_that_fails() {
    let server = ApiServer::default();
    let mut object = unreachable("leaving", "uid-leaving");
    object["spec"]["managed"] = json!("Observe");
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    object["metadata"]["finalizers"] = json!([crds::FINALIZER]);
    server.put(REGIONS, object);
    server.fail("write tradingregions/leaving", StatusCode::INTERNAL_SERVER_ERROR);
    let operator = operator(&server).await;
    let stop = CancellationToken::new();
    tokio::spawn(controller::run(operator, stream::pending(), stop.clone()));
    let failed = || notes(&server, "RemoveFinalizer", "TryStep").pop();
    until("the failed attempt", failed).await;
    assert_eq!(notes(&server, "RemoveFinalizer", "StartStep"), ["RemoveFinalizer begun"]);
    stop.cancel();
}

/// Our side of a run that asks for what the spec no longer wants: it is declined in the next pass.
fn with_an_open_run(run: &str) -> Value {
    let mut object = unreachable("moving", "uid-moving");
    object["spec"]["activeRegion"] = json!("us-west-2");
    object["metadata"]["finalizers"] = json!([crds::FINALIZER]);
    let open = json!({"id": run, "from": "us-west-2", "to": "us-east-1", "fromEpoch": 4, "generation": 2,
                      "openedAt": "2026-01-01T00:00:00Z", "mark": "Proposed"});
    object["status"] = json!({"side": {"region": "us-east-1", "highestEpoch": 4, "run": open}});
    object
}

#[tokio::test]
async fn each_step_of_a_run_is_told_when_it_begins_and_when_its_proof_is_seen() {
    let server = ApiServer::default();
    let run = "018f0000-0000-7000-8000-000000000001";
    server.put(REGIONS, with_an_open_run(run));
    let operator = operator(&server).await;
    let stop = CancellationToken::new();
    tokio::spawn(controller::run(operator, stream::pending(), stop.clone()));
    until("the proof", || notes(&server, "RecordDeclined", "ProveStep").pop()).await;
    let begun = notes(&server, "RecordDeclined", "StartStep");
    assert_eq!(begun, [format!("RecordDeclined begun (run {run})")]);
    stop.cancel();
}

/// Lines of a log, kept.
#[derive(Clone, Default)]
struct Lines(Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn all(&self) -> Vec<Value> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

#[tokio::test]
async fn every_line_of_a_pass_with_an_open_run_carries_the_run() {
    let lines = Lines::default();
    let writer = lines.clone();
    let logs = tracing_subscriber::fmt().json().with_span_list(false).with_writer(move || writer.clone());
    let _logging = tracing::subscriber::set_default(logs.finish());
    let server = ApiServer::default();
    let run = "018f0000-0000-7000-8000-000000000002";
    server.put(REGIONS, with_an_open_run(run));
    server.fail("write tradingregions/moving", StatusCode::INTERNAL_SERVER_ERROR);
    let operator = operator(&server).await;
    let stop = CancellationToken::new();
    tokio::spawn(controller::run(operator, stream::pending(), stop.clone()));
    let of_passes = || lines.all().into_iter().filter(|line| line["span"]["name"] == "pass");
    until("the end of a pass", || of_passes().find(|line| line["fields"]["message"] == "the pass failed"))
        .await;
    let passes: Vec<Value> = of_passes().collect();
    assert!(passes.iter().any(|line| line["fields"]["message"] == "phase"), "{passes:?}");
    for line in passes {
        assert_eq!(line["span"]["run"], run, "{line}");
    }
    stop.cancel();
}
