//! How soon the next pass comes. Pure.

use std::time::Duration;

use jiff::Timestamp;
use region_plan::{Intent, LeaseView, Management, Mark, Plan, SideReport, Wait};

/// After a step was made: its proof may be there already.
pub(super) const AT_ONCE: Duration = Duration::from_millis(20);
/// While a run is open on either side.
const IN_RUN: Duration = Duration::from_millis(100);
/// While only the other side can go on: its reports bring the next pass at once, this is for a watch that broke.
const PEERS_TURN: Duration = Duration::from_millis(500);
/// While something is wanted that is not so: a run is near.
const NEAR: Duration = Duration::from_secs(2);
/// Otherwise.
const STEADY: Duration = Duration::from_secs(5);

/// Pause after a pass. `made_steps`: the pass changed something.
pub(super) fn pace(
    intent: &Intent,
    mine: &SideReport,
    peer: Option<&SideReport>,
    lease: Option<&LeaseView>,
    plan: &Plan,
    made_steps: bool,
    now: Timestamp,
) -> Duration {
    if made_steps {
        return AT_ONCE;
    }
    let open = |report: &SideReport| report.open_run().is_some();
    if intent.management == Management::Manage && (open(mine) || peer.is_some_and(open)) {
        let pause = if peers_turn(mine, peer) { PEERS_TURN } else { IN_RUN };
        return until_next_end(&plan.waits, now).map_or(pause, |left| left.clamp(AT_ONCE, pause));
    }
    let holder = lease.and_then(|row| row.holder.as_ref());
    let as_wanted = holder == Some(&intent.mine.active) && intent.agreed().is_some() && !intent.deleting;
    if as_wanted && plan.waits.is_empty() { STEADY } else { NEAR }
}

/// How long until the first wait that has an end is over.
fn until_next_end(waits: &[Wait], now: Timestamp) -> Option<Duration> {
    let ends = waits.iter().filter_map(|wait| wait.until).filter(|end| *end > now);
    ends.min().map(|end| Duration::try_from(end.duration_since(now)).unwrap_or_default())
}

