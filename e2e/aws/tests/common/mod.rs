//! A simulator for tests: on loopback addresses, with its own CA, and servers that only write down what they
//! are told.
#![allow(dead_code, reason = "each test file uses its own part")]
#![expect(clippy::unwrap_used, reason = "a helper of tests that fails fails the test")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aws_simulator::{
    Addresses, ArcEndpoint, Condition, ConditionKind, Config, ControlState, Credential, Dns, FailoverName,
    FailoverTarget, GlobalCluster, Member, RoutingControl, SafetyRule, Simulator, Tls,
};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

pub(crate) const KEY: &str = "AKIDCONTRACT";
pub(crate) const SECRET: &str = "contract-secret";
pub(crate) const REGIONS: [&str; 5] =
    ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"];
pub(crate) const ZONE: &str = "trading.lab";
pub(crate) const PANEL: &str = "arn:aws:route53-recovery-control::123456789012:controlpanel/panel";
/// No wait in a test is longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A simulator that serves in the background and stops when dropped.
pub(crate) struct Running {
    pub(crate) addresses: Addresses,
    pub(crate) folder: PathBuf,
    stop: CancellationToken,
    served: tokio::task::JoinHandle<Result<(), aws_simulator::Error>>,
    kept: Option<tempfile::TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Running {
    /// With the standard configuration.
    pub(crate) async fn start() -> Self {
        let kept = tempfile::tempdir().unwrap();
        let mut running = Self::start_in(kept.path(), |_| {}).await;
        running.kept = Some(kept);
        running
    }

    /// In a folder that outlives it, with a changed configuration.
    pub(crate) async fn start_in(folder: &Path, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(folder);
        change(&mut config);
        let simulator = Simulator::bind(config).await.unwrap();
        let addresses = simulator.addresses().clone();
        let stop = CancellationToken::new();
        let served = tokio::spawn(simulator.run(stop.clone().cancelled_owned()));
        Self { addresses, folder: folder.to_owned(), stop, served, kept: None }
    }

    /// Stops it and waits until it has.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        tokio::time::timeout(LIMIT, &mut self.served).await.expect("stops in time").unwrap().unwrap();
    }

    pub(crate) fn arc_url(&self, region: &str) -> String {
        format!("https://{}", self.addresses.arc[region])
    }

    pub(crate) fn rds_url(&self) -> String {
        format!("https://{}", self.addresses.rds)
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.folder.join("ca.crt")
    }

    /// What the servers were told, in order.
    pub(crate) fn commands(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join("commands")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// A call of the control port; it must succeed.
    pub(crate) async fn control(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_control(method, path, body).await;
        assert!((200..300).contains(&status), "{method} {path}: {status} {answer}");
        answer
    }

    pub(crate) async fn try_control(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let request = http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.addresses.control))
            .header("content-type", "application/json")
            .body(Full::new(bytes::Bytes::from(body.to_string())))
            .unwrap();
        let answer =
            tokio::time::timeout(LIMIT, client.request(request)).await.expect("answers in time").unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    /// Changes settings.
    pub(crate) async fn set(&self, patch: Value) {
        self.control("PATCH", "/faults", patch).await;
    }

    pub(crate) async fn state(&self) -> Value {
        self.control("GET", "/state", Value::Null).await
    }

    /// Operation and outcome of each call since the last clearing.
    pub(crate) async fn calls(&self) -> Vec<(String, String)> {
        let answer = self.control("GET", "/calls", Value::Null).await;
        let text = |call: &Value, field: &str| call[field].as_str().unwrap().to_owned();
        let calls = answer["calls"].as_array().unwrap();
        calls.iter().map(|call| (text(call, "operation"), text(call, "outcome"))).collect()
    }
}

