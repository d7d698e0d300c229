//! The applications that a lab carries. They share clusters and brokers; what lets one move alone is its own.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A queue of an application, and of its exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Who takes from it: `in` is the inbound gateway's, `out` the customers'.
    pub stage: &'static str,
    /// For instance `trade-matching.in.trades`.
    pub name: String,
}

/// One of the applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Application {
    /// Matches customers' trades.
    TradeMatching,
    /// Settles the allocations of matched trades.
    Settlement,
}

impl Application {
    /// All applications; what names none means the first.
    pub const ALL: [Self; 2] = [Self::TradeMatching, Self::Settlement];

    /// Its name: that of its lease and of its TradingRegion, and the first part of its names in AWS.
    pub const fn name(self) -> &'static str {
        match self {
            Self::TradeMatching => "trade-matching",
            Self::Settlement => "settlement",
        }
    }

    /// What its queues carry and where on its way, its own pipeline first: `<app>.<stage>.<what>`. Settlement's egress
    /// writes what its outbound gateway sends; what comes back to trade matching ends at its core.
    fn lines(self) -> &'static [(&'static str, &'static [&'static str])] {
        match self {
            Self::TradeMatching => &[
                ("trades", &["in", "ingestion", "core", "egress", "outbound", "out"]),
                ("settlements", &["in", "ingestion", "core"]),
            ],
            Self::Settlement => &[("settlements", &["in", "ingestion", "core", "egress"])],
        }
    }

    /// The queues of each of its lines, in the order in which a message passes them.
    pub fn queues(self) -> Vec<Vec<Queue>> {
        let line = |(what, stages): &(&str, &'static [&'static str])| {
            let queue = |stage: &&'static str| Queue { stage, name: format!("{self}.{stage}.{what}") };
            stages.iter().map(queue).collect()
        };
        self.lines().iter().map(line).collect()
    }

    /// Name of its database, on a server of its own.
    pub fn database_name(self) -> &'static str {
        match self {
            Self::TradeMatching => "trading",
            Self::Settlement => "settlement",
        }
    }

    /// Port of its PostgreSQL server in each region.
    pub fn database_port(self) -> u16 {
        match self {
            Self::TradeMatching => 5432,
            Self::Settlement => 5433,
        }
    }

    /// Name of its PostgreSQL server among a region's processes.
    pub fn database_process(self) -> &'static str {
        match self {
            Self::TradeMatching => "postgres",
            Self::Settlement => "postgres-settlement",
        }
    }

    /// Settlement has a fraction of the other's rows, and both servers share one machine.
    pub(crate) fn shared_buffers(self) -> &'static str {
        match self {
            Self::TradeMatching => "128MB",
            Self::Settlement => "32MB",
        }
    }

    /// First part of the names of its pods' secrets; those of operator and keeper begin with its name.
    pub fn secret_prefix(self) -> &'static str {
        match self {
            Self::TradeMatching => "trading",
            Self::Settlement => "settlement",
        }
    }

    /// Short form in the names of its stages' broker users.
    pub(crate) fn user_prefix(self) -> &'static str {
        match self {
            Self::TradeMatching => "tm",
            Self::Settlement => "st",
        }
    }

    /// The broker user that declares its queues.
    pub(crate) fn migrator_user(self) -> &'static str {
        match self {
            Self::TradeMatching => "trading-migrator",
            Self::Settlement => "settlement-migrator",
        }
    }

    /// Broker users that submit to it, each to the front of one line. They submit to no other application: its operator
    /// takes their right and closes their connections when it moves.
    pub fn submitters(self) -> &'static [&'static str] {
        match self {
            Self::TradeMatching => &["customer-submit", "settlement-returns"],
            Self::Settlement => &["settlement-submit"],
        }
    }

    /// Broker users that read its answers.
    pub fn answer_readers(self) -> &'static [&'static str] {
        match self {
            Self::TradeMatching => &["customer-answers"],
            // Its answers go back to trade matching.
            Self::Settlement => &[],
        }
    }

    /// Routing control that starts and stops its generators; its customers have no region.
    pub fn generator_control(self) -> Option<&'static str> {
        match self {
            Self::TradeMatching => Some("trade-matching-generator"),
            Self::Settlement => None,
        }
    }

    /// The application that it submits to, and as which broker user there.
    pub fn peer(self) -> (Self, &'static str) {
        match self {
            Self::TradeMatching => (Self::Settlement, "settlement-submit"),
            Self::Settlement => (Self::TradeMatching, "settlement-returns"),
        }
    }
}

impl fmt::Display for Application {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Application {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|application| application.name() == text)
            .ok_or_else(|| format!("no application {text:?}: the lab has trade-matching and settlement"))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_applications_share_what_is_to_move_alone() {
        fn distinct<T: Ord>(of: impl Fn(Application) -> Vec<T>) {
            let all: Vec<T> = Application::ALL.into_iter().flat_map(of).collect();
            let count = all.len();
            assert_eq!(all.into_iter().collect::<BTreeSet<T>>().len(), count);
        }
        distinct(|one| vec![one.database_port()]);
        distinct(|one| vec![one.database_process(), one.secret_prefix()]);
        distinct(|one| [one.submitters(), one.answer_readers(), &[one.migrator_user()]].concat());
        distinct(|one| one.queues().concat().into_iter().map(|queue| queue.name).collect());
    }

    #[test]
    fn each_submits_to_the_other_as_a_user_who_submits_there() {
        for application in Application::ALL {
            let (other, user) = application.peer();
            assert_ne!(other, application);
            assert!(other.submitters().contains(&user), "{user}");
        }
    }

    #[test]
    fn each_line_begins_where_somebody_submits() {
        for application in Application::ALL {
            let lines = application.queues();
            assert_eq!(lines.len(), application.submitters().len());
            assert!(lines.iter().all(|line| line[0].stage == "in"), "{lines:?}");
        }
    }

    #[test]
    fn a_name_is_read_back_and_an_unknown_one_is_told() {
        for application in Application::ALL {
            assert_eq!(application.name().parse(), Ok(application));
            assert_eq!(serde_json::json!(application), application.name());
        }
        assert!("trading".parse::<Application>().unwrap_err().contains("settlement"));
    }
}
