//! API servers of two regions that hold one object each, and a terminal in which the program runs.
#![allow(dead_code, reason = "each test binary uses its own part of this module")]

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::State as Shared;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use crate::recorded::{self, Side, State};

/// Longest wait for anything that the program shall say or do.
const BOUND: Duration = Duration::from_secs(30);

/// What one API server holds and does.
pub struct Held {
    pub object: Value,
    /// The changes that were accepted, oldest first.
    pub changes: Vec<Value>,
    /// It refuses changes.
    pub refuses: bool,
    /// Once the object was changed: its status in each later reading; the last one stays.
    pub then: VecDeque<Value>,
}

pub type Server = Arc<Mutex<Held>>;

/// Both regions in a recorded state that is taken to be true now.
pub struct Regions {
    pub east: Server,
    pub west: Server,
    ports: [u16; 2],
    folder: TempDir,
}

impl Regions {
    pub async fn in_state(name: &str) -> Self {
        let state = recorded::state(name);
        let by = Timestamp::now().duration_since(state.now);
        let State { east, west, .. } = state;
        let (east, east_port) = serve(&east, by).await;
        let (west, west_port) = serve(&west, by).await;
        let regions =
            Self { east, west, ports: [east_port, west_port], folder: tempfile::tempdir().unwrap() };
        regions.reached_by([("us-east-1", true), ("us-west-2", true)]);
        regions
    }

    /// By which contexts both are reached from now on, the current one first, and which of them answers.
    pub fn reached_by(&self, contexts: [(&str, bool); 2]) {
        let port = |at: usize| if contexts[at].1 { self.ports[at] } else { closed() };
        let contexts = [(contexts[0].0, port(0)), (contexts[1].0, port(1))];
        std::fs::write(self.kubeconfig(), kubeconfig(&contexts)).unwrap();
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.folder.path().join("kubeconfig")
    }

    /// The program, as a script would run it.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-region"));
        command.args(words).env("KUBECONFIG", self.kubeconfig());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the program without a terminal: its exit code and all that it said.
    pub async fn run(&self, words: &[&str]) -> (i32, String) {
        let (code, said) = self.run_apart(words).await;
        (code, said.concat())
    }

    /// The same with what it said on standard output and on standard error.
    pub async fn run_apart(&self, words: &[&str]) -> (i32, [String; 2]) {
        let output = bounded("the program to end", self.command(words).output()).await.unwrap();
        let said = [output.stdout, output.stderr].map(|part| String::from_utf8_lossy(&part).into_owned());
        (output.status.code().unwrap(), said)
    }

    /// Runs the program in a terminal.
    pub fn terminal(&self, words: &[&str]) -> Terminal {
        Terminal::open(&self.kubeconfig(), words)
    }

    /// The regions that both copies want.
    pub fn wanted(&self) -> [String; 2] {
        [&self.east, &self.west]
            .map(|held| held.lock().unwrap().object["spec"]["activeRegion"].as_str().unwrap().to_owned())
    }

    pub fn changes(&self) -> usize {
        [&self.east, &self.west].map(|held| held.lock().unwrap().changes.len()).iter().sum()
    }
}

/// A port at which nobody listens.
fn closed() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A kubeconfig with a context for each region.
pub fn kubeconfig(regions: &[(&str, u16)]) -> String {
    let named = |what: &str, body: &dyn Fn(&str, u16) -> Value| -> Vec<Value> {
        regions.iter().map(|(name, port)| json!({"name": name, what: body(name, *port)})).collect()
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": regions[0].0,
        "users": [],
        "clusters": named("cluster", &|_, port| json!({"server": format!("http://127.0.0.1:{port}")})),
        "contexts": named("context", &|name, _| json!({"cluster": name, "user": "", "namespace": "trading"})),
    })
    .to_string()
}

async fn serve(side: &Side, by: SignedDuration) -> (Server, u16) {
    let mut object = later(recorded::object(side), by);
    object["metadata"]["resourceVersion"] = json!("1");
    let held = Held { object, changes: Vec::new(), refuses: false, then: VecDeque::new() };
    let held = Arc::new(Mutex::new(held));
    let kind = "/apis/regions.trading.dev/v1alpha1/namespaces/trading/tradingregions";
    let routes = Router::new()
        .route(kind, get(list))
        .route(&format!("{kind}/trade-matching"), get(read).patch(change))
        .with_state(Arc::clone(&held));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (held, port)
}

