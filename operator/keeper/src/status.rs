//! What each loop knows and did: the one source of health, readiness and metrics.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::decide::Remaining;

/// The state of one application's loop at one moment.
#[derive(Debug, Clone)]
pub(crate) struct AppStatus {
    /// The application.
    pub(crate) app: String,
    /// Whether this region held the lease when the row was last read; `None` before that.
    pub(crate) holder: Option<bool>,
    /// What was left of the lease, and when that was read.
    pub(crate) remaining: Option<(Remaining, Instant)>,
    /// When the row was last read.
    pub(crate) row_read: Option<Instant>,
    /// When a renewal last succeeded.
    pub(crate) renewed: Option<Instant>,
    /// Renewals missed in a row while this region was the holder.
    pub(crate) missed: u32,
    /// The latest problem, until something works again.
    pub(crate) problem: Option<String>,
    /// When the loop last went round, whatever came of it.
    pub(crate) turned: Instant,
}

impl AppStatus {
    /// What is left of this region's lease at `now`; `None` when it is not the holder, the row was
    /// never read, or the lease has no end.
    pub(crate) fn left(&self, now: Instant) -> Option<Duration> {
        if self.holder != Some(true) {
            return None;
        }
        match self.remaining? {
            (Remaining::Closed, _) => Some(Duration::ZERO),
            (Remaining::For(left), read) => Some(left.saturating_sub(now.saturating_duration_since(read))),
            (Remaining::Unlimited | Remaining::EndAsked, _) => None,
        }
    }
}

/// Shared between a loop, which writes, and the HTTP side, which reads.
#[derive(Debug, Clone)]
pub(crate) struct SharedStatus(Arc<Mutex<AppStatus>>);

impl SharedStatus {
    /// The status of a loop that starts at `now`.
    pub(crate) fn new(app: &str, now: Instant) -> Self {
        Self(Arc::new(Mutex::new(AppStatus {
            app: app.to_owned(),
            holder: None,
            remaining: None,
            row_read: None,
            renewed: None,
            missed: 0,
            problem: None,
            turned: now,
        })))
    }

    /// A copy.
    pub(crate) fn snapshot(&self) -> AppStatus {
        self.lock().clone()
    }

    /// Changes the status in one step.
    pub(crate) fn update(&self, change: impl FnOnce(&mut AppStatus)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, AppStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_shrinks_with_time_and_ends_at_zero() {
        let now = Instant::now();
        let status = SharedStatus::new("a", now);
        assert_eq!(status.snapshot().left(now), None);
        status.update(|status| {
            status.holder = Some(true);
            status.remaining = Some((Remaining::For(Duration::from_secs(20)), now));
        });
        let after = |seconds| status.snapshot().left(now + Duration::from_secs(seconds));
        assert_eq!(after(5), Some(Duration::from_secs(15)));
        assert_eq!(after(25), Some(Duration::ZERO));
    }
}
