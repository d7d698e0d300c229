//! Named bounds of waits. `E2E_TIMEOUT_FACTOR` stretches all of them on a slow machine.

use std::time::Duration;

/// Helm install or upgrade of one chart, its hooks and readiness included.
pub const INSTALL: Duration = Duration::from_secs(240);
/// What a program gets beyond the limit that it keeps itself.
pub const MARGIN: Duration = Duration::from_secs(30);
/// From applying the object in both clusters to an active region.
pub const START: Duration = Duration::from_secs(120);
/// A planned switch, from the change of the spec to the end of the run on both sides.
pub const SWITCH: Duration = Duration::from_secs(180);
/// A Job of reconciliation, from its creation to its end.
pub const RECONCILIATION: Duration = Duration::from_secs(120);
/// A change of a condition, finding or phase after its cause.
pub const NOTICE: Duration = Duration::from_secs(60);
/// One call of a cluster's API server; where many things share a disk its store may stall for ten seconds.
pub const CALL: Duration = Duration::from_secs(30);
/// Between two looks at a value.
pub const POLL: Duration = Duration::from_millis(100);
/// Between two looks at a whole run, whose times stand in what is read: looking must not be what the machine is busy with.
pub const POLL_RUN: Duration = Duration::from_millis(500);
/// Between two looks at everything that two applications have stored.
pub const POLL_STORES: Duration = Duration::from_secs(2);

/// A bound, stretched by `E2E_TIMEOUT_FACTOR` if that is set to a number above 1.
pub fn stretched(bound: Duration) -> Duration {
    #[expect(clippy::disallowed_methods, reason = "the one environment variable of the tests")]
    let factor = std::env::var("E2E_TIMEOUT_FACTOR").ok().and_then(|text| text.parse::<f64>().ok());
    bound.mul_f64(factor.unwrap_or(1.0).clamp(1.0, 20.0))
}
