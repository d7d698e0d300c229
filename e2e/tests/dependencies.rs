//! The rules of `deny.toml` that gate a change: licences, bans, sources. `cargo deny` checks the same and more, but takes
//! longer to install on a fresh machine than everything else that runs before the tests; Cargo alone knows enough for
//! these three. Advisories are left to people with `cargo deny check advisories`.

#![expect(clippy::unwrap_used, reason = "helpers of tests: a failure here is the failure of the test")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use spdx::{Expression, ParseMode};
use toml::{Table, Value};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(file: &str) -> Table {
    fs::read_to_string(repository().join(file)).unwrap().parse().unwrap()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect()
}

/// Name and licence of every crate that is really compiled for the targets of `deny.toml`, tests included.
fn compiled(rules: &Table, more: &[&str]) -> BTreeMap<String, String> {
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(repository()).args(["tree", "--locked", "--workspace", "--all-features"]);
    command.args(["--edges", "normal,build,dev", "--prefix", "none", "--format", "{p}|{l}"]).args(more);
    for target in texts(&rules["graph"]["targets"]) {
        command.args(["--target", target]);
    }
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter_map(|line| line.trim_end_matches(" (*)").split_once('|'));
    lines.map(|(package, licence)| (package.to_owned(), licence.to_owned())).collect()
}

fn name(package: &str) -> &str {
    package.split(' ').next().unwrap_or(package)
}

#[test]
fn every_licence_is_one_that_is_allowed() {
    let rules = read("deny.toml");
    let allowed = texts(&rules["licenses"]["allow"]);
    let crates = compiled(&rules, &[]);
    assert!(crates.len() > 300, "only {} crates were found", crates.len());
    for (package, licence) in crates {
        // "MIT/Apache-2.0" is how older crates write "or".
        let expression = Expression::parse_mode(&licence, ParseMode::LAX)
            .unwrap_or_else(|error| panic!("{package} has no licence that can be understood: {error}"));
        let fits = expression.evaluate(|wanted| allowed.contains(&wanted.to_string().as_str()));
        assert!(fits, "{package}: {licence} is not allowed by deny.toml");
    }
}

#[test]
fn no_crate_is_one_that_is_banned() {
    let rules = read("deny.toml");
    let crates = compiled(&rules, &[]);
    let bans = rules["bans"]["deny"].as_array().unwrap();
    assert!(bans.len() >= 5, "{bans:?}");
    for ban in bans {
        let banned = ban["crate"].as_str().unwrap();
        if !crates.keys().any(|package| name(package) == banned) {
            continue;
        }
        let wrappers = ban.get("wrappers").map(texts).unwrap_or_default();
        // The crate itself, then who needs it.
        let users = compiled(&rules, &["--invert", banned, "--depth", "1"]);
        let wrong: Vec<&String> =
            users.keys().filter(|user| name(user) != banned && !wrappers.contains(&name(user))).collect();
        assert!(wrong.is_empty(), "{banned} is banned ({:?}) and used by {wrong:?}", ban["reason"]);
        assert!(users.len() > 1, "nobody uses {banned}");
    }
}

#[test]
fn every_crate_comes_from_the_registry_with_a_checksum_or_lies_here() {
    let rules = read("deny.toml");
    let registries: Vec<String> =
        texts(&rules["sources"]["allow-registry"]).iter().map(|url| format!("registry+{url}")).collect();
    let lock = read("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    let members = read("Cargo.toml")["workspace"]["members"].as_array().unwrap().len();
    assert_eq!(packages.iter().filter(|package| package.get("source").is_none()).count(), members);
    for package in packages.iter().filter(|package| package.get("source").is_some()) {
        let source = package["source"].as_str().unwrap();
        assert!(
            registries.iter().any(|registry| registry == source),
            "{:?} is from {source}",
            package["name"]
        );
        assert!(package.get("checksum").is_some(), "{:?} has no checksum", package["name"]);
    }
}
