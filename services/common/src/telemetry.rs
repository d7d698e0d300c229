//! Logs: JSON lines for machines, plain lines for a terminal.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error, at the level of `filter` (the syntax of `RUST_LOG`).
/// A second call in one process changes nothing.
pub fn start(filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // Failing means that a subscriber is installed already, which is all that is asked for.
    let _ = if std::io::stderr().is_terminal() { builder.try_init() } else { builder.json().try_init() };
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
