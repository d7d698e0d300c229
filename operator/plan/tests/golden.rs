//! The plan for each named situation, as text in `tests/golden`, so that a change of a decision is read in review.
//! `UPDATE_GOLDEN=1 cargo test -p region-plan --test golden` writes the files anew.
#![allow(
    clippy::needless_range_loop,
    clippy::panic,
    clippy::too_many_lines,
    clippy::type_complexity,
    reason = "a table of situations; a test ends at the first surprise"
)]

mod support;

use std::fmt::Write as _;
use std::path::Path;

use jiff::SignedDuration;
use region_plan::*;
use support::*;

type Change = fn(&mut Universe, &mut [World; 2]);

/// A switch east → west, stopped when `until` has been made, with all its effects applied.
fn after(until: StepKind) -> Universe {
    let mut universe = Universe::active();
    universe.want(1);
    for _ in 0..200 {
        for index in 0..2 {
            for step in universe.plan(index).steps {
                universe.apply(index, &step);
                if step.kind() == until {
                    return universe;
                }
            }
        }
        universe.tick(SignedDuration::from_secs(1));
    }
    panic!("{until:?} was never made");
}

/// The keeper's first renewal opens the new grant.
fn granted_and_renewed() -> Universe {
    let mut universe = after(StepKind::Grant);
    universe.tick(SignedDuration::ZERO);
    universe
}

fn nothing(_: &mut Universe, _: &mut [World; 2]) {}

fn gone<T>() -> Fact<T> {
    Fact::unknown("no answer within 1.5 s")
}

