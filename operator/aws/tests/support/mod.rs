//! Servers that speak just enough of AWS's wire to put the clients into every situation.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part")]
#![expect(clippy::panic, clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_credential_types::Credentials;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use region_aws::{ArcClient, ArcEndpoint, AwsAccess, CallTimeouts, CredentialSource};
use serde_json::{Value, json};
use tokio::net::TcpListener;

pub const PANEL: &str = "arn:aws:route53-recovery-control::123456789012:controlpanel/p1";
pub const REGIONS: [&str; 5] = ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"];

/// The ARN of a control of the test's panel.
pub fn control(name: &str) -> String {
    format!("{PANEL}/routingcontrol/{name}")
}

/// How an ARC endpoint behaves.
#[derive(Debug, Clone)]
pub enum Behaviour {
    /// Answers from its states.
    Works,
    /// Takes the request, applies an update, and never answers.
    HangsAfterApplying,
    /// Answers every call with this error.
    Fails(u16, &'static str, Value),
    /// Fails so once, then works.
    FailsOnce(u16, &'static str, Value),
    /// Answers reads, refuses updates with a conflict.
    RefusesUpdates,
    /// Nobody listens.
    Dead,
}

#[derive(Debug)]
pub struct Server {
    behaviour: Mutex<Behaviour>,
    pub states: Mutex<BTreeMap<String, String>>,
    /// Operation names in the order of arrival.
    pub calls: Mutex<Vec<String>>,
    pub signatures: Mutex<Vec<String>>,
}

/// Five endpoints and a client of them.
pub struct Cluster {
    pub servers: Vec<Arc<Server>>,
    pub client: ArcClient,
}

impl Cluster {
    /// Starts endpoints that all know `states` and behave as told.
    pub async fn start(behaviours: [Behaviour; 5], states: &[(&str, &str)]) -> Self {
        let states: BTreeMap<String, String> =
            states.iter().map(|(name, state)| (control(name), (*state).to_owned())).collect();
        let mut servers = Vec::new();
        let mut endpoints = Vec::new();
        for (region, behaviour) in REGIONS.iter().zip(behaviours) {
            let dead = matches!(behaviour, Behaviour::Dead);
            let server = Arc::new(Server {
                behaviour: Mutex::new(behaviour),
                states: Mutex::new(states.clone()),
                calls: Mutex::default(),
                signatures: Mutex::default(),
            });
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            if !dead {
                let router = Router::new().route("/", post(answer)).with_state(server.clone());
                tokio::spawn(async move { axum::serve(listener, router).await });
            }
            servers.push(server);
            endpoints
                .push(ArcEndpoint { region: (*region).to_owned(), url: format!("http://127.0.0.1:{port}/") });
        }
        let client = ArcClient::new(&endpoints, &access().await).unwrap();
        Self { servers, client }
    }

    /// How many endpoints have `name` in `state`.
    pub fn holding(&self, name: &str, state: &str) -> usize {
        self.servers
            .iter()
            .filter(|server| {
                let states = server.states.lock().unwrap();
                states.get(&control(name)).map(String::as_str) == Some(state)
            })
            .count()
    }

    /// Calls of `operation` over all endpoints.
    pub fn calls(&self, operation: &str) -> usize {
        self.servers
            .iter()
            .map(|server| {
                let calls = server.calls.lock().unwrap();
                calls.iter().filter(|call| *call == operation).count()
            })
            .sum()
    }
}

/// Access with test keys and limits that keep the tests short.
pub async fn access() -> AwsAccess {
    let keys = Credentials::new("AKIDTEST", "secret", None, None, "test");
    let timeouts = CallTimeouts { connect: Duration::from_millis(300), attempt: Duration::from_millis(400) };
    AwsAccess::new(CredentialSource::Keys(keys), None, timeouts).await.unwrap()
}

async fn answer(State(server): State<Arc<Server>>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| {
        let value = headers.get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let operation = text("x-amz-target").replace("ToggleCustomerAPI.", "");
    server.calls.lock().unwrap().push(operation.clone());
    server.signatures.lock().unwrap().push(text("authorization"));
    let request: Value = serde_json::from_slice(&body).unwrap();
    let behaviour = server.behaviour.lock().unwrap().clone();
    match behaviour {
        Behaviour::Works => server.serve(&operation, &request),
        Behaviour::HangsAfterApplying => {
            server.serve(&operation, &request);
            std::future::pending().await
        }
        Behaviour::Fails(status, code, extra) => failure(status, code, extra),
        Behaviour::FailsOnce(status, code, extra) => {
            *server.behaviour.lock().unwrap() = Behaviour::Works;
            failure(status, code, extra)
        }
        Behaviour::RefusesUpdates if operation.starts_with("Update") => failure(
            409,
            "ConflictException",
            json!({"message": "safety rule at-most-one", "resourceId": "r", "resourceType": "rule"}),
        ),
        Behaviour::RefusesUpdates => server.serve(&operation, &request),
        Behaviour::Dead => unreachable!("a dead endpoint has no listener"),
    }
}

impl Server {
    fn serve(&self, operation: &str, request: &Value) -> Response {
        let mut states = self.states.lock().unwrap();
        match operation {
            "GetRoutingControlState" => {
                let arn = request["RoutingControlArn"].as_str().unwrap();
                match states.get(arn) {
                    Some(state) => reply(&json!({"RoutingControlArn": arn, "RoutingControlState": state})),
                    None => failure(
                        404,
                        "ResourceNotFoundException",
                        json!({"message": "no such control", "resourceId": arn, "resourceType": "control"}),
                    ),
                }
            }
            // Two a page, so that paging is exercised.
            "ListRoutingControls" => {
                let from: usize = request["NextToken"].as_str().map_or(0, |token| token.parse().unwrap());
                let page: Vec<Value> = states
                    .iter()
                    .skip(from)
                    .take(2)
                    .map(|(arn, state)| json!({"RoutingControlArn": arn, "RoutingControlState": state}))
                    .collect();
                let next = (from + 2 < states.len()).then(|| (from + 2).to_string());
                reply(&json!({"RoutingControls": page, "NextToken": next}))
            }
            "UpdateRoutingControlStates" => {
                for entry in request["UpdateRoutingControlStateEntries"].as_array().unwrap() {
                    let arn = entry["RoutingControlArn"].as_str().unwrap();
                    let state = entry["RoutingControlState"].as_str().unwrap();
                    states.insert(arn.to_owned(), state.to_owned());
                }
                reply(&json!({}))
            }
            other => panic!("unexpected operation {other}"),
        }
    }
}

fn reply(body: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, "application/x-amz-json-1.0")];
    (json, body.to_string()).into_response()
}

fn failure(status: u16, code: &str, mut extra: Value) -> Response {
    extra["__type"] = json!(format!("com.amazonaws.route53recoverycluster#{code}"));
    let status = StatusCode::from_u16(status).unwrap();
    let json = [(header::CONTENT_TYPE, "application/x-amz-json-1.0")];
    (status, json, extra.to_string()).into_response()
}
