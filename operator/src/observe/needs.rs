//! Which questions the next decision needs. Pure. What is not asked is never taken for an answer.

use region_plan::{Mark, Region, SideReport};

use crate::cluster::ReadPeer;

/// Questions that are not always asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Questions {
    /// Drain checks of the own region.
    pub drain: bool,
    /// The address that customers' name answers.
    pub dns: bool,
    /// The other side's copy.
    pub peer: ReadPeer,
}

/// What to ask, given the own report. In doubt a question is asked: an absent drain check would read as "nothing left".
pub fn needs(me: &Region, report: &SideReport) -> Questions {
    let Some(run) = report.open_run() else {
        return Questions { drain: true, dns: true, peer: ReadPeer::Now };
    };
    let gives = run.from == *me && run.to != *me;
    let fenced = gives && run.mark == Mark::Fenced;
    // A lease that was given up may be taken back: then this side opens again and needs the name.
    let opens = fenced || (run.to == *me && run.mark == Mark::Begun);
    let peer = if report.has_begun() { ReadPeer::Beside } else { ReadPeer::Now };
    Questions { drain: gives && !fenced, dns: opens, peer }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use region_plan::{Epoch, RunId, RunReport};

    use super::*;

    fn report(from: &str, to: &str, mark: Mark) -> SideReport {
        let run = RunReport::open(
            RunId(uuid::Uuid::nil()),
            &Region::from(from),
            &Region::from(to),
            Epoch(1),
            mark,
            Timestamp::UNIX_EPOCH,
        );
        SideReport { run: Some(run), ..SideReport::new(&Region::from("a")) }
    }

    #[test]
    fn drain_checks_are_always_asked_before_the_own_fence() {
        let me = Region::from("a");
        for mark in [Mark::Accepted, Mark::Proposed] {
            assert!(needs(&me, &report("a", "b", mark)).drain, "{mark:?}");
        }
        let without_run = SideReport::new(&me);
        assert!(needs(&me, &without_run).drain);
        assert!(needs(&me, &report("a", "b", Mark::Finished)).drain, "an ended run is no run");
    }

    #[test]
    fn the_new_side_does_not_ask_for_its_own_drain_but_for_the_name() {
        let me = Region::from("a");
        let asked = |questions: Questions| (questions.drain, questions.dns);
        assert_eq!(asked(needs(&me, &report("b", "a", Mark::Begun))), (false, true));
        assert_eq!(asked(needs(&me, &report("b", "a", Mark::Proposed))), (false, false));
        let fenced = needs(&me, &report("a", "b", Mark::Fenced));
        assert_eq!(asked(fenced), (false, true), "it may have to open again");
    }

    #[test]
    fn the_other_sides_word_is_read_live_until_this_side_has_begun() {
        let me = Region::from("a");
        let when = |from, to, mark| needs(&me, &report(from, to, mark)).peer;
        for mark in [Mark::Accepted, Mark::Fenced] {
            assert_eq!(when("a", "b", mark), ReadPeer::Now, "{mark:?}");
        }
        assert_eq!(when("b", "a", Mark::Proposed), ReadPeer::Now);
        assert_eq!(when("b", "a", Mark::Begun), ReadPeer::Beside);
        assert_eq!(when("a", "a", Mark::Begun), ReadPeer::Now, "a start rests on what the other side says");
        assert_eq!(needs(&me, &SideReport::new(&me)).peer, ReadPeer::Now);
    }
}
