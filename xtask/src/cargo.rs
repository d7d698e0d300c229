//! Running Cargo and other programs with their output shown, and stages with their time.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

/// Runs one stage and prints its time.
pub(crate) fn stage<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("== {name}");
    let start = Instant::now();
    let result = work().with_context(|| format!("stage “{name}” failed"));
    eprintln!(
        "== {name}: {} after {:.0} s",
        if result.is_ok() { "ok" } else { "FAILED" },
        start.elapsed().as_secs_f64()
    );
    result
}

/// Builds everything in one selection of packages and features: another selection compiles the dependencies anew.
pub(crate) fn build() -> Result<()> {
    cargo(&["build", "--workspace", "--all-targets"])
}

/// Runs cargo with its output shown.
pub(crate) fn cargo(args: &[&str]) -> Result<()> {
    shown(Command::new(env!("CARGO")).args(args))
}

/// Runs cargo and gives what it printed.
pub(crate) fn cargo_output(args: &[&str]) -> Result<String> {
    let output = Command::new(env!("CARGO"))
        .args(args)
        .stderr(Stdio::inherit())
        .output()
        .context("cargo could not be started")?;
    if !output.status.success() {
        bail!("cargo {} failed", args.join(" "));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs a program with its output shown.
pub(crate) fn shown(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("{program} could not be started"))?;
    if !status.success() {
        let arguments: Vec<_> = command.get_args().map(|word| word.to_string_lossy()).collect();
        bail!("{program} {} did not end well ({status}); what it printed tells why", arguments.join(" "));
    }
    Ok(())
}
