//! How long the customer waits at the end for what is still due. Pure.

use std::time::{Duration, Instant};

/// The whole wait at the end is at most so many times the wait for the next answer.
const PATIENCE: u32 = 10;

/// Waits as long as something that was due still comes: a slow application is not told to have lost what it is still sending.
#[derive(Debug)]
pub(super) struct Ending {
    wait: Duration,
    last: Instant,
    most: Instant,
    seen: u64,
}

impl Ending {
    /// Generating ended at `ended`, when `seen` confirms and answers had come.
    pub(super) fn new(wait: Duration, ended: Instant, seen: u64) -> Self {
        Self { wait, last: ended, most: ended + wait * PATIENCE, seen }
    }

    /// Whether nothing came for so long that no more is waited for; by now `seen` confirms and answers have come.
    pub(super) fn over(&mut self, seen: u64, now: Instant) -> bool {
        if seen != self.seen {
            (self.seen, self.last) = (seen, now);
        }
        now >= self.most.min(self.last + self.wait)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn silence_ends_the_wait_and_an_answer_begins_it_anew() {
        let ended = Instant::now();
        let mut ending = Ending::new(5 * SECOND, ended, 7);
        assert!(!ending.over(7, ended + 4 * SECOND));
        assert!(!ending.over(8, ended + 5 * SECOND), "an answer came");
        assert!(!ending.over(8, ended + 9 * SECOND));
        assert!(ending.over(8, ended + 10 * SECOND));
    }

    #[test]
    fn answers_that_never_end_do_not_keep_the_customer_for_ever() {
        let ended = Instant::now();
        let mut ending = Ending::new(5 * SECOND, ended, 0);
        let second = (0..100).find(|second| ending.over(u64::from(*second), ended + *second * SECOND));
        assert_eq!(second, Some(50));
    }
}
