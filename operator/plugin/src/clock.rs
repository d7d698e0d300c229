//! The one place where the clock is read.

use jiff::Timestamp;

/// The time now.
#[expect(clippy::disallowed_methods, reason = "this is the module that reads the clock")]
pub(crate) fn now() -> Timestamp {
    Timestamp::now()
}
