//! The least time between two attempts of one and the same step: passes come every tenth of a second, and a provider that said
//! no, or whose numbers lag, is not asked again that soon.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use region_plan::Step;
use tokio::time::Instant;

use super::outcome::Outcome;

/// After an attempt that was made: its proof may take a moment.
const AFTER_DONE: Duration = Duration::from_millis(250);
/// After an accepted change of routing controls, which takes 5 s on average to reach all endpoints.
const AFTER_FLIP: Duration = Duration::from_secs(5);
/// After a refusal or an unknown end; doubled each time.
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(5);
/// Entries that were not used for this long are dropped.
const FORGET: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
struct Entry {
    next: Instant,
    failures: u32,
}

/// When each step of each object may be tried again.
#[derive(Debug, Default)]
pub struct Pauses {
    entries: Mutex<HashMap<(String, String), Entry>>,
}

impl Pauses {
    /// Whether this step, with all that it names, may be tried now.
    pub(super) fn due(&self, uid: &str, step: &Step) -> bool {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(&key(uid, step)).is_none_or(|entry| Instant::now() >= entry.next)
    }

    /// Whether no attempt of this step is remembered.
    pub(super) fn untried(&self, uid: &str, step: &Step) -> bool {
        !self.entries.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&key(uid, step))
    }

    /// Notes how an attempt ended.
    pub(super) fn note(&self, uid: &str, step: &Step, outcome: &Outcome) {
        let now = Instant::now();
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, entry| now.saturating_duration_since(entry.next) < FORGET);
        let entry = entries.entry(key(uid, step)).or_insert(Entry { next: now, failures: 0 });
        let pause = match outcome {
            // Hooks pace themselves.
            Outcome::AlreadyDone => Duration::ZERO,
            Outcome::Done => {
                entry.failures = 0;
                if matches!(step, Step::Flip { .. }) { AFTER_FLIP } else { AFTER_DONE }
            }
            Outcome::Refused(_) | Outcome::Unknown(_) => {
                let pause = FIRST.saturating_mul(1 << entry.failures.min(8)).min(LONGEST);
                entry.failures = entry.failures.saturating_add(1);
                pause
            }
        };
        entry.next = now + pause;
    }
}

fn key(uid: &str, step: &Step) -> (String, String) {
    (uid.to_owned(), format!("{step:?}"))
}

#[cfg(test)]
mod tests {
    use region_plan::Region;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refused_step_is_tried_again_after_growing_pauses() {
        let (pauses, step) = (Pauses::default(), Step::CloseBroker);
        let mut waited = Vec::new();
        for _ in 0..7 {
            pauses.note("u", &step, &Outcome::Refused("no".to_owned()));
            let began = Instant::now();
            while !pauses.due("u", &step) {
                tokio::time::advance(Duration::from_millis(50)).await;
            }
            waited.push(began.elapsed().as_millis());
        }
        assert_eq!(waited, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_step_that_names_something_else_does_not_wait() {
        let pauses = Pauses::default();
        let to = |region: &str| Step::SwitchDatabase { from: Region::from(region) };
        pauses.note("u", &to("a"), &Outcome::Done);
        assert!(!pauses.due("u", &to("a")));
        assert!(pauses.due("u", &to("b")));
        assert!(pauses.due("other", &to("a")));
    }
}
