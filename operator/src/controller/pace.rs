//! How soon the next pass comes. Pure.

use std::time::Duration;

use region_plan::{Intent, LeaseView, Management, Plan, SideReport};

/// After a step was made: its proof may be there already.
const AT_ONCE: Duration = Duration::from_millis(20);
/// While a run is open on either side.
const IN_RUN: Duration = Duration::from_millis(100);
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
) -> Duration {
    if made_steps {
        return AT_ONCE;
    }
    let open = |report: &SideReport| report.open_run().is_some();
    if intent.management == Management::Manage && (open(mine) || peer.is_some_and(open)) {
        return IN_RUN;
    }
    let holder = lease.and_then(|row| row.holder.as_ref());
    let as_wanted = holder == Some(&intent.mine.active) && intent.agreed().is_some() && !intent.deleting;
    if as_wanted && plan.waits.is_empty() { STEADY } else { NEAR }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use region_plan::{Epoch, Fact, GrantId, Mark, Opened, Phase, Region, RunId, RunReport, Validity};
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
        }
    }

    fn wish() -> Intent {
        intent(&example(), &Fact::known(Some(Arc::new(example())), Timestamp::UNIX_EPOCH))
    }

    #[test]
    fn an_open_run_of_either_side_is_looked_at_often() {
        let (open, none) = (report(Some(Mark::Accepted)), report(None));
        let held = lease("us-east-1");
        assert_eq!(pace(&wish(), &open, None, Some(&held), &plan(), false), IN_RUN);
        assert_eq!(pace(&wish(), &none, Some(&open), Some(&held), &plan(), false), IN_RUN);
        assert_eq!(pace(&wish(), &report(Some(Mark::Finished)), None, Some(&held), &plan(), false), STEADY);
    }

    #[test]
    fn a_wish_that_is_not_fulfilled_is_looked_at_sooner_than_a_steady_state() {
        let none = report(None);
        assert_eq!(pace(&wish(), &none, None, Some(&lease("us-west-2")), &plan(), false), NEAR);
        assert_eq!(pace(&wish(), &none, None, None, &plan(), false), NEAR);
        assert_eq!(pace(&wish(), &none, None, Some(&lease("us-east-1")), &plan(), false), STEADY);
    }

    #[test]
    fn what_was_just_done_is_looked_at_at_once() {
        assert_eq!(pace(&wish(), &report(None), None, Some(&lease("us-east-1")), &plan(), true), AT_ONCE);
    }

    #[test]
    fn an_object_that_is_only_observed_is_not_polled_in_a_run() {
        let mut wish = wish();
        wish.management = Management::Observe;
        let open = report(Some(Mark::Accepted));
        assert_eq!(pace(&wish, &open, None, Some(&lease("us-east-1")), &plan(), false), STEADY);
    }
}
