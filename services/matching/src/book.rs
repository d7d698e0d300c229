//! The book of known sides: takes one report after the other and says what it means.

use jiff::civil::Date;

use crate::report::ordinal;
use crate::sides::{Found, Sides, TOGETHER};
use crate::{Identity, Outcome, Side, Status, Terms};

/// The report that holds for a side, as it was decided earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// The report of the highest version that was taken.
    pub side: Side<T>,
    /// Where it stands.
    pub status: Status,
}

/// What a report that was taken is to its side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The first word about it.
    First,
    /// It takes the place of the report of this version.
    Replaces(u32),
}

/// Why a report changes nothing, and is not a mere repeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Another report of the same version says something else.
    Conflict,
    /// A report of a higher version came before.
    Superseded,
    /// The side was paired or expired before this version came.
    TooLate,
}

impl Refusal {
    /// Stable reason code for messages.
    pub fn code(self) -> &'static str {
        match self {
            Self::Conflict => "CONFLICT",
            Self::Superseded => "SUPERSEDED",
            Self::TooLate => "TOO_LATE",
        }
    }
}

/// What a report means to the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Taken; the other party has not reported this key, or has withdrawn its report.
    Open(Taken),
    /// Taken, and the other party's side was waiting: both now have the outcome.
    Paired {
        /// What the report is to its own side.
        taken: Taken,
        /// The side that was waiting.
        counterpart: Identity,
        /// What the comparison gave.
        outcome: Outcome,
    },
    /// Taken: the side is withdrawn.
    Cancelled(Taken),
    /// The same report was taken before: nothing changes.
    Repeat,
    /// Nothing changes.
    Refused(Refusal),
}

/// All sides that could matter to the reports about to be taken.
///
/// The caller loads every known side that shares an identity or a key with a coming one, and holds a lock on those keys
/// until the decisions are stored. A book made from what was stored decides as the one before would have: reports that
/// come again change nothing. Of a version that was replaced since, a repeat is [`Refusal::Superseded`].
#[derive(Debug)]
pub struct Book<T> {
    sides: Sides<T>,
}

impl<T> Default for Book<T> {
    fn default() -> Self {
        Self { sides: Sides::default() }
    }
}

impl<T: Terms> Book<T> {
    /// A book that already holds these sides, in any order. Of several with one identity the highest version holds.
    pub fn new(known: impl IntoIterator<Item = Known<T>>) -> Self {
        let mut book = Self::default();
        for Known { side, status } in known {
            let side = Side { status, ..side };
            match book.sides.find(side.identity).own {
                None => book.sides.add(side),
                Some(place) if book.sides.get(place).version < side.version => {
                    *book.sides.get_mut(place) = side;
                }
                Some(_) => {}
            }
        }
        book
    }

    /// Takes reports one after the other, as [`Book::take`] does, and gives their decisions in the same order. Faster
    /// in a large book: what the memory has to bring for one report, it brings for several at once.
    pub fn take_all(&mut self, sides: &[Side<T>]) -> Vec<Decision> {
        let mut decisions = Vec::with_capacity(sides.len());
        for together in sides.chunks(TOGETHER) {
            self.sides.fetch(together.iter().map(|side| side.identity));
            decisions.extend(together.iter().map(|side| self.take(*side)));
        }
        decisions
    }

    /// Takes one report and remembers it, unless it is a repeat or refused.
    pub fn take(&mut self, mut side: Side<T>) -> Decision {
        let found = self.sides.find(side.identity);
        let taken = match found.own {
            None => Taken::First,
            Some(place) => match admitted(self.sides.get(place), &side) {
                Ok(taken) => taken,
                Err(decision) => return decision,
            },
        };
        let decision = if side.status == Status::Cancelled {
            Decision::Cancelled(taken)
        } else if let Some((counterpart, outcome)) = self.pair(found, &side) {
            side.status = outcome.status();
            Decision::Paired { taken, counterpart, outcome }
        } else {
            Decision::Open(taken)
        };
        match found.own {
            None => self.sides.add(side),
            Some(place) => *self.sides.get_mut(place) = side,
        }
        decision
    }

    /// Compares a side with the one that waits for it, which gets the outcome.
    fn pair(&mut self, found: Found, side: &Side<T>) -> Option<(Identity, Outcome)> {
        let other = self.sides.get_mut(found.other?);
        if other.status != Status::Unmatched || other.direction != side.direction {
            return None;
        }
        let outcome = Outcome::of(&side.terms, &other.terms);
        other.status = outcome.status();
        Some((other.identity, outcome))
    }

    /// Ends the wait of all unmatched sides whose last day lies before the given business date, and names them.
    pub fn expire(&mut self, today: Date) -> Vec<Identity> {
        let today = ordinal(today);
        let sides = self.sides.iter_mut();
        let overdue = sides.filter(|side| side.status == Status::Unmatched && side.last_day < today);
        let expire = |side: &mut Side<T>| {
            side.status = Status::Expired;
            side.identity
        };
        overdue.map(expire).collect()
    }

    /// Where a side stands; `None` when the book does not know it.
    pub fn status(&self, identity: Identity) -> Option<Status> {
        self.sides.find(identity).own.map(|place| self.sides.get(place).status)
    }

    /// Number of sides, whatever their status.
    pub fn len(&self) -> usize {
        self.sides.len()
    }

    /// Whether the book knows no side.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the book holds beside itself.
    pub fn bytes(&self) -> usize {
        self.sides.bytes()
    }
}

/// Whether a report may change a side that is known already.
fn admitted<T>(known: &Side<T>, report: &Side<T>) -> Result<Taken, Decision> {
    let version = known.version;
    if report.version < version {
        return Err(Decision::Refused(Refusal::Superseded));
    }
    if report.version == version {
        let same = report.content == known.content;
        return Err(if same { Decision::Repeat } else { Decision::Refused(Refusal::Conflict) });
    }
    if known.status.may_change() {
        Ok(Taken::Replaces(version))
    } else {
        Err(Decision::Refused(Refusal::TooLate))
    }
}
