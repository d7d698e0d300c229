//! The ARC clients against the simulated account: TLS, signatures, safety rules.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "support/simulator.rs"]
mod simulator;

use std::time::{Duration, Instant};

use aws_simulator::ControlState::{Off, On};
use region_aws::{
    ArcClient, AwsAccess, CallTimeouts, ControlState, CredentialSource, ErrorKind, FlipLimits, NameError,
    Outcome, ReadLimits, RulesClient, panel_of,
};
use simulator::{Account, PANEL, REGIONS, SECRET, control};

/// The machine may be busy building; the calls themselves take milliseconds.
const PATIENT: CallTimeouts =
    CallTimeouts { connect: Duration::from_secs(5), attempt: Duration::from_secs(5) };
const READ: ReadLimits =
    ReadLimits { deadline: Duration::from_secs(6), enough: None, grace: Duration::from_millis(50) };
const FLIP: FlipLimits = FlipLimits { deadline: Duration::from_secs(20) };

async fn access(account: &Account) -> AwsAccess {
    let source = CredentialSource::Folder(account.credentials_folder.clone());
    AwsAccess::new(source, Some(&account.ca()), PATIENT).await.unwrap()
}

async fn client(account: &Account) -> ArcClient {
    ArcClient::new(&account.endpoints, &access(account).await).unwrap()
}

async fn rules(account: &Account, deadline: Duration) -> RulesClient {
    RulesClient::new(Some(&account.config_url), &access(account).await, deadline)
}

#[tokio::test]
async fn keys_from_a_folder_and_a_private_ca_are_enough_to_move_a_right() {
    let account = Account::start(&[("app-a", On), ("app-b", Off)]).await;
    let client = client(&account).await;
    let controls = [control("app-a"), control("app-b")];
    let before = client.read_all(&controls, READ).await;
    assert_eq!(before.agreed(&controls[0], 5), Some(ControlState::On), "{before:?}");
    let batch = [(controls[0].clone(), ControlState::Off), (controls[1].clone(), ControlState::On)];
    let outcome = client.flip(&batch, FLIP).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    let after = client.read_all(&controls, READ).await;
    assert_eq!(after.agreed(&controls[0], 5), Some(ControlState::Off), "{after:?}");
    assert_eq!(after.agreed(&controls[1], 5), Some(ControlState::On));
}

#[tokio::test]
async fn a_safety_rule_refuses_a_second_on_for_now() {
    let account = Account::start(&[("app-a", On), ("app-b", Off)]).await;
    let client = client(&account).await;
    let outcome = client.flip(&[(control("app-b"), ControlState::On)], FLIP).await;
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome}") };
    assert!(refusal.reason.starts_with("ConflictException") && !refusal.permanent, "{refusal:?}");
}

#[tokio::test]
async fn a_batch_that_is_refused_entry_by_entry_passes_in_two_parts() {
    let account = Account::start(&[("app-a", On), ("app-b", Off)]).await;
    account.set(r#"{"batch_judgement": "each-entry", "wait_period_ms": 1000}"#).await;
    let client = client(&account).await;
    let off = [(control("app-a"), ControlState::Off)];
    let on = [(control("app-b"), ControlState::On)];
    let outcome = client.flip(&[off.clone(), on.clone()].concat(), FLIP).await;
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome}") };
    assert!(refusal.conflict && !refusal.permanent, "{refusal:?}");
    let both = [control("app-a"), control("app-b")];
    let reading = client.read_all(&both, READ).await;
    assert_eq!(reading.agreed(&both[0], 3), Some(ControlState::On), "all or nothing: {reading:?}");

    let outcome = client.flip(&off, FLIP).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
    let reading = client.read_all(&both, READ).await;
    assert_eq!(reading.agreed(&both[0], 3), Some(ControlState::Off), "{reading:?}");
    let until = Instant::now() + Duration::from_secs(20);
    while !client.flip(&on, FLIP).await.holds() {
        assert!(Instant::now() < until, "the wait period of one second does not end");
    }
    let reading = client.read_all(&both, READ).await;
    assert_eq!(reading.agreed(&both[1], 3), Some(ControlState::On), "{reading:?}");
}

