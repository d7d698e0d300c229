//! The words of messages and of the database.

use serde::{Deserialize, Serialize};

/// Buy or sell. Both sides of a trade carry the same one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Indicator {
    /// `B`
    #[serde(rename = "B")]
    Buy,
    /// `S`
    #[serde(rename = "S")]
    Sell,
}

impl Indicator {
    /// The letter used in messages and in the database.
    pub fn letter(self) -> &'static str {
        match self {
            Self::Buy => "B",
            Self::Sell => "S",
        }
    }

    /// The indicator of a letter; `None` for anything but `B` and `S`.
    pub fn from_letter(letter: &str) -> Option<Self> {
        match letter {
            "B" => Some(Self::Buy),
            "S" => Some(Self::Sell),
            _ => None,
        }
    }
}

/// Where a side stands. The one vocabulary of statuses, in both applications, in messages and in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Waiting for the other party's report.
    Unmatched,
    /// Both parties reported the same terms of a trade.
    Matched,
    /// Both parties reported, with different terms.
    Mismatched,
    /// Both parties reported the same settlement; of a trade: all of its allocations are settled.
    Settled,
    /// Withdrawn by its sender before it was paired. A later version may still bring it back.
    Cancelled,
    /// Its last day passed before the other party reported.
    Expired,
}

impl Status {
    const ALL: [Self; 6] =
        [Self::Unmatched, Self::Matched, Self::Mismatched, Self::Settled, Self::Cancelled, Self::Expired];

    /// The word used in messages and in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unmatched => "UNMATCHED",
            Self::Matched => "MATCHED",
            Self::Mismatched => "MISMATCHED",
            Self::Settled => "SETTLED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }

    /// The status of a word; `None` for a word outside the vocabulary.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.word() == word)
    }

    /// The status of a trade, given those of all of its allocations: a matched trade is settled with its last
    /// allocation, and one without allocations never. Every other status stays.
    #[must_use]
    pub fn after_settlements(self, allocations: impl IntoIterator<Item = Self>) -> Self {
        let mut allocations = allocations.into_iter().peekable();
        let some = allocations.peek().is_some();
        let settled = some && allocations.all(|status| status == Self::Settled);
        if self == Self::Matched && settled { Self::Settled } else { self }
    }

    /// Whether a report of a higher version may still change a side that stands so.
    pub(crate) fn may_change(self) -> bool {
        match self {
            Self::Unmatched | Self::Cancelled => true,
            Self::Matched | Self::Mismatched | Self::Settled | Self::Expired => false,
        }
    }
}
