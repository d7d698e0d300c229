//! RDS: global clusters of real PostgreSQL servers.
//!
//! [`cluster`] is the pure record of who is the writer, [`switchover`] moves the real servers, [`api`] and
//! [`xml`] are the wire.

pub(crate) mod api;
pub(crate) mod cluster;
pub(crate) mod switchover;
pub(crate) mod xml;
