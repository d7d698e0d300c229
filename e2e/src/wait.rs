//! Waiting on a value, never on a notification and never for a time.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::timeouts::{POLL, stretched};

/// What one look saw.
pub enum Look<T> {
    /// The value that was waited for.
    Seen(T),
    /// Not yet; the text is part of the error at the bound.
    NotYet(String),
}

/// Looks until the value is there. Errors of a look count as "not yet": the last one is told at the bound.
///
/// # Errors
/// At the bound: says what was waited for and what was seen last.
pub async fn until<T, F>(what: &str, bound: Duration, look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Look<T>>>,
{
    until_every(POLL, what, bound, look).await
}

/// The same with a pause of its own between two looks.
///
/// # Errors
/// At the bound: says what was waited for and what was seen last.
pub async fn until_every<T, F>(
    pause: Duration,
    what: &str,
    bound: Duration,
    mut look: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<Look<T>>>,
{
    let bound = stretched(bound);
    let start = Instant::now();
    loop {
        let last = match look().await {
            Ok(Look::Seen(value)) => return Ok(value),
            Ok(Look::NotYet(seen)) => seen,
            Err(error) => format!("{error:#}"),
        };
        if start.elapsed() > bound {
            bail!("waited {bound:?} for {what}; last seen: {last}");
        }
        tokio::time::sleep(pause).await;
    }
}
