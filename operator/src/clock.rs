//! The one place where this process reads the wall clock. Everything else takes time as a parameter.

use jiff::Timestamp;

/// The present time by this machine's clock, in whole milliseconds: more digits would be noise in status and events.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}
