//! Trade matching, from a customer's message to the answer; and settlement, from a matched trade to a settled one.
//!
//! Both are inbound (stores the text) → ingestion (validates) → core (decides; its relay sends on what it decided) →
//! egress (makes what follows) → outbound (sends it: answers to customers, settlements to the other application).

mod breakdown;
mod core;
mod days;
mod egress;
pub mod envelope;
mod figures;
pub mod generate;
mod ids;
mod inbound;
mod ingestion;
pub mod message;
pub mod migrate;
pub mod names;
mod outbound;
mod overview;
pub mod parse;
pub mod reconcile;
pub mod run;
pub mod settlement;
mod store;
mod trace;
