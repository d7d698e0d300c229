//! One view model: what any text says stands in the JSON, at a declared path, in every state that decisions lead to.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

mod journey;
mod recorded;
mod schema;

use std::collections::BTreeSet;

use jiff::Timestamp;
use kubectl_region::{COLUMNS, LINES, RunView, Style, View, entries, history, plan, run_steps, status};
use recorded::same_as_recorded;
use serde_json::Value;

const PLAIN: Style = Style { colour: false, columns: COLUMNS };

/// All words that texts have of themselves. Everything else has to come from the view.
const WORDS: &str = "
    active epoch at unknown REGION ROLE WANTS PHASE READY STANDBY LAG LEASE old ago -
    run to s so far can be aborted forward only steps before kubectl region history --run shows all
    done runs attempt drain waits for most more over time and -o json blocks informs findings next explain
    switch worked out by the operator in expected customers wait no was measured yet ------ way back from here
    nothing stands plan hash has ended RUN FROM TO STARTED OUTCOME SECONDS CUSTOMERS SPLIT REASON not given
    prepare promote open reason up its are kept any objects hold those of newest note -n";

/// Every state: the recorded ones and those of the journeys.
fn views() -> Vec<(String, View)> {
    let recorded = recorded::states().into_iter().map(|(name, state)| (name, recorded::view(&state)));
    recorded.chain(journey::views()).collect()
}

/// A word without what surrounds it.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_whitespace() || c.is_control() || ",;()\"!|/`[]".contains(c))
        .map(|word| word.trim_matches([':', '=', '+', '.']))
        .filter(|word| !word.is_empty())
}

/// What may be said of a view: the words of its JSON, and what can be computed from its numbers and times.
struct Said(BTreeSet<String>);

impl Said {
    fn of(view: &View, json: &Value) -> Self {
        let mut said = Said(words(WORDS).map(str::to_owned).collect());
        said.learn(json);
        for run in view.run.iter().chain(&view.history) {
            said.learn_times(run, view.at);
        }
        said
    }

    fn learn(&mut self, json: &Value) {
        match json {
            Value::String(text) => {
                self.0.extend(words(text).map(str::to_owned));
                if let Ok(at) = text.parse::<Timestamp>() {
                    self.0.extend(words(&at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()).map(str::to_owned));
                }
                // The end of a run's identity.
                self.0.insert(text.chars().skip(text.chars().count().saturating_sub(8)).collect());
            }
            Value::Number(number) => {
                let seconds = number.as_f64().unwrap();
                self.0.insert(number.to_string());
                self.0.insert(format!("{seconds:.1}"));
                let whole = seconds.abs() as i64;
                self.0.extend([
                    format!("{whole}s"),
                    format!("{}m", whole / 60),
                    format!("{}h", whole / 3_600),
                ]);
            }
            Value::Array(items) => {
                // Numbered lists, and how many of a list are not shown.
                self.0.extend((1..=items.len()).map(|count| count.to_string()));
                items.iter().for_each(|item| self.learn(item));
            }
            Value::Object(fields) => fields.values().for_each(|field| self.learn(field)),
            Value::Null | Value::Bool(_) => {}
        }
    }

    fn learn_times(&mut self, run: &RunView, now: Timestamp) {
        for step in &run.summary.steps {
            let began = step.record.started_at;
            let took = step.record.finished_at.unwrap_or(now).duration_since(began);
            let after = began.duration_since(run.summary.started_at);
            self.0.extend([took, after].map(|span| format!("{:.1}", span.as_secs_f64().max(0.0))));
        }
    }

    /// The words of a text that nothing stands behind. The last word of a line that was cut may be a part of one.
    fn unsaid<'a>(&self, text: &'a str) -> Vec<&'a str> {
        let mut unsaid = Vec::new();
        for line in text.lines() {
            let mut of_line: Vec<&str> = words(line).collect();
            let cut = line.ends_with("...").then(|| of_line.pop()).flatten();
            unsaid.extend(of_line.into_iter().filter(|word| !self.0.contains(*word)));
            unsaid.extend(cut.filter(|start| !self.0.iter().any(|word| word.starts_with(start))));
        }
        unsaid
    }
}

