//! What the operator learns from ARC: which changes a safety rule refused, and which rules there are.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]
#![allow(dead_code, reason = "of the support module only a part is used here")]

#[path = "../aws/tests/support/simulator.rs"]
mod simulator;
mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aws_simulator::ControlState::{Off, On};
use crds::TradingRegion;
use kube::Client;
use region_aws::{AwsAccess, CallTimeouts, CredentialSource};
use region_operator::apply::{Executor, HookBoard, ObjectWriter, Outcome, Pauses};
use region_operator::cluster::Secrets;
use region_operator::sources::{ApiEndpoints, SourceBook, Sources};
use region_operator::workloads::Workloads;
use region_plan::{ControlKey, ControlRole, Fact, Flipped, Region, Step, Switch};
use serde_json::json;
use simulator::Account;
use support::{ApiServer, example, until};
use tokio::sync::mpsc;

/// The machine may be busy building; the calls themselves take milliseconds.
const PATIENT: Duration = Duration::from_secs(5);

/// The operator of us-east-1 with a simulated account whose rule lets at most one app control be On.
struct Scene {
    account: Account,
    client: Client,
    object: TradingRegion,
    sources: Arc<Sources>,
    pauses: Pauses,
}

impl Scene {
    async fn start() -> Self {
        let account = Account::start(&[("app-us-east-1", On), ("app-us-west-2", Off)]).await;
        let client = ApiServer::default().client();
        let mut object = example();
        object["metadata"]["uid"] = json!("uid");
        object["spec"]["routing"]["arc"]["endpoints"] = json!(account.endpoints);
        let object: TradingRegion = serde_json::from_value(object).unwrap();
        let source = CredentialSource::Folder(account.credentials_folder.clone());
        let timeouts = CallTimeouts { connect: PATIENT, attempt: PATIENT };
        let access = AwsAccess::new(source, Some(&account.ca()), timeouts).await.unwrap();
        let endpoints = ApiEndpoints { arc_config: Some(account.config_url.clone()), ..Default::default() };
        let secrets = Arc::new(Secrets::new(client.clone()));
        let book = SourceBook::new(Region::from("us-east-1"), secrets, access, endpoints, PATIENT);
        let sources = book.of(&object).await;
        Self { account, client, object, sources, pauses: Pauses::default() }
    }

    /// One attempt to take the application over, as far as `batch` says.
    async fn flip(&self, batch: &[(&str, Switch)]) -> Outcome {
        let key = |region: &str| ControlKey { role: ControlRole::App, region: Region::from(region) };
        let batch = batch.iter().map(|(region, switch)| (key(region), *switch)).collect();
        let executor = Executor {
            me: &Region::from("us-west-2"),
            client: &self.client,
            workloads: &Workloads::start(&self.client).0,
            hooks: &HookBoard::new(self.client.clone(), mpsc::channel(1).0),
            sources: &self.sources,
            object: &self.object,
            writer: &ObjectWriter::new(&self.client, &self.object),
            run: None,
            pauses: &self.pauses,
            failpoint: None,
        };
        let mut made = executor.apply(&[&Step::Flip { what: Flipped::AppOver, batch }]).await;
        made.pop().unwrap().outcome
    }

    fn guarded(&self) -> Fact<BTreeSet<ControlRole>> {
        self.sources.rules.ask_when_due();
        self.sources.rules.last()
    }
}

#[tokio::test]
async fn a_batch_that_a_rule_refused_is_remembered_and_its_parts_are_made() {
    let scene = Scene::start().await;
    scene.account.set(r#"{"batch_judgement": "each-entry", "wait_period_ms": 3600000}"#).await;
    let outcome = scene.flip(&[("us-east-1", Switch::Off), ("us-west-2", Switch::On)]).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(scene.sources.refused.all().contains_key(&Flipped::AppOver));
    assert_eq!(scene.flip(&[("us-east-1", Switch::Off)]).await, Outcome::Done);
    scene.account.set(r#"{"wait_period_ms": 0}"#).await;
    assert_eq!(scene.flip(&[("us-west-2", Switch::On)]).await, Outcome::Done);
}

#[tokio::test]
async fn a_refusal_for_another_reason_does_not_part_the_next_batch() {
    let scene = Scene::start().await;
    let denied = scene
        .account
        .endpoints
        .iter()
        .map(|endpoint| (endpoint.region.clone(), json!({"mode": "error", "kind": "access-denied"})));
    let denied: serde_json::Map<_, _> = denied.collect();
    scene.account.set(&json!({"arc": denied}).to_string()).await;
    let outcome = scene.flip(&[("us-east-1", Switch::Off), ("us-west-2", Switch::On)]).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
    assert!(scene.sources.refused.all().is_empty());
}

#[tokio::test]
async fn the_rules_are_read_beside_and_name_the_roles_that_they_guard() {
    let scene = Scene::start().await;
    assert!(scene.guarded().why_unknown().is_some(), "nobody waits for the first answer");
    let guarded = until("the list of rules", || scene.guarded().get().cloned()).await;
    assert_eq!(guarded, BTreeSet::from([ControlRole::App]), "no rule is over the ingress controls");
}

#[tokio::test]
async fn rules_that_cannot_be_read_are_unknown_and_say_why() {
    let scene = Scene::start().await;
    scene.account.set(r#"{"arc_config": {"mode": "error", "kind": "access-denied"}}"#).await;
    let why = until("a reason", || {
        scene.guarded().why_unknown().filter(|why| why.contains("ListSafetyRules")).map(str::to_owned)
    })
    .await;
    assert!(why.contains("us-west-2"), "{why}");
}
