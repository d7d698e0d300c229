use std::collections::BTreeMap;
use std::sync::Arc;

use crds::conditions::{LEASE_HELD, PEER_REACHABLE, READY, SPEC_AGREED, STANDBY_READY, VALID};
use region_plan::{
    ControlKey, ControlState, Epoch, Fresh, GrantId, LeaseView, Mark, Phase, RunId, RunReport, StepKind,
    Validity,
};
use uuid::Uuid;

use super::*;
use crate::apply::Outcome;
use crate::cluster::PeerCopy;
use crate::intent::intent;
use crate::testing::example;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

fn region(name: &str) -> Region {
    Region::from(name)
}

fn lease(validity: Validity) -> LeaseView {
    LeaseView {
        epoch: Epoch(4),
        grant_id: GrantId(Uuid::nil()),
        holder: Some(region("us-east-1")),
        opened: Opened::Intake,
        validity,
        released: None,
        aborted_run: None,
    }
}

struct Scene {
    object: TradingRegion,
    peer: Fact<PeerCopy>,
    world: World,
    plan: Plan,
    side: SideReport,
    bad_references: Vec<String>,
}

fn scene() -> Scene {
    let object = example();
    let side = SideReport { highest_epoch: Epoch(4), ..SideReport::new(&region("us-east-1")) };
    let world = World {
        mine: side.clone(),
        peer: Fact::known(None, at(100)),
        lease: Fact::known(Some(lease(Validity::Valid)), at(100)),
        writable: Fact::known(true, at(100)),
        global_database: Fact::unknown("not asked"),
        controls: BTreeMap::<ControlKey, ControlState>::new(),
        controls_unanswered: None,
        refused: BTreeMap::new(),
        guarded: Fact::unknown("not asked"),
        workloads: Fact::unknown("not asked"),
        broker: Fact::unknown("not asked"),
        drain: BTreeMap::from([("inbound".to_owned(), Fact::known(5, at(100)))]),
        hook_results: BTreeMap::new(),
        dns: Fact::unknown("not asked"),
        fresh: Fresh { run: RunId(Uuid::nil()), grant: GrantId(Uuid::nil()) },
    };
    let plan = Plan {
        steps: Vec::new(),
        waits: Vec::new(),
        phase: Phase::Steady,
        reason: "active in us-east-1, epoch 4".to_owned(),
        findings: Vec::new(),
        proved: Vec::new(),
        hooks_done: Vec::new(),
    };
    let peer = Fact::known(Some(Arc::new(example())), at(100));
    Scene { object, peer, world, plan, side, bad_references: Vec::new() }
}

impl Scene {
    fn status(&self, now: i64) -> TradingRegionStatus {
        let intent = intent(&self.object, &self.peer);
        build(Inputs {
            now: at(now),
            me: &region("us-east-1"),
            object: &self.object,
            intent: &intent,
            world: &self.world,
            plan: &self.plan,
            preview: None,
            side: self.side.clone(),
            lease_remaining: Fact::known(Some(SignedDuration::from_secs(15)), at(now)),
            lag: None,
            bad_references: &self.bad_references,
        })
    }

    fn says(&self, type_: &str) -> (String, String) {
        let status = self.status(100);
        let condition = status.condition(type_).unwrap();
        (condition.status.clone(), condition.reason.clone())
    }
}

