//! Every effect and every question has a deadline.

use std::future::Future;
use std::time::Duration;

/// No answer in time. The request may have taken effect.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no answer from {of} within {after:?}")]
pub struct TimedOut {
    /// Who was asked.
    pub of: String,
    /// The deadline.
    pub after: Duration,
}

/// Waits for `answer`, at most `after`.
///
/// # Errors
/// [`TimedOut`] when the deadline came first; what was sent may have taken effect.
pub async fn within<T>(after: Duration, of: &str, answer: impl Future<Output = T>) -> Result<T, TimedOut> {
    tokio::time::timeout(after, answer).await.map_err(|_| TimedOut { of: of.to_owned(), after })
}