/// Whether this side's part of the run waits for nothing but the other side's next report.
fn peers_turn(mine: &SideReport, peer: Option<&SideReport>) -> bool {
    let Some(run) = mine.open_run() else { return false };
    let theirs =
        peer.and_then(|peer| peer.run.as_ref()).filter(|part| part.id == run.id).map(|part| part.mark);
    match run.mark {
        Mark::Accepted => run.closing_since.is_none(),
        Mark::Fenced => matches!(theirs, Some(Mark::Proposed | Mark::Begun)),
        Mark::Proposed => run.warm && theirs == Some(Mark::Accepted),
        Mark::Begun | Mark::Declined | Mark::Aborted | Mark::Finished => false,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use region_plan::{Epoch, Fact, GrantId, Opened, Phase, Region, RunId, RunReport, Validity};
    use uuid::Uuid;

    use super::*;
    use crate::intent::intent;
    use crate::testing::example;

    fn report(mark: Option<Mark>) -> SideReport {
        let (a, b) = (Region::from("us-east-1"), Region::from("us-west-2"));
        let run = mark
            .map(|mark| RunReport::open(RunId(Uuid::nil()), &a, &b, Epoch(1), mark, Timestamp::UNIX_EPOCH));
        SideReport { highest_epoch: Epoch(1), run, ..SideReport::new(&a) }
    }

    fn lease(holder: &str) -> LeaseView {
        LeaseView {
            epoch: Epoch(1),
            grant_id: GrantId(Uuid::nil()),
            holder: Some(Region::from(holder)),
            opened: Opened::Intake,
            validity: Validity::Valid,
            released: None,
            aborted_run: None,
        }
    }

    fn plan() -> Plan {
        Plan {
            steps: Vec::new(),
            waits: Vec::new(),
            phase: Phase::Steady,
            reason: String::new(),
            findings: Vec::new(),
            proved: Vec::new(),
            hooks_done: Vec::new(),
        }
    }

    fn wish() -> Intent {
        intent(&example(), &Fact::known(Some(Arc::new(example())), Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn an_open_run_of_either_side_is_looked_at_often() {
        let (open, none) = (report(Some(Mark::Accepted)), report(None));
        let held = lease("us-east-1");
        let mut open = open;
        open.run.as_mut().unwrap().closing_since = Some(Timestamp::UNIX_EPOCH);
        assert_eq!(pace(&wish(), &open, None, Some(&held), &plan(), false, Timestamp::UNIX_EPOCH), IN_RUN);
        assert_eq!(
            pace(&wish(), &none, Some(&open), Some(&held), &plan(), false, Timestamp::UNIX_EPOCH),
            IN_RUN
        );
        assert_eq!(
            pace(
                &wish(),
                &report(Some(Mark::Finished)),
                None,
                Some(&held),
                &plan(),
                false,
                Timestamp::UNIX_EPOCH
            ),
            STEADY
        );
    }

    #[test]
    fn a_side_that_waits_for_the_others_report_alone_looks_less_often() {
        let held = lease("us-east-1");
        let paced = |mine: &SideReport, peer: &SideReport| {
            pace(&wish(), mine, Some(peer), Some(&held), &plan(), false, Timestamp::UNIX_EPOCH)
        };
        let (accepted, fenced) = (report(Some(Mark::Accepted)), report(Some(Mark::Fenced)));
        let mut warm = report(Some(Mark::Proposed));
        assert_eq!(paced(&warm, &accepted), IN_RUN, "its pods become ready");
        warm.run.as_mut().unwrap().warm = true;
        assert_eq!(paced(&accepted, &warm), PEERS_TURN);
        assert_eq!(paced(&warm, &accepted), PEERS_TURN);
        assert_eq!(paced(&warm, &fenced), IN_RUN, "the fence arrives in its own database");
        assert_eq!(paced(&fenced, &report(Some(Mark::Begun))), PEERS_TURN);
        assert_eq!(paced(&fenced, &report(Some(Mark::Declined))), IN_RUN, "it takes the lease back");
    }

    #[test]
    fn the_end_of_a_wait_is_not_slept_through() {
        let mut open = report(Some(Mark::Accepted));
        open.run.as_mut().unwrap().closing_since = Some(Timestamp::UNIX_EPOCH);
        let held = lease("us-east-1");
        let paced = |milliseconds| {
            let until = Some(Timestamp::from_millisecond(milliseconds).unwrap());
            let plan = Plan { waits: vec![Wait { on: "x".to_owned(), since: None, until }], ..plan() };
            pace(&wish(), &open, None, Some(&held), &plan, false, Timestamp::UNIX_EPOCH)
        };
        assert_eq!(paced(60), Duration::from_millis(60));
        assert_eq!((paced(900), paced(-5)), (IN_RUN, IN_RUN), "an end that has passed is none");
    }

    #[test]
    fn a_wish_that_is_not_fulfilled_is_looked_at_sooner_than_a_steady_state() {
        let none = report(None);
        assert_eq!(
            pace(&wish(), &none, None, Some(&lease("us-west-2")), &plan(), false, Timestamp::UNIX_EPOCH),
            NEAR
        );
        assert_eq!(pace(&wish(), &none, None, None, &plan(), false, Timestamp::UNIX_EPOCH), NEAR);
        assert_eq!(
            pace(&wish(), &none, None, Some(&lease("us-east-1")), &plan(), false, Timestamp::UNIX_EPOCH),
            STEADY
        );
    }

    #[test]
    fn what_was_just_done_is_looked_at_at_once() {
        assert_eq!(
            pace(
                &wish(),
                &report(None),
                None,
                Some(&lease("us-east-1")),
                &plan(),
                true,
                Timestamp::UNIX_EPOCH
            ),
            AT_ONCE
        );
    }

    #[test]
    fn an_object_that_is_only_observed_is_not_polled_in_a_run() {
        let mut wish = wish();
        wish.management = Management::Observe;
        let open = report(Some(Mark::Accepted));
        assert_eq!(
            pace(&wish, &open, None, Some(&lease("us-east-1")), &plan(), false, Timestamp::UNIX_EPOCH),
            STEADY
        );
    }
}
