//! Trade matching: from a customer's message to the answer.
//!
//! inbound (stores the text) → ingestion (validates) → core (matches, writes answers) → relay (sends them).

mod core;
pub mod envelope;
pub mod generate;
mod ids;
mod inbound;
mod ingestion;
pub mod message;
pub mod migrate;
pub mod names;
pub mod parse;
pub mod run;
mod store;
