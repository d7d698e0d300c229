//! What can go wrong in the lab, in words that say what to do.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the lab. Nothing here is retried by itself: `lab up` may be run again after any of them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something only its owner can give.
    #[error("the lab cannot run here: {problem}\n  what to do: {remedy}")]
    Machine {
        /// What is missing.
        problem: String,
        /// The command or setting that helps.
        remedy: String,
    },
    /// A file operation failed.
    #[error("{action} {}", path.display())]
    File {
        /// What was tried, as a verb ("write", "create folder").
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A command could not be started.
    #[error("cannot start `{command}`")]
    Start {
        /// The command line.
        command: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A command ended with a failure.
    #[error("`{command}` failed ({status}): {output}")]
    Command {
        /// The command line.
        command: String,
        /// Its exit status.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// Something did not come true within its bound.
    #[error("gave up after {} s waiting for {what}: {last}", bound.as_secs())]
    Timeout {
        /// The condition waited for.
        what: String,
        /// The bound of the wait.
        bound: Duration,
        /// What was seen last.
        last: String,
    },
    /// A process of the lab ended while it was needed.
    #[error("{process} of {place} ended; the end of its log {}:\n{tail}", log.display())]
    Ended {
        /// The process's name.
        process: String,
        /// The region or `aws`.
        place: String,
        /// Its log file.
        log: PathBuf,
        /// The last lines of the log.
        tail: String,
    },
    /// A stored file does not say what it should.
    #[error("{} is not what the lab wrote; `cargo xtask lab down` and `up` make it anew", path.display())]
    Format {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A certificate could not be made.
    #[error("cannot make the certificate of {subject}")]
    Certificate {
        /// Whose certificate.
        subject: String,
        /// Why it failed.
        source: rcgen::Error,
    },
    /// The caller asked for something that does not exist.
    #[error("{0}")]
    Request(String),
}

impl Error {
    /// Makes a `map_err` argument for a file operation.
    pub(crate) fn file(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    /// The machine lacks something; `remedy` is what its owner should do.
    pub(crate) fn machine(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Machine { problem: problem.into(), remedy: remedy.into() }
    }
}
