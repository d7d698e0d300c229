//! Which fault strikes what, and when: a function of the seed.

use std::fmt;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};
use trading::names::Application;
use trading::run::StageName;

/// Both applications.
pub(crate) const APPLICATIONS: [Application; 2] = [Application::TradeMatching, Application::Settlement];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// A stage is killed.
    StageKilled,
    /// A stage is told to end, as by a rolling update.
    StageTold,
    /// A stage stands still, longer than its sessions and heartbeats are waited for.
    StagePaused,
    /// A broker is stopped and started.
    BrokerRestarted,
    /// A broker is killed and started.
    BrokerKilled,
    /// All connections to a broker end.
    BrokerCut,
    /// Nothing passes between a broker and everybody else for a while.
    BrokerSilent,
    /// Messages are taken from each queue, and put back later in another order.
    Reordered,
    /// A database crashes and recovers.
    DatabaseCrashed,
    /// A database is stopped and started.
    DatabaseRestarted,
    /// A database crashes for good, and its standby becomes the primary.
    DatabaseSwitched,
    /// All connections to a database end.
    DatabaseCut,
    /// Nothing passes between a database and everybody else for a while.
    DatabaseSilent,
    /// The grant is taken away and a new one is given, as in a switch.
    GrantedAnew,
    /// The lease is not renewed until it has run out.
    LeaseLapsed,
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::StageKilled,
        Self::StageTold,
        Self::StagePaused,
        Self::BrokerRestarted,
        Self::BrokerKilled,
        Self::BrokerCut,
        Self::BrokerSilent,
        Self::Reordered,
        Self::DatabaseCrashed,
        Self::DatabaseRestarted,
        Self::DatabaseSwitched,
        Self::DatabaseCut,
        Self::DatabaseSilent,
        Self::GrantedAnew,
        Self::LeaseLapsed,
    ];

    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::StageKilled => "killed",
            Self::StageTold => "told to end",
            Self::StagePaused => "paused",
            Self::BrokerRestarted | Self::DatabaseRestarted => "restarted",
            Self::BrokerKilled => "killed and started",
            Self::BrokerCut | Self::DatabaseCut => "connections cut",
            Self::BrokerSilent | Self::DatabaseSilent => "silent",
            Self::Reordered => "messages reordered",
            Self::DatabaseCrashed => "crashed and recovered",
            Self::DatabaseSwitched => "crashed, standby promoted",
            Self::GrantedAnew => "granted anew",
            Self::LeaseLapsed => "not renewed",
        }
    }

    fn targets(self) -> Vec<Target> {
        let each = |target: fn(Application) -> Target| APPLICATIONS.map(target).to_vec();
        match self {
            Self::StageKilled | Self::StageTold | Self::StagePaused => APPLICATIONS
                .into_iter()
                .flat_map(|application| StageName::ALL.map(|stage| Target::Stage(application, stage)))
                .collect(),
            Self::BrokerRestarted
            | Self::BrokerKilled
            | Self::BrokerCut
            | Self::BrokerSilent
            | Self::Reordered => each(Target::Broker),
            Self::DatabaseCrashed
            | Self::DatabaseRestarted
            | Self::DatabaseSwitched
            | Self::DatabaseCut
            | Self::DatabaseSilent => each(Target::Database),
            Self::GrantedAnew | Self::LeaseLapsed => each(Target::Lease),
        }
    }

    /// How long it lasts, where that is for the plan to say; in milliseconds.
    fn lasts(self) -> std::ops::RangeInclusive<u64> {
        match self {
            // Transactions are ended after 5 s, broker connections after two missed heartbeats of 5 s.
            Self::StagePaused => 3_000..=16_000,
            Self::BrokerSilent | Self::DatabaseSilent => 1_000..=12_000,
            Self::Reordered => 500..=3_000,
            // Beyond the shortest lease.
            Self::LeaseLapsed => 11_000..=14_000,
            _ => 0..=0,
        }
    }
}

/// What is struck.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Stage(Application, StageName),
    Broker(Application),
    Database(Application),
    Lease(Application),
}

/// One word for tables and logs.
pub(crate) fn short(application: Application) -> &'static str {
    match application {
        Application::TradeMatching => "trading",
        Application::Settlement => "settlement",
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stage(application, stage) => write!(f, "{} {}", short(*application), stage.word()),
            Self::Broker(application) => write!(f, "{} broker", short(*application)),
            Self::Database(application) => write!(f, "{} database", short(*application)),
            Self::Lease(application) => write!(f, "{} lease", short(*application)),
        }
    }
}

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    /// Since the load began.
    pub(crate) at: Duration,
    pub(crate) fault: Fault,
    pub(crate) target: Target,
    /// How long it lasts.
    pub(crate) lasts: Duration,
    /// Seed of what else is random about it.
    pub(crate) seed: u64,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} s: {} {}", self.at.as_secs_f64(), self.target, self.fault.words())?;
        if self.lasts.is_zero() { Ok(()) } else { write!(f, " for {:.1} s", self.lasts.as_secs_f64()) }
    }
}

/// One fault in each `every`, at a random moment of it, until `end`. Faults come in rounds in which each kind comes once, and
/// each kind goes through all its targets before one comes again: so everything has its turn.
pub(crate) fn schedule(seed: u64, every: Duration, end: Duration) -> Vec<Event> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut turns: Vec<(Fault, Vec<Target>)> = Fault::ALL.map(|fault| (fault, Vec::new())).to_vec();
    let mut events = Vec::new();
    loop {
        turns.shuffle(&mut random);
        for (fault, left) in &mut turns {
            if left.is_empty() {
                *left = fault.targets();
                left.shuffle(&mut random);
            }
            let Some(target) = left.pop() else { continue };
            let number = u32::try_from(events.len()).unwrap_or(u32::MAX);
            let at = every * number + every.mul_f64(random.random());
            let lasts = Duration::from_millis(random.random_range(fault.lasts()));
            if at >= end {
                return events;
            }
            events.push(Event { at, fault: *fault, target, lasts, seed: random.random() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_alone_says_what_happens_when() {
        let plan = |seed| schedule(seed, Duration::from_secs(2), Duration::from_secs(600));
        assert_eq!(plan(7), plan(7));
        assert_ne!(plan(7), plan(8));
        assert!(plan(7).is_sorted_by_key(|event| event.at));
    }

    #[test]
    fn ten_minutes_strike_everything_with_every_fault_and_half_a_minute_has_each_kind() {
        let long = schedule(1, Duration::from_secs(2), Duration::from_secs(600));
        for fault in Fault::ALL {
            for target in fault.targets() {
                let strikes = long.iter().filter(|event| (event.fault, event.target) == (fault, target));
                assert!(strikes.count() >= 1, "{target} {}", fault.words());
            }
        }
        let short = schedule(1, Duration::from_secs(2), Duration::from_secs(30));
        for fault in Fault::ALL {
            assert!(short.iter().any(|event| event.fault == fault), "{}", fault.words());
        }
    }
}
