//! Recorded states: what the view says of each, as text and as JSON, and how commands end in it.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod recorded;

use jiff::Timestamp;
use kubectl_region::{
    COLUMNS, Exit, LINES, Style, View, build, history, may_abort, may_switch, plan, status,
};
use recorded::{Side, copy, same_as_recorded, state, states, view};

#[test]
fn each_state_is_told_as_recorded() {
    let mut wrong = Vec::new();
    for (name, state) in states() {
        let view = view(&state);
        let json = serde_json::to_string_pretty(&view).unwrap() + "\n";
        let mut text = status(&view, Style { colour: false });
        if let Some(shown) = &view.plan {
            text += &format!("\n--- plan ---\n{}", plan(&view, shown));
        }
        wrong.extend(same_as_recorded(&format!("tests/golden/{name}.txt"), &text).err());
        wrong.extend(same_as_recorded(&format!("tests/golden/{name}.json"), &json).err());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn a_status_fits_on_one_screen_in_every_state() {
    for (name, state) in states() {
        let text = status(&view(&state), Style { colour: false });
        assert!(text.lines().count() <= LINES, "{name} has {} lines", text.lines().count());
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap_or_default();
        assert!(widest <= COLUMNS, "{name} is {widest} wide");
    }
}

#[test]
fn the_history_says_why_each_run_was_made_as_text_and_as_json() {
    let steady = state("steady");
    let mut view = view(&steady);
    view.history[0].summary.reason = Some("storm\u{1b}[2J drill".to_owned());
    let text = history(&view);
    let lines: Vec<&str> = text.lines().collect();
    let column = lines[0].find("REASON").unwrap();
    assert_eq!(&lines[1][column..], "storm [2J drill", "{text}");
    assert_eq!(serde_json::to_value(&view).unwrap()["history"][0]["reason"], "storm\u{1b}[2J drill");
}

#[test]
fn colours_change_no_word() {
    for (name, state) in states() {
        let view = view(&state);
        let coloured = status(&view, Style { colour: true });
        assert!(coloured.contains('\u{1b}'), "{name} has no colour");
        let mut plain = String::new();
        for part in coloured.split('\u{1b}') {
            plain += if plain.is_empty() && !coloured.starts_with('\u{1b}') {
                part
            } else {
                part.split_once('m').map_or(part, |(_, rest)| rest)
            };
        }
        assert_eq!(plain, status(&view, Style { colour: false }), "{name}");
    }
}

#[test]
fn the_view_can_be_read_back_from_its_json() {
    for (name, state) in states() {
        let view = view(&state);
        let read: View = serde_json::from_value(serde_json::to_value(&view).unwrap()).unwrap();
        assert_eq!(read, view, "{name}");
    }
}

#[test]
fn each_command_ends_with_the_code_of_the_contract() {
    for (name, state) in states() {
        let view = view(&state);
        let code = |refused: Option<Exit>| refused.unwrap_or(Exit::Ok).code();
        assert_eq!(view.exit().code(), state.exit.status, "status in {name}");
        let switch = may_switch(&view, "us-west-2", None).err().map(|refusal| refusal.exit);
        assert_eq!(code(switch), state.exit.switch, "switch in {name}");
        let abort = may_abort(&view).err().map(|refusal| refusal.exit);
        assert_eq!(code(abort), state.exit.abort, "abort in {name}");
    }
}

#[test]
fn a_changed_plan_is_refused_and_the_one_that_was_seen_is_not() {
    let steady = state("steady");
    let view = view(&steady);
    assert!(may_switch(&view, "us-west-2", Some("3fd1c9a2")).is_ok());
    let refusal = may_switch(&view, "us-west-2", Some("another")).unwrap_err();
    assert_eq!(refusal.exit, Exit::Refused);
    assert!(refusal.to_string().contains("kubectl region plan us-west-2"), "{refusal}");
}

#[test]
fn a_region_that_does_not_exist_is_a_wrong_command() {
    let steady = state("steady");
    assert_eq!(may_switch(&view(&steady), "eu-west-1", None).unwrap_err().exit, Exit::Usage);
}

#[test]
fn an_abort_names_the_old_region_and_the_run() {
    let draining = state("draining");
    let (region, run) = may_abort(&view(&draining)).unwrap();
    assert_eq!(
        (region.as_str(), run.as_deref()),
        ("us-east-1", Some("0192f0c1-0000-7000-8000-000000000001"))
    );
}

#[test]
fn what_is_too_old_is_shown_as_unknown() {
    let mut state = state("steady");
    state.now = "2026-11-22T15:02:00Z".parse().unwrap();
    let view = view(&state);
    let text = status(&view, Style { colour: false });
    assert!(!text.contains("120ms") && !text.contains("18s"), "{text}");
    assert!(text.contains("unknown"), "{text}");
}

#[test]
fn nothing_known_at_all_is_an_error_with_its_reason() {
    let lost = Side {
        generation: 0,
        wants: None,
        status: None,
        unreachable: Some("no answer within 2 s".into()),
        not_understood: None,
    };
    let copies = [copy("us-east-1", &lost), copy("us-west-2", &lost)];
    let why = build(&copies, None, Timestamp::UNIX_EPOCH).unwrap_err();
    assert_eq!(why.to_string(), "context us-east-1: no answer within 2 s");
}
