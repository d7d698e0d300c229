//! Whole runs, both sides deciding in turn on a small universe.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod support;

use proptest::prelude::*;
use region_plan::*;
use support::*;

fn holder(universe: &Universe) -> Option<&str> {
    universe.lease.holder.as_ref().map(Region::as_str)
}

#[test]
fn a_first_start_ends_active_where_both_copies_say() {
    let universe = Universe::active();
    assert_eq!((holder(&universe), universe.lease.opened), (Some(EAST), Opened::Intake));
    assert!(universe.sides[0].broker.customers_may_write);
    assert_eq!(universe.plan(0).phase, Phase::Steady);
    assert_eq!(universe.plan(1).phase, Phase::Steady);
    assert_eq!(universe.plan(1).steps, vec![]);
}

#[test]
fn a_planned_switch_ends_active_on_the_other_side_and_back() {
    let mut universe = Universe::active();
    for (index, name) in [(1, WEST), (0, EAST)] {
        universe.want(index);
        let made = universe.settle(200);
        assert_eq!((holder(&universe), universe.lease.opened), (Some(name), Opened::Intake), "{made:?}");
        assert_eq!(universe.writer, index);
        assert!(universe.sides[index].broker.customers_may_write);
        assert!(!universe.sides[1 - index].broker.customers_may_write);
        assert!(universe.sides[1 - index].workloads.iter().all(|item| item.replicas == 0));
        for side in 0..2 {
            assert_eq!(universe.plan(side).phase, Phase::Steady, "{}", text(&universe.plan(side)));
            assert_eq!(universe.sides[side].report.run.as_ref().map(|run| run.mark), Some(Mark::Finished));
        }
    }
    let epochs: Vec<u64> = universe.grants.iter().map(|grant| grant.0.0).collect();
    assert!(epochs.windows(2).all(|pair| pair[0] < pair[1]), "{epochs:?}");
}

#[test]
fn steps_come_in_the_order_of_the_protocol() {
    let mut universe = Universe::active();
    universe.want(1);
    let made: Vec<StepKind> = universe.settle(200).into_iter().map(|(_, kind)| kind).collect();
    let first =
        |kind: StepKind| made.iter().position(|made| *made == kind).unwrap_or_else(|| panic!("no {kind:?}"));
    let order = [
        StepKind::RecordProposed,
        StepKind::RecordAccepted,
        StepKind::ScaleActive,
        StepKind::HookPreWarm,
        StepKind::RecordWarm,
        StepKind::RecordClosing,
        StepKind::CloseBroker,
        StepKind::RecordDrained,
        StepKind::Fence,
        StepKind::RecordFenced,
        StepKind::RecordBegun,
        StepKind::SwitchDatabase,
        StepKind::RecordEpoch,
        StepKind::Grant,
        StepKind::HookAfterGrant,
        StepKind::OpenIntake,
        StepKind::HookProbe,
        StepKind::FlipIngressOn,
        StepKind::HookAfterOpen,
        StepKind::RecordFinished,
    ];
    for pair in order.windows(2) {
        assert!(first(pair[0]) < first(pair[1]), "{:?} must come before {:?}: {made:?}", pair[0], pair[1]);
    }
}

#[test]
fn only_one_copy_naming_the_other_region_moves_nothing() {
    let mut universe = Universe::active();
    universe.sides[1].wanted.active = region(1);
    let made = universe.settle(60);
    assert_eq!(made, vec![], "{made:?}");
    assert!(universe.plan(1).findings.iter().any(|finding| finding.code == Code::SpecDisagreed));
}

#[test]
fn a_drain_that_does_not_end_is_given_up_and_the_old_side_reopens() {
    let mut universe = Universe::active();
    universe.want(1);
    universe.sides[0].queue = 7;
    universe.settle(300);
    assert_eq!(holder(&universe), Some(EAST));
    assert!(universe.sides[0].broker.customers_may_write, "{}", text(&universe.plan(0)));
    assert_eq!(universe.plan(1).phase, Phase::WaitForUser);
    universe.sides[0].queue = 0;
    universe.settle(60);
    assert_eq!(holder(&universe), Some(EAST), "a run that was given up is not repeated by itself");
    universe.want(1);
    universe.settle(200);
    assert_eq!(holder(&universe), Some(WEST), "a new change of the spec is a new run");
}

