//! How one attempt of a step ended.

use region_aws::Outcome as AwsOutcome;

use crate::caller::CallError;
use crate::deadline::TimedOut;
use crate::metrics::AttemptResult;

/// The end of an attempt. What is true is read in the next pass; this tells people and decides how soon that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Made now.
    Done,
    /// Nothing had to be done.
    AlreadyDone,
    /// Certainly not made; by whom and why.
    Refused(String),
    /// May have been made.
    Unknown(String),
}

impl Outcome {
    /// For metrics.
    pub fn result(&self) -> AttemptResult {
        match self {
            Outcome::Done => AttemptResult::Done,
            Outcome::AlreadyDone => AttemptResult::AlreadyDone,
            Outcome::Refused(_) => AttemptResult::Refused,
            Outcome::Unknown(_) => AttemptResult::Unknown,
        }
    }

    /// For people, if it is not plain success.
    pub fn note(&self) -> Option<String> {
        match self {
            Outcome::Done | Outcome::AlreadyDone => None,
            Outcome::Refused(why) => Some(format!("refused: {why}")),
            Outcome::Unknown(why) => Some(format!("not known whether it was done: {why}")),
        }
    }
}

impl From<AwsOutcome> for Outcome {
    fn from(outcome: AwsOutcome) -> Self {
        match outcome {
            AwsOutcome::Done { .. } => Outcome::Done,
            AwsOutcome::AlreadyDone { .. } => Outcome::AlreadyDone,
            AwsOutcome::Refused(refusal) => Outcome::Refused(format!("{}: {}", refusal.by, refusal.reason)),
            AwsOutcome::Unknown { why } => Outcome::Unknown(why),
        }
    }
}

impl From<TimedOut> for Outcome {
    fn from(late: TimedOut) -> Self {
        Outcome::Unknown(late.to_string())
    }
}

impl From<CallError> for Outcome {
    fn from(error: CallError) -> Self {
        match error {
            CallError::NotSent(_) | CallError::Refused { .. } => Outcome::Refused(error.to_string()),
            CallError::NoAnswer { .. } | CallError::Unparsable { .. } => Outcome::Unknown(error.to_string()),
        }
    }
}

impl From<kube::Error> for Outcome {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if (400..500).contains(&status.code) => {
                Outcome::Refused(error.to_string())
            }
            _ => Outcome::Unknown(error.to_string()),
        }
    }
}
