//! The rules of matching, applied to reports that came together.

use std::collections::{HashMap, HashSet};

use matching::{Book, Decision, Digester, Identity, Known, Side, Status};

use super::{Changes, Report, Subject, Update, answer, cancelled, not_taken, refused_report};

/// Decides reports that came together, given all known ones that could matter.
pub(super) fn match_reports<C: Subject>(
    digester: &mut Digester,
    reports: Vec<Report<C>>,
    known: Vec<(Report<C>, Status)>,
    changes: &mut Changes<C>,
) {
    let mut sides = Sides::known(digester, known);
    for report in reports {
        // It was validated: its sender is a party.
        if let Ok(side) = report.content.side(digester) {
            sides.take(side, report, changes);
        }
    }
    sides.end(changes);
}

/// The sides that the reports are about, each with the report that holds for it.
struct Sides<C: Subject> {
    book: Book<C::Terms>,
    holding: HashMap<Identity, Report<C>>,
    /// Those that were known before.
    stored: HashSet<Identity>,
    /// Those whose report came now.
    fresh: HashSet<Identity>,
    /// Ids of counterparts, of those that were paired now.
    counterparts: HashMap<Identity, String>,
}

impl<C: Subject> Sides<C> {
    fn known(digester: &mut Digester, known: Vec<(Report<C>, Status)>) -> Self {
        let (mut holding, mut stored, mut entries) = (HashMap::new(), HashSet::new(), Vec::new());
        for (report, status) in known {
            // A stored report was validated before: its sender is a party.
            let Ok(side) = report.content.side(digester) else { continue };
            stored.insert(side.identity());
            holding.insert(side.identity(), report);
            entries.push(Known { side, status });
        }
        let book = Book::new(entries);
        Self { book, holding, stored, fresh: HashSet::new(), counterparts: HashMap::new() }
    }

    /// Takes one report, and says what it is answered.
    fn take(&mut self, side: Side<C::Terms>, report: Report<C>, changes: &mut Changes<C>) {
        let identity = side.identity();
        match self.book.take(side) {
            Decision::Repeat => {
                changes.repeated.push(report);
                return;
            }
            Decision::Refused(why) => {
                let refusal = not_taken(&report.content, why);
                changes.answers.push(refused_report(&report, &refusal));
                changes.repeated.push(report.clone());
                changes.refused.push((report, refusal.code));
                return;
            }
            Decision::Cancelled(_) => changes.answers.push(cancelled(&report)),
            Decision::Open(_) => {}
            Decision::Paired { counterpart, outcome, .. } => {
                let other = self.holding.get(&counterpart);
                let caused_ms =
                    other.map_or(report.received_ms, |other| other.received_ms.max(report.received_ms));
                changes.answers.push(answer(&report, outcome, caused_ms));
                if let Some(other) = other {
                    changes.answers.push(answer(other, outcome, caused_ms));
                    self.counterparts.insert(identity, other.content.key().1);
                    self.counterparts.insert(counterpart, report.content.key().1);
                }
            }
        }
        self.holding.insert(identity, report);
        self.fresh.insert(identity);
    }

    /// What holds from now on. One that was replaced is written as a whole.
    fn end(mut self, changes: &mut Changes<C>) {
        for identity in self.stored.difference(&self.fresh) {
            let (Some(counterpart), Some(status)) =
                (self.counterparts.remove(identity), self.book.status(*identity))
            else {
                continue;
            };
            if let Some(Report { content, .. }) = self.holding.get(identity) {
                let (trade_date, id) = content.key();
                let counterpart = Some(counterpart);
                changes.updated.push(Update { trade_date, id, status: status.word(), counterpart });
            }
        }
        changes.updated.sort();
        for identity in self.fresh {
            if let (Some(report), Some(status)) = (self.holding.remove(&identity), self.book.status(identity))
            {
                changes.new.push((report, status, self.counterparts.remove(&identity)));
            }
        }
        changes.new.sort_by_cached_key(|(report, ..)| report.content.key());
    }
}
