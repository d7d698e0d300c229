//! The page about conditions names what the code knows, in the same order.
#![allow(clippy::panic, clippy::unwrap_used, reason = "a test ends at the first surprise")]

use crds::conditions::{ALL, reason};

const PAGE: &str = include_str!("../../docs/conditions.md");

/// The first column of the table under that heading.
fn first_column(heading: &str) -> Vec<&'static str> {
    let (_, section) = PAGE.split_once(&format!("\n## {heading}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    section.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next()).collect()
}

#[test]
fn the_page_names_every_type_of_condition() {
    assert_eq!(first_column("Types"), ALL);
}

#[test]
fn the_page_names_every_reason() {
    assert_eq!(first_column("Reasons"), reason::ALL);
}
