//! Why a command did not end well, and the code that it ends with.

use crate::act::Refusal;
use crate::cluster::CopyError;
use crate::exit::Exit;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    /// The code of the contract.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Failure::Refused(refusal) => refusal.exit,
            Failure::Copy(CopyError::Unreachable { .. }) => Exit::PeerUnknown,
            Failure::Copy(CopyError::Skew { .. }) => Exit::Skew,
            Failure::Usage(_)
            | Failure::Copy(CopyError::Config { .. } | CopyError::Kubeconfig { .. } | CopyError::NoContext) => {
                Exit::Usage
            }
            Failure::Copy(_) | Failure::Output(_) | Failure::Json(_) => Exit::Failed,
        }
    }
}
