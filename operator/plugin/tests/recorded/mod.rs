//! Recorded states, and what was recorded of them.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of this module")]

use std::path::{Path, PathBuf};

use crds::TradingRegion;
use jiff::Timestamp;
use kubectl_region::{Copy, CopyError, View, build};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    pub now: Timestamp,
    pub exit: Codes,
    pub east: Side,
    pub west: Side,
}

/// What commands end with in the state.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Codes {
    pub status: u8,
    pub switch: u8,
    pub abort: u8,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Side {
    #[serde(default)]
    pub generation: i64,
    pub wants: Option<String>,
    pub status: Option<Value>,
    pub unreachable: Option<String>,
    pub not_understood: Option<String>,
}

pub fn states() -> Vec<(String, State)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/states");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let read = |file: &PathBuf| {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(file).unwrap();
        let state = serde_saphyr::from_str(&text).unwrap_or_else(|why| panic!("{name}: {why}"));
        (name, state)
    };
    files.iter().map(read).collect()
}

/// The state of that name.
pub fn state(name: &str) -> State {
    states().into_iter().find(|(known, _)| known == name).unwrap_or_else(|| panic!("no state {name}")).1
}

pub fn example() -> Value {
    serde_saphyr::from_str(include_str!("../../../../crds/examples/trade-matching.yaml")).unwrap()
}

/// A copy as its API server holds it.
pub fn object(side: &Side) -> Value {
    let mut object = example();
    object["metadata"]["generation"] = json!(side.generation);
    object["spec"]["activeRegion"] = json!(side.wants);
    if let Some(status) = &side.status {
        object["status"] = status.clone();
    }
    object
}

pub fn copy(context: &str, side: &Side) -> Copy {
    let context = context.to_owned();
    let failed = |object| Copy { context: context.clone(), region: None, object: Err(object) };
    if let Some(why) = &side.unreachable {
        return failed(CopyError::Unreachable { context: context.clone(), why: why.clone() });
    }
    if let Some(why) = &side.not_understood {
        return failed(CopyError::Skew { context: context.clone(), why: why.clone() });
    }
    let object: TradingRegion = serde_json::from_value(object(side)).unwrap();
    Copy { region: Some(context.clone()), context: context.clone(), object: Ok(Box::new(object)) }
}

pub fn view(state: &State) -> View {
    let copies = [copy("us-east-1", &state.east), copy("us-west-2", &state.west)];
    build(&copies, None, state.now).expect("one copy is known")
}

/// Compares with the recorded file of this crate. A difference is written beside it as `.new`, to be looked at and renamed.
pub fn same_as_recorded(file: &str, now: &str) -> Result<(), String> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file);
    let new = PathBuf::from(format!("{}.new", shown(&path)));
    if std::fs::read_to_string(&path).is_ok_and(|recorded| recorded == now) {
        // Left over from an earlier difference, if there was one.
        let _ = std::fs::remove_file(&new);
        return Ok(());
    }
    std::fs::write(&new, now).map_err(|why| why.to_string())?;
    Err(format!("differs from what was recorded: compare {} with {}", shown(&path), shown(&new)))
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
