//! The one place that reads the clocks. Everything else takes a moment as a parameter.

use std::time::Instant;

/// Two readings of one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Now {
    /// For intervals: never jumps.
    pub(crate) instant: Instant,
    /// For people, signatures and the call log.
    pub(crate) wall: jiff::Timestamp,
}

/// Reads both clocks.
#[expect(clippy::disallowed_methods, reason = "the simulator's one reader of the clock")]
pub(crate) fn now() -> Now {
    Now { instant: Instant::now(), wall: jiff::Timestamp::now() }
}
