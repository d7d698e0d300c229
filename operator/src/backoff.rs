//! Pauses between failed passes, for each object on its own. kube's error policy is not told of successes, so this is.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Bounds of the pauses.
#[derive(Clone, Copy, Debug)]
pub struct BackoffLimits {
    /// The first pause.
    pub first: Duration,
    /// No pause is longer.
    pub longest: Duration,
}

impl Default for BackoffLimits {
    fn default() -> Self {
        Self { first: Duration::from_millis(200), longest: Duration::from_secs(10) }
    }
}

/// Failures in a row, by object identity.
#[derive(Debug, Default)]
pub struct Backoff {
    limits: BackoffLimits,
    failures: Mutex<HashMap<String, u32>>,
}

impl Backoff {
    /// With other limits than the default.
    pub fn new(limits: BackoffLimits) -> Self {
        Self { limits, failures: Mutex::default() }
    }

    /// Notes a failure of `uid` and answers how long to pause: doubled each time, up to the longest pause.
    /// `jitter` in 0.0..1.0 takes away up to a quarter, so that many objects do not come back at once.
    pub fn failed(&self, uid: &str, jitter: f64) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        let doubled = self.limits.first.saturating_mul(1 << (*count).min(16));
        *count = count.saturating_add(1);
        doubled.min(self.limits.longest).mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 4.0)
    }

    /// Notes a success: the next failure starts from the first pause again.
    pub fn succeeded(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_anew_after_a_success() {
        let backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.failed("a", 0.0).as_millis()).collect();
        assert_eq!(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
        backoff.succeeded("a");
        assert_eq!(backoff.failed("a", 0.0).as_millis(), 200);
    }

    #[test]
    fn one_object_does_not_slow_another() {
        let backoff = Backoff::default();
        for _ in 0..5 {
            backoff.failed("a", 0.0);
        }
        assert_eq!(backoff.failed("b", 0.0).as_millis(), 200);
    }

    #[test]
    fn jitter_only_shortens() {
        let backoff = Backoff::default();
        assert_eq!(backoff.failed("a", 1.0).as_millis(), 150);
    }

    #[test]
    fn very_many_failures_do_not_overflow() {
        let backoff = Backoff::default();
        let last = (0..1000).map(|_| backoff.failed("a", 0.0)).last();
        assert_eq!(last, Some(Duration::from_secs(10)));
    }
}
