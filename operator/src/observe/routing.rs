//! ARC's routing controls: five endpoints asked at once, done when three agree on every control.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{Controls, TradingRegionSpec};
use region_aws::{ArcClient, ArcReading, ControlState as Said, ErrorKind, ReadLimits};
use region_plan::{ControlKey, ControlRole, ControlState, Region};

/// Once three endpoints agree, how long the others may still take.
const GRACE: Duration = Duration::from_millis(20);

/// The ARN of each control of the application.
pub fn controls(spec: &TradingRegionSpec) -> BTreeMap<ControlKey, String> {
    let of_region = |(region, controls): (&String, &Controls)| {
        let key = |role| ControlKey { role, region: Region(region.clone()) };
        [
            (key(ControlRole::Ingress), controls.ingress.clone()),
            (key(ControlRole::Intake), controls.intake.clone()),
            (key(ControlRole::App), controls.app.clone()),
        ]
    };
    spec.routing.arc.controls.iter().flat_map(of_region).collect()
}

/// What the endpoints said, and why one of them said nothing.
#[derive(Debug)]
pub struct Reading {
    /// Endpoints for each state of each control.
    pub states: BTreeMap<ControlKey, ControlState>,
    /// One of the failures, if there was any.
    pub unanswered: Option<String>,
}

/// Asks all endpoints. Endpoints that do not answer count for no state.
pub async fn observe(
    arc: &ArcClient,
    controls: &BTreeMap<ControlKey, String>,
    deadline: Duration,
) -> Reading {
    let arns: Vec<String> = controls.values().cloned().collect();
    let quorum = usize::from(ControlState::QUORUM);
    let reading = arc.read_all(&arns, ReadLimits { deadline, enough: Some(quorum), grace: GRACE }).await;
    let failed = reading.errors().find(|error| error.kind != ErrorKind::NotAwaited);
    Reading {
        states: controls.iter().map(|(key, arn)| (key.clone(), count(&reading, arn))).collect(),
        unanswered: failed.map(ToString::to_string),
    }
}

fn count(reading: &ArcReading, arn: &str) -> ControlState {
    let said = |state| u8::try_from(reading.count(arn, state)).unwrap_or(u8::MAX);
    ControlState { on: said(Said::On), off: said(Said::Off) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    #[test]
    fn every_region_has_its_three_controls() {
        let controls = controls(&example().spec);
        assert_eq!(controls.len(), 6);
        let key = ControlKey { role: ControlRole::App, region: Region::from("us-west-2") };
        assert!(controls[&key].ends_with("app-us-west-2"));
    }
}
