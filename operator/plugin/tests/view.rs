//! Recorded states: what the view says of each, as text and as JSON, and how commands end in it.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod recorded;

use crds::Outcome;
use jiff::Timestamp;
use kubectl_region::{
    COLUMNS, Exit, LINES, RunView, Style, View, build, history, may_abort, may_switch, plan, run_steps,
    status,
};
use recorded::{Side, copy, same_as_recorded, state, states, view};

#[test]
fn each_state_is_told_as_recorded() {
    let mut wrong = Vec::new();
    for (name, state) in states() {
        let view = view(&state);
        let json = serde_json::to_string_pretty(&view).unwrap() + "\n";
        let mut text = status(&view, Style::default());
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
        let text = status(&view(&state), Style::default());
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
        let coloured = status(&view, Style { colour: true, ..Style::default() });
        assert!(coloured.contains('\u{1b}'), "{name} has no colour");
        let mut plain = String::new();
        for part in coloured.split('\u{1b}') {
            plain += if plain.is_empty() && !coloured.starts_with('\u{1b}') {
                part
            } else {
                part.split_once('m').map_or(part, |(_, rest)| rest)
            };
        }
        assert_eq!(plain, status(&view, Style::default()), "{name}");
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
    let text = status(&view, Style::default());
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

#[test]
fn a_narrow_terminal_gets_narrow_lines_with_the_same_colours() {
    for (name, state) in states() {
        let view = view(&state);
        let text = status(&view, Style { columns: 60, ..Style::default() });
        assert!(text.lines().all(|line| line.chars().count() <= 60), "{name}:\n{text}");
        assert_eq!(
            text.lines().count(),
            status(&view, Style::default()).lines().count(),
            "{name} lost a line"
        );
    }
    let steady = view(&state("steady"));
    let coloured = status(&steady, Style { colour: true, columns: 80 });
    assert!(coloured.starts_with("trading/trade-matching") && coloured.contains("\u{1b}[32mOk\u{1b}[0m"));
}

#[test]
fn only_a_run_that_was_given_up_is_called_so() {
    let mut run = view(&state("steady")).history.remove(0);
    run.summary.note = Some("the new side is active".to_owned());
    let told = |run: &RunView| run_steps(run, Timestamp::UNIX_EPOCH);
    assert!(told(&run).contains("note: the new side is active") && !told(&run).contains("given up"));
    run.summary.outcome = None;
    assert!(told(&run).contains("note: "), "{}", told(&run));
    for outcome in [Outcome::Aborted, Outcome::Declined] {
        run.summary.outcome = Some(outcome);
        assert!(told(&run).contains("given up: the new side is active"), "{}", told(&run));
    }
}

#[test]
fn a_run_is_found_by_any_part_of_its_id_that_no_other_run_has() {
    let view = view(&state("given-up"));
    let ids: Vec<String> = view.history.iter().map(|run| run.summary.id.to_string()).collect();
    let [newest, older] = ids.as_slice() else { panic!("{ids:?}") };
    assert_eq!(newest[..8], older[..8], "runs of one minute begin alike");
    let shown = history(&view);
    for id in [newest, older] {
        assert!(shown.lines().any(|line| line.starts_with(&id[28..])), "{shown}");
        for part in [id.as_str(), &id[28..], &id[28..].to_uppercase()] {
            assert_eq!(view.named_run(part).unwrap().summary.id.to_string(), *id, "{part}");
        }
    }
    let unclear = view.named_run(&newest[..8]).unwrap_err();
    assert!(unclear.contains(newest) && unclear.contains(older), "{unclear}");
    assert!(view.named_run("ffff").unwrap_err().contains("kubectl region history"));
}

#[test]
fn the_region_that_is_active_is_told_so_and_how_to_stay_there() {
    let refusal = |name: &str| may_switch(&view(&state(name)), "us-east-1", None).unwrap_err();
    assert_eq!(refusal("steady").why, "us-east-1 is active already");
    assert_eq!(refusal("steady").next, "kubectl region status -n trading trade-matching");
    let given_up = refusal("given-up");
    assert_eq!(given_up.why, "us-east-1 is active already");
    assert!(given_up.next.starts_with("kubectl region abort -n trading trade-matching"), "{given_up}");
}

#[test]
fn a_switch_while_a_run_waits_for_a_person_names_what_to_do() {
    let mut waiting = state("draining");
    let status = waiting.east.status.as_mut().unwrap();
    status["phase"] = "WaitForUser".into();
    status["reason"] = "the drain did not end; us-east-1 holds the lease: core is 5".into();
    let refusal = may_switch(&view(&waiting), "us-west-2", None).unwrap_err();
    assert!(refusal.why.contains("waits for a person: the drain did not end"), "{refusal}");
    assert!(refusal.next.contains("goes back to us-east-1; or do what its reason asks for"), "{refusal}");
    waiting.east.status.as_mut().unwrap()["side"]["run"]["mark"] = "Fenced".into();
    let fenced = may_switch(&view(&waiting), "us-west-2", None).unwrap_err();
    assert!(!fenced.next.contains("abort") && fenced.next.contains("RegionWaitForUser"), "{fenced}");
}

#[test]
fn without_a_holder_of_the_lease_the_plan_says_so() {
    let mut nobody = state("nobody-holds");
    let refusal = may_switch(&view(&nobody), "us-west-2", None).unwrap_err();
    assert_eq!(refusal.why, "nobody holds the lease yet, so there is no switch to plan");
    assert!(refusal.next.contains("managed: Manage"), "{refusal}");
    for side in [&mut nobody.east, &mut nobody.west] {
        let status = side.status.as_mut().unwrap();
        status["phase"] = "Starting".into();
        status["epoch"] = 5.into();
    }
    let refusal = may_switch(&view(&nobody), "us-west-2", None).unwrap_err();
    assert_eq!(refusal.why, "nobody holds the lease, so there is no switch to plan");
    assert!(refusal.next.starts_with("kubectl region status -n trading"), "{refusal}");
}

#[test]
fn commands_that_are_told_repeat_the_way_to_the_clusters() {
    let mut view = view(&state("fenced-and-busy"));
    view.way = " --contexts a,b".to_owned();
    let text = status(&view, Style::default());
    let all = "steps before: kubectl region history -n trading trade-matching --contexts a,b --run 00000001";
    assert!(text.contains(all), "{text}");
    view.way = format!(" --contexts {}", "a-long-context,".repeat(4));
    let text = status(&view, Style::default());
    assert!(text.contains("steps before; -o json shows all"), "no command is cut: {text}");
    assert!(!serde_json::to_string(&view).unwrap().contains("a-long-context"));
}
