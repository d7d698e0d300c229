//! Who may do what at a region's broker: the least that each application needs (`docs/wiring.md`).
//!
//! The applications share the virtual host. Queues are named after their application and a right names its queues, so a
//! virtual host for each would take nothing away that is not taken already, and would be one more name that addresses,
//! definitions and permissions must agree on. Users are never shared: an operator closes connections by user.

use crate::application::{Application, Queue};
use crate::region::Region;

const NOTHING: &str = "^$";

/// A user of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct User {
    pub(super) name: String,
    pub(super) tags: Vec<&'static str>,
    pub(super) configure: String,
    pub(super) write: String,
    pub(super) read: String,
    /// Whether an operator takes and gives the right to publish.
    submits: bool,
}

impl User {
    fn new(name: impl Into<String>, write: &str, read: &str) -> Self {
        let (write, read) = (write.to_owned(), read.to_owned());
        Self { name: name.into(), tags: Vec::new(), configure: NOTHING.into(), write, read, submits: false }
    }

    /// What the user may publish to in a new lab: only the region that is active first takes submissions. An operator
    /// that takes a right wraps its pattern so that it matches nothing.
    pub(super) fn write_at_first_in(&self, region: Region) -> String {
        if self.submits && region != Region::UsEast1 {
            format!("(?!)({})", self.write)
        } else {
            self.write.clone()
        }
    }
}

/// As whom the other region's broker fetches what was left behind here.
pub(super) const FEDERATION: &str = "federation";

/// The first queues of all lines of all applications.
pub(super) fn doors() -> String {
    let lines: Vec<Vec<Queue>> = Application::ALL.into_iter().flat_map(Application::queues).collect();
    pattern(lines.iter().filter_map(|line| line.first()))
}

/// All users.
pub(super) fn all() -> Vec<User> {
    let mut all: Vec<User> = Application::ALL.into_iter().flat_map(of).collect();
    all.push(User::new(FEDERATION, NOTHING, &doors()));
    let everything = || ".*".to_owned();
    all.push(User {
        name: "region-operator".into(),
        tags: vec!["administrator"],
        configure: everything(),
        write: everything(),
        read: everything(),
        submits: false,
    });
    all
}

/// Their names.
pub(crate) fn names() -> Vec<String> {
    all().into_iter().map(|user| user.name).collect()
}

/// The stages of a pipeline, with the queues that each takes from.
const STAGES: [(&str, &str); 5] = [
    ("inbound", "in"),
    ("ingestion", "ingestion"),
    ("core", "core"),
    ("egress", "egress"),
    ("outbound", "outbound"),
];

/// Those of one application: who submits and who reads answers, its stages, its migrator.
fn of(application: Application) -> Vec<User> {
    let lines = application.queues();
    let fronts = lines.iter().filter_map(|line| line.first());
    let mut users: Vec<User> = application
        .submitters()
        .iter()
        .zip(fronts)
        .map(|(user, front)| User { submits: true, ..User::new(*user, &pattern([front]), NOTHING) })
        .collect();
    let answers = pattern(lines.iter().flatten().filter(|queue| queue.stage == "out"));
    users.extend(application.answer_readers().iter().map(|user| User::new(*user, NOTHING, &answers)));
    users.extend(STAGES.map(|(name, takes)| {
        let write = if name == "core" { from_core(&lines) } else { behind(takes, &lines) };
        let read = pattern(lines.iter().flatten().filter(|queue| queue.stage == takes));
        User::new(format!("{}-{name}", application.user_prefix()), &write, &read)
    }));
    let own = format!(r"^{application}\.");
    users.push(User { configure: own.clone(), ..User::new(application.migrator_user(), &own, &own) });
    users
}

/// The queues that a stage passes on to: in each line the one behind that which it takes from.
fn behind(takes: &str, lines: &[Vec<Queue>]) -> String {
    let next = |line: &&[Queue]| line[0].stage == takes;
    pattern(lines.iter().flat_map(|line| line.windows(2)).filter(next).map(|pair| &pair[1]))
}

