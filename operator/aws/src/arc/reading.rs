//! What the endpoints said, and what may be concluded from it.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::ControlState;
use crate::error::{CallError, ErrorKind};

/// One round of asking. Every answer in it was asked for at or after [`ArcReading::started`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArcReading {
    /// When the round began. No answer is older than this.
    pub started: Instant,
    /// When the round was over.
    pub finished: Instant,
    /// One entry for each configured endpoint, in configured order; regions are distinct.
    pub endpoints: Vec<EndpointReading>,
}

/// What one endpoint said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReading {
    /// The endpoint's region.
    pub region: String,
    /// The states by control ARN. A control that the endpoint does not know, or whose state has
    /// an unknown name, is absent: unknown, not Off.
    pub outcome: Result<BTreeMap<String, ControlState>, CallError>,
    /// From the round's beginning to the answer; `None` when there was none.
    pub latency: Option<Duration>,
}

impl ArcReading {
    /// A round in which nobody has answered yet.
    pub(super) fn unanswered<'a>(regions: impl Iterator<Item = &'a String>, started: Instant) -> Self {
        let endpoints = regions
            .map(|region| EndpointReading {
                region: region.clone(),
                outcome: Err(missing(region, ErrorKind::Timeout)),
                latency: None,
            })
            .collect();
        Self { started, finished: started, endpoints }
    }

    pub(super) fn note(
        &mut self,
        index: usize,
        outcome: Result<BTreeMap<String, ControlState>, CallError>,
        now: Instant,
    ) {
        if let Some(endpoint) = self.endpoints.get_mut(index) {
            endpoint.outcome = outcome;
            endpoint.latency = Some(now.duration_since(self.started));
        }
    }

    pub(super) fn finish(&mut self, why_missing: ErrorKind, now: Instant) {
        self.finished = now;
        for endpoint in &mut self.endpoints {
            if endpoint.latency.is_none() {
                endpoint.outcome = Err(missing(&endpoint.region, why_missing));
            }
        }
    }

    /// How many distinct endpoints said that `control` is in `state`.
    pub fn count(&self, control: &str, state: ControlState) -> usize {
        self.states_of(control).filter(|said| *said == state).count()
    }

    /// How many distinct endpoints named a state of `control`.
    pub fn known(&self, control: &str) -> usize {
        self.states_of(control).count()
    }

    /// How many endpoints answered at all.
    pub fn answered(&self) -> usize {
        self.endpoints.iter().filter(|endpoint| endpoint.outcome.is_ok()).count()
    }

    /// The state on which at least `quorum` endpoints agree; `None` when there is none or two.
    pub fn agreed(&self, control: &str, quorum: usize) -> Option<ControlState> {
        let on = self.count(control, ControlState::On) >= quorum;
        let off = self.count(control, ControlState::Off) >= quorum;
        match (on, off) {
            (true, false) => Some(ControlState::On),
            (false, true) => Some(ControlState::Off),
            _ => None,
        }
    }

    /// True when endpoints contradict each other about `control`.
    pub fn disagrees(&self, control: &str) -> bool {
        self.count(control, ControlState::On) > 0 && self.count(control, ControlState::Off) > 0
    }

    /// The calls that failed.
    pub fn errors(&self) -> impl Iterator<Item = &CallError> {
        self.endpoints.iter().filter_map(|endpoint| endpoint.outcome.as_ref().err())
    }

    pub(super) fn agrees_on_all(&self, controls: &[String], quorum: usize) -> bool {
        controls.iter().all(|control| self.agreed(control, quorum).is_some())
    }

    fn states_of<'a>(&'a self, control: &'a str) -> impl Iterator<Item = ControlState> + 'a {
        self.endpoints
            .iter()
            .filter_map(move |endpoint| endpoint.outcome.as_ref().ok()?.get(control).copied())
    }
}

fn missing(region: &str, kind: ErrorKind) -> CallError {
    let detail = match kind {
        ErrorKind::NotAwaited => "enough other endpoints had answered",
        _ => "no answer before the round's deadline",
    };
    CallError {
        endpoint: format!("ARC {region}"),
        operation: "reading routing controls",
        kind,
        detail: detail.to_owned(),
        retry_after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(states: &[Option<ControlState>]) -> ArcReading {
        let regions: Vec<String> = (0..states.len()).map(|n| format!("r{n}")).collect();
        let now = Instant::now();
        let mut reading = ArcReading::unanswered(regions.iter(), now);
        for (index, state) in states.iter().enumerate() {
            if let Some(state) = state {
                reading.note(index, Ok(BTreeMap::from([("c".to_owned(), *state)])), now);
            }
        }
        reading.finish(ErrorKind::Timeout, now);
        reading
    }

    use ControlState::{Off, On};

    #[test]
    fn three_of_five_agree_although_two_are_silent() {
        let reading = reading(&[Some(On), None, Some(On), None, Some(On)]);
        assert_eq!(reading.agreed("c", 3), Some(On));
        assert_eq!(reading.answered(), 3);
        assert!(!reading.disagrees("c"));
    }

    #[test]
    fn silence_is_never_off() {
        let reading = reading(&[None, None, None, None, None]);
        assert_eq!(reading.agreed("c", 1), None);
        assert_eq!(reading.count("c", Off), 0);
        assert_eq!(reading.errors().count(), 5);
    }

    #[test]
    fn two_quorums_at_once_are_no_agreement() {
        let reading = reading(&[Some(On), Some(On), Some(Off), Some(Off), None]);
        assert_eq!(reading.agreed("c", 2), None);
        assert!(reading.disagrees("c"));
    }

    #[test]
    fn a_control_that_nobody_knows_has_no_state() {
        assert_eq!(reading(&[Some(On); 5]).agreed("other", 1), None);
    }
}
