//! Acts from the question to the end, by the program itself, against API servers that hold the objects.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test ends at the first surprise; recorded times are moved to the present"
)]

mod fake;
mod recorded;

use fake::{Regions, Terminal, kubeconfig};
use serde_json::{Value, json};

const SWITCH: [&str; 4] = ["switch", "us-west-2", "--reason", "drill"];
const HASH: &str = "3fd1c9a2";
const INTERRUPT: &str = "\u{3}";

fn switch<'a>(more: &[&'a str]) -> Vec<&'a str> {
    SWITCH.iter().chain(more).copied().collect()
}

/// The status of a side once the other region is active.
fn switched(status: &Value) -> Value {
    let mut status = status.clone();
    status["activeRegion"] = json!("us-west-2");
    status["epoch"] = json!(8);
    status
}

fn draining(status: &Value) -> Value {
    let mut status = status.clone();
    status["phase"] = json!("Draining");
    status["currentRun"] = json!({
        "id": "0192f0c1-0000-7000-8000-000000000009", "from": "us-east-1", "to": "us-west-2", "fromEpoch": 7,
        "startedAt": status["conditions"][0]["lastTransitionTime"],
    });
    status
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_at_the_question_of_a_switch_ends_it_at_once_and_nothing_was_changed() {
    let regions = Regions::in_state("steady").await;
    let mut terminal = regions.terminal(&SWITCH);
    terminal.shows("Type us-west-2 to switch: ").await;
    terminal.types(INTERRUPT).await;
    let (code, screen) = terminal.ends().await;
    assert!(code == 130 && screen.contains("interrupted; nothing was changed"), "{code}: {screen}");
    assert_eq!(regions.changes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_at_the_question_of_an_abort_ends_it_at_once_and_nothing_was_changed() {
    let regions = Regions::in_state("draining").await;
    let mut terminal = regions.terminal(&["abort"]);
    terminal.shows("Type us-east-1 to go back: ").await;
    terminal.types(INTERRUPT).await;
    let (code, screen) = terminal.ends().await;
    assert!(code == 130 && screen.contains("interrupted; nothing was changed"), "{code}: {screen}");
    assert_eq!(regions.changes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_while_a_cluster_is_asked_says_that_nothing_was_changed() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, kubeconfig(&[("us-east-1", silent.local_addr().unwrap().port())])).unwrap();
    for words in [&["plan", "us-west-2"][..], &["history"], &["status"]] {
        let mut terminal = Terminal::open(&file, words);
        let _asked = silent.accept().await.unwrap();
        terminal.types(INTERRUPT).await;
        let (code, screen) = terminal.ends().await;
        assert!(
            code == 130 && screen.contains("interrupted; nothing was changed"),
            "{words:?}: {code}: {screen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_after_the_change_says_that_the_run_goes_on() {
    let regions = Regions::in_state("steady").await;
    let mut terminal = regions.terminal(&switch(&["--confirm", HASH]));
    terminal.shows("has not seen the newest change").await;
    terminal.types(INTERRUPT).await;
    let (code, screen) = terminal.ends().await;
    assert!(code == 130 && screen.contains("interrupted; what was started goes on"), "{code}: {screen}");
    assert_eq!(regions.wanted(), ["us-west-2", "us-west-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_region_typed_changes_both_copies_with_reason_and_hash() {
    let regions = Regions::in_state("steady").await;
    let mut terminal = regions.terminal(&switch(&["--no-wait"]));
    terminal.shows("Type us-west-2 to switch: ").await;
    terminal.types("us-west-2\n").await;
    let (code, screen) = terminal.ends().await;
    assert_eq!(code, 0, "{screen}");
    assert_eq!(regions.wanted(), ["us-west-2", "us-west-2"]);
    for held in [&regions.east, &regions.west] {
        let object = held.lock().unwrap().object.clone();
        assert_eq!(object["spec"]["transition"]["reason"], "drill");
        assert_eq!(object["metadata"]["annotations"][crds::PLAN_HASH_ANNOTATION], HASH);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_word_changes_nothing() {
    let regions = Regions::in_state("steady").await;
    let mut terminal = regions.terminal(&SWITCH);
    terminal.shows("Type us-west-2 to switch: ").await;
    terminal.types("yes\n").await;
    let (code, screen) = terminal.ends().await;
    assert!(code == 5 && screen.contains("nothing was changed"), "{code}: {screen}");
    assert_eq!(regions.changes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_changed_while_a_person_was_thinking_is_refused() {
    let regions = Regions::in_state("steady").await;
    let mut terminal = regions.terminal(&SWITCH);
    terminal.shows("Type us-west-2 to switch: ").await;
    regions.west.lock().unwrap().object["status"]["preview"]["planHash"] = json!("another");
    terminal.types("us-west-2\n").await;
    let (code, screen) = terminal.ends().await;
    assert!(code == 5 && screen.contains("the plan changed"), "{code}: {screen}");
    assert_eq!(regions.changes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_terminal_the_flag_that_replaces_the_answer_is_named() {
    let regions = Regions::in_state("steady").await;
    let (code, said) = regions.run(&SWITCH).await;
    assert!(code == 2 && said.contains(&format!("add --confirm {HASH}")), "{code}: {said}");
    assert_eq!(regions.changes(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_that_takes_too_long_ends_with_124_and_the_change_stays() {
    let regions = Regions::in_state("steady").await;
    let (code, said) = regions.run(&switch(&["--confirm", HASH, "--timeout", "1"])).await;
    assert!(
        code == 124 && said.contains("not reached within 1 s; what was started goes on"),
        "{code}: {said}"
    );
    assert_eq!(regions.wanted(), ["us-west-2", "us-west-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_only_one_copy_took_is_told_and_can_be_taken_back() {
    let regions = Regions::in_state("steady").await;
    regions.west.lock().unwrap().refuses = true;
    let (code, said) = regions.run(&switch(&["--confirm", HASH])).await;
    assert!(
        code == 1 && said.contains("only one copy was changed") && said.contains("you may not change it"),
        "{code}: {said}"
    );
    assert_eq!(regions.wanted(), ["us-west-2", "us-east-1"]);
    regions.west.lock().unwrap().refuses = false;
    let (code, said) = regions.run(&["abort", "--confirm", "none", "--no-wait"]).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(regions.wanted(), ["us-east-1", "us-east-1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_told_line_by_line_and_ends_with_the_run() {
    let regions = Regions::in_state("steady").await;
    for held in [&regions.east, &regions.west] {
        let mut held = held.lock().unwrap();
        let steady = held.object["status"].clone();
        // The first readings belong to the change itself.
        held.then = [draining(&steady), draining(&steady), draining(&steady), switched(&steady)].into();
    }
    let (code, said) = regions.run(&switch(&["--confirm", HASH])).await;
    assert_eq!(code, 0, "{said}");
    for line in ["us-east-1 is Draining", "a run is open: us-east-1 to us-west-2", "us-east-1 is Steady"] {
        assert!(said.contains(line), "{line} is not in {said}");
    }
    assert!(said.contains("trading/trade-matching  active us-west-2"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_that_was_given_up_is_not_asked_for_again_in_the_same_words() {
    let regions = Regions::in_state("given-up").await;
    let again = ["switch", "us-west-2", "--reason", "quarterly rotation", "--confirm", HASH, "--no-wait"];
    let (code, said) = regions.run(&again).await;
    assert!(
        code == 5 && said.contains("given up (the drain did not end in time: core is 5)"),
        "{code}: {said}"
    );
    assert!(said.contains("another --reason"), "{said}");
    assert_eq!(regions.changes(), 0);
    let (code, said) = regions.run(&switch(&["--confirm", HASH, "--no-wait"])).await;
    assert_eq!(code, 0, "{said}");
    assert_eq!(regions.changes(), 2);
    assert_eq!(regions.west.lock().unwrap().object["spec"]["transition"]["reason"], "drill");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_without_a_terminal_needs_the_whole_id_of_the_run() {
    let regions = Regions::in_state("draining").await;
    let id = "0192f0c1-0000-7000-8000-000000000001";
    for part in ["0192f0c1", "00000001", "none"] {
        let (code, said) = regions.run(&["abort", "--confirm", part, "--no-wait"]).await;
        assert!(code == 5 && said.contains(&format!("has to be {id}")), "{part}: {code}: {said}");
    }
    assert_eq!(regions.changes(), 0);
    let (code, said) = regions.run(&["abort", "--confirm", id, "--no-wait"]).await;
    assert!(code == 0 && regions.changes() == 2, "{code}: {said}");
    assert!(said.contains("kubectl region status -n trading trade-matching --watch"), "{said}");
}
