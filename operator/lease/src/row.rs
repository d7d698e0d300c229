//! The lease row as a database shows it.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Timestamp as Extended;
use uuid::Uuid;

/// What one look at the row brought, and where and when it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The row; `None` when the application has none.
    pub row: Option<LeaseRow>,
    /// Whether the server that answered is a standby.
    pub in_recovery: bool,
    /// The clock and the start of the server that answered.
    pub clock: Clock,
}

/// A database server's own clock, with the start of that server. What a renewal rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// The time there when it was asked.
    pub now: Timestamp,
    /// When that server was started.
    pub server_start: Timestamp,
}

/// Who may write for an application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The application.
    pub app: String,
    /// Number of the present grant; 0 before the first.
    pub epoch: u64,
    /// Identity of the present grant; `None` before the first.
    pub grant_id: Option<Uuid>,
    /// The run that the present grant was made for.
    pub granted_run: Option<Uuid>,
    /// The region that may write; `None` when fenced or never granted.
    pub holder: Option<String>,
    /// Which stages may run.
    pub opened: Opened,
    /// When the right to write ends, by this database's clock.
    pub valid_until: ValidUntil,
    /// Whether an end may be set again where there is none.
    pub way_back: WayBack,
    /// The server start that the last renewal saw; `None` before the first renewal of a grant.
    pub server_start: Option<Timestamp>,
    /// The observation that the last renewal rests on, by this database's clock.
    pub renewed_at: Option<Timestamp>,
    /// How far past its observation a renewal reaches.
    pub lease_duration: Duration,
    /// The last fence. It ended the present grant only if its epoch is the present one.
    pub released: Option<Released>,
    /// The run that was last given up before its fence.
    pub aborted_run: Option<Uuid>,
}

/// What a fence recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Released {
    /// The epoch that it ended.
    pub epoch: u64,
    /// The region that may be granted next.
    pub to: String,
    /// The run that it was done for.
    pub run: Uuid,
}

/// Which stages of the holder may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Opened {
    /// None.
    None,
    /// The core stages, which finish what was taken in.
    Core,
    /// Also the stages that take in new work.
    Intake,
}

/// The end of a lease's validity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ValidUntil {
    /// Granted but not renewed yet, or held by nobody.
    NegInfinity,
    /// This instant of the database's clock.
    At(Timestamp),
    /// Never: left with its holder without anybody who renews it.
    Infinity,
}

/// The way back from a lease without an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WayBack {
    /// The lease has an end, or a person took it away: that is not undone by itself.
    None,
    /// Handed back by an operator; whoever manages the application again may ask for an end.
    Open,
    /// Asked for; the next permitted renewal sets it.
    Asked,
}

impl Reading {
    /// Whether the server that answered would accept guarded writes of the row's holder at that moment.
    #[must_use]
    pub fn accepts_writes(&self) -> bool {
        let Some(row) = &self.row else { return false };
        !self.in_recovery
            && row.holder.is_some()
            && match row.valid_until {
                ValidUntil::NegInfinity => false,
                ValidUntil::At(end) => {
                    end > self.clock.now && row.server_start == Some(self.clock.server_start)
                }
                ValidUntil::Infinity => true,
            }
    }
}

impl Opened {
    /// The name in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Core => "core",
            Self::Intake => "intake",
        }
    }
}

impl fmt::Display for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<Extended<Timestamp>> for ValidUntil {
    fn from(end: Extended<Timestamp>) -> Self {
        match end {
            Extended::NegInfinity => Self::NegInfinity,
            Extended::Value(at) => Self::At(at),
            Extended::PosInfinity => Self::Infinity,
        }
    }
}

/// One row always: the server's clock is there even where the application's row is not.
pub(crate) const READ_SQL: &str = "\
    SELECT clock_timestamp() AS now, pg_postmaster_start_time() AS started, pg_is_in_recovery() AS in_recovery, \
           l.app, l.epoch, l.grant_id, l.granted_run, l.holder, l.opened::text AS opened, l.valid_until, \
           l.server_start, l.renewed_at, (extract(epoch FROM l.lease_duration) * 1000)::bigint AS duration_ms, \
           l.released_epoch, l.released_to, l.released_run, l.aborted_run, \
           l.way_back::text AS way_back \
    FROM (SELECT $1::text AS app) AS wanted LEFT JOIN region.lease l ON l.app = wanted.app";

pub(crate) fn reading(row: &Row) -> Result<Reading, tokio_postgres::Error> {
    let clock = Clock { now: row.try_get("now")?, server_start: row.try_get("started")? };
    Ok(Reading { row: lease_row(row)?, in_recovery: row.try_get("in_recovery")?, clock })
}

fn lease_row(row: &Row) -> Result<Option<LeaseRow>, tokio_postgres::Error> {
    let Some(app) = row.try_get("app")? else { return Ok(None) };
    let released = match (
        row.try_get::<_, Option<i64>>("released_epoch")?,
        row.try_get("released_to")?,
        row.try_get("released_run")?,
    ) {
        (Some(epoch), Some(to), Some(run)) => Some(Released { epoch: epoch.unsigned_abs(), to, run }),
        // The table's constraint keeps the three together.
        _ => None,
    };
    let duration: i64 = row.try_get("duration_ms")?;
    Ok(Some(LeaseRow {
        app,
        epoch: row.try_get::<_, i64>("epoch")?.unsigned_abs(),
        grant_id: row.try_get("grant_id")?,
        granted_run: row.try_get("granted_run")?,
        holder: row.try_get("holder")?,
        opened: match row.try_get("opened")? {
            "core" => Opened::Core,
            "intake" => Opened::Intake,
            // The safe reading of a value that a newer version may have added.
            _ => Opened::None,
        },
        valid_until: row.try_get::<_, Extended<Timestamp>>("valid_until")?.into(),
        way_back: match row.try_get("way_back")? {
            Some("open") => WayBack::Open,
            Some("asked") => WayBack::Asked,
            _ => WayBack::None,
        },
        server_start: match row.try_get("server_start")? {
            Extended::Value(start) => Some(start),
            Extended::NegInfinity | Extended::PosInfinity => None,
        },
        renewed_at: row.try_get("renewed_at")?,
        lease_duration: Duration::from_millis(duration.unsigned_abs()),
        released,
        aborted_run: row.try_get("aborted_run")?,
    }))
}
