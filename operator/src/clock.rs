//! The one place where this process reads the wall clock. Everything else takes time as a parameter.

use jiff::Timestamp;

/// The present time by this machine's clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
