//! Users of the database. Owners, groups and rights are made by the product's migrations; the lab only makes what
//! can log in, as the owner of a real server would.

use crate::credentials::{DATABASE_ROLES, REPLICATOR};
use crate::error::Result;

/// Logins with passwords. The migrator may make the roles that cannot log in, and hand on what monitoring needs.
pub(super) fn statements<'a>(password: impl Fn(&str) -> Result<&'a str>) -> Result<String> {
    let mut sql = format!("alter role postgres password '{}';\n", password("postgres")?);
    for role in DATABASE_ROLES {
        sql += &format!("create role {role} login password '{}';\n", password(role)?);
    }
    sql += &format!("create role {REPLICATOR} login replication password '{}';\n", password(REPLICATOR)?);
    // What pg_rewind reads from the server that it follows.
    for function in [
        "pg_ls_dir(text, boolean, boolean)",
        "pg_stat_file(text, boolean)",
        "pg_read_binary_file(text)",
        "pg_read_binary_file(text, bigint, bigint, boolean)",
    ] {
        sql += &format!("grant execute on function pg_catalog.{function} to {REPLICATOR};\n");
    }
    sql += "alter role trading_migrator createrole;\n";
    sql += "grant pg_monitor, pg_signal_backend to trading_migrator with admin option;\n";
    for role in DATABASE_ROLES.iter().filter(|role| **role != "trading_migrator") {
        sql += &format!("grant {role} to trading_migrator with admin option, inherit false, set false;\n");
    }
    Ok(sql)
}

/// A statement of its own: a database cannot be created inside a transaction.
pub(super) fn database_statement(database: &str) -> String {
    format!("create database {database} owner trading_migrator")
}

/// Nobody may make objects where everybody looks for them.
pub(super) fn database_grants(database: &str) -> String {
    format!("revoke all on schema public from public; revoke temporary on database {database} from public;")
}