/// Every time in it, that much later.
pub fn later(value: Value, by: SignedDuration) -> Value {
    match value {
        Value::String(text) => match text.parse::<Timestamp>() {
            Ok(at) => json!(at.checked_add(by).unwrap()),
            Err(_) => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(|item| later(item, by)).collect(),
        Value::Object(fields) => fields.into_iter().map(|(key, field)| (key, later(field, by))).collect(),
        plain @ (Value::Null | Value::Bool(_) | Value::Number(_)) => plain,
    }
}

fn seen(held: &Server) -> Value {
    let mut held = held.lock().unwrap();
    if !held.changes.is_empty() {
        let next = if held.then.len() > 1 { held.then.pop_front() } else { held.then.front().cloned() };
        if let Some(mut status) = next {
            status["observedGeneration"] = held.object["metadata"]["generation"].clone();
            held.object["status"] = status;
        }
    }
    held.object.clone()
}

async fn list(Shared(held): Shared<Server>) -> Json<Value> {
    Json(json!({
        "apiVersion": "regions.trading.dev/v1alpha1",
        "kind": "TradingRegionList",
        "metadata": {},
        "items": [seen(&held)],
    }))
}

async fn read(Shared(held): Shared<Server>) -> Json<Value> {
    Json(seen(&held))
}

async fn change(Shared(held): Shared<Server>, Json(patch): Json<Value>) -> Response {
    let mut held = held.lock().unwrap();
    let version = &held.object["metadata"]["resourceVersion"];
    if held.refuses {
        return refusal(StatusCode::FORBIDDEN, "Forbidden", "you may not change it");
    }
    if patch["metadata"]["resourceVersion"] != *version {
        return refusal(StatusCode::CONFLICT, "Conflict", "it was changed");
    }
    let next = version.as_str().unwrap().parse::<u64>().unwrap() + 1;
    merge(&mut held.object, &patch);
    let generation = held.object["metadata"]["generation"].as_i64().unwrap() + 1;
    held.object["metadata"]["resourceVersion"] = json!(next.to_string());
    held.object["metadata"]["generation"] = json!(generation);
    held.changes.push(patch);
    Json(held.object.clone()).into_response()
}

fn refusal(code: StatusCode, reason: &str, message: &str) -> Response {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "code": code.as_u16(), "reason": reason, "message": message,
    });
    (code, Json(status)).into_response()
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            target.as_object_mut().unwrap().remove(key);
        } else {
            merge(&mut target[key], change);
        }
    }
}

async fn bounded<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(BOUND, work).await.unwrap_or_else(|_| panic!("waited {BOUND:?} for {what}"))
}

/// The program in a terminal of its own, in which keys have their effect.
pub struct Terminal {
    child: Child,
    screen: String,
}

impl Terminal {
    pub fn open(kubeconfig: &Path, words: &[&str]) -> Self {
        Self::open_after("true", kubeconfig, words)
    }

    /// The same after a command that changes the terminal.
    pub fn open_after(before: &str, kubeconfig: &Path, words: &[&str]) -> Self {
        let words: Vec<String> = words.iter().map(|word| format!("'{word}'")).collect();
        let program = env!("CARGO_BIN_EXE_kubectl-region");
        let program = format!("{before}; exec '{program}' {}", words.join(" "));
        let child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &program, "/dev/null"])
            .env("KUBECONFIG", kubeconfig)
            .env("SHELL", "/bin/sh")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("script, of the package bsdutils, can be started");
        Self { child, screen: String::new() }
    }

    /// Waits until the screen has shown that text.
    pub async fn shows(&mut self, text: &str) {
        while !self.screen.contains(text) {
            let read = self.more(text).await;
            assert!(read, "it ended without {text:?}: {}", self.screen);
        }
    }

    async fn more(&mut self, what: &str) -> bool {
        let mut part = [0; 4096];
        let output = self.child.stdout.as_mut().unwrap();
        let Ok(read) = tokio::time::timeout(BOUND, output.read(&mut part)).await else {
            panic!("waited {BOUND:?} for {what:?}: {}", self.screen);
        };
        let length = read.unwrap();
        self.screen += &String::from_utf8_lossy(&part[..length]);
        length > 0
    }

    pub async fn types(&mut self, keys: &str) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(keys.as_bytes()).await.unwrap();
        input.flush().await.unwrap();
    }

    /// Waits for its end: the exit code and all that was shown.
    pub async fn ends(mut self) -> (i32, String) {
        while self.more("its end").await {}
        let status = bounded("the terminal to close", self.child.wait()).await.unwrap();
        (status.code().unwrap(), self.screen)
    }
}
