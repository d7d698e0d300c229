//! What is compared between the two sides of a key, and what the comparison gives.

use crate::report::ordinal;
use crate::{Indicator, Report, Status};

/// Something on which the two parties disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The securities differ.
    Security,
    /// The prices differ.
    Price,
    /// The quantities differ.
    Quantity,
    /// One reports a purchase, the other a sale.
    Indicator,
    /// The trade dates differ.
    TradeDate,
    /// The settlement dates differ.
    SettlementDate,
    /// The accounts differ.
    Account,
}

impl Difference {
    const ALL: [Self; 7] = [
        Self::Security,
        Self::Price,
        Self::Quantity,
        Self::Indicator,
        Self::TradeDate,
        Self::SettlementDate,
        Self::Account,
    ];

    /// Stable reason code for messages.
    pub fn code(self) -> &'static str {
        match self {
            Self::Security => "SECURITY_DIFFERS",
            Self::Price => "PRICE_DIFFERS",
            Self::Quantity => "QUANTITY_DIFFERS",
            Self::Indicator => "INDICATOR_DIFFERS",
            Self::TradeDate => "TRADE_DATE_DIFFERS",
            Self::SettlementDate => "SETTLEMENT_DATE_DIFFERS",
            Self::Account => "ACCOUNT_DIFFERS",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// A set of differences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Differences(u8);

impl Differences {
    /// The differences, each once, in the order of [`Difference`].
    pub fn iter(self) -> impl Iterator<Item = Difference> {
        Difference::ALL.into_iter().filter(move |difference| self.0 & difference.bit() != 0)
    }

    /// Number of differences.
    pub fn len(self) -> u32 {
        self.0.count_ones()
    }

    /// Whether there is no difference.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The differences that are found to hold.
    pub(crate) fn found<const N: usize>(comparisons: [(Difference, bool); N]) -> Self {
        comparisons.into_iter().filter(|(_, differs)| *differs).map(|(difference, _)| difference).collect()
    }
}

impl FromIterator<Difference> for Differences {
    fn from_iter<I: IntoIterator<Item = Difference>>(differences: I) -> Self {
        Self(differences.into_iter().fold(0, |bits, difference| bits | difference.bit()))
    }
}

/// What the comparison of a pair gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All terms agree; the status says so in the word of the application, [`Terms::AGREED`].
    Agreed(Status),
    /// These terms differ; never empty.
    Mismatched(Differences),
}

impl Outcome {
    /// Compares the terms of two sides. Symmetric.
    pub fn of<T: Terms>(left: &T, right: &T) -> Self {
        let differences = left.differences(right);
        if differences.is_empty() { Self::Agreed(T::AGREED) } else { Self::Mismatched(differences) }
    }

    /// The status that both sides get.
    pub fn status(self) -> Status {
        match self {
            Self::Agreed(status) => status,
            Self::Mismatched(_) => Status::Mismatched,
        }
    }
}

/// The terms of one application: plain numbers, exact or digests.
pub trait Terms: Copy {
    /// The status of two sides whose terms agree.
    const AGREED: Status;

    /// What differs between two sides. Symmetric.
    fn differences(&self, other: &Self) -> Differences;
}

/// What is compared of a trade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TradeTerms {
    /// The symbol, or a digest of a long one.
    pub(crate) security: u64,
    /// In hundredths.
    pub(crate) price: i64,
    pub(crate) quantity: i32,
}

impl Terms for TradeTerms {
    const AGREED: Status = Status::Matched;

    fn differences(&self, other: &Self) -> Differences {
        Differences::found([
            (Difference::Security, self.security != other.security),
            (Difference::Price, self.price != other.price),
            (Difference::Quantity, self.quantity != other.quantity),
        ])
    }
}

/// What is compared of a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SettlementTerms {
    /// The symbol, or a digest of a long one.
    pub(crate) security: u64,
    /// The account's text, or a digest of a long one.
    pub(crate) account: u64,
    /// In hundredths.
    pub(crate) price: i64,
    pub(crate) quantity: i32,
    pub(crate) direction: Direction,
}

impl Terms for SettlementTerms {
    const AGREED: Status = Status::Settled;

    fn differences(&self, other: &Self) -> Differences {
        Differences::found([
            (Difference::Security, self.security != other.security),
            (Difference::Price, self.price != other.price),
            (Difference::Quantity, self.quantity != other.quantity),
            (Difference::Indicator, self.direction.sells() != other.direction.sells()),
            (Difference::SettlementDate, self.direction.date() != other.direction.date()),
            (Difference::Account, self.account != other.account),
        ])
    }
}

/// Settlement date and indicator in one number, exactly: apart they would not fit beside the rest of a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Direction(i32);

impl Direction {
    /// Where the key does not name them.
    pub(crate) const ANY: Self = Self(0);

    pub(crate) fn of(report: &Report<'_>) -> Self {
        Self(ordinal(report.settlement_date) << 1 | i32::from(report.indicator == Indicator::Sell))
    }

    pub(crate) fn number(self) -> i32 {
        self.0
    }

    fn date(self) -> i32 {
        self.0 >> 1
    }

    fn sells(self) -> bool {
        self.0 & 1 == 1
    }
}
