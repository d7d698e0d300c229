//! What happens when the other side's object is gone, the database moves by itself, was restored, or does not answer.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod support;

use jiff::SignedDuration;
use region_plan::*;
use support::*;

fn kinds(plan: &Plan) -> Vec<StepKind> {
    plan.steps.iter().map(Step::kind).collect()
}

/// What side `index` decides when the other cluster has no object of this name.
fn alone(universe: &Universe, index: usize) -> Plan {
    let (mut intent, mut world) = (universe.intent(index), universe.world(index));
    intent.peer = Fact::unknown("the other cluster has no TradingRegion of this name");
    world.peer = Fact::known(None, universe.now);
    decide(universe.now, &region(index), &intent, &world)
}

/// Plays a move to the west until the old side has closed its ingress.
fn closing() -> Universe {
    let mut universe = Universe::active();
    universe.sides[0].queue = 5;
    universe.want(1);
    while universe.sides[0].report.run.as_ref().and_then(|run| run.closing_since).is_none() {
        for index in [1, 0] {
            for step in universe.plan(index).steps {
                universe.apply(index, &step);
            }
        }
        universe.tick(SignedDuration::from_secs(1));
    }
    universe
}

#[test]
fn a_side_that_gave_a_run_up_may_go_once_the_other_sides_object_is_gone() {
    let mut universe = closing();
    universe.want(0);
    universe.settle(60);
    assert_eq!(universe.sides[1].report.run.as_ref().map(|run| run.mark), Some(Mark::Declined));
    universe.sides[1].deleting = true;
    assert_eq!(kinds(&alone(&universe, 1)), [StepKind::RemoveFinalizer]);
}

#[test]
fn an_object_may_go_when_its_lease_has_run_out_and_says_that_nobody_can_write() {
    let mut universe = Universe::active();
    universe.lease.validity = Validity::Expired;
    universe.sides[0].deleting = true;
    let plan = universe.plan(0);
    assert_eq!(kinds(&plan), [StepKind::RemoveFinalizer]);
    assert!(plan.reason.contains("nobody can write now"), "{}", plan.reason);
}

#[test]
fn an_object_that_only_observes_may_go_in_mid_run() {
    let mut universe = closing();
    universe.management = Management::Observe;
    let plan = universe.plan(0);
    assert_eq!((plan.phase, kinds(&plan)), (Phase::WaitForUser, vec![]), "{}", plan.reason);
    universe.sides[0].deleting = true;
    assert_eq!(kinds(&universe.plan(0)), [StepKind::RemoveFinalizer]);
}

#[test]
fn a_start_that_is_deleted_ends_and_lets_its_object_go() {
    let mut universe = Universe::fresh();
    let plan = universe.plan(0);
    assert_eq!(kinds(&plan), [StepKind::RecordEpoch]);
    universe.apply(0, &plan.steps[0]);
    universe.sides[0].deleting = true;
    universe.settle(10);
    assert!(!universe.sides[0].finalizer);
}

#[test]
fn a_start_is_not_held_up_by_the_other_sides_control_that_somebody_left_on() {
    let mut universe = Universe::fresh();
    universe.controls.insert(ControlKey { role: ControlRole::App, region: region(1) }, Switch::On);
    universe.settle(100);
    assert_eq!((universe.lease.holder.clone(), universe.lease.opened), (Some(region(0)), Opened::Intake));
}

#[test]
fn a_start_whose_lease_nobody_renews_asks_a_person_after_a_while() {
    let mut universe = Universe::fresh();
    universe.apply(0, &universe.plan(0).steps[0].clone());
    universe.now = universe.now.checked_add(Limits::default().attention).unwrap();
    let plan = universe.plan(0);
    assert_eq!(plan.phase, Phase::WaitForUser, "{}", text(&plan));
    assert!(plan.reason.contains("nobody can write now"), "{}", plan.reason);
}

