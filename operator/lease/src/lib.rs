//! The lease: the row in an application's own database that says who may write, and until when.
//!
//! The database itself judges every writing transaction (`migrations/`), so a writer that is late, cut off or
//! wrong about its region is refused by the thing that it writes to. This crate ships those migrations and
//! calls their functions with types. It decides nothing: each call is a compare-and-set that names what the
//! caller believes, has a deadline, and may be repeated.

mod call;
mod connect;
mod error;
mod guard;
mod migrate;
mod row;

pub use call::{
    Fence, NewGrant, abort, clock, enroll, fence, grant, hand_back, limit_again, open, read_lease,
    release_unlimited, renew,
};
pub use connect::{ConnectOptions, TlsConnector, connect, is_loopback};
pub use error::{LeaseError, LeaseErrorKind, Retry};
pub use guard::{Guard, LONGEST_TRANSACTION};
pub use migrate::{MigrateError, migrate};
pub use row::{Clock, LeaseRow, Opened, Reading, Released, ValidUntil, WayBack};
