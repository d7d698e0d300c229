//! `services generate` as people run it: its files, its refusals, and the routing control that starts and stops it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests: failing is how they report")]

#[path = "../../operator/aws/tests/support/simulator.rs"]
mod simulator;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use aws_simulator::ControlState::Off;
use lab::temporary::RabbitMq;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use region_aws::{ArcClient, AwsAccess, CallTimeouts, ControlState, CredentialSource, FlipLimits};
use serde_json::Value;
use services_common::amqp::{Broker, BrokerConfig};
use simulator::{Account, REGIONS, control};
use tempfile::TempDir;
use trading::names;

/// Everything that is waited for happens within this time, also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// The control that the tests turn.
const CONTROL: &str = "trade-matching-generator";

fn generate(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_services"));
    command.arg("generate").args(arguments).env_clear();
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn output(arguments: &[&str]) -> Output {
    generate(arguments).output().unwrap()
}

#[test]
fn a_dry_run_writes_the_same_messages_each_time_to_standard_output_or_into_files() {
    let dry = ["--dry-run", "--count", "50", "--seed", "3", "--run-id", "0", "--trade-date", "2026-02-09"];
    let first = output(&dry);
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert_eq!(first.stdout, output(&dry).stdout);
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, trades) = (path("lines"), path("trades"));
    let into_files = output(&[&dry[..], &["--file", &file, "--output-dir", &trades]].concat());
    assert!(into_files.status.success() && into_files.stdout.is_empty(), "{}", text(&into_files.stderr));
    assert_eq!(std::fs::read(&file).unwrap(), first.stdout);
    let lines = text(&first.stdout).lines().count();
    assert!(lines >= 50 && std::fs::read_dir(&trades).unwrap().count() == lines);
    // A second time it would overwrite them.
    let again = output(&[&dry[..], &["--file", &file]].concat());
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("--file: cannot write"), "{}", text(&again.stderr));
}

#[test]
fn what_cannot_work_is_refused_at_the_door_with_the_option() {
    for (arguments, reason) in [
        (&["--dry-run"][..], "--count"),
        (&["--dry-run", "--count", "5", "--rate", "0"], "--rate cannot be used"),
        (&["--dry-run", "--count", "5", "--routing-control", "x"], "--routing-control"),
        (&["--dry-run", "--count", "5", "--aws-ca-file", "x"], "--aws-ca-file"),
        (&["--dry-run", "--count", "5", "--odds", "matchd"], "none of: matched"),
        (&["--broker-url", "amqp://h", "--submit-password-file", "/no"], "--answers-password-file"),
    ] {
        let refused = output(arguments);
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}");
        assert!(text(&refused.stderr).contains(reason), "{arguments:?}: {}", text(&refused.stderr));
    }
}