#[test]
fn a_writer_that_moved_by_itself_is_followed_once_the_lease_has_run_out_and_then_moved_back() {
    let mut universe = Universe::active();
    universe.writer = 1;
    let holder = universe.plan(0);
    assert_eq!(holder.phase, Phase::WaitForUser, "{}", text(&holder));
    assert_eq!(kinds(&holder), [], "a holder without the writer widens nothing");
    assert!(!kinds(&universe.plan(1)).contains(&StepKind::RecordEpoch), "the lease is still valid");
    universe.lease.validity = Validity::Expired;
    for step in universe.plan(1).steps {
        assert_eq!(step.kind(), StepKind::RecordEpoch);
        universe.apply(1, &step);
    }
    let before = universe.grants.len();
    universe.settle(300);
    let holders: Vec<usize> = universe.grants[before..].iter().map(|grant| grant.2).collect();
    assert_eq!(holders, [1, 0], "west takes the orphan; both copies name east, so a run moves it back");
    assert_eq!(universe.lease.opened, Opened::Intake);
}

#[test]
fn an_orphan_is_left_alone_while_the_other_side_cannot_be_read() {
    let mut universe = Universe::active();
    (universe.writer, universe.lease.validity) = (1, Validity::Expired);
    let mut world = universe.world(1);
    world.peer = Fact::unknown("no route");
    let plan = decide(universe.now, &region(1), &universe.intent(1), &world);
    assert!(!kinds(&plan).contains(&StepKind::RecordEpoch), "{}", text(&plan));
}

#[test]
fn a_row_that_was_restored_from_an_old_copy_is_not_worked_on() {
    let mut universe = Universe::active();
    for index in [1, 0] {
        universe.want(index);
        universe.settle(200);
    }
    let newest = universe.lease.epoch;
    universe.lease.epoch = Epoch(newest.0 - 2);
    universe.sides[0].broker.all_customers_may_write = false;
    let plan = universe.plan(0);
    assert_eq!((plan.phase, kinds(&plan)), (Phase::WaitForUser, vec![]), "{}", text(&plan));
    assert!(plan.findings.iter().any(|finding| finding.code == Code::EpochBehind));
    universe.want(1);
    assert!(!kinds(&universe.plan(1)).contains(&StepKind::RecordProposed) || universe.writer != 1);
    assert_eq!(kinds(&universe.plan(0)), []);
}

#[test]
fn a_customer_who_was_overlooked_is_closed_while_something_is_left_to_drain_and_when_the_new_side_is_active()
{
    let mut universe = closing();
    universe.sides[0].broker = Broker {
        customers_may_write: false,
        all_customers_may_write: false,
        customer_connections: 1,
        old_customer_connections: 0,
        answer_connections: 0,
    };
    let closes = |universe: &Universe| kinds(&universe.plan(0)).contains(&StepKind::CloseBroker);
    assert!(closes(&universe));
    universe.sides[0].queue = 0;
    assert!(!closes(&universe), "who is connected without the permission is not waited for");
    let mut universe = fenced();
    universe.sides[0].broker.customer_connections = 1;
    granted_by_hand(&mut universe, 1);
    universe.sides[1].report = finished(&universe.sides[1].report);
    universe.sides[0].hook_results.insert(HookPoint::Drained, HookResult::Succeeded);
    let plan = (0..3).map(|_| {
        let plan = universe.plan(0);
        plan.steps.iter().for_each(|step| universe.apply(0, step));
        kinds(&plan)
    });
    assert!(plan.flatten().any(|kind| kind == StepKind::CloseBroker));
}

#[test]
fn a_new_side_that_never_finishes_does_not_keep_the_old_sides_pods_for_ever() {
    let mut universe = fenced();
    granted_by_hand(&mut universe, 1);
    universe.sides[0].hook_results.insert(HookPoint::Drained, HookResult::Succeeded);
    for _ in 0..3 {
        universe.plan(0).steps.iter().for_each(|step| universe.apply(0, step));
    }
    let scales = |universe: &Universe| kinds(&universe.plan(0)).contains(&StepKind::ScaleStandby);
    assert!(!scales(&universe));
    universe.now = universe.now.checked_add(universe.intent(0).limits.attention).unwrap();
    assert!(scales(&universe));
}

#[test]
fn drain_checks_that_only_the_pods_of_the_active_region_can_answer_do_not_hold_a_switch_up() {
    let mut universe = Universe::active();
    let findings = |universe: &Universe, index: usize| {
        let mut world = universe.world(index);
        world.drain.insert("pods".to_owned(), Fact::unknown("nobody answers"));
        let plan = decide(universe.now, &region(index), &universe.intent(index), &world);
        plan.findings.iter().any(|finding| finding.code == Code::DrainUnknown)
    };
    assert_eq!([0, 1].map(|index| findings(&universe, index)), [true, false]);
    universe.lease.holder = None;
    assert_eq!(
        [0, 1].map(|index| findings(&universe, index)),
        [true, true],
        "whoever empties next is not known"
    );
}

