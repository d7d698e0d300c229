//! Series as Prometheus would have them: what a process shows, and the pod that it was read from.

/// What the keeper's own test says that its code writes while it holds the lease.
const HOLDING: &str = include_str!("../../../operator/keeper/tests/golden/holding.txt");

/// What core's own test says that its code writes while the days of its stores are as they should be.
const DAYS: &str = include_str!("../../../services/trading/tests/golden/days.txt");

/// One series with a value that does not change.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pod: String,
    pub(crate) name: String,
    /// Labels in braces, the pod among them.
    labels: String,
    pub(crate) value: String,
}

impl Series {
    /// In the notation of `promtool`.
    pub(crate) fn notation(&self) -> String {
        format!("{}{}", self.name, self.labels)
    }
}

/// The series of an OpenMetrics text.
pub(crate) fn read(pod: &str, text: &str) -> Vec<Series> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let all: Vec<Series> = samples
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
            let own = labels.trim_end_matches('}');
            let comma = if own.is_empty() { "" } else { "," };
            let labels = format!("{{{own}{comma}pod=\"{pod}\"}}");
            Series { pod: pod.to_owned(), name: name.to_owned(), labels, value: value.to_owned() }
        })
        .collect();
    assert!(!all.is_empty(), "{text}");
    all
}

/// The series of a keeper that holds the lease.
pub(crate) fn keeper(pod: &str) -> Vec<Series> {
    read(pod, HOLDING)
}

/// The series of core about its days, scraped by a job of this name.
pub(crate) fn core(pod: &str, job: &str) -> Vec<Series> {
    let mut all = read(pod, DAYS);
    for series in &mut all {
        series.labels = series.labels.replace('}', &format!(",job=\"{job}\"}}"));
    }
    all
}

/// The same with another value of one series in these pods.
pub(crate) fn set(mut all: Vec<Series>, pods: &[&str], name: &str, value: &str) -> Vec<Series> {
    for pod in pods {
        let found = all.iter_mut().find(|series| series.pod == *pod && series.name == name);
        value.clone_into(&mut found.unwrap_or_else(|| panic!("{pod} shows no {name}")).value);
    }
    all
}

/// The same without the series of that beginning.
pub(crate) fn without(mut all: Vec<Series>, beginning: &str) -> Vec<Series> {
    let before = all.len();
    all.retain(|series| !series.name.starts_with(beginning));
    assert!(all.len() < before, "nobody shows {beginning}");
    all
}
