//! How an act on AWS ended.

use std::fmt;

use crate::error::{CallError, ErrorKind};

/// The end of an act, in the only four ways in which a caller can react.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The service accepted the act. What it started may take time: watch it by reading.
    Done {
        /// Who accepted.
        by: String,
    },
    /// Nothing had to be asked: the wanted state holds, or the same change is already under way.
    AlreadyDone {
        /// Who said so.
        seen_by: String,
    },
    /// The act certainly did not happen.
    Refused(Refusal),
    /// The act may or may not have happened, or may happen yet. Read back, then decide.
    Unknown {
        /// What was tried and how it ended.
        why: String,
    },
}

/// A certain "no".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Who refused; `this client` when nothing was sent.
    pub by: String,
    /// The reason in the refuser's words.
    pub reason: String,
    /// True when asking again is useless until a person changes something.
    pub permanent: bool,
    /// True when a concurrent change, a safety rule or the present state forbade it: read again, decide again.
    pub conflict: bool,
}

impl Outcome {
    /// True for [`Outcome::Done`] and [`Outcome::AlreadyDone`].
    pub fn holds(&self) -> bool {
        matches!(self, Self::Done { .. } | Self::AlreadyDone { .. })
    }

    /// A refusal by the service.
    pub(crate) fn refused_by(error: &CallError) -> Self {
        Self::Refused(Refusal {
            by: error.endpoint.clone(),
            reason: error.detail.clone(),
            permanent: error.kind.is_permanent(),
            conflict: error.kind == ErrorKind::Conflict,
        })
    }

    /// A refusal before anything was sent.
    pub(crate) fn not_asked(reason: String, permanent: bool) -> Self {
        Self::Refused(Refusal { by: "this client".to_owned(), reason, permanent, conflict: false })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done { by } => write!(f, "accepted by {by}"),
            Self::AlreadyDone { seen_by } => write!(f, "already so, as seen by {seen_by}"),
            Self::Refused(refusal) => {
                let lasting = if refusal.permanent { ", permanently" } else { "" };
                write!(f, "refused by {}{lasting}: {}", refusal.by, refusal.reason)
            }
            Self::Unknown { why } => write!(f, "unknown whether it happened: {why}"),
        }
    }
}