#[test]
fn a_customer_who_connects_again_without_the_permission_does_not_hold_the_drain_up() {
    let mut universe = Universe::active();
    universe.want(1);
    for _ in 0..100 {
        for index in 0..2 {
            for step in universe.plan(index).steps {
                universe.apply(index, &step);
                if step.kind() == StepKind::RecordDrained {
                    universe.sides[0].broker.customer_connections = 1;
                }
            }
        }
        universe.tick(jiff::SignedDuration::from_secs(1));
    }
    assert_eq!(holder(&universe), Some(WEST), "{}", text(&universe.plan(0)));
}

#[test]
fn a_spec_that_goes_back_before_the_fence_aborts() {
    let mut universe = Universe::active();
    universe.want(1);
    universe.sides[0].queue = 1;
    universe.settle(12);
    assert_eq!(universe.plan(0).phase, Phase::Draining);
    universe.want(0);
    universe.settle(100);
    assert_eq!(holder(&universe), Some(EAST));
    assert!(universe.sides[0].broker.customers_may_write);
    assert_eq!(universe.grants.len(), 1, "the lease was never given up");
}

#[test]
fn a_decline_after_the_fence_gives_the_lease_back_to_the_old_side() {
    let mut universe = Universe::active();
    universe.want(1);
    while universe.lease.holder.is_some() {
        for step in universe.plan(0).steps {
            universe.apply(0, &step);
        }
        if universe.lease.holder.is_some() {
            for step in universe.plan(1).steps {
                universe.apply(1, &step);
            }
        }
        universe.tick(jiff::SignedDuration::from_secs(1));
    }
    universe.want(0);
    universe.settle(100);
    assert_eq!(holder(&universe), Some(EAST));
    assert_eq!(universe.lease.opened, Opened::Intake);
    assert_eq!(universe.grants.len(), 2);
}

#[test]
fn a_new_side_that_is_deleted_after_the_fence_stays_readable_until_the_old_side_writes_again() {
    let mut universe = fenced();
    universe.sides[1].deleting = true;
    universe.settle(100);
    assert_eq!((holder(&universe), universe.lease.opened), (Some(EAST), Opened::Intake));
    assert!(universe.sides[0].broker.all_customers_may_write);
    assert!(!universe.sides[1].finalizer, "then it may go");
}

#[test]
fn a_run_that_the_new_side_forgot_waits_for_a_person_and_ends_by_naming_the_old_side() {
    let mut universe = fenced();
    for step in universe.plan(0).steps {
        universe.apply(0, &step);
    }
    universe.sides[1].report.run = None;
    universe.sides[1].wanted.active = region(0);
    universe.settle(20);
    assert_eq!(universe.plan(0).phase, Phase::WaitForUser, "{}", text(&universe.plan(0)));
    universe.want(0);
    universe.settle(100);
    assert_eq!((holder(&universe), universe.lease.opened), (Some(EAST), Opened::Intake));
}

#[test]
fn the_old_side_ends_its_part_once_its_drained_hook_is_done_however_late() {
    let mut universe = fenced();
    for _ in 0..60 {
        for index in 0..2 {
            for step in universe.plan(index).steps {
                if step.kind() != StepKind::HookDrained {
                    universe.apply(index, &step);
                }
            }
        }
        universe.tick(jiff::SignedDuration::from_secs(1));
    }
    let mark =
        |universe: &Universe, side: usize| universe.sides[side].report.run.as_ref().map(|run| run.mark);
    assert_eq!((mark(&universe, 0), mark(&universe, 1)), (Some(Mark::Fenced), Some(Mark::Finished)));
    universe.settle(20);
    assert_eq!(mark(&universe, 0), Some(Mark::Finished));
}

