//! What a customer may expect for a message that it sent.

use matching::Status;
use serde::Serialize;

use crate::message::{NACK, Response};

/// The answers that are right for one message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Expected {
    /// Some answer.
    #[default]
    Any,
    /// The other party reports the same.
    Matched,
    /// The other party reports something else.
    Mismatched,
    /// A refusal.
    Nack,
    /// The report is withdrawn before the other party reports.
    Cancelled,
    /// A later version takes its place. Nothing is owed; told is only where the versions came out of order.
    Replaced,
    /// A later version. Refused where the other party was faster.
    Amended,
    /// The counterpart of an amended report: it may meet the earlier version.
    Amendable,
    /// It names nobody to answer to: it is set apart.
    Quarantined,
}

impl Expected {
    /// Whether an answer must come.
    pub fn owed(self) -> bool {
        !matches!(self, Self::Replaced | Self::Quarantined)
    }

    /// Whether an answer with this status is right.
    pub fn allows(self, status: &str) -> bool {
        let (matched, mismatched) = (Status::Matched.word(), Status::Mismatched.word());
        // A matched trade may be told as settled.
        let agreed = status == matched || status == SETTLED;
        match self {
            Self::Any => true,
            Self::Matched => agreed,
            Self::Mismatched => status == mismatched,
            Self::Nack => status == NACK,
            Self::Cancelled => status == Status::Cancelled.word(),
            Self::Replaced => status == NACK || status == mismatched,
            Self::Amended => agreed || status == NACK,
            Self::Amendable => agreed || status == mismatched,
            Self::Quarantined => false,
        }
    }
}

/// The answer about a trade whose allocations are all settled.
pub(super) const SETTLED: &str = "SETTLED";

/// The name of a report in the customer's books: versions above the first have the id of the first, so their number
/// is added.
pub(super) fn key(id: &str, version: u32) -> String {
    if version == crate::message::FIRST_VERSION { id.to_owned() } else { format!("{id}#{version}") }
}

/// The report that an answer is about.
pub(super) fn answered_key(response: &Response) -> String {
    #[derive(serde::Deserialize)]
    struct Versioned {
        version: Option<u32>,
    }
    // Most have none, and need not be read.
    let read = response.message.contains("\"version\"");
    let version = read.then(|| serde_json::from_str::<Versioned>(&response.message).ok()).flatten();
    let version = version.and_then(|report| report.version);
    key(&response.id, version.unwrap_or(crate::message::FIRST_VERSION))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(message: &str) -> Response {
        Response {
            id: "a-a-b-1".into(),
            timestamp: 1,
            status: "NACK".into(),
            description: String::new(),
            destination: "a".into(),
            message: message.into(),
        }
    }

    #[test]
    fn an_answer_belongs_to_the_version_that_it_carries() {
        assert_eq!(answered_key(&response(r#"{"tradeID":"1"}"#)), "a-a-b-1");
        assert_eq!(answered_key(&response(r#"{"tradeID":"1","version":2}"#)), key("a-a-b-1", 2));
        assert_eq!(answered_key(&response(r#"{"version":1}"#)), "a-a-b-1");
        assert_eq!(answered_key(&response(r#"cut {"version":2"#)), "a-a-b-1");
    }

    #[test]
    fn nothing_is_owed_for_what_is_replaced_or_names_nobody() {
        assert!(!Expected::Quarantined.owed() && !Expected::Replaced.owed());
        assert!(Expected::Nack.owed() && !Expected::Quarantined.allows("NACK"));
        assert!(Expected::Matched.allows("SETTLED") && !Expected::Matched.allows("MISMATCHED"));
    }
}