/// Core sends probes in at the front of the pipeline, and a replay to any stage.
fn from_core(lines: &[Vec<Queue>]) -> String {
    let may = |(line, queue): &(usize, &Queue)| match queue.stage {
        "in" => *line == 0,
        stage => stage != "out",
    };
    let all = lines.iter().enumerate().flat_map(|(index, line)| line.iter().map(move |queue| (index, queue)));
    pattern(all.filter(may).map(|(_, queue)| queue))
}

/// What fits exactly these queues and exchanges.
fn pattern<'a>(queues: impl IntoIterator<Item = &'a Queue>) -> String {
    let names: Vec<String> = queues.into_iter().map(|queue| queue.name.replace('.', r"\.")).collect();
    match names.as_slice() {
        [] => NOTHING.to_owned(),
        [one] => format!("^{one}$"),
        several => format!("^({})$", several.join("|")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> User {
        all().into_iter().find(|user| user.name == name).unwrap()
    }

    #[test]
    fn rights_are_those_of_the_wiring_page() {
        let is = |name: &str, configure: &str, write: &str, read: &str| {
            let user = user(name);
            assert_eq!([user.configure, user.write, user.read], [configure, write, read], "{name}");
        };
        is("customer-submit", NOTHING, r"^trade-matching\.in\.trades$", NOTHING);
        is("settlement-returns", NOTHING, r"^trade-matching\.in\.settlements$", NOTHING);
        is("customer-answers", NOTHING, NOTHING, r"^trade-matching\.out\.trades$");
        is(
            "tm-inbound",
            NOTHING,
            r"^(trade-matching\.ingestion\.trades|trade-matching\.ingestion\.settlements)$",
            r"^(trade-matching\.in\.trades|trade-matching\.in\.settlements)$",
        );
        let core = user("tm-core").write;
        for queue in ["in.trades", "ingestion.settlements", "core.settlements", "outbound.trades"] {
            assert!(
                core.contains(&format!("trade-matching.{queue}").replace('.', r"\.")),
                "{queue} in {core}"
            );
        }
        for queue in ["out.trades", "in.settlements"] {
            assert!(!core.contains(&queue.replace('.', r"\.")), "{queue} in {core}");
        }
        is("tm-outbound", NOTHING, r"^trade-matching\.out\.trades$", r"^trade-matching\.outbound\.trades$");
        is("trading-migrator", r"^trade-matching\.", r"^trade-matching\.", r"^trade-matching\.");
        is("settlement-submit", NOTHING, r"^settlement\.in\.settlements$", NOTHING);
        is("st-egress", NOTHING, NOTHING, r"^settlement\.egress\.settlements$");
        is("st-outbound", NOTHING, NOTHING, NOTHING);
        is(
            FEDERATION,
            NOTHING,
            NOTHING,
            r"^(trade-matching\.in\.trades|trade-matching\.in\.settlements|settlement\.in\.settlements)$",
        );
    }

    #[test]
    fn nobody_but_operator_and_federation_has_a_right_in_two_applications() {
        for application in Application::ALL {
            let own = format!(r"{application}\.");
            for user in of(application) {
                for pattern in
                    [&user.configure, &user.write, &user.read].into_iter().flat_map(|all| all.split('|'))
                {
                    let own = pattern.trim_start_matches(['^', '(']).starts_with(&own);
                    assert!(pattern == NOTHING || own, "{user:?}");
                }
            }
        }
        let mut names = names();
        names.sort();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "a user of two applications");
    }

    #[test]
    fn only_the_first_active_region_takes_submissions_at_the_start() {
        let [east, west] = Region::ALL;
        for name in Application::ALL.into_iter().flat_map(Application::submitters) {
            let user = user(name);
            assert_eq!(user.write_at_first_in(east), user.write);
            assert_eq!(user.write_at_first_in(west), format!("(?!)({})", user.write));
        }
        let stage = user("tm-inbound");
        assert_eq!(stage.write_at_first_in(west), stage.write, "nobody takes the right of a stage");
    }
}