#[test]
fn a_drain_whose_database_falls_silent_asks_a_person_at_its_deadline() {
    let mut universe = closing();
    let mut world = universe.world(0);
    world.lease = Fact::unknown("no answer");
    universe.now = universe.now.checked_add(universe.intent(0).drain.deadline).unwrap();
    let plan = decide(universe.now, &region(0), &universe.intent(0), &world);
    assert_eq!((plan.phase, kinds(&plan)), (Phase::WaitForUser, vec![]), "{}", text(&plan));
    assert!(plan.reason.contains("it is not known whether anyone can write"), "{}", plan.reason);
}

#[test]
fn a_run_before_its_fence_is_given_up_when_the_other_object_is_gone() {
    let universe = closing();
    assert_eq!(kinds(&alone(&universe, 0)), [StepKind::AbortRun]);
    assert_eq!(kinds(&alone(&universe, 1)), [StepKind::RecordDeclined]);
}

#[test]
fn what_a_drain_left_behind_stays_in_the_record_of_the_run() {
    let mut universe = closing();
    universe.on_deadline = OnDeadline::Proceed;
    universe.settle(400);
    let run = universe.sides[0].report.run.clone().unwrap();
    assert_eq!(run.mark, Mark::Finished);
    assert!(run.reason.as_ref().is_some_and(|reason| reason.contains("queue trades is 5")), "{run:?}");
}

#[test]
fn a_standby_does_not_tell_its_old_copy_as_the_present_truth() {
    let mut universe = Universe::active();
    universe.lease.holder = None;
    let plan = universe.plan(1);
    assert!(plan.reason.contains("may be behind"), "{}", plan.reason);
    assert!(!plan.reason.contains("nobody can write"), "{}", plan.reason);
}

#[test]
fn the_old_sides_pods_stay_until_the_run_has_ended_and_for_their_drained_hook() {
    let mut universe = fenced();
    for step in universe.plan(0).steps {
        universe.apply(0, &step);
    }
    let offered = |world: &World| {
        let plan = decide(universe.now, &region(0), &universe.intent(0), world);
        let has = |kind: StepKind| plan.steps.iter().any(|step| step.kind() == kind);
        (has(StepKind::HookDrained), has(StepKind::ScaleStandby))
    };
    let failed = HookResult::Failed { why: "HTTP 503".into(), at: universe.now, late: true };
    let late = |world: &World| World {
        hook_results: [(HookPoint::Drained, failed.clone())].into(),
        ..world.clone()
    };
    let fenced = universe.world(0);
    let taken = LeaseView { holder: Some(region(1)), epoch: Epoch(9), ..universe.lease.clone() };
    let taken = World { lease: Fact::known(Some(taken), universe.now), ..fenced.clone() };
    assert_eq!((offered(&fenced), offered(&taken)), ((true, false), (true, false)), "the hook is due");
    assert_eq!(offered(&late(&fenced)), (false, false), "the lease may have to be taken back");
    assert_eq!(offered(&late(&taken)), (false, false), "the new side still opens");
    let active =
        World { peer: Fact::known(Some(finished(&universe.sides[1].report)), universe.now), ..taken };
    assert_eq!((offered(&active), offered(&late(&active))), ((true, false), (false, false)));
    let ends = decide(universe.now, &region(0), &universe.intent(0), &late(&active));
    assert_eq!(kinds(&ends), [StepKind::RecordFinished], "pods that end are no part of the run");
}

fn finished(report: &SideReport) -> SideReport {
    let run = report.run.clone().map(|run| RunReport { mark: Mark::Finished, ..run });
    SideReport { run, ..report.clone() }
}

/// A move to the west whose old side has fenced, and whose new side has taken over the run and does nothing more.
fn begun() -> Universe {
    let mut universe = Universe::active();
    universe.want(1);
    for _ in 0..200 {
        for index in [0, 1] {
            for step in universe.plan(index).steps {
                universe.apply(index, &step);
            }
            if universe.sides[1].report.run.as_ref().is_some_and(|run| run.mark == Mark::Begun) {
                return universe;
            }
        }
        universe.tick(SignedDuration::from_secs(1));
    }
    panic!("the new side never began");
}

