//! A simulated AWS account on free ports of this machine, with TLS under a CA of its own.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use aws_simulator::{
    Condition, ConditionKind, Config, ControlState, Credential, Dns, RoutingControl, SafetyRule, Simulator,
    Tls,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use region_aws::ArcEndpoint;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

pub const PANEL: &str = "arn:aws:route53-recovery-control::123456789012:controlpanel/trading";
pub const KEY: &str = "AKIDSIMULATED";
pub const SECRET: &str = "simulated-secret";
pub const REGIONS: [&str; 5] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"];
const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// The ARN of a control of the simulated panel.
pub fn control(name: &str) -> String {
    format!("{PANEL}/routingcontrol/{name}")
}

/// A running simulator; it ends when this is dropped.
pub struct Account {
    pub endpoints: Vec<ArcEndpoint>,
    pub ca_file: PathBuf,
    pub credentials_folder: PathBuf,
    /// The control port.
    pub control: SocketAddr,
    /// Where ARC's control plane answers.
    pub config_url: String,
    folder: TempDir,
    _stop: oneshot::Sender<()>,
}

impl Account {
    /// Starts an account with the given controls, of which at most one may be On at a time.
    pub async fn start(controls: &[(&str, ControlState)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tls = certificates(&folder);
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("access-key-id"), KEY).unwrap();
        std::fs::write(path("secret-access-key"), SECRET).unwrap();
        let simulator = Simulator::bind(account(controls, tls)).await.unwrap();
        let addresses = simulator.addresses().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        tokio::spawn(simulator.run(async move {
            // An error means that the sender was dropped, which is how a test ends.
            let _ = stopped.await;
        }));
        let endpoints = addresses.arc.iter().map(|(region, address)| ArcEndpoint {
            region: region.clone(),
            url: format!("https://{address}"),
        });
        Self {
            endpoints: endpoints.collect(),
            ca_file: path("ca.crt"),
            credentials_folder: folder.path().to_owned(),
            control: addresses.control,
            config_url: format!("https://{}", addresses.rds),
            folder,
            _stop: stop,
        }
    }

    /// Changes settings of the simulator by a JSON merge patch.
    pub async fn set(&self, patch: &str) {
        let mut stream = TcpStream::connect(self.control).await.unwrap();
        let request = format!(
            "PATCH /faults HTTP/1.1\r\nhost: control\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{patch}",
            patch.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }

    /// The CA's certificate.
    pub fn ca(&self) -> Vec<u8> {
        std::fs::read(&self.ca_file).unwrap()
    }
}

fn account(controls: &[(&str, ControlState)], tls: Tls) -> Config {
    let routing_controls = controls.iter().map(|(name, state)| RoutingControl {
        arn: control(name),
        name: (*name).to_owned(),
        panel_arn: PANEL.to_owned(),
        panel_name: "trading".to_owned(),
        initial_state: *state,
    });
    let at_most_one = SafetyRule {
        arn: format!("{PANEL}/safetyrule/at-most-one"),
        name: "at-most-one".to_owned(),
        controls: controls.iter().map(|(name, _)| control(name)).collect(),
        target_controls: Vec::new(),
        condition: Condition { kind: ConditionKind::AtLeast, threshold: 2, inverted: true },
        wait_period_ms: 0,
    };
    let arc_endpoints = REGIONS
        .iter()
        .map(|region| aws_simulator::ArcEndpoint { region: (*region).to_owned(), address: ANY_PORT });
    Config {
        arc_endpoints: arc_endpoints.collect(),
        rds_listen: ANY_PORT,
        dns: Dns {
            listen: ANY_PORT,
            zone: "trading.lab".to_owned(),
            ttl_seconds: 1,
            static_names: Default::default(),
            failover_names: Vec::new(),
        },
        control_listen: ANY_PORT,
        tls,
        credentials: vec![Credential { access_key_id: KEY.to_owned(), secret_access_key: SECRET.to_owned() }],
        account: "123456789012".to_owned(),
        routing_controls: routing_controls.collect(),
        safety_rules: vec![at_most_one],
        global_clusters: Vec::new(),
        state_file: None,
        seed: None,
        call_log_limit: 1000,
    }
}

fn certificates(folder: &TempDir) -> Tls {
    let path = |name: &str| folder.path().join(name);
    let mut ca = CertificateParams::default();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    std::fs::write(path("ca.crt"), ca.self_signed(&ca_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let mut server = CertificateParams::default();
    server.subject_alt_names = vec![SanType::IpAddress(ANY_PORT.ip())];
    let key = KeyPair::generate().unwrap();
    let certificate = server.signed_by(&key, &issuer).unwrap();
    std::fs::write(path("server.crt"), certificate.pem()).unwrap();
    std::fs::write(path("server.key"), key.serialize_pem()).unwrap();
    Tls { certificate_file: path("server.crt"), key_file: path("server.key") }
}
