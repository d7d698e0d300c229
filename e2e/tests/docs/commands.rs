//! The command lines that pages show: in `sh` blocks, and as `code` in the text.

use std::fs;
use std::path::{Path, PathBuf};

/// Words after which a command begins, or before which one ends.
const BETWEEN: [&str; 7] = ["|", "||", "&&", "&", ";", "{", "$("];

/// One command of a page, as a shell would split it.
pub(crate) struct Command {
    /// The page, for messages.
    pub(crate) page: String,
    /// Program and arguments.
    pub(crate) words: Vec<String>,
}

impl Command {
    /// The words after a program name of several words, if it is this program with at least one argument.
    pub(crate) fn arguments_of(&self, program: &[&str]) -> Option<&[String]> {
        let (name, arguments) = self.words.split_at_checked(program.len())?;
        (name == program && !arguments.is_empty()).then_some(arguments)
    }

    /// Page and command, for messages.
    pub(crate) fn title(&self) -> String {
        format!("{}: {}", self.page, self.words.join(" "))
    }
}

/// All commands of these pages.
pub(crate) fn commands(root: &Path, pages: &[PathBuf]) -> Vec<Command> {
    let mut found = Vec::new();
    for page in pages {
        let text = fs::read_to_string(page).unwrap();
        let name = page.strip_prefix(root).unwrap().display().to_string();
        for line in lines(&text) {
            let words = split(&line).unwrap_or_else(|| panic!("{name}: a quote is not closed: {line}"));
            found.extend(words.into_iter().map(|words| Command { page: name.clone(), words }));
        }
    }
    found
}

/// Lines of `sh` blocks, with their continuations, and spans of code between the blocks.
fn lines(text: &str) -> Vec<String> {
    let (mut found, mut prose, mut block) = (Vec::new(), String::new(), None);
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => block = Some(language),
            (Some(_), Some(_)) => block = None,
            (None, Some("sh")) => found.push(line.to_owned()),
            (None, Some(_)) => {}
            (None, None) => prose.extend([line, "\n"]),
        }
    }
    assert_eq!(block, None, "a block is not closed");
    found.extend(prose.split('`').skip(1).step_by(2).map(|span| span.replace('\n', " ")));
    found
}

/// The commands of one line, without redirections.
fn split(line: &str) -> Option<Vec<Vec<String>>> {
    let line = match line.split_once("$(") {
        Some((before, rest)) => format!("{before} $( {}", rest.trim_end().trim_end_matches(')')),
        None => line.to_owned(),
    };
    let mut all = vec![Vec::new()];
    for word in shlex::split(&line)? {
        let (word, ends) = word.strip_suffix(';').map_or((word.as_str(), false), |word| (word, true));
        if BETWEEN.contains(&word) || word.starts_with('>') {
            all.push(Vec::new());
            continue;
        }
        all.last_mut()?.push(word.to_owned());
        if ends {
            all.push(Vec::new());
        }
    }
    Some(all.into_iter().filter(|words| !words.is_empty()).collect())
}
