//! A person who turns routing controls past the operator.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_credential_types::Credentials;
use e2e::timeouts;
use e2e::wait::{Look, until};
use lab::{Application, Facts, Region};
use region_aws::{
    ArcClient, ArcEndpoint, AwsAccess, CallTimeouts, ControlState, CredentialSource, FlipLimits, Outcome,
    ReadLimits,
};

use crate::rig::Rig;

/// How many endpoints must say the same.
const QUORUM: usize = 3;
const READING: ReadLimits =
    ReadLimits { deadline: Duration::from_secs(2), enough: None, grace: Duration::from_millis(50) };

/// Turns a control to the state that it must not have, and waits until the operator has put it right.
pub async fn flipped_and_back(rig: &Rig, role: &str, region: Region) -> Result<()> {
    let arc = client(&rig.clusters.facts).await?;
    let arn =
        [rig.clusters.facts.aws.applications[&Application::TradeMatching].control(role, region).to_owned()];
    let right =
        arc.read_all(&arn, READING).await.agreed(&arn[0], QUORUM).context("the control is not known")?;
    let wrong = match right {
        ControlState::On => ControlState::Off,
        ControlState::Off => ControlState::On,
    };
    let outcome = arc.flip(&[(arn[0].clone(), wrong)], FlipLimits::default()).await;
    ensure!(matches!(outcome, Outcome::Done { .. }), "the control could not be turned {wrong}: {outcome:?}");
    until(&format!("{role} of {region} to be {right} again"), timeouts::NOTICE, async || {
        let reading = arc.read_all(&arn, READING).await;
        let agreed = reading.agreed(&arn[0], QUORUM);
        Ok(if agreed == Some(right) { Look::Seen(()) } else { Look::NotYet(format!("{agreed:?}")) })
    })
    .await
}

/// Three endpoints say Off of each control of a region.
pub async fn all_off(rig: &Rig, region: Region) -> Result<()> {
    let arc = client(&rig.clusters.facts).await?;
    let names = &rig.clusters.facts.aws.applications[&Application::TradeMatching];
    let arns = ["app", "intake", "ingress"].map(|role| names.control(role, region).to_owned());
    let reading = arc.read_all(&arns, READING).await;
    for arn in &arns {
        ensure!(reading.agreed(arn, QUORUM) == Some(ControlState::Off), "{arn} of {region} is not Off");
    }
    Ok(())
}

async fn client(facts: &Facts) -> Result<ArcClient> {
    let key = facts.credentials.aws("driver")?;
    let keys = Credentials::new(&key.access_key_id, &key.secret_access_key, None, None, "the lab's driver");
    let ca = tokio::fs::read(&facts.ca_file).await?;
    let access = AwsAccess::new(CredentialSource::Keys(keys), Some(&ca), CallTimeouts::default()).await?;
    let endpoint = |one: &lab::ArcEndpoint| ArcEndpoint { region: one.region.clone(), url: one.url.clone() };
    let endpoints: Vec<ArcEndpoint> = facts.aws.arc_endpoints.iter().map(endpoint).collect();
    Ok(ArcClient::new(&endpoints, &access)?)
}