fn word(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn a_region_that_is_active_as_wanted_is_ready() {
    let scene = scene();
    assert_eq!(scene.says(READY), word("True", "AsWanted"));
    assert_eq!(scene.says(LEASE_HELD), word("True", "AsWanted"));
    assert_eq!(scene.says(PEER_REACHABLE), word("True", "AsWanted"));
    assert_eq!(scene.says(SPEC_AGREED), word("True", "AsWanted"));
    assert_eq!(scene.says(VALID), word("True", "AsWanted"));
}

#[test]
fn an_unknown_lease_is_unknown_and_not_false() {
    let mut scene = scene();
    scene.world.lease = Fact::unknown("no answer");
    assert_eq!(scene.says(LEASE_HELD), word("Unknown", "Unknown"));
    assert_eq!(scene.says(READY), word("Unknown", "Unknown"));
}

#[test]
fn a_holder_that_starts_again_without_a_run_tells_what_is_wrong_with_its_lease() {
    let mut scene = scene();
    scene.plan.phase = Phase::Starting;
    assert_eq!(scene.says(READY), word("False", "RunOpen"), "it opens");
    scene.world.lease = Fact::unknown("no answer");
    assert_eq!(scene.says(READY), word("Unknown", "Unknown"));
    scene.world.lease = Fact::known(Some(lease(Validity::Expired)), at(100));
    assert_eq!(scene.says(READY), word("False", "Expired"));
}

#[test]
fn a_lease_row_that_is_too_old_to_decide_on_makes_nothing_ready() {
    let mut scene = scene();
    scene.plan.phase = Phase::Unknown;
    assert_eq!(scene.says(READY), word("Unknown", "Unknown"));
    scene.world.lease = Fact::unknown("no answer");
    assert_eq!(scene.says(READY), word("Unknown", "Unknown"));
}

#[test]
fn an_expired_lease_is_not_ready() {
    let mut scene = scene();
    scene.world.lease = Fact::known(Some(lease(Validity::Expired)), at(100));
    assert_eq!(scene.says(READY), word("False", "Expired"));
}

#[test]
fn a_region_that_is_active_where_the_spec_does_not_want_it_is_not_ready() {
    let mut scene = scene();
    scene.object.spec.active_region = "us-west-2".to_owned();
    assert_eq!(scene.says(READY), word("False", "Finding"));
    assert_eq!(scene.says(SPEC_AGREED), word("False", "CopiesDiffer"));
}

#[test]
fn a_peer_without_the_object_is_told_apart_from_one_that_does_not_answer() {
    let mut scene = scene();
    scene.peer = Fact::known(None, at(100));
    assert_eq!(scene.says(PEER_REACHABLE), word("False", "NotFound"));
    scene.peer = Fact::unknown("connection refused");
    scene.world.peer = Fact::unknown("connection refused");
    assert_eq!(scene.says(PEER_REACHABLE), word("False", "Unreachable"));
    assert_eq!(scene.says(SPEC_AGREED), word("Unknown", "Unknown"));
}

#[test]
fn a_missing_secret_makes_the_object_invalid_and_hinders_nothing_else() {
    let mut scene = scene();
    scene.bad_references = vec!["secret trading/x does not exist".to_owned()];
    assert_eq!(scene.says(VALID), word("False", "BadReference"));
    assert_eq!(scene.says(READY), word("True", "AsWanted"));
    assert_eq!(scene.says(STANDBY_READY), word("Unknown", "Unknown"));
}

#[test]
fn an_equal_status_is_not_written_and_moving_numbers_are_written_now_and_then() {
    let mut scene = scene();
    let first = scene.status(100);
    assert!(worth_writing(None, &first, None, at(100)), "the first status is written");
    scene.object.status = Some(first.clone());
    let same = scene.status(100);
    assert!(!worth_writing(Some(&first), &same, None, at(200)));
    scene.world.drain.insert("inbound".to_owned(), Fact::known(4, at(101)));
    let moved = scene.status(101);
    assert!(!worth_writing(Some(&first), &moved, Some(at(100)), at(101)));
    assert!(worth_writing(Some(&first), &moved, Some(at(100)), at(110)));
}

#[test]
fn what_the_other_side_did_is_told_with_the_next_numbers_and_own_steps_at_once() {
    let mut scene = scene();
    let mut mine = run(Mark::Accepted);
    note_begun(&mut mine, StepKind::FlipIngressOff, at(60));
    scene.side.run = Some(mine.clone());
    let first = scene.status(100);
    scene.object.status = Some(first.clone());
    let mut theirs = run(Mark::Proposed);
    note_begun(&mut theirs, StepKind::ScaleActive, at(61));
    let report = SideReport { run: Some(theirs), ..SideReport::new(&region("us-west-2")) };
    scene.world.peer = Fact::known(Some(report), at(100));
    let told = scene.status(100);
    assert_eq!(told.current_run.as_ref().unwrap().steps.len(), 2);
    assert!(!worth_writing(Some(&first), &told, Some(at(100)), at(100)));
    assert!(worth_writing(Some(&first), &told, Some(at(100)), at(101)));
    note_begun(&mut mine, StepKind::CloseBroker, at(100));
    scene.side.run = Some(mine);
    assert!(worth_writing(Some(&told), &scene.status(100), Some(at(100)), at(100)));
}

#[test]
fn a_number_that_is_no_longer_known_is_written_at_once() {
    let mut scene = scene();
    let first = scene.status(100);
    scene.object.status = Some(first.clone());
    scene.world.drain.insert("inbound".to_owned(), Fact::unknown("no answer"));
    assert!(worth_writing(Some(&first), &scene.status(100), Some(at(100)), at(100)));
}

fn run(mark: Mark) -> RunReport {
    let (a, b) = (region("us-east-1"), region("us-west-2"));
    RunReport::open(RunId(Uuid::from_u128(9)), &a, &b, Epoch(4), mark, at(50))
}

#[test]
fn a_steps_time_runs_from_its_first_attempt_to_its_proof() {
    let mut side = scene().side;
    let mut open = run(Mark::Accepted);
    assert!(untried(&open, StepKind::Fence));
    note_begun(&mut open, StepKind::Fence, at(60));
    assert!(!untried(&open, StepKind::Fence));
    note_ended(&mut open, StepKind::Fence, true, &Outcome::Unknown("no answer".to_owned()));
    assert_eq!(open.steps[0].attempts, 1);
    assert!(open.steps[0].note.as_ref().unwrap().contains("no answer"));
    note_ended(&mut open, StepKind::Fence, false, &Outcome::Done);
    side.run = Some(open);
    let proved = prove(&mut side, &[StepKind::Fence], at(63));
    assert_eq!(proved, [(StepKind::Fence, SignedDuration::from_secs(3))]);
    let record = &side.run.as_ref().unwrap().steps[0];
    assert_eq!((record.attempts, record.note.as_deref()), (2, None));
    assert!(prove(&mut side, &[StepKind::Fence], at(70)).is_empty(), "a proof counts once");
}

#[test]
fn a_step_that_was_made_while_nothing_could_be_written_is_recorded_when_its_proof_is_seen() {
    let mut side = scene().side;
    side.run = Some(run(Mark::Accepted));
    let proved = prove(&mut side, &[StepKind::Fence], at(63));
    assert_eq!(proved, [(StepKind::Fence, SignedDuration::ZERO)]);
    assert_eq!(side.run.unwrap().steps[0].finished_at, Some(at(63)));
}

#[test]
fn a_record_that_is_written_again_begins_again() {
    let mut open = run(Mark::Accepted);
    note_begun(&mut open, StepKind::RecordDrained, at(60));
    note_begun(&mut open, StepKind::RecordDrained, at(70));
    let began: Vec<_> = open.steps.iter().map(|record| record.started_at).collect();
    assert_eq!(began, [at(70)]);
}

#[test]
fn an_ended_run_enters_the_history_once_and_ten_are_kept_three_with_their_steps() {
    let mut scene = scene();
    for number in 0..12u128 {
        let mut ended = run(Mark::Finished);
        ended.id = RunId(Uuid::from_u128(number));
        ended.ended_at = Some(at(80));
        note_begun(&mut ended, StepKind::Fence, at(60));
        scene.side.run = Some(ended);
        scene.object.status = Some(scene.status(100));
        scene.object.status = Some(scene.status(101));
    }
    let history = scene.object.status.unwrap().history;
    assert_eq!(history.len(), 10);
    assert!(history.iter().enumerate().all(|(age, run)| run.steps.is_empty() == (age >= 3)));
    assert_eq!(history[0].id, RunId(Uuid::from_u128(11)));
    assert_eq!(history[0].times.total.unwrap().get(), SignedDuration::from_secs(30));
}

#[test]
fn the_start_of_one_region_is_no_move() {
    let mut scene = scene();
    let mut start = run(Mark::Finished);
    start.to = start.from.clone();
    scene.side.run = Some(start);
    assert!(scene.status(100).history.is_empty());
}

/// The object as it was before a run, with this annotation and this plan published, and the run as it begins.
fn beginning(annotated: &str, published: &str) -> Scene {
    let mut scene = scene();
    let annotations = [(crds::PLAN_HASH_ANNOTATION.to_owned(), annotated.to_owned())];
    scene.object.metadata.annotations = Some(annotations.into());
    let preview = Preview {
        to: region("us-west-2"),
        plan_hash: published.to_owned(),
        steps: Vec::new(),
        estimate: None,
        unavailable: None,
        blocking: Vec::new(),
    };
    scene.object.status = Some(TradingRegionStatus { preview: Some(preview), ..scene.status(40) });
    scene.side.run = Some(run(Mark::Accepted));
    scene
}

#[test]
fn the_plan_that_a_person_saw_stays_with_the_run_from_its_beginning_to_the_history() {
    let mut scene = beginning("seen", "seen");
    let noted = |status: &TradingRegionStatus| {
        let shown = status.current_run.iter().chain(&status.history).next();
        shown.and_then(|summary| summary.plan_hash.clone())
    };
    scene.object.status = Some(scene.status(50));
    scene.object.metadata.annotations = None;
    assert_eq!(noted(&scene.status(60)).as_deref(), Some("seen"));
    scene.side.run = Some(RunReport { ended_at: Some(at(80)), ..run(Mark::Finished) });
    assert_eq!(noted(&scene.status(80)).as_deref(), Some("seen"));
}

#[test]
fn an_annotation_of_an_earlier_switch_is_not_taken_for_this_runs() {
    let mut scene = beginning("of an earlier epoch", "present");
    let shown = scene.status(50);
    assert_eq!(shown.current_run.as_ref().unwrap().plan_hash, None);
    scene.object.status = Some(shown);
    let annotations = [(crds::PLAN_HASH_ANNOTATION.to_owned(), "written later".to_owned())];
    scene.object.metadata.annotations = Some(annotations.into());
    assert_eq!(scene.status(60).current_run.unwrap().plan_hash, None);
}
