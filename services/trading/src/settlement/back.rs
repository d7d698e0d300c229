//! What the settlement application sends to trade matching.

use serde::{Deserialize, Serialize};

use super::{Returned, Settlement, parse};
use crate::ingestion::Content;
use crate::message::{NACK, Response, json};
use crate::names::{self, Line};
use crate::parse::{Refusal, RefusalCode, fields, given};

/// One message that comes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Back {
    /// A settlement with what became of it.
    Settlement(Returned),
    /// A settlement was refused.
    Nack(Response),
}

impl Back {
    /// The settlement, unless it was refused.
    pub(crate) fn settlement(&self) -> Option<&Returned> {
        match self {
            Self::Settlement(returned) => Some(returned),
            Self::Nack(_) => None,
        }
    }

    /// The settlement that was refused, as far as the refusal shows one.
    pub(crate) fn refused(&self, id: &str) -> Option<Settlement> {
        match self {
            Self::Settlement(_) => None,
            Self::Nack(response) => parse::settlement(&response.message, Some(id), response.timestamp).ok(),
        }
    }
}

impl Content for Back {
    const LINE: Line = names::RETURNED;

    fn read(text: &str, id: &str, received_ms: i64) -> Result<Self, Refusal> {
        let status = fields(text)?;
        let status = given(&status, "status").map(|raw| raw.get().trim_matches('"'));
        if status != Some(NACK) {
            return parse::returned(text, Some(id), received_ms).map(Self::Settlement);
        }
        let response: Response = serde_json::from_str(text).map_err(|error| {
            Refusal::whole(RefusalCode::Malformed, format!("expected the fields of an answer: {error}"))
        })?;
        if response.id != id {
            return Err(Refusal::of(RefusalCode::Invalid, "id", "must equal the correlation id"));
        }
        Ok(Self::Nack(response))
    }

    fn text(&self) -> String {
        match self {
            Self::Settlement(Returned { settlement, status }) => settlement.text(*status),
            Self::Nack(response) => json(response),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settlement::samples::{TAKEN_MS, manager_trade};
    use crate::settlement::{SettlementStatus, of_trade};

    const ID: &str = "QAINS012-QAINS012-QABRO010-3500017-2";

    fn nack(id: &str, message: &str) -> String {
        json(&Response {
            id: id.to_owned(),
            timestamp: 7,
            status: NACK.to_owned(),
            description: "CONFLICT: another one was there first".to_owned(),
            destination: "QAINS012".to_owned(),
            message: message.to_owned(),
        })
    }

    #[test]
    fn a_settlement_and_a_refusal_are_told_apart_by_their_status() {
        let sent = of_trade(&manager_trade(), TAKEN_MS).remove(1);
        let back = Back::read(&sent.text(SettlementStatus::Settled), ID, 1).unwrap();
        let status = SettlementStatus::Settled;
        assert_eq!(back.settlement(), Some(&Returned { settlement: sent.clone(), status }));
        assert_eq!(back.refused(ID), None);
        let back = Back::read(&nack(ID, &sent.text(SettlementStatus::Unmatched)), ID, 1).unwrap();
        assert_eq!((back.settlement(), back.refused(ID)), (None, Some(sent)));
    }

    #[test]
    fn a_refusal_of_something_unreadable_names_no_settlement() {
        let back = Back::read(&nack(ID, "not a settlement"), ID, 1).unwrap();
        assert_eq!(back.refused(ID), None);
        let other = Back::read(&nack("another id", ""), ID, 1).unwrap_err();
        assert_eq!(other.description(), "INVALID id: must equal the correlation id");
        let short = Back::read(r#"{"status":"NACK"}"#, ID, 1).unwrap_err();
        assert_eq!(short.code, RefusalCode::Malformed);
    }
}
