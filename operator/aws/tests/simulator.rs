//! The ARC client against the simulated account: TLS, signatures, safety rules.
#![expect(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

#[path = "support/simulator.rs"]
mod simulator;

use std::time::Duration;

use aws_simulator::ControlState::{Off, On};
use region_aws::{
    ArcClient, AwsAccess, CallTimeouts, ControlState, CredentialSource, ErrorKind, FlipLimits, Outcome,
    ReadLimits,
};
use simulator::{Account, control};

/// The machine may be busy building; the calls themselves take milliseconds.
const PATIENT: CallTimeouts =
    CallTimeouts { connect: Duration::from_secs(5), attempt: Duration::from_secs(5) };
const READ: ReadLimits =
    ReadLimits { deadline: Duration::from_secs(6), enough: None, grace: Duration::from_millis(50) };
const FLIP: FlipLimits = FlipLimits { deadline: Duration::from_secs(20) };

async fn client(account: &Account) -> ArcClient {
    let source = CredentialSource::Folder(account.credentials_folder.clone());
    let access = AwsAccess::new(source, Some(&account.ca()), PATIENT).await.unwrap();
    ArcClient::new(&account.endpoints, &access).unwrap()
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
