//! Settlements: what follows from a matched trade, allocation by allocation.
//!
//! Trade matching makes [`of_trade`] one settlement for each allocation of a matched side. The settlement application reads
//! it ([`parse::settlement`]), pairs it with the other party's ([`Settlement::side`]) and returns it with a status
//! ([`Settlement::text`]). Trade matching reads that ([`parse::returned`]) and moves the allocation, and with the last one
//! the trade ([`SettlingTrade::take`]). These rules are pure: no clock, no I/O, no randomness. Around them are the stages of
//! the settlement application, where they differ from those of trade matching, and what both send each other.

mod back;
mod message;
pub(crate) mod outgoing;
mod pairing;
pub mod parse;
pub(crate) mod probing;
pub(crate) mod resend;
pub(crate) mod returning;
#[cfg(test)]
mod samples;
mod settling;

pub(crate) use back::Back;
pub use message::{Returned, Settlement, SettlementStatus, of_trade};
pub use settling::{AllocationStanding, Effect, SettlingTrade, Unfit};