#[test]
fn the_old_sides_pods_stay_until_the_run_has_ended_and_go_then() {
    let mut universe = fenced();
    let mut scaled_at = None;
    for _ in 0..100 {
        for index in [1, 0] {
            for step in universe.plan(index).steps {
                if index == 0 && step.kind() == StepKind::ScaleStandby {
                    let marks = [0, 1]
                        .map(|side: usize| universe.sides[side].report.run.as_ref().map(|run| run.mark));
                    scaled_at = scaled_at.or(Some(marks));
                }
                universe.apply(index, &step);
            }
        }
        universe.tick(jiff::SignedDuration::from_secs(1));
    }
    assert_eq!(scaled_at, Some([Some(Mark::Finished), Some(Mark::Finished)]));
    assert!(universe.sides[0].workloads.iter().all(|item| item.replicas == 0));
}

#[test]
fn what_one_stale_endpoint_says_does_not_hold_a_flip_back() {
    let mut universe = fenced();
    universe.settle(1);
    let mut world = universe.world(1);
    world.mine.run.as_mut().expect("a run").mark = Mark::Begun;
    for (key, state) in &mut world.controls {
        let west_on = key.region == region(1) && key.role == ControlRole::App;
        *state = if west_on { ControlState { on: 1, off: 4 } } else { ControlState { on: 4, off: 1 } };
    }
    let plan = decide(universe.now, &region(1), &universe.intent(1), &world);
    assert!(plan.steps.iter().any(|step| step.kind() == StepKind::FlipAppOver), "{}", text(&plan));
}

#[test]
fn rules_that_judge_each_entry_with_a_wait_period_delay_a_switch_and_do_not_stop_it() {
    for wait in [0, 1, 5, 15] {
        let mut universe = Universe::active();
        universe.each_entry = Some(jiff::SignedDuration::from_secs(wait));
        for (index, name) in [(1, WEST), (0, EAST)] {
            universe.want(index);
            let made = universe.settle(300);
            assert_eq!((holder(&universe), universe.lease.opened), (Some(name), Opened::Intake), "{made:?}");
            assert_eq!(universe.plan(index).phase, Phase::Steady, "{}", text(&universe.plan(index)));
            let refused = universe.sides[index].refused.contains_key(&Flipped::AppOver);
            assert_eq!(refused, wait > 0, "with a wait period of {wait} s the batch is tried whole first");
        }
    }
}

#[test]
fn deletion_hands_the_lease_back_without_a_limit_and_trading_goes_on() {
    let mut universe = Universe::active();
    universe.sides[0].deleting = true;
    universe.sides[1].deleting = true;
    universe.settle(30);
    assert_eq!(universe.lease.validity, Validity::HandedBack);
    assert_eq!((holder(&universe), universe.lease.opened), (Some(EAST), Opened::Intake));
    assert!(universe.sides[0].broker.customers_may_write);
    assert!(universe.sides.iter().all(|side| !side.finalizer));
}

#[test]
fn an_object_that_follows_a_deleted_one_takes_the_lease_under_renewal_again_once_the_keeper_may() {
    let mut universe = Universe::active();
    universe.sides.iter_mut().for_each(|side| side.deleting = true);
    universe.settle(30);
    for index in 0..2 {
        universe.sides[index].deleting = false;
        universe.sides[index].finalizer = true;
        universe.sides[index].report = SideReport::new(&region(index));
    }
    let app = ControlKey { role: ControlRole::App, region: region(0) };
    let plan = universe.plan(0);
    assert!(plan.steps.iter().any(|step| step.kind() == StepKind::LimitAgain), "{}", text(&plan));
    plan.steps.iter().for_each(|step| universe.apply(0, step));
    universe.controls.insert(app, Switch::Off);
    universe.tick(jiff::SignedDuration::from_secs(1));
    assert_eq!(universe.lease.validity, Validity::LimitAsked, "no permission, no limit, and no stop");
    universe.settle(30);
    assert_eq!(universe.lease.validity, Validity::Valid);
    assert_eq!(universe.plan(0).waits, vec![]);

    universe.lease.validity = Validity::LimitAsked;
    universe.sides[0].deleting = true;
    let kinds: Vec<_> = universe.plan(0).steps.iter().map(Step::kind).collect();
    assert_eq!(kinds, [StepKind::ReleaseUnlimited], "deleted again before the renewal");
}

