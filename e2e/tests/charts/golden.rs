//! Golden renders under `charts/*/tests/golden`.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use crate::helm::{Chart, ValueSet};

fn folder(chart: &Chart) -> PathBuf {
    chart.folder().join("tests/golden")
}

/// Whether files are to be rewritten instead of compared.
pub(crate) fn update_wanted() -> bool {
    std::env::vars_os().any(|(name, value)| name == "UPDATE_GOLDEN" && value == "1")
}

/// Compares a render with its golden file, or rewrites the file. Answers the first line that differs.
pub(crate) fn compare(chart: &Chart, set: &str, rendered: &str) -> Option<String> {
    let file = folder(chart).join(format!("{set}.yaml"));
    if update_wanted() {
        fs::create_dir_all(folder(chart)).unwrap();
        fs::write(&file, rendered).unwrap();
        return None;
    }
    let golden = fs::read_to_string(&file).unwrap_or_default();
    if golden == rendered {
        return None;
    }
    let number = golden.lines().zip(rendered.lines()).take_while(|(a, b)| a == b).count();
    let line = |text: &str| text.lines().nth(number).unwrap_or("(end)").to_owned();
    let (old, new) = (line(&golden), line(rendered));
    Some(format!("{} line {}: golden {old:?}, rendered {new:?}", file.display(), number + 1))
}

/// Golden files that no value set makes any more.
pub(crate) fn leftovers(chart: &Chart, sets: &[ValueSet]) -> Vec<String> {
    let made: BTreeSet<String> = sets.iter().map(|set| format!("{}.yaml", set.name)).collect();
    fs::read_dir(folder(chart))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !made.contains(name))
        .map(|name| format!("{} {name}: no value set makes it", chart.name))
        .collect()
}