#[test]
fn each_word_of_each_text_stands_in_the_json_or_follows_from_it() {
    for (name, view) in views() {
        let said = Said::of(&view, &serde_json::to_value(&view).unwrap());
        let mut texts = vec![status(&view, PLAIN), history(&view)];
        texts.extend(view.plan.as_ref().map(|shown| plan(&view, shown)));
        texts.extend(view.run.iter().chain(&view.history).map(|run| run_steps(run, view.at)));
        for text in texts {
            assert_eq!(said.unsaid(&text), [""; 0], "{name}:\n{text}");
        }
    }
}

#[test]
fn a_word_that_the_json_does_not_have_is_noticed() {
    let view = |name: &str| recorded::view(&recorded::state(name));
    let (steady, draining) = (view("steady"), view("draining"));
    let said = Said::of(&steady, &serde_json::to_value(&steady).unwrap());
    let text = status(&draining, PLAIN);
    let unsaid = said.unsaid(&text);
    assert!(["Draining", "CloseBroker", "inbound"].iter().all(|word| unsaid.contains(word)), "{unsaid:?}");
}

#[test]
fn the_json_of_each_state_is_as_the_schema_declares() {
    let schema = serde_json::to_value(schemars::schema_for!(View)).unwrap();
    for (name, view) in views() {
        let wrong = schema::wrong(&schema, &serde_json::to_value(&view).unwrap());
        assert!(wrong.is_empty(), "{name}: {wrong:#?}");
    }
}

#[test]
fn the_schema_notices_what_is_missing_undeclared_or_of_another_type() {
    let schema = serde_json::to_value(schemars::schema_for!(View)).unwrap();
    let steady = serde_json::to_value(recorded::view(&recorded::state("steady"))).unwrap();
    let spoilt = |spoil: fn(&mut Value)| {
        let mut json = steady.clone();
        spoil(&mut json);
        schema::wrong(&schema, &json).join("\n")
    };
    assert_eq!(spoilt(|json| json["surprise"] = true.into()), "/surprise is not declared");
    assert_eq!(spoilt(|json| drop(json.as_object_mut().unwrap().remove("verdict"))), "/verdict is missing");
    assert!(spoilt(|json| json["regions"][0]["observed"] = 1.into()).contains("/regions/0/observed"));
}

#[test]
fn the_schema_in_the_repository_is_the_one_of_the_code() {
    let schema = serde_json::to_string_pretty(&schemars::schema_for!(View)).unwrap() + "\n";
    same_as_recorded("view-v1.schema.json", &schema).unwrap();
}

#[test]
fn each_screen_is_small_enough_and_there_are_many_different_ones() {
    let mut screens = BTreeSet::new();
    for (name, view) in views() {
        let text = status(&view, PLAIN);
        assert!(text.lines().count() <= LINES, "{name}:\n{text}");
        assert!(text.lines().all(|line| line.chars().count() <= COLUMNS), "{name}:\n{text}");
        screens.insert(text.lines().map(without_numbers).collect::<Vec<_>>().join("\n"));
    }
    assert!(screens.len() >= 40, "only {} screens differ in more than numbers", screens.len());
}

fn without_numbers(line: &str) -> String {
    line.chars().filter(|c| !c.is_ascii_digit()).collect()
}

#[test]
fn each_finding_is_shown_with_its_code_and_the_command_that_explains_it() {
    use clap::Parser as _;
    for (name, view) in views().into_iter().filter(|(_, view)| !view.findings.is_empty()) {
        let text = status(&view, PLAIN);
        let shown: Vec<&str> =
            text.lines().filter(|line| line.starts_with("TR-")).map(|line| &line[..7]).collect();
        let next = text.lines().find_map(|line| line.strip_prefix("next: kubectl ")).expect("a next command");
        kubectl_region::Cli::try_parse_from(next.split(' ')).unwrap_or_else(|why| panic!("{name}: {why}"));
        assert!(!shown.is_empty() && shown.iter().all(|code| next.contains(code)), "{name}:\n{text}");
    }
}

#[test]
fn each_finding_names_its_place_in_the_documentation() {
    let page = include_str!("../../../docs/findings.md");
    let anchors: BTreeSet<String> = page
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|title| format!("docs/findings.md#{}", title.to_lowercase().replace(' ', "-")))
        .collect();
    assert!(entries().iter().all(|entry| anchors.contains(&entry.docs)));
    let findings = views().into_iter().flat_map(|(_, view)| view.findings);
    assert!(findings.inspect(|finding| assert!(anchors.contains(&finding.docs), "{finding:?}")).count() > 40);
}
