//! kubectl-region: the commands, one view model behind all of their outputs, and exit codes that scripts can rely on.
//!
//! `cli` reads what was typed, `find` finds the two clusters, `cluster` is the only part that talks to API servers, `build`
//! makes the one structure, `view`, that text and JSON show, `act` decides whether an act may start, `change` makes it,
//! `watch` follows a run until it ends, `hint` spells the commands that are told as next.

mod act;
mod build;
mod change;
mod cli;
mod clock;
mod cluster;
mod commands;
mod completion;
mod exit;
mod explain;
mod failure;
mod find;
mod hint;
mod progress;
mod text;
mod view;
mod watch;

pub use act::{Goal, Refusal, Verdict, may_abort, may_switch, reached};
pub use build::build;
pub use cli::{Cli, Command};
pub use cluster::{Cluster, Copy, CopyError, read_both};
pub use commands::run;
pub use completion::{asked_by, proposals};
pub use exit::Exit;
pub use explain::{Entry, entries, explain};
pub use progress::{Change, changes};
pub use text::{COLUMNS, LINES, Style, history, plan, run_steps, status};
pub use view::{PlanView, RegionView, RunView, View};