/// What a person does by the break-glass page: a grant with an id of its own.
fn granted_by_hand(universe: &mut Universe, index: usize) {
    universe.writer = index;
    universe.lease.epoch = Epoch(universe.lease.epoch.0 + 1);
    universe.lease.grant_id = GrantId(uuid::Uuid::from_u128(0xbad));
    universe.lease.holder = Some(region(index));
    universe.lease.validity = Validity::Valid;
    universe.lease.opened = Opened::Core;
}

fn marks(universe: &Universe) -> [Option<Mark>; 2] {
    [0, 1].map(|index| universe.sides[index].report.run.as_ref().map(|run| run.mark))
}

#[test]
fn a_run_that_a_person_finished_by_hand_ends_and_the_region_opens() {
    let mut universe = begun();
    granted_by_hand(&mut universe, 1);
    universe.settle(120);
    assert_eq!(marks(&universe), [Some(Mark::Finished), Some(Mark::Finished)]);
    let reason = universe.sides[1].report.run.as_ref().and_then(|run| run.reason.clone()).unwrap();
    assert!(reason.contains("outside of this run"), "{reason}");
    assert_eq!(universe.lease.opened, Opened::Intake);
}

#[test]
fn a_run_whose_lease_a_person_gave_back_to_the_old_side_ends_and_that_side_opens() {
    let mut universe = begun();
    granted_by_hand(&mut universe, 0);
    universe.want(0);
    universe.settle(120);
    assert_eq!(marks(&universe), [Some(Mark::Aborted), Some(Mark::Declined)]);
    assert_eq!(universe.lease.opened, Opened::Intake);
    assert_eq!(universe.lease.holder, Some(region(0)));
}

#[test]
fn a_side_that_declined_and_was_granted_the_lease_by_hand_does_not_keep_the_old_side_waiting() {
    let mut universe = begun();
    let run = universe.sides[1].report.run.as_mut().unwrap();
    run.mark = Mark::Declined;
    run.ended_at = Some(universe.now);
    granted_by_hand(&mut universe, 1);
    universe.settle(120);
    assert_eq!(marks(&universe), [Some(Mark::Finished), Some(Mark::Declined)]);
    assert_eq!(universe.lease.opened, Opened::Intake);
}

#[test]
fn an_old_side_whose_copy_of_the_row_is_behind_stands_by_once_the_new_side_is_active() {
    let mut universe = begun();
    universe.settle(120);
    assert_eq!(marks(&universe), [Some(Mark::Finished), Some(Mark::Finished)]);
    universe.sides[0].workloads[0].replicas = 2;
    let run = universe.sides[0].report.run.as_ref().unwrap();
    let released = Released { epoch: run.from_epoch, to: region(1), run: run.id };
    let behind = |released: Released| LeaseView {
        holder: None,
        epoch: released.epoch,
        released: Some(released),
        ..universe.lease.clone()
    };
    let plan = |row: LeaseView| {
        let world = World { lease: Fact::known(Some(row), universe.now), ..universe.world(0) };
        decide(universe.now, &region(0), &universe.intent(0), &world)
    };
    let stands_by = plan(behind(released.clone()));
    assert_eq!((stands_by.phase, kinds(&stands_by)), (Phase::Steady, vec![StepKind::ScaleStandby]));
    let other = plan(behind(Released { run: RunId(uuid::Uuid::from_u128(7)), ..released }));
    assert_ne!(other.phase, Phase::Steady, "the fence of a run that nobody finished");
}

#[test]
fn an_object_that_is_deleted_in_mid_run_puts_its_old_side_away_before_it_goes() {
    let mut universe = begun();
    universe.sides.iter_mut().for_each(|side| side.deleting = true);
    universe.settle(120);
    assert_eq!(marks(&universe), [Some(Mark::Finished), Some(Mark::Finished)]);
    assert!(universe.sides.iter().all(|side| !side.finalizer));
    assert!(universe.sides[0].workloads.iter().all(|item| item.replicas == 0), "{:?}", universe.sides[0]);
}
