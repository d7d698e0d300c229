//! Messages that are wrong, each in one way, and messages that look wrong and are not. Each kind is known to have
//! stopped a pipeline that was not prepared for it.

use crate::inbound::{BODY_MAX, ID_MAX};
use crate::message::{Allocation, Trade};
use matching::Status;

use super::choice::Named;
use super::expected::Expected;

/// In which way a message is unusual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// The text ends in the middle.
    Truncated,
    /// No JSON at all.
    NotJson,
    /// JSON, but a list.
    NotObject,
    /// Bytes that are not UTF-8.
    NotText,
    /// A required field is absent.
    MissingField,
    /// A required field is null.
    NullField,
    /// Text where a number belongs.
    WrongType,
    /// A field longer than the database's column.
    TooLong,
    /// A quantity of 0.
    InvalidValue,
    /// A time of day where a date belongs.
    InvalidDate,
    /// An allocation that is not text with JSON in it.
    BadAllocation,
    /// Two allocations with one number.
    RepeatedAllocation,
    /// The correlation id is that of another trade.
    OtherId,
    /// Larger than is taken.
    Oversized,
    /// No correlation id.
    NoCorrelationId,
    /// A correlation id that is longer than any.
    LongCorrelationId,
    /// No allocations: allowed.
    NoAllocations,
    /// Delivery instructions that are null: allowed.
    NullInstructions,
}

impl Named for Bad {
    const ALL: &'static [Self] = &[
        Self::Truncated,
        Self::NotJson,
        Self::NotObject,
        Self::NotText,
        Self::MissingField,
        Self::NullField,
        Self::WrongType,
        Self::TooLong,
        Self::InvalidValue,
        Self::InvalidDate,
        Self::BadAllocation,
        Self::RepeatedAllocation,
        Self::OtherId,
        Self::Oversized,
        Self::NoCorrelationId,
        Self::LongCorrelationId,
        Self::NoAllocations,
        Self::NullInstructions,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::NotJson => "not-json",
            Self::NotObject => "not-object",
            Self::NotText => "not-text",
            Self::MissingField => "missing-field",
            Self::NullField => "null-field",
            Self::WrongType => "wrong-type",
            Self::TooLong => "too-long",
            Self::InvalidValue => "invalid-value",
            Self::InvalidDate => "invalid-date",
            Self::BadAllocation => "bad-allocation",
            Self::RepeatedAllocation => "repeated-allocation",
            Self::OtherId => "other-id",
            Self::Oversized => "oversized",
            Self::NoCorrelationId => "no-correlation-id",
            Self::LongCorrelationId => "long-correlation-id",
            Self::NoAllocations => "no-allocations",
            Self::NullInstructions => "null-instructions",
        }
    }
}

impl Bad {
    /// Those that are small and must be refused: what is sent where no kinds are named.
    pub const USUAL: &'static [Self] = Self::ALL.split_at(13).0;

    /// What must become of it. Those that are allowed are matched once the other party reports.
    pub fn expected(self) -> Expected {
        match self {
            Self::NoCorrelationId | Self::LongCorrelationId => Expected::Quarantined,
            Self::NoAllocations | Self::NullInstructions => Expected::Matched,
            _ => Expected::Nack,
        }
    }

    /// The correlation id of such a message about a trade.
    pub(super) fn correlation_id(self, trade: &Trade) -> Option<String> {
        match self {
            Self::NoCorrelationId => None,
            Self::LongCorrelationId => Some(format!("{}-{}", trade.id(), "0".repeat(ID_MAX))),
            _ => Some(trade.id()),
        }
    }

