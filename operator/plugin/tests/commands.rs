//! The program itself: what needs no cluster, and how it ends.
#![allow(clippy::panic, clippy::unwrap_used, unreachable_pub, reason = "a test ends at the first surprise")]

use std::process::{Command, Output};

fn run(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-region"))
        .args(words)
        .env("KUBECONFIG", "/nowhere/kubeconfig")
        .output()
        .expect("the program can be started")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn every_code_is_explained_without_a_cluster() {
    for code in region_plan::Code::ALL {
        let output = run(&["explain", code.text()]);
        assert_eq!(output.status.code(), Some(0), "{code:?}");
        let said = text(&output);
        assert!(
            said.starts_with(code.text()) && said.contains("cause: ") && said.contains("next:  "),
            "{said}"
        );
    }
}

#[test]
fn exit_codes_without_a_cluster_are_those_of_the_contract() {
    let cases: [(&[&str], i32); 8] = [
        (&["--help"], 0),
        (&["--version"], 0),
        (&["completion", "bash"], 0),
        (&["explain", "TR-9999"], 2),
        (&["switch"], 2),
        (&["switch", "us-west-2"], 2),
        (&["status", "--contexts", "a,b", "--context", "c"], 2),
        (&["status"], 2),
    ];
    for (words, code) in cases {
        let output = run(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text(&output));
    }
}

#[test]
fn help_teaches_with_examples_and_names_the_exit_codes() {
    let help = text(&run(&["--help"]));
    for part in ["kubectl region plan us-west-2", "124 timeout", "Examples:"] {
        assert!(help.contains(part), "{part} is not in {help}");
    }
}

#[test]
fn a_missing_kubeconfig_is_told_with_its_path_and_what_to_set() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none");
    for (words, path) in [
        (&["status"][..], "/nowhere/kubeconfig"),
        (&["status", "--kubeconfig", none.to_str().unwrap()], "/none"),
    ] {
        let said = text(&run(words));
        assert!(said.contains(&format!("{path}: ")) && !said.contains("context"), "{said}");
        assert!(said.contains("set KUBECONFIG") && said.contains("--kubeconfig FILE"), "{said}");
    }
    std::fs::write(&none, "{apiVersion: v1, kind: Config}").unwrap();
    let said = text(&run(&["status", "--kubeconfig", none.to_str().unwrap()]));
    assert!(said.contains("no context is chosen: name one with --context"), "{said}");
}

#[test]
fn a_reader_that_goes_early_is_no_panic() {
    for words in [&["completion", "bash"][..], &["explain"]] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = Command::new(env!("CARGO_BIN_EXE_kubectl-region"))
            .args(words)
            .stdout(writer)
            .stderr(std::process::Stdio::piped())
            .spawn()
            .and_then(std::process::Child::wait_with_output)
            .unwrap();
        assert_eq!(output.status.code(), Some(1), "{words:?}");
        assert!(text(&output).starts_with("kubectl region: cannot write the output"), "{}", text(&output));
    }
}

#[test]
fn completion_knows_every_command_in_every_shell() {
    for shell in ["bash", "zsh", "fish"] {
        let output = run(&["completion", shell]);
        assert_eq!(output.status.code(), Some(0), "{shell}");
        for command in ["status", "plan", "switch", "abort", "history", "explain"] {
            assert!(text(&output).contains(command), "{shell} lacks {command}");
        }
    }
}

#[test]
fn kubectl_gets_proposals_from_the_link_that_the_help_describes() {
    let help = text(&run(&["completion", "--help"]));
    assert!(help.contains("ln -s") && help.contains("kubectl_complete-region"), "{help}");
    let folder = tempfile::tempdir().unwrap();
    let link = folder.path().join("kubectl_complete-region");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_kubectl-region"), &link).unwrap();
    let output = Command::new(link).args(["hi"]).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let said = text(&output);
    let lines: Vec<&str> = said.lines().collect();
    assert!(lines[0].starts_with("history\tShows the last runs") && lines[1..] == [":4"], "{said}");
}
