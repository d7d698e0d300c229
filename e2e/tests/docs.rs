//! The documents point to what exists: links between pages, and the files of the architecture's table.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the failure of the test")]

use std::fs;
use std::path::{Path, PathBuf};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn pages(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            pages(&path, found);
        } else if path.extension().is_some_and(|ending| ending == "md") {
            found.push(path);
        }
    }
}

/// Targets of `[text](target)` that are files of this repository.
fn links(text: &str) -> Vec<String> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .filter(|target| !target.contains("://") && !target.starts_with('#'))
        .map(|target| target.split('#').next().unwrap_or(target).to_owned())
        .collect()
}

/// `a/{b,c}.rs` as `a/b.rs` and `a/c.rs`; a name with a star stands for its folder.
fn expand(pattern: &str) -> Vec<String> {
    if let Some((folder, _)) = pattern.split_once('*') {
        return vec![folder.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned()];
    }
    let Some((before, rest)) = pattern.split_once('{') else { return vec![pattern.to_owned()] };
    let (names, after) = rest.split_once('}').unwrap();
    names.split(',').map(|name| format!("{before}{name}{after}")).collect()
}

#[test]
fn every_link_between_pages_leads_somewhere() {
    let root = repository();
    let mut all = vec![root.join("CONTRIBUTING.md")];
    pages(&root.join("docs"), &mut all);
    let mut checked = 0;
    for page in all {
        for target in links(&fs::read_to_string(&page).unwrap()) {
            let file = page.parent().unwrap().join(&target);
            assert!(file.exists(), "{} links to {target}, which does not exist", page.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn every_file_of_the_architecture_table_exists() {
    let root = repository();
    let text = fs::read_to_string(root.join("docs/architecture.md")).unwrap();
    let table = text.split("## Component, file, test").nth(1).unwrap().split("\n\n").next().unwrap();
    let named: Vec<&str> = table.split('`').skip(1).step_by(2).collect();
    assert!(named.len() > 30, "only {} files are named", named.len());
    let missing: Vec<String> =
        named.into_iter().flat_map(expand).filter(|file| !root.join(file).exists()).collect();
    assert!(missing.is_empty(), "the table names what does not exist: {missing:?}");
}