fn situations() -> Vec<(&'static str, Universe, Change)> {
    let wanted = || {
        let mut universe = Universe::active();
        universe.want(1);
        universe
    };
    vec![
        ("start-nothing-granted", Universe::fresh(), nothing),
        ("start-peer-unreadable", Universe::fresh(), |_, worlds| worlds[0].peer = gone()),
        (
            "start-writer-elsewhere",
            {
                let mut u = Universe::fresh();
                u.writer = 1;
                u
            },
            nothing,
        ),
        ("start-no-lease-row", Universe::fresh(), |u, worlds| worlds[0].lease = Fact::known(None, u.now)),
        ("steady", Universe::active(), nothing),
        ("steady-database-silent", Universe::active(), |_, worlds| worlds[0].lease = gone()),
        ("standby-alone", Universe::active(), |_, worlds| {
            worlds[1].lease = gone();
            worlds[1].peer = gone();
        }),
        (
            "steady-lease-expired",
            {
                let mut u = Universe::active();
                u.lease.validity = Validity::Expired;
                u
            },
            nothing,
        ),
        ("steady-endpoints-disagree", Universe::active(), |_, worlds| {
            worlds[0].controls.values_mut().for_each(|state| *state = ControlState { on: 2, off: 2 });
        }),
        ("steady-endpoints-silent", Universe::active(), |_, worlds| {
            worlds[0].controls.values_mut().for_each(|state| *state = ControlState { on: 0, off: 1 });
            worlds[0].controls_unanswered =
                Some("ARC us-east-1 GetRoutingControlState: access denied".into());
        }),
        (
            "steady-nothing-selected",
            {
                let mut u = Universe::active();
                u.sides[0].workloads.clear();
                u
            },
            nothing,
        ),
        (
            "steady-scaled-by-hand",
            {
                let mut u = Universe::active();
                u.sides[0].workloads[0].replicas = 0;
                u.sides[1].workloads[0].replicas = 3;
                u
            },
            nothing,
        ),
        (
            "steady-own-control-off",
            {
                let mut u = Universe::active();
                u.controls.insert(ControlKey { role: ControlRole::App, region: region(0) }, Switch::Off);
                u
            },
            nothing,
        ),
        (
            "steady-standby-control-on",
            {
                let mut u = Universe::active();
                u.controls.insert(ControlKey { role: ControlRole::Intake, region: region(1) }, Switch::On);
                u
            },
            nothing,
        ),
        ("steady-older-object", Universe::active(), |u, worlds| {
            let workloads =
                Workloads { items: u.sides[0].workloads.clone(), conflicts: vec!["inbound".into()] };
            worlds[0].workloads = Fact::known(workloads, u.now);
        }),
        ("steady-safety-rule-missing", Universe::active(), |_, worlds| {
            let app_alone = std::collections::BTreeSet::from([ControlRole::App]);
            worlds[0].guarded = worlds[0].guarded.clone().map(|_| app_alone);
        }),
        ("switch-asked-safety-rule-missing", wanted(), |_, worlds| {
            worlds[1].guarded = worlds[1].guarded.clone().map(|_| Default::default());
        }),
        ("switch-asked-safety-rules-unreadable", wanted(), |u, worlds| {
            worlds[0].guarded = gone();
            let long_ago = u.now.checked_sub(SignedDuration::from_secs(301)).expect("in range");
            worlds[1].guarded = Fact::known(Default::default(), long_ago);
        }),
        (
            "steady-name-elsewhere",
            {
                let mut u = Universe::active();
                u.tick(SignedDuration::from_secs(31));
                u
            },
            |u, worlds| worlds[0].dns = Fact::known(Some(region(1)), u.now),
        ),
        ("steady-name-not-yet-here", Universe::active(), |u, worlds| {
            worlds[0].mine.run.as_mut().expect("a run").ended_at = Some(u.now);
            worlds[0].dns = Fact::known(None, u.now);
        }),
        (
            "specs-disagree",
            {
                let mut u = Universe::active();
                u.sides[1].wanted.active = region(1);
                u
            },
            nothing,
        ),
        (
            "specs-differ-elsewhere",
            {
                let mut u = wanted();
                u.sides[1].wanted.fingerprint = "g".into();
                u
            },
            nothing,
        ),
        (
            "failover-asked",
            {
                let mut u = wanted();
                for s in &mut u.sides {
                    s.wanted.mode = Mode::Failover { from_epoch: Epoch(2) };
                }
                u
            },
            nothing,
        ),
        (
            "approval-asked",
            {
                let mut u = wanted();
                u.approval_required = true;
                u
            },
            nothing,
        ),
        ("switch-asked", wanted(), nothing),
        ("switch-asked-peer-silent", wanted(), |_, worlds| {
            worlds.iter_mut().for_each(|world| world.peer = gone())
        }),
        ("switch-asked-old-facts", wanted(), |u, _| {
            u.now = u.now.checked_add(SignedDuration::from_secs(60)).expect("in range")
        }),
        ("switch-asked-broker-silent", wanted(), |_, worlds| worlds[1].broker = gone()),
        ("proposed", after(StepKind::RecordProposed), nothing),
        ("proposed-not-accepted-in-time", after(StepKind::RecordProposed), |u, worlds| {
            u.sides[1].report.run.as_mut().expect("a run").opened_at = at(-100);
            worlds[1] = u.world(1);
        }),
        ("accepted", after(StepKind::RecordAccepted), nothing),
        (
            "warming-spec-back",
            {
                let mut u = after(StepKind::ScaleActive);
                u.want(0);
                u
            },
            nothing,
        ),
        ("warming-too-long", after(StepKind::ScaleActive), |u, worlds| {
            for index in 0..2 {
                u.sides[index].workloads[0].current = false;
                u.sides[index].report.run.as_mut().expect("a run").opened_at = at(-400);
            }
            *worlds = [u.world(0), u.world(1)];
        }),
        ("warm", after(StepKind::RecordWarm), nothing),
        ("closing", after(StepKind::RecordClosing), nothing),
        ("closing-broker-silent", after(StepKind::RecordClosing), |_, worlds| worlds[0].broker = gone()),
        (
            "draining-with-backlog",
            {
                let mut u = after(StepKind::CloseBroker);
                u.sides[0].queue = 12;
                u
            },
            nothing,
        ),
        ("draining-number-unknown", after(StepKind::CloseBroker), |_, worlds| {
            worlds[0].drain.values_mut().for_each(|fact| *fact = gone());
        }),
        ("drained-not-held-long-enough", after(StepKind::RecordDrained), nothing),
        (
            "drained-peer-silent",
            {
                let mut u = after(StepKind::RecordDrained);
                u.tick(SignedDuration::from_secs(4));
                u
            },
            |_, worlds| worlds[0].peer = gone(),
        ),
        (
            "drained-and-held",
            {
                let mut u = after(StepKind::RecordDrained);
                u.tick(SignedDuration::from_secs(4));
                u
            },
            nothing,
        ),
        (
            "drain-deadline-proceed",
            {
                let mut u = after(StepKind::CloseBroker);
                u.sides[0].queue = 1;
                u.on_deadline = OnDeadline::Proceed;
                u.tick(SignedDuration::from_secs(130));
                u
            },
            nothing,
        ),
        (
            "drain-deadline-wait",
            {
                let mut u = after(StepKind::CloseBroker);
                u.sides[0].queue = 1;
                u.on_deadline = OnDeadline::WaitForUser;
                u.tick(SignedDuration::from_secs(130));
                u
            },
            nothing,
        ),
        (
            "drain-deadline-abort",
            {
                let mut u = after(StepKind::CloseBroker);
                u.sides[0].queue = 1;
                u.tick(SignedDuration::from_secs(130));
                u
            },
            nothing,
        ),
        ("fenced-not-published", after(StepKind::Fence), nothing),
        ("fenced-standby-behind", after(StepKind::RecordFenced), |u, worlds| {
            let mut behind = u.lease.clone();
            behind.released = None;
            behind.holder = Some(region(0));
            worlds[1].lease = Fact::known(Some(behind), u.now);
        }),
        ("fenced", after(StepKind::RecordFenced), nothing),
        ("fenced-peer-unreadable", after(StepKind::RecordFenced), |_, worlds| worlds[1].peer = gone()),
        ("proposed-peer-unreadable", after(StepKind::RecordProposed), |_, worlds| worlds[1].peer = gone()),
        (
            "fenced-then-declined",
            {
                let mut u = after(StepKind::RecordFenced);
                u.want(0);
                let steps = u.plan(1).steps;
                u.apply(1, &steps[0]);
                u
            },
            nothing,
        ),
        ("begun", after(StepKind::RecordBegun), nothing),
        (
            "begun-spec-back",
            {
                let mut u = after(StepKind::RecordBegun);
                u.want(0);
                u
            },
            nothing,
        ),
        ("begun-switch-running", after(StepKind::FlipAppOver), |u, worlds| {
            let global =
                GlobalDatabase { writer: Some(region(0)), switching: true, status: "switching-over".into() };
            worlds[1].global_database = Fact::known(global, u.now);
        }),
        ("begun-controls-spreading", after(StepKind::SwitchDatabase), |_, worlds| {
            worlds[1].controls.values_mut().for_each(|state| *state = ControlState { on: 2, off: 3 });
        }),
        ("begun-batch-refused", after(StepKind::RecordBegun), |u, worlds| {
            worlds[1].refused.insert(Flipped::AppOver, u.now);
        }),
        ("begun-batch-refused-off-read-by-two", after(StepKind::RecordBegun), |u, worlds| {
            worlds[1].refused.insert(Flipped::AppOver, u.now);
            let east = |role| ControlKey { role, region: region(0) };
            worlds[1].controls.insert(east(ControlRole::App), ControlState { on: 3, off: 2 });
            worlds[1].controls.insert(east(ControlRole::Intake), five(Switch::Off));
        }),
        ("begun-batch-refused-off-agreed", after(StepKind::RecordBegun), |u, worlds| {
            worlds[1].refused.insert(Flipped::AppOver, u.now);
            for role in [ControlRole::App, ControlRole::Intake] {
                let key = ControlKey { role, region: region(0) };
                worlds[1].controls.insert(key, ControlState { on: 2, off: 3 });
            }
        }),
        ("begun-batch-refused-long-ago", after(StepKind::RecordBegun), |u, worlds| {
            let long_ago = u.now.checked_sub(SignedDuration::from_secs(601)).expect("in range");
            worlds[1].refused.insert(Flipped::AppOver, long_ago);
        }),
        ("opening-ingress-batch-refused", after(StepKind::OpenIntake), |u, worlds| {
            // Somebody set the old side's ingress On again by hand.
            let east = ControlKey { role: ControlRole::Ingress, region: region(0) };
            worlds[1].controls.insert(east, five(Switch::On));
            worlds[1].hook_results.insert(HookPoint::Probe, HookResult::Succeeded);
            let run = worlds[1].mine.run.as_mut().expect("a run");
            run.hooks_done.extend([HookPoint::AfterGrant, HookPoint::Probe]);
            worlds[1].refused.insert(Flipped::IngressOn, u.now);
        }),
        (
            "begun-too-long",
            {
                let mut u = after(StepKind::FlipAppOver);
                u.writer = 0;
                u.tick(SignedDuration::from_secs(700));
                u
            },
            nothing,
        ),
        ("granted-not-renewed", after(StepKind::Grant), nothing),
        ("core-open", granted_and_renewed(), nothing),
        ("after-grant-failed", granted_and_renewed(), |u, worlds| {
            let failed = HookResult::Failed { why: "HTTP 503".into(), at: u.now, late: false };
            worlds[1].hook_results.insert(HookPoint::AfterGrant, failed);
        }),
        ("intake-open", after(StepKind::OpenIntake), nothing),
        (
            "traffic-on-name-elsewhere",
            {
                let mut u = after(StepKind::OpenBroker);
                u.tick(SignedDuration::from_secs(1));
                u
            },
            |u, worlds| {
                worlds[1].dns = Fact::known(Some(region(0)), u.now);
            },
        ),
        (
            "deleting-holder",
            {
                let mut u = Universe::active();
                u.sides[0].deleting = true;
                u
            },
            nothing,
        ),
        (
            "deleting-database-silent",
            {
                let mut u = Universe::active();
                u.sides[0].deleting = true;
                u
            },
            |_, worlds| worlds[0].lease = gone(),
        ),
        (
            "deleting-in-run",
            {
                let mut u = after(StepKind::RecordWarm);
                u.sides[0].deleting = true;
                u
            },
            nothing,
        ),
    ]
}

