//! The book of known reports: takes one report after the other and says what it means.

use std::collections::HashMap;

use crate::{Identity, MatchKey, Side, Status, Terms};

/// A report that was decided earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The report.
    pub side: Side,
    /// Where it stands.
    pub status: Status,
}

/// One term on which the two parties disagree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// The securities differ.
    Security,
    /// The prices differ.
    Price,
    /// The quantities differ.
    Quantity,
}

impl Difference {
    /// Stable reason code for messages.
    pub fn code(self) -> &'static str {
        match self {
            Self::Security => "SECURITY_DIFFERS",
            Self::Price => "PRICE_DIFFERS",
            Self::Quantity => "QUANTITY_DIFFERS",
        }
    }
}

/// What the comparison of a pair gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All terms agree.
    Matched,
    /// These terms differ; never empty, in the order of [`Difference`].
    Mismatched(Vec<Difference>),
}

impl Outcome {
    /// Compares the terms of two sides. Symmetric.
    pub fn of(left: &Terms, right: &Terms) -> Self {
        let differences: Vec<_> = [
            (Difference::Security, left.security != right.security),
            (Difference::Price, left.price != right.price),
            (Difference::Quantity, left.quantity != right.quantity),
        ]
        .into_iter()
        .filter_map(|(difference, differs)| differs.then_some(difference))
        .collect();
        if differences.is_empty() { Self::Matched } else { Self::Mismatched(differences) }
    }

    /// The status that both sides get.
    pub fn status(&self) -> Status {
        match self {
            Self::Matched => Status::Matched,
            Self::Mismatched(_) => Status::Mismatched,
        }
    }
}

/// What a report means to the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// New, and the other party has not reported yet.
    Open,
    /// New, and the other party's report was waiting: both sides now have the outcome.
    Paired {
        /// The report that was waiting.
        counterpart: Box<Side>,
        /// What the comparison gave.
        outcome: Outcome,
    },
    /// The same report was decided before: nothing changes.
    Repeat,
    /// A different report with the same identity was decided before: this one is refused.
    Conflict,
}

/// All reports that could matter to the ones about to be taken.
///
/// The caller loads every known report that shares an identity or a match key with a coming one, and holds a lock
/// on those keys until the decisions are stored.
#[derive(Debug, Default)]
pub struct Book {
    known: HashMap<Identity, Known>,
    waiting: HashMap<MatchKey, Identity>,
}

impl Book {
    /// A book that already holds these reports.
    pub fn new(known: impl IntoIterator<Item = Known>) -> Self {
        let mut book = Self::default();
        for entry in known {
            if entry.status == Status::Unmatched {
                book.waiting.insert(entry.side.key().clone(), entry.side.identity().clone());
            }
            book.known.insert(entry.side.identity().clone(), entry);
        }
        book
    }

    /// Takes one report and remembers it, unless it is a repeat or a conflict.
    pub fn take(&mut self, side: Side) -> Decision {
        if let Some(known) = self.known.get(side.identity()) {
            return if known.side.content() == side.content() {
                Decision::Repeat
            } else {
                Decision::Conflict
            };
        }
        let identity = side.identity().clone();
        let waiting = self.waiting.remove(side.key()).and_then(|identity| self.known.get_mut(&identity));
        let Some(counterpart) = waiting else {
            self.waiting.insert(side.key().clone(), identity.clone());
            self.known.insert(identity, Known { side, status: Status::Unmatched });
            return Decision::Open;
        };
        let outcome = Outcome::of(side.terms(), counterpart.side.terms());
        counterpart.status = outcome.status();
        let counterpart = Box::new(counterpart.side.clone());
        self.known.insert(identity, Known { side, status: outcome.status() });
        Decision::Paired { counterpart, outcome }
    }

    /// Where a report stands; `None` when the book does not know it.
    pub fn status(&self, identity: &Identity) -> Option<Status> {
        self.known.get(identity).map(|known| known.status)
    }
}