#[test]
fn help_is_in_groups_with_examples_that_are_read_by_the_program_itself() {
    let help = text(&output(&["--help"]).stdout);
    for group in [
        "Broker:",
        "Schedule:",
        "Trades:",
        "Bad messages:",
        "Files:",
        "Verdict:",
        "Start and stop:",
        "Examples",
    ] {
        assert!(help.contains(group), "{group} is absent: {help}");
    }
    let example = help.lines().map(str::trim).find(|line| line.contains("--dry-run --count")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let words: Vec<&str> = example.split(' ').skip(2).collect();
    let ran = generate(&words).current_dir(&folder).output().unwrap();
    assert!(ran.status.success(), "{example}: {}", text(&ran.stderr));
    assert!(folder.path().join("trades/trade_1000.json").exists());
}

/// A customer at work, with the lines of its standard error.
struct Running {
    child: Child,
    lines: Receiver<String>,
    seen: Vec<String>,
}

impl Running {
    fn start(arguments: &[&str]) -> Self {
        let mut command = generate(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = channel();
        let errors = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            errors.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Self { child, lines, seen: Vec::new() }
    }

    /// Waits for a line with this text.
    fn says(&mut self, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    let found = line.contains(wanted);
                    self.seen.push(line);
                    if found {
                        return;
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                    panic!("never said {wanted:?}: {:#?}", self.seen)
                }
            }
        }
    }

    /// Ends it as Kubernetes would; gives its verdict.
    fn end(mut self) -> Value {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let standard = std::io::read_to_string(self.child.stdout.take().unwrap()).unwrap();
        self.child.wait().unwrap();
        serde_json::from_str(&standard).unwrap_or_else(|error| panic!("{error}: {standard}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A broker with the queues of the application and nobody who reads them.
struct Queues {
    server: RabbitMq,
    broker: Broker,
    folder: TempDir,
}

impl Queues {
    async fn start() -> Self {
        let server = RabbitMq::start().await.unwrap();
        let config = BrokerConfig::new(&server.url(), "guest", "guest", None, "test").unwrap();
        let broker = Broker::new(config);
        trading::migrate::declare(trading::names::Application::TradeMatching, &broker).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("password"), "guest").unwrap();
        Self { server, broker, folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Messages of the customer that wait to be taken.
    async fn waiting(&self) -> u32 {
        let channel = self.broker.channel().await.unwrap();
        let passive = QueueDeclareOptions { passive: true, durable: true, ..QueueDeclareOptions::default() };
        let queue = channel.queue_declare(names::IN.into(), passive, FieldTable::default()).await.unwrap();
        queue.message_count()
    }

    /// Waits until more than so many messages wait; gives their number.
    async fn more_than(&self, number: u32) -> u32 {
        let until = Instant::now() + PATIENCE;
        loop {
            let waiting = self.waiting().await;
            if waiting > number {
                return waiting;
            }
            assert!(Instant::now() < until, "only {waiting}, not more than {number}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A customer of 100 messages a second that obeys the account's control.
    fn customer(&self, account: &Account) -> Running {
        let endpoints: Vec<String> = account
            .endpoints
            .iter()
            .map(|endpoint| format!("{}={}", endpoint.region, endpoint.url))
            .collect();
        let url = format!("amqp://127.0.0.1:{}/", self.server.amqp_port());
        let (password, file) = (self.path("password"), self.path("lines"));
        let ca = account.ca_file.display().to_string();
        let keys = account.credentials_folder.display().to_string();
        let mut arguments = vec!["--broker-url", &url, "--submit-user", "guest", "--answers-user", "guest"];
        arguments.extend(["--submit-password-file", &password, "--answers-password-file", &password]);
        arguments.extend(["--duration", "600", "--wait", "5", "-o", "json", "--file", &file]);
        arguments.extend([
            "--routing-control",
            CONTROL,
            "--aws-ca-file",
            &ca,
            "--aws-credentials-dir",
            &keys,
        ]);
        for endpoint in &endpoints {
            arguments.extend(["--arc-endpoint", endpoint]);
        }
        Running::start(&arguments)
    }
}

async fn turn(account: &Account, state: ControlState) {
    let source = CredentialSource::Folder(account.credentials_folder.clone());
    let timeouts = CallTimeouts { connect: Duration::from_secs(5), attempt: Duration::from_secs(5) };
    let access = AwsAccess::new(source, Some(&account.ca()), timeouts).await.unwrap();
    let client = ArcClient::new(&account.endpoints, &access).unwrap();
    let outcome = client.flip(&[(control(CONTROL), state)], FlipLimits { deadline: PATIENCE }).await;
    assert!(outcome.holds(), "{outcome}");
}

async fn silence(account: &Account, endpoints: usize) {
    let silent: Vec<String> =
        REGIONS[..endpoints].iter().map(|region| format!(r#""{region}": {{"mode": "dead"}}"#)).collect();
    let every: Vec<String> =
        REGIONS[endpoints..].iter().map(|region| format!(r#""{region}": null"#)).collect();
    account.set(&format!(r#"{{"arc": {{{}}}}}"#, [silent, every].concat().join(","))).await;
}

/// When messages of the schedule were due, in seconds.
fn due(file: &Path) -> Vec<f64> {
    let lines = std::fs::read_to_string(file).unwrap();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let scheduled = lines.filter(|line| line["what"] == "sent" && line["kind"] != "counterpart");
    scheduled.map(|line| line["dueSeconds"].as_f64().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_routing_control_starts_and_stops_the_customer_and_silence_changes_nothing() {
    let account = Account::start(&[(CONTROL, Off)]).await;
    let queues = Queues::start().await;
    let mut customer = queues.customer(&account);
    customer.says("is Off: sending is paused");
    assert_eq!(queues.waiting().await, 0);

    turn(&account, ControlState::On).await;
    customer.says("is On: sending");
    let sent = queues.more_than(20).await;

    silence(&account, 3).await;
    customer.says("is not known (2 of 5 endpoints say On");
    queues.more_than(sent + 100).await;
    // Two of five are enough to miss, and three to be heard.
    silence(&account, 2).await;
    customer.says("is On: sending");

    turn(&account, ControlState::Off).await;
    customer.says("is Off: sending is paused");
    let paused = Instant::now();
    silence(&account, 4).await;
    customer.says("it is taken as Off still");
    let paused = paused.elapsed();
    silence(&account, 0).await;
    turn(&account, ControlState::On).await;
    customer.says("is On: sending");
    queues.more_than(queues.waiting().await + 50).await;

    let verdict = customer.end();
    assert_eq!(verdict["confirmed"], queues.waiting().await, "{verdict}");
    let told = verdict["pausedSeconds"].as_f64().unwrap();
    assert!(told >= paused.as_secs_f64(), "{told} s told, {paused:?} seen");
    let due = due(Path::new(&queues.path("lines")));
    let longest = due.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    assert!(longest >= paused.as_secs_f64() - 0.1, "the schedule stood still for {longest} s at most");
    assert!(
        verdict["lateness"]["max"].as_f64().unwrap() < told * 1000.0,
        "a pause is not lateness: {verdict}"
    );
}