#[test]
fn a_lease_that_a_person_left_without_a_limit_stays_so() {
    let mut universe = Universe::active();
    universe.lease.validity = Validity::Unlimited;
    assert_eq!(universe.settle(10), vec![]);
    assert_eq!(universe.plan(0).waits, vec![]);
}

#[test]
fn observing_decides_and_does_nothing() {
    let mut universe = Universe::active();
    universe.management = Management::Observe;
    universe.want(1);
    assert_eq!(universe.settle(30), vec![]);
    assert!(universe.plan(1).reason.contains("would now do RecordProposed"), "{}", universe.plan(1).reason);
}

#[test]
fn an_object_that_is_only_observed_may_go_and_leaves_the_lease_alone() {
    let mut universe = Universe::active();
    universe.management = Management::Observe;
    universe.sides.iter_mut().for_each(|side| side.deleting = true);
    universe.settle(10);
    assert!(universe.sides.iter().all(|side| !side.finalizer));
    assert_eq!(universe.lease.validity, Validity::Valid);
}

/// Hides one fact of a world.
fn hide(world: &mut World, fact: usize) {
    let why = "hidden by the test";
    match fact {
        0 => world.peer = Fact::unknown(why),
        1 => world.lease = Fact::unknown(why),
        2 => world.writable = Fact::unknown(why),
        3 => world.global_database = Fact::unknown(why),
        4 => world.controls.clear(),
        5 => world.workloads = Fact::unknown(why),
        6 => world.broker = Fact::unknown(why),
        7 => world.drain.values_mut().for_each(|fact| *fact = Fact::unknown(why)),
        8 => world.dns = Fact::unknown(why),
        9 => world.guarded = Fact::unknown(why),
        _ => {}
    }
}

fn assert_safe(before: &Universe, after: &Universe) {
    let on = |role: ControlRole| {
        (0..2)
            .filter(|side| after.controls[&ControlKey { role, region: region(*side) }] == Switch::On)
            .count()
    };
    assert!(on(ControlRole::App) <= 1 && on(ControlRole::Ingress) <= 1);
    let mut epochs: Vec<Epoch> = after.grants.iter().map(|grant| grant.0).collect();
    let made = epochs.len();
    epochs.sort();
    epochs.dedup();
    assert_eq!(epochs.len(), made, "an epoch was granted twice");
    for side in 0..2 {
        let key = ControlKey { role: ControlRole::Ingress, region: region(side) };
        if before.controls[&key] == Switch::Off && after.controls[&key] == Switch::On {
            assert_eq!(
                after.lease.holder,
                Some(region(side)),
                "traffic was set On at a side without the lease"
            );
            assert_eq!(after.lease.opened, Opened::Intake);
        }
        let marks = (before.sides[side].report.run.as_ref(), after.sides[side].report.run.as_ref());
        if let (Some(old), Some(new)) = marks
            && old.id == new.id
        {
            assert!(
                old.mark == new.mark || !old.mark.ended(),
                "an ended mark was withdrawn: {old:?} {new:?}"
            );
            assert!(!(old.mark == Mark::Begun && new.mark == Mark::Declined && !new.is_start()));
        }
    }
}