    /// Its body.
    pub(super) fn body(self, trade: &Trade) -> Vec<u8> {
        let good = || trade.text(Status::Unmatched);
        // Names of fields come once before the allocations, and those are text within text: their quotes are escaped.
        let changed = |from: &str, to: &str| good().replacen(from, to, 1);
        let text = match self {
            Self::Truncated => cut(&good()),
            Self::NotJson => format!("not a trade: {}", trade.id()),
            Self::NotObject => format!("[{}]", good()),
            Self::NotText => return [b"\xff\xfe", good().as_bytes()].concat(),
            Self::MissingField => changed("\"security\":", "\"secrity\":"),
            Self::NullField => changed("\"quantity\":", "\"quantity\":null,\"was\":"),
            Self::WrongType => changed("\"quantity\":", "\"quantity\":\"two\",\"was\":"),
            Self::TooLong => Trade { security: "A".repeat(11), ..trade.clone() }.text(Status::Unmatched),
            Self::InvalidValue => Trade { quantity: 0, ..trade.clone() }.text(Status::Unmatched),
            Self::InvalidDate => changed("T00:00:00Z", "T10:30:00Z"),
            Self::BadAllocation => {
                changed("\"allocations\":", "\"allocations\":[{\"allocationID\":1}],\"were\":")
            }
            Self::RepeatedAllocation => twice_the_same(trade).text(Status::Unmatched),
            Self::OtherId => {
                Trade { trade: format!("{}x", trade.trade), ..trade.clone() }.text(Status::Unmatched)
            }
            Self::Oversized => format!("{}{}", good(), " ".repeat(BODY_MAX)),
            Self::NoCorrelationId | Self::LongCorrelationId => good(),
            Self::NoAllocations => changed("\"allocations\":", "\"formerly\":"),
            Self::NullInstructions => {
                let without = Trade { delivery_instructions: None, ..trade.clone() };
                let text = without.text(Status::Unmatched);
                text.replacen("\"status\":", "\"deliveryInstructions\":null,\"status\":", 1)
            }
        };
        text.into_bytes()
    }
}

/// The first half. Pools may hold any letters, so it is counted in characters.
fn cut(text: &str) -> String {
    let half = text.chars().count() / 2;
    text.chars().take(half).collect()
}

fn twice_the_same(trade: &Trade) -> Trade {
    let one = Allocation {
        allocation_id: 1,
        quantity: 50,
        account: "1538552570".to_owned(),
        status: "Unmatched".to_owned(),
    };
    Trade { allocations: vec![one.clone(), one], ..trade.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::scenario::Scenario;
    use super::*;

    fn trade() -> Trade {
        Scenario::new(3, 0.0, jiff::civil::date(2026, 2, 9)).trade()
    }

    #[test]
    fn each_kind_that_must_be_refused_breaks_a_rule_and_each_allowed_one_breaks_none() {
        for kind in Bad::ALL {
            let trade = trade();
            let body = kind.body(&trade);
            let taken = body.len() <= BODY_MAX
                && std::str::from_utf8(&body)
                    .is_ok_and(|text| crate::parse::trade(text, &trade.id()).is_ok());
            assert_eq!(taken, kind.expected() != Expected::Nack, "{}", kind.name());
        }
    }

    #[test]
    fn what_is_quarantined_has_no_id_or_one_that_is_too_long() {
        for kind in Bad::ALL {
            let id = kind.correlation_id(&trade());
            let usable = id.is_some_and(|id| id.chars().count() <= ID_MAX);
            assert_eq!(usable, kind.expected() != Expected::Quarantined, "{}", kind.name());
        }
    }

    #[test]
    fn the_usual_kinds_are_small_and_answered_with_a_nack() {
        for kind in Bad::USUAL {
            assert_eq!(kind.expected(), Expected::Nack, "{}", kind.name());
            assert!(kind.body(&trade()).len() < 4_096, "{}", kind.name());
        }
    }

    #[test]
    fn two_bad_messages_of_a_kind_differ_so_that_neither_is_a_repeat_of_the_other() {
        let mut scenario = Scenario::new(3, 0.0, jiff::civil::date(2026, 2, 9));
        let (one, other) = (scenario.trade(), scenario.trade());
        for kind in Bad::ALL {
            assert_ne!(kind.body(&one), kind.body(&other), "{}", kind.name());
        }
    }
}
