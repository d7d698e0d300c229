//! Logs: JSON lines for machines, plain lines for a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::ConfigError;

/// Starts logging to standard error, at the level of `filter` (the syntax of `RUST_LOG`).
/// A second call in one process changes nothing.
///
/// # Errors
/// The filter is not understood.
pub fn start(filter: &str) -> Result<(), ConfigError> {
    let parsed = EnvFilter::try_new(filter).map_err(|error| ConfigError::Value {
        option: "--log",
        reason: format!("{filter:?} is no log filter ({error}); write for instance info,lapin=warn"),
    })?;
    let builder = tracing_subscriber::fmt().with_env_filter(parsed).with_writer(std::io::stderr);
    // Failing means that a subscriber is installed already, which is all that is asked for.
    let _ = if std::io::stderr().is_terminal() { builder.try_init() } else { builder.json().try_init() };
    Ok(())
}

/// Installs the one TLS provider of the process; call it first in `main`.
pub fn install_tls_provider() {
    // Failing means that it is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// The whole chain of causes of an error, each once, as one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Some libraries print their source themselves: do not say it twice.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_is_not_understood_is_refused_and_named() {
        let refused = start("info,services=loud").unwrap_err().to_string();
        assert!(refused.starts_with("--log cannot be used: \"info,services=loud\""), "{refused}");
    }
}
