//! Which reports belong together, and whether they agree: trades, and the settlements that follow from them.
//!
//! Pure: no clock, no I/O, no randomness. A trade, or one allocation of it, is reported by its two parties, the
//! investment manager and the broker. A [`Digester`] makes a compact [`Side`] of a [`Report`]; the [`Book`] pairs the
//! two sides of one key and compares their [`Terms`]. Because only the two parties may report, a key never has more
//! than two sides, and so the result does not depend on the order of arrival.
//!
//! | | Trades | Settlements |
//! |---|---|---|
//! | Identity of a side | business date, sender, manager, broker, trade | the same and the allocation |
//! | Key: what both sides name alike | manager, broker, trade, indicator, trade date, settlement date | manager, broker, trade, allocation, trade date |
//! | Terms: what is compared | security, price, quantity | security, indicator, price, quantity, settlement date, account |
//! | Status of sides that agree | `MATCHED` | `SETTLED` |
//!
//! A party may amend or cancel a side while it waits: the highest version that has arrived says what holds, in whatever
//! order the versions came. Once a side is paired or expired, nothing changes it.

mod book;
mod digest;
mod places;
mod reason;
mod report;
mod sides;
mod terms;
mod wait;
mod words;

pub use book::{Book, Decision, Known, Refusal, Taken};
pub use digest::{Digester, Identity, Side};
pub use reason::{Reason, why_settlement_is_open, why_trade_is_open};
pub use report::{Action, Allocation, Report, ReportError};
pub use terms::{Difference, Differences, Outcome, SettlementTerms, Terms, TradeTerms};
pub use wait::last_day;
pub use words::{Indicator, Status};
