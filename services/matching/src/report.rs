//! What a party reports, as it comes from the parser.

use jiff::civil::Date;
use rust_decimal::Decimal;
use thiserror::Error;

use crate::Indicator;

/// What a report does to the side that it identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// States the side: for the first time, or instead of a lower version.
    State,
    /// Withdraws the side. It may come before the report that it withdraws.
    Cancel,
}

/// One party's report of a trade, or of the part of a trade that an [`Allocation`] names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// Who reports: the investment manager or the broker.
    pub sender: &'a str,
    /// Investment manager.
    pub im: &'a str,
    /// Broker.
    pub broker: &'a str,
    /// The parties' own number of the trade; it may return on another day.
    pub trade: &'a str,
    /// Buy or sell.
    pub indicator: Indicator,
    /// Business date of the trade.
    pub trade_date: Date,
    /// Date of settlement.
    pub settlement_date: Date,
    /// Security symbol.
    pub security: &'a str,
    /// Price of one unit: a whole number of hundredths, compared by value (`18.5` equals `18.50`).
    pub price: Decimal,
    /// Number of units; of a settlement, those of the allocation.
    pub quantity: i32,
    /// 1 for a report that was never amended; each later word about the same side has a higher one.
    pub version: u32,
    /// Whether the side is stated or withdrawn.
    pub action: Action,
    /// Last business date on which the side waits for the other one.
    pub last_day: Date,
    /// Everything else that makes this report differ from another one of the same version, in a canonical form.
    /// Not compared between the parties.
    pub rest: &'a [u8],
}

/// The part of a trade that a settlement is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allocation<'a> {
    /// Number of the allocation within its trade: 1, 2, …
    pub number: i64,
    /// The account, compared as text.
    pub account: &'a str,
}

/// Why a report cannot take part in matching.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReportError {
    /// Only the two parties of a trade may report it.
    #[error("the sender is neither the investment manager nor the broker of the trade")]
    NotAParty,
    /// Its two sides would be one.
    #[error("investment manager and broker of the trade are the same")]
    OneParty,
    /// Prices are compared in hundredths, exactly.
    #[error("the price is not a whole number of hundredths, or is beyond 64 bits of them")]
    Price,
}

/// One of the two who may report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    Manager,
    Broker,
}

impl Report<'_> {
    /// # Errors
    /// [`ReportError::NotAParty`], [`ReportError::OneParty`].
    pub(crate) fn party(&self) -> Result<Party, ReportError> {
        if self.im == self.broker {
            return Err(ReportError::OneParty);
        }
        match self.sender {
            sender if sender == self.im => Ok(Party::Manager),
            sender if sender == self.broker => Ok(Party::Broker),
            _ => Err(ReportError::NotAParty),
        }
    }
}

/// A price in hundredths.
///
/// # Errors
/// [`ReportError::Price`].
pub(crate) fn hundredths(price: Decimal) -> Result<i64, ReportError> {
    // Digits behind the second one may still be zeros.
    let price = if price.scale() > 2 { price.normalize() } else { price };
    let factor = match price.scale() {
        0 => 100,
        1 => 10,
        2 => 1,
        _ => return Err(ReportError::Price),
    };
    let exact = price.mantissa().checked_mul(factor).and_then(|hundredths| i64::try_from(hundredths).ok());
    exact.ok_or(ReportError::Price)
}

/// A date as a number that sorts like the date.
pub(crate) fn ordinal(date: Date) -> i32 {
    i32::from(date.year()) << 9 | i32::from(date.month()) << 5 | i32::from(date.day())
}