#[test]
fn each_situation_has_the_plan_that_was_reviewed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    #[expect(
        clippy::disallowed_methods,
        reason = "the switch that rewrites golden files is for people, not configuration"
    )]
    let update = std::env::var("UPDATE_GOLDEN").is_ok();
    let mut differing = String::new();
    let situations = situations();
    assert!(situations.len() >= 30);
    for (name, mut universe, change) in situations {
        let mut worlds = [universe.world(0), universe.world(1)];
        change(&mut universe, &mut worlds);
        let mut found = String::new();
        for index in 0..2 {
            let me = region(index);
            let plan = decide(universe.now, &me, &universe.intent(index), &worlds[index]);
            write!(found, "== {me}\n{}", text(&plan)).expect("writing to a string");
        }
        let file = folder.join(format!("{name}.txt"));
        if update {
            std::fs::write(&file, &found).expect("golden file written");
        } else if std::fs::read_to_string(&file).ok().as_deref() != Some(&found) {
            write!(differing, "--- {name}\n{found}").expect("writing to a string");
        }
    }
    assert!(
        differing.is_empty(),
        "plans that differ from tests/golden (UPDATE_GOLDEN=1 writes them):\n{differing}"
    );
}

#[test]
fn the_same_inputs_give_the_same_plan() {
    for (name, universe, _) in situations() {
        assert_eq!(universe.plan(0), universe.plan(0), "{name}");
    }
}
