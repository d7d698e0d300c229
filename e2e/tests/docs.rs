//! The documents point to what exists: links between pages, the files of the architecture's table, and commands whose
//! verbs, flags and objects are real.

#![expect(
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests: a failure here is the failure of the test"
)]

#[path = "docs/commands.rs"]
mod commands;
#[path = "docs/kubectl.rs"]
mod kubectl;

use std::fs;
use std::path::{Path, PathBuf};
use std::process;

use clap::Parser as _;
use clap::error::ErrorKind;
use commands::{Command, commands};

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

/// Every page of the repository that is not generated.
fn all_pages() -> Vec<PathBuf> {
    let root = repository();
    let mut all = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for folder in ["docs", "e2e", "operator", "charts"] {
        pages(&root.join(folder), &mut all);
    }
    all
}

fn documented() -> Vec<Command> {
    commands(&repository(), &all_pages())
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
    let mut checked = 0;
    for page in all_pages() {
        for target in links(&fs::read_to_string(&page).unwrap()) {
            let file = page.parent().unwrap().join(&target);
            assert!(file.exists(), "{} links to {target}, which does not exist", page.display());
            checked += 1;
        }
    }
    assert!(checked > 20, "only {checked} links were found");
}

#[test]
fn every_decision_record_and_every_runbook_is_linked_from_some_page() {
    let root = repository();
    let linked: Vec<PathBuf> = all_pages()
        .iter()
        .flat_map(|page| {
            let folder = page.parent().unwrap().to_owned();
            links(&fs::read_to_string(page).unwrap()).into_iter().map(move |link| folder.join(link))
        })
        .filter_map(|link| link.canonicalize().ok())
        .collect();
    let mut alone: Vec<PathBuf> = Vec::new();
    for folder in ["docs/adr", "docs/runbooks"] {
        pages(&root.join(folder), &mut alone);
    }
    alone.retain(|page| {
        !linked.contains(&page.canonicalize().unwrap()) && !page.ends_with("0000-template.md")
    });
    assert!(alone.is_empty(), "no page leads to {alone:?}");
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

/// Help and version count as understood, and so does a verb alone: the text speaks of the command.
fn refusal(arguments: &[String], result: Result<(), clap::Error>) -> Option<String> {
    let error = result.err()?;
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => None,
        ErrorKind::MissingRequiredArgument if arguments.len() == 1 => None,
        _ => Some(error.to_string()),
    }
}

#[test]
fn every_command_of_the_plugin_in_the_pages_is_one_that_it_takes() {
    let mut checked = 0;
    for command in documented() {
        let Some(arguments) = command.arguments_of(&["kubectl", "region"]) else { continue };
        let words = ["kubectl-region"].into_iter().chain(arguments.iter().map(String::as_str));
        let refused = refusal(arguments, kubectl_region::Cli::try_parse_from(words).map(drop));
        assert_eq!(refused, None, "{}", command.title());
        checked += 1;
    }
    assert!(checked >= 25, "only {checked} commands were found");
}

/// The lines `  cargo xtask …` of a help text, without what they explain after two blanks.
fn examples(help: &str) -> Vec<Vec<String>> {
    let lines = help.lines().filter_map(|line| line.strip_prefix("  cargo xtask "));
    lines.map(|line| shlex::split(line.split("  ").next().unwrap()).unwrap()).collect()
}

#[test]
fn the_examples_that_xtask_shows_are_ones_that_it_takes() {
    let mut all = xtask::command();
    let mut shown = examples(&all.render_help().to_string());
    for task in all.get_subcommands_mut() {
        shown.extend(examples(&task.render_help().to_string()));
    }
    assert!(shown.len() >= 8, "{shown:?}");
    for arguments in shown {
        let words = ["cargo xtask"].into_iter().chain(arguments.iter().map(String::as_str));
        let refused = refusal(&arguments, xtask::command().try_get_matches_from(words).map(drop));
        assert_eq!(refused, None, "{arguments:?}");
    }
}

#[test]
fn every_task_in_the_pages_is_one_that_xtask_takes() {
    let mut checked = 0;
    for command in documented() {
        let Some(arguments) = command.arguments_of(&["cargo", "xtask"]) else { continue };
        let words = ["cargo xtask"].into_iter().chain(arguments.iter().map(String::as_str));
        let refused = refusal(arguments, xtask::command().try_get_matches_from(words).map(drop));
        assert_eq!(refused, None, "{}", command.title());
        checked += 1;
    }
    assert!(checked >= 15, "only {checked} commands were found");
}

/// With `--help` kubectl and helm read all flags, refuse those that they do not know, and ask no cluster.
fn refused_by(program: &str, arguments: &[String], verb: &str) -> Option<String> {
    let path = lab::binaries::ensure(None).and_then(|all| all.path(program)).unwrap();
    let mut command = process::Command::new(path);
    let output = command.args(arguments).arg("--help").env("KUBECONFIG", "/dev/null").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let said = text(&output.stdout) + &text(&output.stderr);
    let understood = output.status.success() && said.contains(&format!("\n  {program} {verb}"));
    (!understood).then_some(said)
}

#[test]
fn every_call_of_kubectl_in_the_pages_names_flags_and_objects_that_exist() {
    let installed = kubectl::Installed::read(&repository());
    assert!(installed.kinds().contains("Deployment"), "{:?}", installed.kinds());
    let mut checked = 0;
    for command in documented() {
        if let Some([template]) = command.arguments_of(&["field"]) {
            assert_eq!(installed.unknown_fields(template), [""; 0], "{}", command.title());
        }
        let Some(arguments) = command.arguments_of(&["kubectl"]) else { continue };
        if arguments[0] == "region" {
            continue;
        }
        let call = kubectl::Call::new(arguments);
        assert_eq!(installed.faults(&call), [""; 0], "{} {call:?}", command.title());
        assert_eq!(refused_by("kubectl", arguments, &call.verb), None, "{}", command.title());
        checked += 1;
    }
    assert!(checked >= 35, "only {checked} calls were found");
}

#[test]
fn every_call_of_helm_in_the_pages_names_flags_releases_and_charts_that_exist() {
    let mut checked = 0;
    for command in documented() {
        let Some(arguments) = command.arguments_of(&["helm"]) else { continue };
        let call = kubectl::Call::new(arguments);
        assert_eq!(refused_by("helm", arguments, &call.verb), None, "{}", command.title());
        // Pages install a chart under its own name, or name it.
        let (release, named) = &call.targets[0];
        let chart = named.clone().filter(|path| path.starts_with("charts/"));
        let chart = chart.unwrap_or_else(|| format!("charts/{release}"));
        assert!(repository().join(&chart).exists(), "{}: there is no {chart}", command.title());
        checked += 1;
    }
    assert!(checked >= 6, "only {checked} calls were found");
}
