//! Setting controls: any endpoint may accept the batch, so ask one after another.

use std::collections::BTreeSet;
use std::time::Duration;

use aws_sdk_route53recoverycluster::types::UpdateRoutingControlStateEntry;
use rand::Rng;
use rand::seq::SliceRandom;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{ArcClient, ControlState, Endpoint, ReadLimits};
use crate::error::{CallError, ErrorKind};
use crate::outcome::Outcome;

/// The service takes at most this many controls in one batch.
pub const MAX_BATCH: usize = 10;
const MAX_ROUNDS: usize = 2;
/// Between the two rounds, so that several clients do not return in step.
const PAUSE_MILLISECONDS: std::ops::RangeInclusive<u64> = 50..=250;
/// Endpoints that must agree before a refused batch counts as already in force.
const AGREEMENT: usize = 3;
const OPERATION: &str = "UpdateRoutingControlStates";

/// How long a flip may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlipLimits {
    /// The whole act, all endpoints and rounds and the read-back of a conflict included.
    pub deadline: Duration,
}

impl Default for FlipLimits {
    /// Two dead endpoints at 1.5 s each, then a live one, with room to spare.
    fn default() -> Self {
        Self { deadline: Duration::from_secs(8) }
    }
}

/// The attempts so far. Once one of them may have happened, no later "no" is certain any more.
#[derive(Debug, Default)]
struct Attempts {
    errors: Vec<CallError>,
}

impl ArcClient {
    /// Sets all controls of `batch` at once, all or nothing, without overriding safety rules.
    ///
    /// Endpoints are tried in random order, in at most two rounds. A timeout at one of them does
    /// not stop the others: the batch says what shall be, so asking twice is harmless as long as
    /// nobody wants the opposite meanwhile. `Unknown` means: read back with
    /// [`ArcClient::read_all`], then decide again.
    pub async fn flip(&self, batch: &[(String, ControlState)], limits: FlipLimits) -> Outcome {
        if let Some(reason) = refuse_batch(batch) {
            return Outcome::not_asked(reason, true);
        }
        let deadline = Instant::now() + limits.deadline;
        let mut attempts = Attempts::default();
        let mut order: Vec<(&Endpoint, Instant)> =
            self.endpoints.iter().map(|endpoint| (endpoint, Instant::now())).collect();
        order.shuffle(&mut rand::rng());
        for round in 0..MAX_ROUNDS {
            if round > 0 && !pause(&mut order, deadline).await {
                break;
            }
            let mut again = Vec::new();
            for (endpoint, not_before) in order {
                if not_before.max(Instant::now()) >= deadline {
                    return attempts.verdict();
                }
                sleep_until(not_before).await;
                let Err(error) = endpoint.update(batch, deadline).await else {
                    return Outcome::Done { by: endpoint.name.clone() };
                };
                tracing::debug!(%error, "flip: an endpoint did not accept the batch");
                let kind = error.kind;
                let not_before = Instant::now() + error.retry_after.unwrap_or_default();
                attempts.errors.push(error);
                match kind {
                    ErrorKind::Conflict => {
                        return self.after_conflict(batch, &attempts, deadline).await;
                    }
                    ErrorKind::Invalid | ErrorKind::NotFound | ErrorKind::NotSent => {
                        return attempts.verdict();
                    }
                    // A permission may depend on the region called, so each endpoint is asked once.
                    ErrorKind::AccessDenied => {}
                    ErrorKind::Timeout
                    | ErrorKind::Unreachable
                    | ErrorKind::Unparsable
                    | ErrorKind::Maintenance
                    | ErrorKind::Throttled
                    | ErrorKind::Internal
                    | ErrorKind::NotAwaited => again.push((endpoint, not_before)),
                }
            }
            order = again;
        }
        attempts.verdict()
    }

    /// A conflict is a concurrent change or a safety rule. If the controls already are as wanted,
    /// nothing is left to do; otherwise the caller decides, never a blind retry.
    async fn after_conflict(
        &self,
        batch: &[(String, ControlState)],
        attempts: &Attempts,
        deadline: Instant,
    ) -> Outcome {
        let controls: Vec<String> = batch.iter().map(|(control, _)| control.clone()).collect();
        let limits = ReadLimits {
            deadline: deadline.saturating_duration_since(Instant::now()),
            enough: Some(AGREEMENT),
            ..ReadLimits::default()
        };
        let reading = self.read_all(&controls, limits).await;
        let holds = batch.iter().all(|(control, state)| reading.agreed(control, AGREEMENT) == Some(*state));
        if holds {
            return Outcome::AlreadyDone { seen_by: format!("{AGREEMENT} or more ARC endpoints") };
        }
        attempts.verdict()
    }
}

