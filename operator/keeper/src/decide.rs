//! When to renew, and whether it is allowed. Pure: no clock, no network.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

/// Endpoints of five that must say On, asked after the database's clock was read.
pub(crate) const PERMISSION: usize = 3;

/// The lease row as the keeper needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LeaseView {
    /// The epoch in force, or the last one when nobody holds.
    pub(crate) epoch: u64,
    /// The grant in force; renewing names it, so that an older grant cannot be renewed.
    pub(crate) grant_id: Option<Uuid>,
    /// The region that holds the lease.
    pub(crate) holder: Option<String>,
    /// The server that answered is a standby: its row is a copy, and nothing can be renewed there.
    pub(crate) standby: bool,
    /// How long the lease still ran when the row was read, by the database's clock.
    pub(crate) remaining: Remaining,
}

/// How long a lease still runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remaining {
    /// No write is accepted until a permitted renewal: the grant is new, or the server restarted.
    Closed,
    /// Until then; zero when it has run out.
    For(Duration),
    /// Without an end; there is nothing to renew.
    Unlimited,
    /// Without an end, and the operator asked for one: the next permitted renewal sets it.
    EndAsked,
}

/// What the loop does after reading the row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Ask for permission and renew.
    Renew,
    /// Look at the row again after this long.
    LookAgain(Duration),
}

/// The answers on which permission rests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answers {
    /// When the database's answer with its clock had arrived.
    pub(crate) clock_answered: Instant,
    /// When the first endpoint was asked.
    pub(crate) asked: Instant,
    /// Distinct endpoints that said On for this region's own control.
    pub(crate) on: usize,
    /// Distinct endpoints that said Off.
    pub(crate) off: usize,
}

/// Permission to renew exactly this grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Permission {
    /// The epoch to name in the renewal.
    pub(crate) epoch: u64,
    /// The grant to name in the renewal.
    pub(crate) grant_id: Uuid,
}

/// Why renewing is not allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Withheld {
    /// Somebody else holds the lease, or nobody, or this is a standby's copy of the row.
    #[error("this region does not hold the lease")]
    NotHolder,
    /// An endpoint was asked before the database's clock was known.
    #[error("the routing control was read before the database's clock; such an answer proves nothing")]
    StaleAnswers,
    /// The witness does not say On often enough.
    #[error(
        "{on} of 5 endpoints say On and {off} say Off for this region's app control; {PERMISSION} On are needed"
    )]
    TooFewOn {
        /// Endpoints that said On.
        on: usize,
        /// Endpoints that said Off.
        off: usize,
    },
}

impl Withheld {
    /// The word used in metrics.
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::NotHolder => "not_holder",
            Self::StaleAnswers => "stale_answers",
            Self::TooFewOn { .. } => "too_few_on",
        }
    }
}

/// What to do with the row just read. `since_renewal` is the time since the last renewal of this
/// very grant began, `None` before the first.
pub(crate) fn next(row: Option<&LeaseView>, me: &str, since_renewal: Option<Duration>, pace: Pace) -> Next {
    let Some(row) = row.filter(|row| row.holder.as_deref() == Some(me) && !row.standby) else {
        // A grant to this region may appear at any moment, and traffic waits for its opening.
        return Next::LookAgain(pace.watch);
    };
    match (row.remaining, since_renewal) {
        (Remaining::Unlimited, _) => Next::LookAgain(pace.period),
        (Remaining::Closed, _) => Next::Renew,
        (_, Some(since)) if since < pace.period => Next::LookAgain(pace.period.saturating_sub(since)),
        (Remaining::For(_) | Remaining::EndAsked, _) => Next::Renew,
    }
}

/// How often to look and to renew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pace {
    /// Between looks at the row while it could need opening.
    pub(crate) watch: Duration,
    /// Between renewals.
    pub(crate) period: Duration,
}

/// Whether this region may renew the lease that `row` shows.
///
/// # Errors
/// [`Withheld`] says what is missing; asking again later may give another answer.
pub(crate) fn may_renew(row: &LeaseView, me: &str, answers: Answers) -> Result<Permission, Withheld> {
    let (Some(holder), Some(grant_id)) = (&row.holder, row.grant_id) else {
        return Err(Withheld::NotHolder);
    };
    if holder != me || row.standby {
        return Err(Withheld::NotHolder);
    }
    if answers.asked < answers.clock_answered {
        return Err(Withheld::StaleAnswers);
    }
    if answers.on < PERMISSION {
        let Answers { on, off, .. } = answers;
        return Err(Withheld::TooFewOn { on, off });
    }
    Ok(Permission { epoch: row.epoch, grant_id })
}

