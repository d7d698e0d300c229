//! Tells on standard error what is being done and how long each part took.

use std::time::Instant;

/// Runs one part of the work and prints its time when it ends, whether well or badly.
pub(crate) fn part<T, E>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    let start = Instant::now();
    let result = work();
    let mark = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("  {:>7.1} s  {mark:6}  {name}", start.elapsed().as_secs_f64());
    result
}

/// Like [`part`] for long work: also tells when it begins.
pub(crate) fn long_part<T, E>(name: &str, work: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
    eprintln!("      ...          {name}");
    part(name, work)
}
