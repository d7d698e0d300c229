//! What `kubectl region` could be continued with. kubectl asks a program of the name `kubectl_complete-region`; this
//! one answers when it is called by that name.

use std::fmt::Write as _;

use clap::{Arg, Command, CommandFactory, ValueHint};

use crate::cli::Cli;

/// The name by which kubectl asks for proposals.
const ASKED_AS: &str = "kubectl_complete-region";
/// kubectl's code for: these are all, no names of files.
const NO_FILES: &str = ":4";
/// kubectl's code for: names of files may stand here.
const FILES: &str = ":0";

/// Whether the program was called, by this path, to propose words.
pub fn asked_by(path: &str) -> bool {
    path.rsplit('/').next() == Some(ASKED_AS)
}

/// Proposals for the last word, in the form that kubectl reads: a word, a tab, what it means.
pub fn proposals(words: &[String]) -> String {
    let mut command = Cli::command();
    command.build();
    let (begun, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let mut at = &command;
    let mut valued: Option<&Arg> = None;
    for word in before {
        // A word that is the value of the option before it is nothing else.
        if valued.take().is_none() {
            valued = at.get_arguments().find(|arg| takes_value_after(arg, word));
            at = at.find_subcommand(word).unwrap_or(at);
        }
    }
    let mut text = String::new();
    for (word, meaning) in candidates(at, valued, begun) {
        if word.starts_with(begun) {
            // Writing into a String cannot fail.
            let _ = writeln!(text, "{word}\t{meaning}");
        }
    }
    let file = valued.is_some_and(|option| option.get_value_hint() == ValueHint::FilePath);
    text + if file { FILES } else { NO_FILES } + "\n"
}

fn takes_value_after(arg: &Arg, word: &str) -> bool {
    let long = word.strip_prefix("--").is_some_and(|name| arg.get_long() == Some(name));
    let short = arg.get_short().is_some_and(|letter| word == format!("-{letter}"));
    (long || short) && arg.get_action().takes_values()
}

fn candidates(at: &Command, valued: Option<&Arg>, begun: &str) -> Vec<(String, String)> {
    let told = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string).unwrap_or_default();
    let values = |arg: &Arg| -> Vec<(String, String)> {
        let values = arg.get_possible_values();
        values.iter().map(|value| (value.get_name().to_owned(), told(value.get_help()))).collect()
    };
    if let Some(option) = valued {
        return values(option);
    }
    if begun.starts_with('-') {
        let options = at.get_arguments().filter(|arg| !arg.is_hide_set());
        return options
            .filter_map(|arg| Some((format!("--{}", arg.get_long()?), told(arg.get_help()))))
            .collect();
    }
    if at.has_subcommands() {
        let commands = at.get_subcommands();
        return commands.map(|one| (one.get_name().to_owned(), told(one.get_about()))).collect();
    }
    if at.get_name() == "explain" {
        return crate::entries().iter().map(|entry| (entry.code.to_owned(), entry.name.to_owned())).collect();
    }
    at.get_positionals().flat_map(values).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proposed(words: &[&str]) -> Vec<String> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let text = proposals(&words);
        let lines = text.lines().filter(|line| *line != NO_FILES);
        lines.map(|line| line.split('\t').next().unwrap_or_default().to_owned()).collect()
    }

    #[test]
    fn commands_options_values_and_codes_are_proposed_where_they_can_stand() {
        assert_eq!(proposed(&["s"]), ["status", "switch"]);
        assert_eq!(proposed(&["-n", "status", "pl"]), ["plan"], "a value is no command");
        assert_eq!(proposed(&["switch", "us-west-2", "--re"]), ["--reason"]);
        assert_eq!(proposed(&["status", "-o", ""]), ["text", "json"]);
        assert_eq!(proposed(&["explain", "tr-", ""]).len(), region_plan::Code::ALL.len());
        assert_eq!(proposed(&["completion", "z"]), ["zsh"]);
        assert!(proposed(&["switch", ""]).is_empty(), "regions are only known to the clusters");
        assert!(proposed(&[]).contains(&"abort".to_owned()));
    }

    #[test]
    fn names_of_files_are_proposed_where_an_option_wants_one() {
        assert_eq!(proposals(&["status", "--kubeconfig", ""].map(str::to_owned)), ":0\n");
        assert_eq!(proposals(&["status", "--context", ""].map(str::to_owned)), ":4\n");
    }

    #[test]
    fn only_the_name_that_kubectl_asks_by_asks_for_proposals() {
        assert!(asked_by("/usr/local/bin/kubectl_complete-region") && asked_by("kubectl_complete-region"));
        assert!(!asked_by("/usr/local/bin/kubectl-region"));
    }
}
