//! `cargo xtask test`: every test, in the order of how soon it can fail.

use std::time::Instant;

use anyhow::{Result, bail};
use clap::Args;

use crate::cargo::{build, cargo, cargo_output, stage};
use crate::two_regions::{Assets, ENDS, on_two_regions};

/// What to leave out while working on one part. Without options: formatting, lints, the tests of each part, then end to
/// end on two regions.
#[derive(Debug, Args)]
#[command(after_help = ENDS)]
pub(crate) struct Arguments {
    /// Leave out what needs the two regions: nothing runs end to end.
    #[arg(long)]
    no_lab: bool,
    /// Leave the two regions up afterwards.
    #[arg(long, conflicts_with = "no_lab")]
    keep: bool,
    /// Only end-to-end tests whose name contains this, and nothing before them.
    #[arg(long, conflicts_with = "no_lab", value_name = "TEXT")]
    only: Option<String>,
    #[command(flatten)]
    assets: Assets,
}

/// Targets that need the two regions; `e2e/Cargo.toml` keeps a plain `cargo test` from running them.
/// Cargo runs them in the order of their names: the second application is installed when the tests of one are through.
const ON_TWO_REGIONS: [&str; 3] = ["charts_admission", "regions", "two_applications"];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    stage("packages, programs and servers of the lab", || {
        lab::packages::ensure()?;
        lab::binaries::ensure(arguments.assets.folder.as_deref())?;
        lab::rootfs::ensure()?;
        Ok(())
    })?;
    if arguments.only.is_none() {
        stage("formatting", || cargo(&["fmt", "--all", "--check"]))?;
        stage("lints", || {
            // What `cargo test` leaves out, `--all-targets` leaves out too.
            let end_to_end = ON_TWO_REGIONS.map(|target| ["--test", target]).concat();
            [vec!["--all-targets"], end_to_end].into_iter().try_for_each(|targets| {
                let lints = ["clippy", "--quiet", "--workspace"];
                cargo(&[&lints[..], &targets, &["--", "-D", "warnings"]].concat())
            })
        })?;
        stage("programs and tests", build)?;
        stage("tests of each part", || cargo(&["test", "--workspace", "--no-fail-fast"]))?;
    }
    if !arguments.no_lab {
        end_to_end(arguments)?;
    }
    println!("all tests passed in {:.0} s", begin.elapsed().as_secs_f64());
    Ok(())
}

fn end_to_end(arguments: &Arguments) -> Result<()> {
    let filter = arguments.only.as_deref();
    if let Some(text) = filter {
        stage("choosing tests", || {
            let chosen = listed(&cargo_output(&words(&["--list"], filter))?);
            if chosen == 0 {
                bail!("no end-to-end test has {text:?} in its name");
            }
            eprintln!("   {chosen} with {text:?} in their name");
            Ok(())
        })?;
    }
    on_two_regions(arguments.keep, &arguments.assets, |_| {
        stage("end to end on two regions", || cargo(&words(&["--test-threads", "1", "--nocapture"], filter)))
    })
}

/// Cargo's arguments to run what needs the two regions; one failure does not hide what another target would say.
fn words<'a>(options: &[&'a str], filter: Option<&'a str>) -> Vec<&'a str> {
    let mut words = vec!["test", "--workspace", "--no-fail-fast"];
    words.extend(ON_TWO_REGIONS.iter().flat_map(|target| ["--test", target]));
    words.push("--");
    words.extend(options);
    words.extend(filter);
    words
}

/// How many tests a list names.
fn listed(list: &str) -> usize {
    list.lines().filter(|line| line.ends_with(": test")).count()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn whatever_cargo_test_leaves_out_runs_on_the_two_regions() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("e2e/Cargo.toml");
        let manifest: toml::Table = std::fs::read_to_string(manifest).unwrap().parse().unwrap();
        let targets = manifest["test"].as_array().unwrap().iter();
        let left_out =
            targets.filter(|target| target.get("test").and_then(toml::Value::as_bool) == Some(false));
        let left_out: BTreeSet<&str> = left_out.map(|target| target["name"].as_str().unwrap()).collect();
        let words = words(&[], None);
        let run = words.windows(2).filter(|pair| pair[0] == "--test").map(|pair| pair[1]);
        assert_eq!(run.collect::<BTreeSet<_>>(), left_out);
        assert!(ON_TWO_REGIONS.is_sorted(), "Cargo runs them in another order than they stand here");
    }

    #[test]
    fn a_list_without_tests_counts_none() {
        assert_eq!(
            listed("abort::a_spec_that_goes_back: test\nswitch::under_load: test\n\n2 tests, 0 benchmarks\n"),
            2
        );
        assert_eq!(listed("0 tests, 0 benchmarks\n"), 0);
    }
}
