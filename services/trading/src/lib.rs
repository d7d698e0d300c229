//! Trade matching: from a customer's message to the answer.
//!
//! inbound (stores the text) → ingestion (validates) → core (decides; its relay sends on what it decided) → egress (makes
//! the answers) → outbound (sends them to customers).

mod core;
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
pub mod parse;
pub mod reconcile;
pub mod run;
pub mod settlement;
mod store;
