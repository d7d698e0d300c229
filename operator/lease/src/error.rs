//! What can go wrong with the lease, sorted by what the caller should do.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use tokio_postgres::error::SqlState;

/// Result of this crate's calls.
pub(crate) type Result<T> = std::result::Result<T, LeaseError>;

/// A refused or failed call.
///
/// Its text holds everything that the server said, hint included, so it has no source.
#[derive(Debug, thiserror::Error)]
#[error("lease: {operation}: {detail}")]
pub struct LeaseError {
    /// What kind of refusal or failure it was.
    pub kind: LeaseErrorKind,
    operation: &'static str,
    detail: String,
}

/// Kinds of refusals and failures. The first nine are the lease's own SQLSTATEs (`TR001` … `TR009`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LeaseErrorKind {
    /// `TR001`: the caller's grant does not hold the lease.
    Fenced,
    /// `TR002`: the lease ran out.
    Expired,
    /// `TR003`: isolation above READ COMMITTED.
    Isolation,
    /// `TR004`: no `transaction_timeout`, one that is too long, or a transaction that is too old.
    TransactionTimeout,
    /// `TR005`: a prepared transaction stands in the way.
    PreparedTransaction,
    /// `TR006`: a protected table was written without the guard.
    GuardMissing,
    /// `TR007`: the row is not as the caller believes.
    Refused,
    /// `TR008`: the run was aborted.
    RunAborted,
    /// `TR009`: the server was restarted since what the call rests on.
    ServerRestarted,
    /// `25006`: this server is a standby.
    ReadOnly,
    /// Somebody held a lock, or the statement was cancelled or had to be repeated.
    Busy,
    /// The role may not log in or may not do this.
    Denied,
    /// The connection is broken, could not be made, or the server is starting or stopping. The outcome of a
    /// call that was under way is unknown.
    Connection,
    /// No answer before the deadline. The outcome is unknown.
    Deadline,
    /// Anything else: a missing migration, an impossible argument, a fault.
    Other,
}

/// What repeating the same call can bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retry {
    /// The same call may succeed later. All calls of this crate are harmless to repeat.
    Later,
    /// Only after the lease was read again, with what it says then.
    AfterReading,
    /// On another server, or on this one with a new connection.
    AfterReconnecting,
    /// Not before a person or a new version changed something.
    Never,
}

impl LeaseError {
    /// Whether and how to repeat.
    #[must_use]
    pub fn retry(&self) -> Retry {
        use LeaseErrorKind as Kind;
        match self.kind {
            Kind::Expired | Kind::Busy | Kind::PreparedTransaction => Retry::Later,
            Kind::Fenced | Kind::Refused | Kind::ServerRestarted => Retry::AfterReading,
            Kind::ReadOnly | Kind::Connection | Kind::Deadline => Retry::AfterReconnecting,
            Kind::Isolation
            | Kind::TransactionTimeout
            | Kind::GuardMissing
            | Kind::RunAborted
            | Kind::Denied
            | Kind::Other => Retry::Never,
        }
    }

    /// Whether the call may have had its effect all the same.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self.kind, LeaseErrorKind::Connection | LeaseErrorKind::Deadline)
    }

    /// Sorts an error of PostgreSQL that `operation` met. For writers, who run the guard themselves.
    #[must_use]
    pub fn from_postgres(operation: &'static str, error: &tokio_postgres::Error) -> Self {
        let Some(answer) = error.as_db_error() else {
            let kind =
                if transport_failed(error) { LeaseErrorKind::Connection } else { LeaseErrorKind::Other };
            return Self { kind, operation, detail: chain(error) };
        };
        let hint = answer.hint().map(|hint| format!(" {hint}")).unwrap_or_default();
        let detail = format!("{} ({}).{hint}", answer.message(), answer.code().code());
        Self { kind: LeaseErrorKind::of(answer.code()), operation, detail }
    }

    pub(crate) fn deadline(operation: &'static str, limit: Duration) -> Self {
        Self { kind: LeaseErrorKind::Deadline, operation, detail: format!("no answer within {limit:?}") }
    }

    pub(crate) fn other(operation: &'static str, detail: impl fmt::Display) -> Self {
        Self { kind: LeaseErrorKind::Other, operation, detail: detail.to_string() }
    }

    pub(crate) fn about(mut self, whom: impl fmt::Display) -> Self {
        self.detail = format!("{whom}: {}", self.detail);
        self
    }
}

impl LeaseErrorKind {
    /// The kind that a SQLSTATE stands for.
    #[must_use]
    pub fn of(code: &SqlState) -> Self {
        match code.code() {
            "TR001" => Self::Fenced,
            "TR002" => Self::Expired,
            "TR003" => Self::Isolation,
            "TR004" => Self::TransactionTimeout,
            "TR005" => Self::PreparedTransaction,
            "TR006" => Self::GuardMissing,
            "TR007" => Self::Refused,
            "TR008" => Self::RunAborted,
            "TR009" => Self::ServerRestarted,
            "25006" => Self::ReadOnly,
            // 57P0x: the server or an administrator ended the session; 53300: no slot is free;
            // 25P04: the transaction outlived its timeout, which ends the session too.
            "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25P03" | "25P04" => Self::Connection,
            "55P03" | "57014" | "40001" | "40P01" => Self::Busy,
            "42501" => Self::Denied,
            other if other.starts_with("08") => Self::Connection,
            other if other.starts_with("28") => Self::Denied,
            _ => Self::Other,
        }
    }
}

fn transport_failed(error: &tokio_postgres::Error) -> bool {
    error.is_closed() || causes(error).any(|cause| cause.is::<std::io::Error>())
}

fn chain(error: &tokio_postgres::Error) -> String {
    let mut text = error.to_string();
    for cause in causes(error) {
        let cause = cause.to_string();
        // Some errors already print their cause.
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn causes(error: &tokio_postgres::Error) -> impl Iterator<Item = &(dyn Error + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
