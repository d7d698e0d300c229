//! Prometheus's rule tester, from the Debian package of Prometheus, which is unpacked and not installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::series::Series;

/// How often the rules are evaluated: as often as the fastest group.
const STEP_SECONDS: u64 = 5;

/// Series, and the alert that must fire over them; none if all must stay silent.
pub(crate) struct Case {
    pub(crate) alert: &'static str,
    series: Vec<Series>,
    pending: &'static str,
    labels: Vec<(&'static str, &'static str)>,
    summary: &'static str,
}

impl Case {
    /// An alert that fires at once.
    pub(crate) fn new(alert: &'static str, series: Vec<Series>) -> Self {
        Self { alert, series, pending: "", labels: Vec::new(), summary: "" }
    }

    /// Series over which nothing fires.
    pub(crate) fn silent(series: Vec<Series>) -> Self {
        Self::new("", series)
    }

    /// It fires only after that time.
    pub(crate) fn after(mut self, pending: &'static str) -> Self {
        self.pending = pending;
        self
    }

    /// It carries this label beside its severity.
    pub(crate) fn labelled(mut self, label: (&'static str, &'static str)) -> Self {
        self.labels.push(label);
        self
    }

    /// Its summary, as a person reads it.
    pub(crate) fn says(mut self, summary: &'static str) -> Self {
        self.summary = summary;
        self
    }

    fn pending_seconds(&self) -> u64 {
        match self.pending.strip_suffix('m') {
            Some(minutes) => minutes.parse::<u64>().unwrap() * 60,
            None => 0,
        }
    }

    /// The test in `promtool`'s form: silent until the time is over, then this alert alone.
    fn json(&self, rules: &Value) -> Value {
        let pending = self.pending_seconds();
        let before = pending.saturating_sub(STEP_SECONDS);
        let after = if self.alert.is_empty() { 3600 } else { pending + STEP_SECONDS };
        let count = after / STEP_SECONDS + 1;
        let series: Vec<Value> = self
            .series
            .iter()
            .map(|series| json!({"series": series.notation(), "values": format!("{}+0x{count}", series.value)}))
            .collect();
        let firing = "count by (alertname) (ALERTS{alertstate=\"firing\"})";
        let one = json!([{"labels": format!("{{alertname=\"{}\"}}", self.alert), "value": 1}]);
        let expected = if self.alert.is_empty() { json!([]) } else { one };
        let mut looks =
            vec![json!({"expr": firing, "eval_time": format!("{after}s"), "exp_samples": expected})];
        if pending > 0 {
            looks.push(json!({"expr": firing, "eval_time": format!("{before}s"), "exp_samples": []}));
        }
        let words: Vec<Value> = alerts(rules)
            .filter(|alert| alert["alert"] == self.alert)
            .map(|alert| self.expected(alert, after))
            .collect();
        json!({
            "interval": format!("{STEP_SECONDS}s"),
            "input_series": series,
            "promql_expr_test": looks,
            "alert_rule_test": words,
        })
    }

    /// Labels and annotations as somebody is paged with them.
    fn expected(&self, alert: &Value, after: u64) -> Value {
        let mut labels = alert["labels"].clone();
        for (name, value) in &self.labels {
            labels[*name] = (*value).into();
        }
        let mut annotations = alert["annotations"].clone();
        annotations["summary"] = self.summary.into();
        json!({
            "eval_time": format!("{after}s"),
            "alertname": self.alert,
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": annotations}],
        })
    }
}

/// All alerts of a PrometheusRule's spec.
pub(crate) fn alerts(rules: &Value) -> impl Iterator<Item = &Value> {
    let groups = rules["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap())
}

/// The program.
pub(crate) struct Promtool(PathBuf);

impl Promtool {
    /// Takes it from the cache, or the first time from the Debian package: 19 MB.
    pub(crate) fn ready() -> Self {
        let program = lab::cache::folder().unwrap().join("promtool");
        if !program.exists() {
            let work = tempfile::tempdir_in(program.parent().unwrap()).unwrap();
            let mut download = Command::new("apt-get");
            download.args(["download", "-q", "prometheus"]).current_dir(work.path());
            // A machine whose lists of packages are missing or old needs them first; only root may bring them.
            if !download.output().unwrap().status.success() {
                run(Command::new("apt-get").args(["update", "-q"]));
                run(&mut download);
            }
            let package = fs::read_dir(work.path()).unwrap().next().unwrap().unwrap().path();
            run(Command::new("dpkg-deb").arg("--extract").arg(package).arg(work.path().join("root")));
            // Complete or not there; two tests at once bring the same file.
            fs::rename(work.path().join("root/usr/bin/promtool"), &program).unwrap();
        }
        Self(program)
    }

    /// Runs all cases over the rules; the error is what it said.
    pub(crate) fn test(&self, rules: &Value, cases: &[Case]) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("rules.json"), rules);
        let tests: Vec<Value> = cases.iter().map(|case| case.json(rules)).collect();
        let file = folder.path().join("tests.json");
        let step = format!("{STEP_SECONDS}s");
        write(&file, &json!({"rule_files": ["rules.json"], "evaluation_interval": step, "tests": tests}));
        let output = Command::new(&self.0).args(["test", "rules"]).arg(&file).output().unwrap();
        if output.status.success() { Ok(()) } else { Err(said(&output)) }
    }
}

/// JSON is YAML too.
fn write(file: &Path, value: &Value) {
    fs::write(file, value.to_string()).unwrap();
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", said(&output));
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
