//! Waiting within a bound.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until `condition` gives a value.
pub(crate) async fn until<T>(
    limit: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Option<T>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        if let Some(value) = condition().await {
            return Ok(value);
        }
        if Instant::now() > end {
            bail!("not within {limit:?}: {what}");
        }
        tokio::time::sleep(LOOK).await;
    }
}
