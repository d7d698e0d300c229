//! Bounded waiting: the only place of the crate that sleeps.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// First pause between two looks; each pause is twice the one before, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What one look at a condition gave.
pub enum Look<T> {
    /// It holds.
    Ready(T),
    /// Not yet; the text says what was seen.
    NotYet(String),
}

/// Looks again and again until the condition holds.
///
/// # Errors
/// [`Error::Timeout`] with what was seen last once `bound` has passed; at once when a look itself fails.
pub fn until<T>(what: &str, bound: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        match look()? {
            Look::Ready(value) => return Ok(value),
            Look::NotYet(last) if start.elapsed() >= bound => {
                return Err(Error::Timeout { what: what.to_owned(), bound, last });
            }
            Look::NotYet(_) => std::thread::sleep(pause),
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}
