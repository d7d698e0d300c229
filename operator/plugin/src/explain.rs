//! What a finding means, offline: the page of the documentation is part of the program.

use serde::Serialize;

const PAGE: &str = include_str!("../../../docs/findings.md");
/// Its place in the repository.
const PAGE_PATH: &str = "docs/findings.md";

/// One finding explained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Entry {
    /// The code.
    pub code: &'static str,
    /// Its name.
    pub name: &'static str,
    /// Whether it keeps a planned run from starting.
    pub blocks: bool,
    /// What it says.
    pub meaning: &'static str,
    /// What usually lies behind it.
    pub cause: &'static str,
    /// What to do next.
    pub next: &'static str,
    /// Where the documentation has it.
    pub docs: String,
}

/// All entries of the page, in its order.
pub fn entries() -> Vec<Entry> {
    PAGE.split("\n## ").skip(1).filter_map(entry).collect()
}

/// The entry of a code, however it is capitalised.
pub fn explain(code: &str) -> Option<Entry> {
    entries().into_iter().find(|entry| entry.code.eq_ignore_ascii_case(code.trim()))
}

fn entry(section: &'static str) -> Option<Entry> {
    let mut lines = section.lines();
    let (code, name) = lines.next()?.split_once(' ')?;
    let part = |label: &str| section.lines().find_map(|line| line.strip_prefix(label)).map(str::trim);
    Some(Entry {
        code,
        name,
        blocks: lines.next()? == "Blocks.",
        meaning: part("Meaning:")?,
        cause: part("Cause:")?,
        next: part("Next:")?,
        docs: format!("{PAGE_PATH}#{}-{}", code.to_lowercase(), name.to_lowercase()),
    })
}

#[cfg(test)]
mod tests {
    use region_plan::Code;

    use super::*;

    #[test]
    fn the_page_and_the_code_know_the_same_findings() {
        let page: Vec<(&str, bool)> = entries().iter().map(|entry| (entry.code, entry.blocks)).collect();
        let code: Vec<(&str, bool)> = Code::ALL.iter().map(|code| (code.text(), code.blocks())).collect();
        assert_eq!(page, code);
    }

    #[test]
    fn every_entry_says_what_to_do() {
        for entry in entries() {
            assert!(entry.next.contains(' '), "{} says nothing next", entry.code);
            assert!(
                entry.meaning.ends_with('.') && entry.cause.ends_with('.'),
                "{} is no sentence",
                entry.code
            );
        }
    }

    #[test]
    fn each_plugin_command_of_the_page_is_understood_by_the_plugin() {
        use clap::Parser as _;
        let commands = PAGE.split('`').filter(|text| text.starts_with("kubectl region "));
        let mut count = 0;
        for command in commands {
            let words = command.split_whitespace().skip(1);
            crate::Cli::try_parse_from(words).unwrap_or_else(|why| panic!("{command}: {why}"));
            count += 1;
        }
        assert!(count > 10, "only {count} commands were found");
    }
}