/// While a batch goes out in two parts, no part mixes Off and On, and On of one region never goes out before three
/// endpoints say Off of the other's control of that role.
fn assert_parted(world: &World, steps: &[Step]) {
    for step in steps {
        let Step::Flip { what, batch } = step else { continue };
        if !world.refused.contains_key(what) {
            continue;
        }
        let on: Vec<_> = batch.iter().filter(|(_, wanted)| *wanted == Switch::On).collect();
        assert!(on.is_empty() || on.len() == batch.len(), "a refused batch was sent whole: {step:?}");
        for (key, _) in on.iter().filter(|(key, _)| key.role != ControlRole::Intake) {
            let mut others = world
                .controls
                .iter()
                .filter(|(other, _)| other.role == key.role && other.region != key.region);
            assert!(
                others.all(|(_, state)| state.agreed() == Some(Switch::Off)),
                "{key:?} On before the other is agreed Off: {step:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any interleaving of the two sides, crashes between steps, hooks' answers that are forgotten or not written, hidden facts, facts from before the other side acted,
    /// spec changes and backlog:
    /// nothing unsafe on the way, and once disturbances end, the wanted side is active or a person is asked.
    #[test]
    fn any_history_is_safe_and_ends(
        moves in proptest::collection::vec((0usize..2, 0usize..15, 0usize..4, 0u64..3), 0..120),
        each_entry in proptest::option::of(0i64..8),
    ) {
        let mut universe = Universe::active();
        universe.each_entry = each_entry.map(jiff::SignedDuration::from_secs);
        universe.want(1);
        let mut earlier: Option<(usize, World)> = None;
        for (side, fact, cut, spec) in moves {
            let mut world = universe.world(side);
            if let Some((_, seen)) = earlier.filter(|(of, _)| *of == side && fact == 12) {
                // It looked before the other side acted, and acts now.
                world = World { fresh: world.fresh, ..seen };
            }
            hide(&mut world, fact);
            earlier = Some((1 - side, universe.world(1 - side)));
            let before = universe.clone();
            let steps = if cut == 3 {
                universe.pass(side, world.clone())
            } else {
                let plan = decide(universe.now, &region(side), &universe.intent(side), &world);
                // The write beside the effects may not arrive.
                if spec > 0 {
                    universe.note_hooks(side, &plan);
                }
                plan.steps
            };
            assert_safe(&before, &universe);
            assert_parted(&world, &steps);
            for step in steps.iter().take(cut) {
                let before = universe.clone();
                universe.apply(side, step);
                assert_safe(&before, &universe);
            }
            match (fact, spec) {
                // A new leader knows only what was written.
                (11, _) => universe.sides[side].hook_results.clear(),
                (13, 1) => universe.want(0),
                (13, 2) => universe.want(1),
                (14, 1) => universe.sides[side].queue = 1,
                (14, _) => universe.sides[side].queue = 0,
                _ => {}
            }
            universe.tick(jiff::SignedDuration::from_millis(700));
        }
        universe.sides.iter_mut().for_each(|side| side.queue = 0);
        universe.settle(400);
        universe.want(1);
        universe.settle(400);
        prop_assert_eq!(holder(&universe), Some(WEST), "{}\n{}", text(&universe.plan(0)), text(&universe.plan(1)));
        prop_assert_eq!(universe.lease.opened, Opened::Intake);
        prop_assert!(universe.sides[1].broker.customers_may_write);
    }

    /// Whatever the endpoints say at any point of a switch, a refused batch goes out Off first.
    #[test]
    fn after_a_refusal_no_on_goes_out_before_the_other_is_off(
        steps in 0usize..60,
        side in 0usize..2,
        said in proptest::array::uniform6((0u8..6, 0u8..6)),
    ) {
        let mut universe = Universe::active();
        universe.want(1);
        universe.settle(steps);
        let mut world = universe.world(side);
        for (state, (on, off)) in world.controls.values_mut().zip(said) {
            *state = ControlState { on, off: off.min(5 - on) };
        }
        let kinds = [Flipped::IngressOff, Flipped::AppOver, Flipped::AppOn, Flipped::OwnOff, Flipped::IntakeOn, Flipped::IngressOn];
        world.refused = kinds.map(|kind| (kind, universe.now)).into();
        let plan = decide(universe.now, &region(side), &universe.intent(side), &world);
        assert_parted(&world, &plan.steps);
    }

    /// Hiding a fact never makes a plan do more to the lease, the database or the controls.
    #[test]
    fn an_unknown_fact_never_widens(steps in 0usize..60, side in 0usize..2, fact in 0usize..10) {
        let mut universe = Universe::active();
        universe.want(1);
        universe.settle(steps);
        let full = universe.plan(side);
        let mut world = universe.world(side);
        hide(&mut world, fact);
        let partial = decide(universe.now, &region(side), &universe.intent(side), &world);
        let widening = |step: &Step| matches!(step.kind(), StepKind::Grant | StepKind::Fence | StepKind::SwitchDatabase
            | StepKind::RecordBegun | StepKind::FlipIngressOn | StepKind::OpenBroker | StepKind::OpenIntake);
        for step in partial.steps.iter().filter(|step| widening(step)) {
            prop_assert!(full.steps.contains(step), "{step:?} only because fact {fact} was hidden");
        }
    }
}
