//! The loop of one application: look at the row, ask the witness, renew. Every call has a
//! deadline, so the loop goes round whatever else is broken.

use std::time::Duration;

use region_aws::{ArcClient, ArcReading, ControlState, ReadLimits};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::database::{Database, DatabaseError};
use crate::decide::{
    Answers, LeaseView, Next, PERMISSION, Pace, Remaining, Withheld, backoff, may_renew, next,
};
use crate::metrics::Metrics;
use crate::status::SharedStatus;
use crate::with_causes;

/// Between looks at the row while a grant may appear.
const WATCH: Duration = Duration::from_millis(100);
/// The first wait after a failure; it doubles up to the period.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// One round of asking the witness.
const READ_DEADLINE: Duration = Duration::from_secs(2);
/// A late endpoint is waited for this much longer once three agree, for the sake of its metrics.
const READ_GRACE: Duration = Duration::from_millis(20);

/// The loop of one application.
#[derive(Debug)]
pub(crate) struct Renewer {
    app: String,
    region: String,
    control: String,
    pace: Pace,
    arc: ArcClient,
    database: Database,
    status: SharedStatus,
    metrics: Metrics,
    /// The grant that was renewed last and when that renewal began.
    last: Option<(u64, uuid::Uuid, Instant)>,
    failures: u32,
}

/// Why a turn of the loop did not renew although it should have.
#[derive(Debug, thiserror::Error)]
enum Missed {
    #[error(transparent)]
    Database(#[from] DatabaseError),
    #[error("permission withheld: {0}")]
    Withheld(#[from] Withheld),
}

impl Missed {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Database(error) => error.as_str(),
            Self::Withheld(withheld) => withheld.as_str(),
        }
    }
}

impl Renewer {
    /// A loop for `app` in `region`, whose permission is the routing control `control`.
    pub(crate) fn new(
        names: (&str, &str, &str),
        period: Duration,
        arc: ArcClient,
        database: Database,
        status: SharedStatus,
        metrics: Metrics,
    ) -> Self {
        let (app, region, control) = names;
        Self {
            app: app.to_owned(),
            region: region.to_owned(),
            control: control.to_owned(),
            pace: Pace { watch: WATCH, period },
            arc,
            database,
            status,
            metrics,
            last: None,
            failures: 0,
        }
    }

    /// Goes round until `shutdown`. Stopping in mid-call is harmless: a renewal that still
    /// arrives carries the old clock and cannot widen anything.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let forever = async {
            loop {
                let wait = self.turn().await;
                self.status.update(|status| status.turned = Instant::now());
                sleep(wait).await;
            }
        };
        shutdown.run_until_cancelled(forever).await;
    }

    /// One turn; returns the wait before the next.
    async fn turn(&mut self) -> Duration {
        match self.look_and_renew().await {
            Ok(wait) => {
                self.failures = 0;
                wait
            }
            Err(missed) => self.note_missed(&missed),
        }
    }

    async fn look_and_renew(&mut self) -> Result<Duration, Missed> {
        let row = self.database.read_lease().await?;
        self.note_row(row.as_ref());
        let since = row.as_ref().and_then(|row| self.since_renewal(row));
        match (next(row.as_ref(), &self.region, since, self.pace), row) {
            (Next::LookAgain(wait), _) => {
                self.status.update(|status| {
                    status.problem = None;
                    if status.holder == Some(false) {
                        status.missed = 0;
                    }
                });
                Ok(wait)
            }
            (Next::Renew, Some(row)) => {
                self.renew(&row).await?;
                Ok(self.pace.period)
            }
            // `next` asks for a renewal only when there is a row.
            (Next::Renew, None) => Ok(self.pace.watch),
        }
    }

    /// Clock first, then the witness, then the renewal: the order is the proof that the
    /// permission is younger than the time from which the lease is counted.
    async fn renew(&mut self, row: &LeaseView) -> Result<(), Missed> {
        let began = Instant::now();
        let clock = self.database.clock().await?;
        let clock_answered = Instant::now();
        let reading = self.ask_witness().await;
        let answers = Answers {
            clock_answered,
            asked: reading.started,
            on: reading.count(&self.control, ControlState::On),
            off: reading.count(&self.control, ControlState::Off),
        };
        let permission = may_renew(row, &self.region, answers)?;
        let remaining = self.database.renew(permission, clock).await?;
        self.last = Some((permission.epoch, permission.grant_id, began));
        self.note_renewed(row, remaining, clock_answered);
        Ok(())
    }

    async fn ask_witness(&self) -> ArcReading {
        let limits = ReadLimits { deadline: READ_DEADLINE, enough: Some(PERMISSION), grace: READ_GRACE };
        let controls = std::slice::from_ref(&self.control);
        let reading = self.arc.read_all(controls, limits).await;
        for error in reading.errors() {
            tracing::debug!(app = %self.app, %error, "an endpoint gave no state");
        }
        reading
    }

    fn since_renewal(&self, row: &LeaseView) -> Option<Duration> {
        let (epoch, grant_id, began) = self.last?;
        let same = row.epoch == epoch && row.grant_id == Some(grant_id);
        same.then(|| began.elapsed())
    }

    fn note_row(&self, row: Option<&LeaseView>) {
        let now = Instant::now();
        let mine = row.is_some_and(|row| !row.standby && row.holder.as_deref() == Some(&self.region));
        self.status.update(|status| {
            if status.holder != Some(mine) {
                let epoch = row.map(|row| row.epoch);
                tracing::info!(app = %self.app, region = %self.region, holder = mine, ?epoch, "lease holder seen");
            }
            status.holder = Some(mine);
            status.row_read = Some(now);
            status.remaining = row.map(|row| (row.remaining, now));
        });
    }

    fn note_renewed(&self, row: &LeaseView, remaining: Remaining, as_of: Instant) {
        let opened = row.remaining == Remaining::Closed;
        let outcome = if opened { "opened" } else { "renewed" };
        self.metrics.renewal(&self.app, outcome);
        let missed = self.status.snapshot().missed;
        if opened || missed > 0 {
            tracing::info!(app = %self.app, region = %self.region, epoch = row.epoch, missed, "lease {outcome}");
        }
        self.status.update(|status| {
            status.missed = 0;
            status.problem = None;
            status.renewed = Some(as_of);
            status.remaining = Some((remaining, as_of));
        });
    }

    /// Counts and tells of a failure from the first one on; returns the wait before the next try.
    fn note_missed(&mut self, missed: &Missed) -> Duration {
        self.failures = self.failures.saturating_add(1);
        self.metrics.renewal(&self.app, missed.as_str());
        let problem = with_causes(missed);
        let mut told = false;
        let mut left = None;
        self.status.update(|status| {
            // Before the row was ever read this region may be the holder, so it counts as missed.
            if status.holder != Some(false) {
                status.missed = status.missed.saturating_add(1);
            }
            told = status.problem.as_ref() == Some(&problem);
            left = status.left(Instant::now());
            status.problem = Some(problem.clone());
        });
        let (app, region, failures) = (&self.app, &self.region, self.failures);
        // The same words again add nothing; the metric goes on counting.
        if told {
            tracing::debug!(%app, %region, failures, ?left, problem, "renewal missed again");
        } else {
            tracing::warn!(%app, %region, failures, ?left, problem, "renewal missed");
        }
        backoff(self.failures, FIRST_RETRY, self.pace.period, rand::random())
    }
}