/// Waits until a value is as wanted.
///
/// # Panics
/// After [`LIMIT`], with the last value.
pub(crate) async fn wait_until<T: std::fmt::Debug, F: Future<Output = T>>(
    what: &str,
    mut read: impl FnMut() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let value = read().await;
        if wanted(&value) {
            return value;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: still {value:?} after {LIMIT:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn control_arn(name: &str) -> String {
    format!("{PANEL}/routingcontrol/{name}")
}

pub(crate) fn cluster_arn(region: &str) -> String {
    format!("arn:aws:rds:{region}:123456789012:cluster:app-{region}")
}

/// Six controls (`ingress`, `intake`, `app` of two regions, east On), at most one On of each kind, one global
/// cluster with its writer in the east.
pub(crate) fn config(folder: &Path) -> Config {
    let any = |last: u8| SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0));
    let tls = certificate(folder);
    let kinds = ["app", "ingress", "intake"];
    let control = |kind: &str, region: &str, initial_state| RoutingControl {
        arn: control_arn(&format!("{kind}-{region}")),
        name: format!("{kind}-{region}"),
        panel_arn: PANEL.to_owned(),
        panel_name: "panel".to_owned(),
        initial_state,
    };
    let rule = |kind: &str| SafetyRule {
        arn: format!("{PANEL}/safetyrule/one-{kind}"),
        name: format!("one-{kind}"),
        controls: ["us-east-1", "us-west-2"].map(|region| control_arn(&format!("{kind}-{region}"))).to_vec(),
        target_controls: Vec::new(),
        condition: Condition { kind: ConditionKind::AtLeast, threshold: 2, inverted: true },
        wait_period_ms: 0,
    };
    Config {
        arc_endpoints: REGIONS
            .iter()
            .zip(11..)
            .map(|(region, last)| ArcEndpoint { region: (*region).to_owned(), address: any(last) })
            .collect(),
        rds_listen: any(2),
        dns: dns(any(2)),
        control_listen: any(2),
        tls,
        credentials: vec![Credential { access_key_id: KEY.to_owned(), secret_access_key: SECRET.to_owned() }],
        account: "123456789012".to_owned(),
        routing_controls: kinds
            .iter()
            .flat_map(|kind| {
                [control(kind, "us-east-1", ControlState::On), control(kind, "us-west-2", ControlState::Off)]
            })
            .collect(),
        safety_rules: kinds.iter().map(|kind| rule(kind)).collect(),
        global_clusters: vec![GlobalCluster {
            id: "app-global".to_owned(),
            writer_endpoint: format!("writer.{ZONE}"),
            ttl_seconds: Some(1),
            engine_version: "17.4".to_owned(),
            writer: cluster_arn("us-east-1"),
            members: vec![member(folder, "us-east-1", 1), member(folder, "us-west-2", 2)],
            command_timeout_seconds: 10,
        }],
        state_file: Some(folder.join("aws.json")),
        seed: Some(7),
        call_log_limit: 1_000,
    }
}

fn dns(listen: SocketAddr) -> Dns {
    let target = |region: &str, last| FailoverTarget {
        control: control_arn(&format!("ingress-{region}")),
        address: Ipv4Addr::new(10, 99, last, 2),
    };
    Dns {
        listen,
        zone: ZONE.to_owned(),
        ttl_seconds: 5,
        static_names: BTreeMap::from([(format!("us-east-1.{ZONE}"), Ipv4Addr::new(10, 99, 1, 2))]),
        failover_names: vec![FailoverName {
            name: format!("mq.{ZONE}"),
            ttl_seconds: Some(1),
            primary: target("us-east-1", 1),
            secondary: target("us-west-2", 2),
        }],
    }
}

/// A server whose commands append to `commands`; one whose file `fail-<role>-<region>` exists fails.
fn member(folder: &Path, region: &str, last: u8) -> Member {
    let script = |role: &str, shown: &str, prints: &str| {
        let text = format!(
            "echo \"{role} {region} {shown}\" >> {folder}/commands; [ ! -e {folder}/fail-{role}-{region} ] || \
             {{ echo 'as set' >&2; exit 3; }}; {prints}",
            folder = folder.display(),
        );
        vec!["sh".to_owned(), "-c".to_owned(), text]
    };
    Member {
        arn: cluster_arn(region),
        region: region.to_owned(),
        address: SocketAddr::from((Ipv4Addr::new(10, 99, last, 2), 5432)),
        endpoint: None,
        promote: script("promote", "$OLD_PRIMARY_POSITION", "true"),
        follow: script("follow", "$PRIMARY_ADDRESS", "true"),
        stop: script("stop", "", "echo 0/3000028"),
    }
}

/// A CA and a server certificate for the loopback addresses.
fn certificate(folder: &Path) -> Tls {
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    ca.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    ca.distinguished_name.push(DnType::CommonName, "simulator test CA");
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let key = KeyPair::generate().unwrap();
    let addresses: Vec<String> = [2, 11, 12, 13, 14, 15].map(|last| format!("127.0.0.{last}")).to_vec();
    let mut leaf = CertificateParams::new(addresses).unwrap();
    leaf.use_authority_key_identifier_extension = true;
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    std::fs::write(folder.join("ca.crt"), ca_certificate.pem()).unwrap();
    let tls = Tls { certificate_file: folder.join("tls.crt"), key_file: folder.join("tls.key") };
    std::fs::write(&tls.certificate_file, leaf.pem()).unwrap();
    std::fs::write(&tls.key_file, key.serialize_pem()).unwrap();
    tls
}