/// The wait after a failure: doubles from `first` for each failure in a row, never above `most`,
/// and is shortened by up to half by `share` (0 to 1, random) so that replicas do not act in step.
pub(crate) fn backoff(failures: u32, first: Duration, most: Duration, share: f64) -> Duration {
    let doubled = first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let share = share.clamp(0.0, 1.0);
    doubled.min(most).mul_f64(1.0 - share / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ME: &str = "us-east-1";
    const PACE: Pace = Pace { watch: Duration::from_millis(200), period: Duration::from_secs(2) };

    fn row(holder: Option<&str>, remaining: Remaining) -> LeaseView {
        LeaseView {
            epoch: 7,
            grant_id: Some(Uuid::from_u128(1)),
            holder: holder.map(str::to_owned),
            standby: false,
            remaining,
        }
    }

    #[test]
    fn each_row_has_its_next_act() {
        let seconds = Duration::from_secs;
        let open = Remaining::For(seconds(15));
        let expired = Remaining::For(Duration::ZERO);
        let cases = [
            ("no row", None, None, Next::LookAgain(PACE.watch)),
            ("nobody holds", Some(row(None, open)), None, Next::LookAgain(PACE.watch)),
            ("the other holds", Some(row(Some("us-west-2"), open)), None, Next::LookAgain(PACE.watch)),
            ("granted to me", Some(row(Some(ME), Remaining::Closed)), None, Next::Renew),
            ("granted, tried", Some(row(Some(ME), Remaining::Closed)), Some(seconds(0)), Next::Renew),
            ("mine after a restart", Some(row(Some(ME), open)), None, Next::Renew),
            ("mine, just renewed", Some(row(Some(ME), open)), Some(seconds(1)), Next::LookAgain(seconds(1))),
            ("mine, due", Some(row(Some(ME), open)), Some(seconds(2)), Next::Renew),
            ("mine, run out", Some(row(Some(ME), expired)), Some(seconds(30)), Next::Renew),
            ("without an end", Some(row(Some(ME), Remaining::Unlimited)), None, Next::LookAgain(PACE.period)),
            ("managed again", Some(row(Some(ME), Remaining::EndAsked)), None, Next::Renew),
            (
                "managed again, tried",
                Some(row(Some(ME), Remaining::EndAsked)),
                Some(seconds(1)),
                Next::LookAgain(seconds(1)),
            ),
        ];
        for (name, row, since, expected) in cases {
            assert_eq!(next(row.as_ref(), ME, since, PACE), expected, "{name}");
        }
    }

    #[test]
    fn an_expired_lease_of_mine_may_be_renewed_with_fresh_permission() {
        let now = Instant::now();
        let answers = Answers { clock_answered: now, asked: now, on: 3, off: 2 };
        let row = row(Some(ME), Remaining::For(Duration::ZERO));
        let permission = may_renew(&row, ME, answers).unwrap();
        assert_eq!((permission.epoch, permission.grant_id), (7, Uuid::from_u128(1)));
    }

    #[test]
    fn waits_double_and_stop_at_the_cap() {
        let first = Duration::from_millis(100);
        let most = Duration::from_secs(2);
        let waits: Vec<_> = (1..=7).map(|n| backoff(n, first, most, 0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1600, 2000, 2000]);
        assert_eq!(backoff(u32::MAX, first, most, 1.0), Duration::from_secs(1));
    }

    proptest! {
        #[test]
        fn permission_needs_my_lease_three_on_and_answers_younger_than_the_clock(
            holder in prop::option::of(prop::sample::select(vec![ME, "us-west-2", ""])),
            has_grant: bool,
            standby: bool,
            on in 0_usize..=5,
            off in 0_usize..=5,
            clock in 0_u64..5_000,
            asked in 0_u64..5_000,
        ) {
            let zero = Instant::now();
            let at = |milliseconds| zero + Duration::from_millis(milliseconds);
            let answers = Answers { clock_answered: at(clock), asked: at(asked), on, off };
            let mut row = row(holder, Remaining::Closed);
            row.standby = standby;
            if !has_grant {
                row.grant_id = None;
            }
            let allowed = holder == Some(ME) && has_grant && !standby && on >= 3 && asked >= clock;
            let decision = may_renew(&row, ME, answers);
            prop_assert_eq!(decision.is_ok(), allowed, "{:?}", decision);
        }

        #[test]
        fn a_wait_is_never_longer_than_the_cap_nor_shorter_than_half_the_first(
            failures in 1_u32..,
            share in 0.0..=1.0_f64,
        ) {
            let first = Duration::from_millis(100);
            let wait = backoff(failures, first, Duration::from_secs(2), share);
            prop_assert!(wait <= Duration::from_secs(2));
            prop_assert!(wait >= first / 2);
        }
    }
}