#[tokio::test]
async fn the_same_batch_passes_when_its_end_state_is_judged() {
    let account = Account::start(&[("app-a", On), ("app-b", Off)]).await;
    account.set(r#"{"batch_judgement": "end-state", "wait_period_ms": 1000}"#).await;
    let batch = [(control("app-a"), ControlState::Off), (control("app-b"), ControlState::On)];
    let outcome = client(&account).await.flip(&batch, FLIP).await;
    assert!(matches!(outcome, Outcome::Done { .. }), "{outcome}");
}

#[tokio::test]
async fn the_rule_of_the_panel_that_a_control_names_excludes_two_on() {
    let account = Account::start(&[("app-a", On), ("app-b", Off)]).await;
    let client = rules(&account, PATIENT.attempt).await;
    let panel = control("app-a");
    let listed = client.assertion_rules(panel_of(&panel).unwrap()).await.unwrap();
    assert!(listed.iter().any(|rule| rule.excludes(&control("app-a"), &control("app-b"))), "{listed:?}");
    account.set(r#"{"absent_rules": ["at-most-one"]}"#).await;
    assert_eq!(client.assertion_rules(PANEL).await.unwrap(), []);
}

#[tokio::test]
async fn rules_that_cannot_be_listed_are_an_error_in_time_and_never_an_empty_list() {
    let account = Account::start(&[("app-a", On)]).await;
    let patient = rules(&account, PATIENT.attempt).await;
    let unknown = patient.assertion_rules("arn:aws:none:controlpanel/none").await.unwrap_err();
    assert_eq!(unknown.kind, ErrorKind::NotFound, "{unknown}");
    account.set(r#"{"arc_config": {"mode": "error", "kind": "access-denied"}}"#).await;
    assert_eq!(patient.assertion_rules(PANEL).await.unwrap_err().kind, ErrorKind::AccessDenied);
    account.set(r#"{"arc_config": {"mode": "hung"}}"#).await;
    let hasty = rules(&account, Duration::from_millis(300)).await;
    assert_eq!(hasty.assertion_rules(PANEL).await.unwrap_err().kind, ErrorKind::Timeout);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_for_good() {
    let account = Account::start(&[("app-a", On)]).await;
    std::fs::write(account.credentials_folder.join("secret-access-key"), "another").unwrap();
    let client = client(&account).await;
    let outcome = client.flip(&[(control("app-a"), ControlState::Off)], FLIP).await;
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome}") };
    assert!(refusal.permanent, "{refusal:?}");
    let reading = client.read_all(&[control("app-a")], READ).await;
    assert!(reading.errors().all(|error| error.kind == ErrorKind::AccessDenied), "{reading:?}");
}

#[tokio::test]
async fn a_rotated_secret_is_used_from_the_next_call_on() {
    let account = Account::start(&[("app-a", On)]).await;
    let client = client(&account).await;
    let secret = account.credentials_folder.join("secret-access-key");
    // The account knows one secret only: the first and the last.
    for (text, answers) in [(SECRET, 5), ("another", 0), (SECRET, 5)] {
        std::fs::write(&secret, text).unwrap();
        let reading = client.read_all(&[control("app-a")], READ).await;
        assert_eq!(reading.answered(), answers, "{text}: {reading:?}");
    }
}

#[tokio::test]
async fn endpoints_under_an_untrusted_ca_tell_nothing() {
    let account = Account::start(&[("app-a", On)]).await;
    let stranger = Account::start(&[("app-a", On)]).await;
    let source = CredentialSource::Folder(account.credentials_folder.clone());
    let access = AwsAccess::new(source, Some(&stranger.ca()), PATIENT).await.unwrap();
    let client = ArcClient::new(&account.endpoints, &access).unwrap();
    let reading = client.read_all(&[control("app-a")], READ).await;
    assert_eq!(reading.answered(), 0);
    assert!(reading.errors().all(|error| error.kind == ErrorKind::Unreachable), "{reading:?}");
}

#[tokio::test]
async fn missing_key_files_send_nothing_and_name_the_file() {
    let account = Account::start(&[("app-a", On)]).await;
    std::fs::remove_file(account.credentials_folder.join("access-key-id")).unwrap();
    let client = client(&account).await;
    let outcome = client.flip(&[(control("app-a"), ControlState::Off)], FLIP).await;
    let Outcome::Refused(refusal) = outcome else { panic!("{outcome}") };
    assert!(refusal.reason.contains("access-key-id"), "{refusal:?}");
}

#[tokio::test]
async fn a_name_leads_to_its_control_while_any_endpoint_answers() {
    let account = Account::start(&[("app-a", On), ("app-b", Off)]).await;
    let client = client(&account).await;
    account.set(r#"{"arc": {"us-east-1": {"mode": "dead"}, "us-west-2": {"mode": "error", "kind": "unavailable"}}}"#).await;
    assert_eq!(client.find("app-b", READ.deadline).await, Ok(control("app-b")));
    let absent = client.find("app-c", READ.deadline).await;
    assert_eq!(absent, Err(NameError::Absent("app-c".to_owned())));
    let hung = REGIONS.map(|region| format!(r#""{region}": {{"mode": "hung"}}"#)).join(",");
    account.set(&format!(r#"{{"arc": {{{hung}}}}}"#)).await;
    let unanswered = client.find("app-b", Duration::from_millis(300)).await.unwrap_err();
    assert!(matches!(unanswered, NameError::Unanswered { .. }), "{unanswered}");
}
