//! Logs: one JSON object a line on standard error, filtered by `--log`.

use tracing_subscriber::EnvFilter;

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not understood.
    #[error(
        "--log {filter:?} is not a log filter ({reason}); write for instance `info` or `info,region_operator=debug`"
    )]
    BadFilter {
        /// As given.
        filter: String,
        /// The parser's words.
        reason: String,
    },
    /// Something else in this process logs already.
    #[error("logging is set up twice: {0}")]
    Twice(String),
}

/// Starts JSON logs on standard error. Spans add their fields (object, run) to each line.
///
/// # Errors
/// [`TelemetryError`] when the filter is wrong or logging was started before.
pub fn start(filter: &str) -> Result<(), TelemetryError> {
    // The AMQP client logs each refusal as an error of its own; here it is an answer that is told with the object.
    let whole = if filter.contains("lapin") { filter.to_owned() } else { format!("{filter},lapin=off") };
    let parsed = EnvFilter::try_new(whole).map_err(|error| TelemetryError::BadFilter {
        filter: filter.to_owned(),
        reason: error.to_string(),
    })?;
    tracing_subscriber::fmt()
        .json()
        .with_env_filter(parsed)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stderr)
        .try_init()
        .map_err(|error| TelemetryError::Twice(error.to_string()))
}
