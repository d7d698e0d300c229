//! Which trades belong together, and whether they agree.
//!
//! Pure: no clock, no I/O, no randomness. A trade is reported by both of its parties, the investment manager and
//! the broker. The two reports of one trade name the same [`MatchKey`]; the [`Book`] pairs them and compares
//! their [`Terms`]. Because only the two parties may report, a key never has more than two sides, and so the
//! result does not depend on the order of arrival.

mod book;

pub use book::{Book, Decision, Difference, Known, Outcome};

use jiff::civil::Date;
use rust_decimal::Decimal;
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

/// Where a trade stands. The one vocabulary of statuses in messages and in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Status {
    /// Waiting for the other party's report.
    Unmatched,
    /// Both parties reported the same terms.
    Matched,
    /// Both parties reported, with different terms. Final.
    Mismatched,
}

impl Status {
    /// The word used in messages and in the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unmatched => "UNMATCHED",
            Self::Matched => "MATCHED",
            Self::Mismatched => "MISMATCHED",
        }
    }

    /// The status of a word; `None` for a word outside the vocabulary.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Unmatched, Self::Matched, Self::Mismatched].into_iter().find(|status| status.word() == word)
    }
}

/// What both reports of one trade must name alike in order to meet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MatchKey {
    /// Investment manager.
    pub im: String,
    /// Broker.
    pub broker: String,
    /// The parties' own number of the trade; it may return on another day.
    pub trade: String,
    /// Buy or sell.
    pub indicator: Indicator,
    /// Business date of the trade.
    pub trade_date: Date,
    /// Date of settlement.
    pub settlement_date: Date,
}

/// What the two reports must agree on once they have met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Security symbol.
    pub security: String,
    /// Price of one unit; decimal, compared by value (`18.5` equals `18.50`).
    pub price: Decimal,
    /// Number of units.
    pub quantity: i32,
}

/// The identity of one report: the customer's id is unique within a business date.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Business date of the trade.
    pub trade_date: Date,
    /// `sender-im-broker-trade`
    pub id: String,
}

/// One party's report of a trade.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Side {
    identity: Identity,
    sender: String,
    key: MatchKey,
    terms: Terms,
    content: String,
}

/// The sender of a report is not one of the two parties of its trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAParty;

impl Side {
    /// A report by `sender`. `content` is the canonical text of the whole report: two reports of one identity with
    /// equal content are a repeat, with different content a conflict.
    ///
    /// # Errors
    /// [`NotAParty`] when the sender is neither the investment manager nor the broker.
    pub fn new(sender: String, key: MatchKey, terms: Terms, content: String) -> Result<Self, NotAParty> {
        if sender != key.im && sender != key.broker {
            return Err(NotAParty);
        }
        let id = format!("{}-{}-{}-{}", sender, key.im, key.broker, key.trade);
        let identity = Identity { trade_date: key.trade_date, id };
        Ok(Self { identity, sender, key, terms, content })
    }

    /// Business date and id.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The party that reported.
    pub fn sender(&self) -> &str {
        &self.sender
    }

    /// What the other report must name alike.
    pub fn key(&self) -> &MatchKey {
        &self.key
    }

    /// What the other report must agree on.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The canonical text of the whole report.
    pub fn content(&self) -> &str {
        &self.content
    }
}
