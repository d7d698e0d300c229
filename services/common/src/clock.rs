//! The one place that reads the wall clock.

/// The time of day now. For stamps in messages and in logs; durations are measured with `std::time::Instant`.
#[expect(clippy::disallowed_methods, reason = "this is the named module that reads the clock")]
pub fn now() -> jiff::Timestamp {
    jiff::Timestamp::now()
}
