//! End-to-end tests on the lab's two regions, which `cargo xtask test` brings up. One at a time: each ends with the
//! application steady in one region, whichever, and the next one moves it from there.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod abort;
mod admission;
mod deletion;
mod faults;
mod hooks;
mod intent;
mod kills;
mod plugin;
mod rig;
mod switch;
