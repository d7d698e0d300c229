//! End-to-end tests on the lab's two regions, which `cargo xtask test` brings up. One at a time: each ends with the
//! application steady in one region, whichever, and the next one moves it from there.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod abort;
mod admission;
mod adoption;
mod autoscaler;
mod by_hand;
mod columns;
mod deletion;
mod endpoints;
mod hooks;
mod intent;
mod kills;
mod objects;
mod plugin;
mod refused;
mod reported;
mod rig;
mod secrets;
mod switch;
mod undo;
