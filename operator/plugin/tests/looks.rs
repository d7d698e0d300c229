//! What is shown, by the program itself, while a run is followed and while a region or a kubeconfig is missing.
#![allow(
    clippy::disallowed_methods,
    clippy::panic,
    clippy::unwrap_used,
    unreachable_pub,
    reason = "a test ends at the first surprise; recorded times are moved to the present"
)]

mod fake;
mod recorded;

use fake::{Regions, Terminal};
use serde_json::Value;

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_status_ends_with_the_last_view_alone_on_standard_output() {
    let regions = Regions::in_state("draining").await;
    for held in [&regions.east, &regions.west] {
        let mut held = held.lock().unwrap();
        let mut steady = held.object["status"].clone();
        steady["phase"] = "Steady".into();
        steady.as_object_mut().unwrap().remove("currentRun");
        let open = held.object["status"].clone();
        // The first reading finds the clusters, the second is the first look.
        held.then = [open.clone(), open.clone(), open, steady].into();
        held.changes.push(Value::Null);
    }
    let (code, [shown, told]) = regions.run_apart(&["status", "--watch", "-o", "json"]).await;
    assert_eq!(code, 0, "{told}");
    let view: Value =
        serde_json::from_str(&shown).unwrap_or_else(|why| panic!("one document: {why}: {shown}"));
    assert_eq!((&view["run"], &view["regions"][0]["phase"]), (&Value::Null, &"Steady".into()));
    assert!(told.contains("us-east-1 is Draining") && told.contains("us-east-1 is Steady"), "{told}");

    let (code, [shown, _]) = regions.run_apart(&["status", "--watch"]).await;
    assert!(code == 0 && shown.contains("Steady") && !shown.contains("Draining"), "{code}: {shown}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_followed_status_that_takes_too_long_shows_where_it_stands() {
    let regions = Regions::in_state("draining").await;
    let (code, [shown, told]) = regions.run_apart(&["status", "--watch", "--timeout", "1"]).await;
    assert!(code == 124 && shown.contains("Draining"), "{code}: {shown}");
    assert!(told.contains("still open after 1 s"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_drawn_in_a_narrow_terminal_has_no_wrapped_line() {
    let regions = Regions::in_state("fenced-and-busy").await;
    let words = ["status", "--watch", "--timeout", "2", "--no-color"];
    let terminal = Terminal::open_after("stty cols 60 rows 12", &regions.kubeconfig(), &words);
    let (code, screen) = terminal.ends().await;
    assert_eq!(code, 124, "{screen}");
    // The last one is no drawing: it stays, whole.
    let (drawn, last) = screen.rsplit_once("\u{1b}[J").unwrap();
    assert!(last.lines().count() > 12, "{last}");
    let frames: Vec<&str> = drawn.split("\u{1b}[J").collect();
    assert!(frames.len() >= 2, "{screen}");
    for frame in frames {
        let plain = frame.replace("\u{1b}[?7l", "").replace("\u{1b}[?7h", "");
        let lines: Vec<&str> = plain.lines().filter(|line| !line.contains('\u{1b}')).collect();
        assert!(lines.len() <= 11 && lines.iter().all(|line| line.chars().count() <= 60), "{frame}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_region_that_is_down_does_not_hide_the_other_one() {
    let regions = Regions::in_state("steady").await;
    regions.reached_by([("us-east-1", false), ("us-west-2", true)]);
    for more in [&[][..], &["--context", "us-east-1"]] {
        let (code, said) = regions.run(&[&["status", "--exit-code"], more].concat()).await;
        assert_eq!(code, 6, "{said}");
        assert!(said.contains("us-east-1    unknown: context us-east-1: "), "{said}");
        assert!(said.contains("us-west-2    standby us-east-1    Steady"), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_cluster_is_not_taken_for_the_other_region() {
    let regions = Regions::in_state("steady").await;
    regions.reached_by([("production", false), ("us-west-2", true)]);
    let (code, said) = regions.run(&["status"]).await;
    assert!(code == 6 && said.contains("context production: "), "{code}: {said}");
    assert!(said.contains("--context") && said.contains("--contexts A,B"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_repeat_the_options_that_led_to_the_clusters() {
    let regions = Regions::in_state("steady").await;
    regions.reached_by([("east", true), ("my west", true)]);
    let file = regions.kubeconfig();
    let way = ["--kubeconfig", file.to_str().unwrap(), "--contexts", "east,my west"];
    let (code, said) = regions.run(&[&["plan", "us-east-1", "-n", "trading"][..], &way].concat()).await;
    assert!(code == 5 && said.contains("us-east-1 is active already"), "{code}: {said}");
    let next = format!(
        "next: kubectl region status -n trading trade-matching --kubeconfig {} --contexts 'east,my west'",
        file.display()
    );
    assert!(said.contains(&next), "{said}");
}