/// Waits a little at random before the second round and puts last who asked to be left alone for
/// longest. False when nobody is left to ask before the deadline.
async fn pause(order: &mut Vec<(&Endpoint, Instant)>, deadline: Instant) -> bool {
    let pause = Duration::from_millis(rand::rng().random_range(PAUSE_MILLISECONDS));
    let wake = Instant::now() + pause;
    order.retain(|(_, not_before)| *not_before < deadline);
    order.sort_by_key(|(_, not_before)| *not_before);
    if order.is_empty() || wake >= deadline {
        return false;
    }
    sleep_until(wake).await;
    true
}

impl Endpoint {
    async fn update(&self, batch: &[(String, ControlState)], deadline: Instant) -> Result<(), CallError> {
        let started = Instant::now();
        let call = self.send_batch(batch);
        let result = match timeout_at(deadline, call).await {
            Ok(result) => result,
            Err(_) => Err(CallError::timed_out(&self.name, OPERATION, deadline.duration_since(started))),
        };
        self.health.note(&result, started, Instant::now());
        result
    }

    async fn send_batch(&self, batch: &[(String, ControlState)]) -> Result<(), CallError> {
        let mut call = self.client.update_routing_control_states();
        for (control, state) in batch {
            let entry = UpdateRoutingControlStateEntry::builder()
                .routing_control_arn(control)
                .routing_control_state(state.to_sdk())
                .build()
                .map_err(|error| CallError {
                    endpoint: self.name.clone(),
                    operation: OPERATION,
                    kind: ErrorKind::NotSent,
                    detail: error.to_string(),
                    retry_after: None,
                })?;
            call = call.update_routing_control_state_entries(entry);
        }
        call.send().await.map(|_| ()).map_err(|error| CallError::from_sdk(&self.name, OPERATION, &error))
    }
}

impl Attempts {
    /// `Unknown` if any attempt may have happened; else the most lasting refusal.
    fn verdict(&self) -> Outcome {
        if self.errors.is_empty() {
            return Outcome::not_asked("the deadline left no time to ask".to_owned(), false);
        }
        if self.errors.iter().any(|error| error.kind.may_have_happened()) {
            let tries: Vec<String> = self.errors.iter().map(ToString::to_string).collect();
            return Outcome::Unknown { why: tries.join("; ") };
        }
        let all_permanent = self.errors.iter().all(|error| error.kind.is_permanent());
        let telling = self.errors.iter().rev().find(|error| all_permanent || !error.kind.is_permanent());
        match telling {
            Some(error) => Outcome::refused_by(error),
            None => Outcome::not_asked("no endpoint was asked".to_owned(), false),
        }
    }
}

fn refuse_batch(batch: &[(String, ControlState)]) -> Option<String> {
    if batch.is_empty() || batch.len() > MAX_BATCH {
        return Some(format!("a batch holds 1 to {MAX_BATCH} controls, this one {}", batch.len()));
    }
    let mut seen = BTreeSet::new();
    batch
        .iter()
        .find(|(control, _)| !seen.insert(control))
        .map(|(control, _)| format!("{control} is in the batch twice"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Refusal;

    fn error(kind: ErrorKind) -> CallError {
        CallError {
            endpoint: "ARC test".to_owned(),
            operation: OPERATION,
            kind,
            detail: kind.to_string(),
            retry_after: None,
        }
    }

    fn verdict(kinds: &[ErrorKind]) -> Outcome {
        Attempts { errors: kinds.iter().map(|kind| error(*kind)).collect() }.verdict()
    }

    #[test]
    fn one_timeout_makes_every_later_refusal_uncertain() {
        let outcome = verdict(&[ErrorKind::Timeout, ErrorKind::Conflict]);
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome}");
    }

    #[test]
    fn a_conflict_alone_is_a_certain_no_that_may_pass() {
        for kinds in [&[ErrorKind::Conflict][..], &[ErrorKind::Maintenance, ErrorKind::Conflict]] {
            let Outcome::Refused(refusal) = verdict(kinds) else { panic!("a conflict is a refusal") };
            assert!(!refusal.permanent && refusal.conflict, "{refusal:?}");
        }
    }

    #[test]
    fn denied_everywhere_is_permanent_but_one_in_maintenance_keeps_hope() {
        let denied = verdict(&[ErrorKind::AccessDenied; 5]);
        assert!(matches!(denied, Outcome::Refused(Refusal { permanent: true, .. })));
        let hope = verdict(&[ErrorKind::AccessDenied, ErrorKind::Maintenance]);
        assert!(matches!(hope, Outcome::Refused(Refusal { permanent: false, .. })));
    }

    #[test]
    fn a_batch_that_names_a_control_twice_is_refused() {
        let batch = [("c".to_owned(), ControlState::On), ("c".to_owned(), ControlState::Off)];
        assert!(refuse_batch(&batch).is_some());
        assert!(refuse_batch(&batch[..1]).is_none());
        assert!(refuse_batch(&[]).is_some());
    }
}
