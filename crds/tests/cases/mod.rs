//! Objects that must be accepted and objects that must be refused, as changes of `examples/trade-matching.yaml`.
//!
//! Shared by the tests of the rules (here, without a server) and by the end-to-end tests (a real API server).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// One object, and what must be said of it.
pub struct Case {
    /// File and title.
    pub name: String,
    /// The object.
    pub object: Value,
    /// The object that is there before; absent: it is created.
    pub old: Option<Value>,
    /// What the refusal must say; absent: it must be accepted.
    pub refused: Option<String>,
    /// Whether the refusal comes from a CEL rule, or from the schema itself.
    #[allow(dead_code, reason = "on real API servers both are compared alike")]
    pub by_rule: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    /// What is tried.
    title: String,
    /// JSON pointers and their new values, set on the example.
    #[serde(default)]
    set: BTreeMap<String, Value>,
    /// JSON pointers of what is taken out of the example.
    #[serde(default)]
    remove: Vec<String>,
    /// Whether the example is there before.
    #[serde(default)]
    update: bool,
    /// The rule's message, or a part of the schema's.
    rule: Option<String>,
    schema: Option<String>,
}

/// The object that all cases change.
pub fn example() -> Value {
    read(&folder().join("../../examples/trade-matching.yaml"))
}

/// The other application's object.
#[allow(dead_code, reason = "the tests on a real API server have it installed instead")]
pub fn settlement() -> Value {
    read(&folder().join("../../examples/settlement.yaml"))
}

/// All cases of `accepted` and `refused`.
pub fn all() -> Vec<Case> {
    let mut files: Vec<PathBuf> = ["accepted", "refused"]
        .iter()
        .flat_map(|kind| std::fs::read_dir(folder().join(kind)).expect("the folder of cases exists"))
        .map(|entry| entry.expect("the folder of cases can be read").path())
        .collect();
    files.sort();
    files.iter().flat_map(|file| cases_of(file)).collect()
}

fn cases_of(file: &Path) -> Vec<Case> {
    let refused_file = file.parent().is_some_and(|folder| folder.ends_with("refused"));
    let written: Vec<Written> =
        serde_json::from_value(read(file)).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    let case = |written: Written| {
        let name = format!("{}: {}", file.file_name().unwrap_or_default().display(), written.title);
        assert_eq!(
            refused_file,
            written.rule.is_some() != written.schema.is_some(),
            "{name}: say how it is refused, once"
        );
        let mut object = example();
        for (pointer, value) in written.set {
            set(&mut object, &pointer, value);
        }
        for pointer in &written.remove {
            remove(&mut object, pointer);
        }
        let by_rule = written.rule.is_some();
        let old = written.update.then(example);
        Case { name, object, old, refused: written.rule.or(written.schema), by_rule }
    };
    written.into_iter().map(case).collect()
}

fn set(object: &mut Value, pointer: &str, value: Value) {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_else(|| panic!("{pointer} is no pointer"));
    match object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}")) {
        Value::Object(map) => drop(map.insert(key.replace("~1", "/"), value)),
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            list[key.parse::<usize>().unwrap_or_else(|_| panic!("{pointer} is no pointer"))] = value
        }
        _ => panic!("{parent} has no parts"),
    }
}

fn remove(object: &mut Value, pointer: &str) {
    let (parent, key) = pointer.rsplit_once('/').unwrap_or_else(|| panic!("{pointer} is no pointer"));
    let removed = match object.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}")) {
        Value::Object(map) => map.remove(key).is_some(),
        Value::Array(list) => {
            key.parse::<usize>().ok().filter(|at| *at < list.len()).map(|at| list.remove(at)).is_some()
        }
        _ => false,
    };
    assert!(removed, "nothing at {pointer}");
}

fn read(file: &Path) -> Value {
    let text = std::fs::read_to_string(file).unwrap_or_else(|why| panic!("{}: {why}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|why| panic!("{}: {why}", file.display()))
}

/// The end-to-end tests include this module too: the folder lies beside their crate then.
fn folder() -> PathBuf {
    let own = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    if own.ends_with("crds") { own.join("tests/cases") } else { own.join("../crds/tests/cases") }
}
