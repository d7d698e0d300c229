//! The commands by which the AWS simulator moves the primary: `stop`, `promote`, `follow`. Each is idempotent.

use super::{CALL, COPY, Database, HOME, READY, STOP, SwitchContext};
use crate::error::{Error, Result};
use crate::process;
use crate::wait::{Look, until};

impl Database<'_> {
    /// Stops a server cleanly and gives the position of its shutdown checkpoint; `None` for a standby.
    ///
    /// # Errors
    /// When the server had crashed: its standby may then lack the newest transactions, so this must not pass as a
    /// clean stop.
    pub fn stop(&self) -> Result<Option<String>> {
        process::stop(self.lab, self.region, self.process(), STOP)?;
        let control = self.tool("pg_controldata", &[&format!("--pgdata={HOME}/data")], CALL)?;
        let value = |name: &str| {
            control.lines().find_map(|line| line.strip_prefix(name)).map(|value| value.trim().to_owned())
        };
        match value("Database cluster state:").as_deref() {
            Some("shut down") => Ok(value("Latest checkpoint location:")),
            Some("shut down in recovery") => Ok(None),
            other => Err(Error::Request(format!(
                "{self} did not end cleanly (state {:?}): restore it and stop it again",
                other.unwrap_or("unknown")
            ))),
        }
    }

    /// Makes the server a running, writable primary.
    ///
    /// # Errors
    /// When it lacks what the old primary wrote last, or does not become writable in time.
    pub fn promote(&self, context: &SwitchContext) -> Result<()> {
        if !self.is_running()? {
            self.start()?;
        }
        if self.in_recovery()? {
            if let Some(position) = &context.old_primary_position {
                self.wait_until_replayed(position)?;
            }
            self.server_sql("select pg_promote(wait => true, wait_seconds => 60)")?;
        }
        until(&format!("{self} to be writable"), READY, || {
            Ok(if self.in_recovery()? { Look::NotYet("it is in recovery".into()) } else { Look::Ready(()) })
        })
    }

    fn in_recovery(&self) -> Result<bool> {
        Ok(self.server_sql("select pg_is_in_recovery()")? == "t")
    }

    /// The shutdown checkpoint is the old primary's last record; it begins at `position` and was replayed once
    /// the replayed position lies behind it.
    fn wait_until_replayed(&self, position: &str) -> Result<()> {
        let valid = |byte: u8| byte.is_ascii_hexdigit() || byte == b'/';
        if position.is_empty() || !position.bytes().all(valid) {
            return Err(Error::Request(format!("{position:?} is not a position in a write-ahead log")));
        }
        let query =
            format!("select pg_last_wal_replay_lsn() > '{position}'::pg_lsn, pg_last_wal_replay_lsn()");
        until(&format!("{self} to replay {position}, the last of the old primary"), READY, || {
            let answer = self.server_sql(&query)?;
            Ok(match answer.split_once('|') {
                Some(("t", _)) => Look::Ready(()),
                Some((_, replayed)) => Look::NotYet(format!("it has replayed {replayed}")),
                None => Look::NotYet(answer),
            })
        })
    }

    /// Makes the server a standby of the other region's primary: as it is, rewound, or copied anew.
    ///
    /// # Errors
    /// When the other region's server is no running primary, or this one does not begin to receive from it.
    pub fn follow(&self, context: &SwitchContext) -> Result<()> {
        context.require_peer(self)?;
        let peer = self.peer();
        if peer.in_recovery()? {
            return Err(Error::Request(format!("{peer} cannot be followed: it is a standby itself")));
        }
        if self.is_running()? {
            if self.in_recovery()? {
                return self.wait_until_streaming();
            }
            process::stop(self.lab, self.region, self.process(), STOP)?;
        }
        peer.ensure_slot_for(self.region)?;
        if let Err(error) = self.rewind() {
            eprintln!("{self} cannot be rewound and is copied anew: {error}");
            self.copy_from_peer()?;
        }
        self.start_standby()?;
        // Slots of the time as a primary would hold back the log for ever.
        self.server_sql(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where not active",
        )
        .map(drop)
    }

    /// Undoes what this server wrote after the histories parted; nothing when they did not.
    fn rewind(&self) -> Result<()> {
        let data = format!("--target-pgdata={HOME}/data");
        let source = format!("--source-server={}", self.connection_to_peer());
        let configuration = format!("--config-file={HOME}/conf/postgresql.conf");
        self.tool("pg_rewind", &[&data, &source, &configuration], COPY).map(drop)
    }
}
