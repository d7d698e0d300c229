//! What pages ask of kubectl: its flags, and kinds, names, labels and fields of what the charts install.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Flags of the pages, of kubectl and of helm, whose value is the next word.
const VALUED: [&str; 10] = [
    "--context",
    "--for",
    "--kube-context",
    "--kubeconfig",
    "--namespace",
    "--values",
    "-f",
    "-l",
    "-n",
    "-o",
];

/// How pages may write a kind.
const KINDS: [(&str, &str); 15] = [
    ("deployment", "Deployment"),
    ("deployments", "Deployment"),
    ("lease", "Lease"),
    ("nodes", "Node"),
    ("pdb", "PodDisruptionBudget"),
    ("pod", "Pod"),
    ("pods", "Pod"),
    ("podmonitor", "PodMonitor"),
    ("secret", "Secret"),
    ("servicemonitor", "ServiceMonitor"),
    ("tradingregion", "TradingRegion"),
    ("tradingregions", "TradingRegion"),
    ("tradingregions.regions.trading.dev", "TradingRegion"),
    ("events", "Event"),
    ("jobs", "Job"),
];

/// One call of kubectl, or of helm, whose command lines are built alike.
#[derive(Debug, Default)]
pub(crate) struct Call {
    /// `get`, or `rollout restart`.
    pub(crate) verb: String,
    namespace: Option<String>,
    selector: Option<String>,
    /// JSONPath of `-o jsonpath=`.
    jsonpath: Option<String>,
    /// Kind and name; no name for all of a kind.
    pub(crate) targets: Vec<(String, Option<String>)>,
}

impl Call {
    /// Understands the words after the program.
    pub(crate) fn new(words: &[String]) -> Self {
        let (mut call, mut plain, mut rest) = (Self::default(), Vec::new(), words.iter());
        while let Some(word) = rest.next() {
            let value = if VALUED.contains(&word.as_str()) { rest.next() } else { None };
            match (word.as_str(), value) {
                ("-n" | "--namespace", Some(value)) => call.namespace = Some(value.clone()),
                ("-l", Some(value)) => call.selector = Some(value.clone()),
                ("-o", Some(value)) => call.jsonpath = value.strip_prefix("jsonpath=").map(str::to_owned),
                ("--for", Some(value)) => plain.push(value.as_str()),
                (word, None) if !word.starts_with('-') => plain.push(word),
                _ => {}
            }
        }
        let verbs = if plain.first() == Some(&"rollout") { 2 } else { 1 };
        call.verb = plain.iter().take(verbs).copied().collect::<Vec<_>>().join(" ");
        let objects = plain.get(verbs..).unwrap_or_default();
        if let Some((kind, name)) = objects.first().and_then(|word| word.split_once('/')) {
            call.targets.push((kind.to_owned(), Some(name.to_owned())));
        } else if let Some((kinds, names)) = objects.split_first() {
            let name = names.first().map(|name| (*name).to_owned());
            call.targets.extend(kinds.split(',').map(|kind| (kind.to_owned(), name.clone())));
        } else if call.verb == "logs" {
            call.targets.push(("pods".into(), None));
        }
        call
    }
}

/// What the charts install, by the pages' release names, and what an application brings along.
pub(crate) struct Installed {
    /// Namespace and object.
    objects: Vec<(&'static str, Value)>,
    definition: Value,
    wiring: String,
}

impl Installed {
    /// Reads the golden renders; a test of the charts keeps them equal to the templates.
    pub(crate) fn read(root: &Path) -> Self {
        let mut objects = Vec::new();
        for (chart, golden) in [
            ("trading-region-operator", "service-monitor"),
            ("trading", "service-monitor"),
            ("trading", "reconciliation-continuous"),
        ] {
            let file = root.join("charts").join(chart).join(format!("tests/golden/{golden}.yaml"));
            // The release name of the renders; pages install under the chart's own name.
            let text = fs::read_to_string(file).unwrap().replace("release-name-", "");
            let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
            objects.extend(all.into_iter().filter(|object| !object.is_null()).map(|object| (chart, object)));
        }
        let file = root.join("crds/yaml/tradingregions.regions.trading.dev.yaml");
        let definition = serde_saphyr::from_str(&fs::read_to_string(file).unwrap()).unwrap();
        Self { objects, definition, wiring: fs::read_to_string(root.join("docs/wiring.md")).unwrap() }
    }

    /// What is wrong with a call; empty if nothing is.
    pub(crate) fn faults(&self, call: &Call) -> Vec<String> {
        let mut faults = Vec::new();
        let namespace = call.namespace.as_deref();
        if namespace.is_some_and(|name| !["trading", "trading-region-operator"].contains(&name)) {
            faults.push(format!("namespace {namespace:?}"));
        }
        for (word, name) in &call.targets {
            let Some((_, kind)) = KINDS.iter().find(|(known, _)| known == word) else {
                faults.push(format!("kind {word}"));
                continue;
            };
            if name.as_deref().is_some_and(|name| !self.has(namespace, kind, name)) {
                faults.push(format!("no {kind} {name:?} in namespace {namespace:?}"));
            }
            if call.selector.as_deref().is_some_and(|label| !self.labelled(namespace, kind, label)) {
                faults.push(format!("no {kind} with {:?} in namespace {namespace:?}", call.selector));
            }
            if let Some(path) = call.jsonpath.as_deref().filter(|_| *kind == "TradingRegion") {
                faults.extend(self.unknown_fields(path));
            }
        }
        faults
    }

    fn of<'a>(&'a self, namespace: Option<&'a str>, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        let here = self.objects.iter().filter(move |(chart, _)| namespace == Some(*chart));
        here.map(|(_, object)| object).filter(move |object| object["kind"] == kind)
    }

    fn has(&self, namespace: Option<&str>, kind: &str, name: &str) -> bool {
        match kind {
            // A word for the reader to replace.
            "Pod" => name.starts_with('$') || name.chars().all(|c| c.is_ascii_uppercase() || c == '-'),
            "TradingRegion" => name == "trade-matching",
            "Secret" => {
                let pattern = name.replace("trade-matching", "<app>");
                let pattern = pattern.replace("us-east-1", "<region>").replace("us-west-2", "<region>");
                self.wiring.contains(&format!("`{pattern}`"))
            }
            "Lease" => self.of(namespace, "Deployment").any(|object| {
                let variables = &object["spec"]["template"]["spec"]["containers"][0]["env"];
                variables
                    .as_array()
                    .into_iter()
                    .flatten()
                    .any(|v| v["name"] == "LEASE_NAME" && v["value"] == name)
            }),
            _ => self.of(namespace, kind).any(|object| object["metadata"]["name"] == name),
        }
    }

    fn labelled(&self, namespace: Option<&str>, kind: &str, label: &str) -> bool {
        let (key, value) = label.split_once('=').unwrap_or_default();
        if kind == "Pod" {
            let mut pods = self.of(namespace, "Deployment").map(|object| &object["spec"]["template"]);
            return pods.any(|pod| pod["metadata"]["labels"][key] == value);
        }
        self.of(namespace, kind).any(|object| object["metadata"]["labels"][key] == value)
    }

    /// Fields of a JSONPath that the definition of TradingRegion does not have.
    pub(crate) fn unknown_fields(&self, template: &str) -> Vec<String> {
        let whole = &self.definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let (mut unknown, mut base) = (Vec::new(), Some(whole));
        for part in template.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(part, _)| part)
        {
            if part == "end" {
                base = Some(whole);
                continue;
            }
            let path = part.strip_prefix("range ").unwrap_or(part);
            if !path.starts_with('.') {
                continue;
            }
            let found = base.and_then(|schema| field(schema, path));
            if found.is_none() {
                unknown.push(format!("TradingRegion has no {path}"));
            }
            if part.starts_with("range ") {
                base = found;
            }
        }
        unknown
    }

    /// The names of all kinds that the charts make and a page may ask for.
    pub(crate) fn kinds(&self) -> BTreeSet<&str> {
        self.objects.iter().filter_map(|(_, object)| object["kind"].as_str()).collect()
    }
}

/// The schema of `.a.b[*].c`; brackets choose among elements.
fn field<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    let mut plain = String::new();
    let mut depth = 0_u32;
    for c in path.chars() {
        depth += u32::from(c == '[');
        if depth == 0 {
            plain.push(c);
        }
        depth -= u32::from(c == ']');
    }
    plain.split('.').skip(1).try_fold(schema, |schema, name| {
        let schema = schema.get("items").unwrap_or(schema);
        let named = schema["properties"].get(name);
        named.or_else(|| schema.get("additionalProperties").filter(|any| any.is_object()))
    })
}
