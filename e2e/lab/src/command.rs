//! Runs programs to their end, each within a bound.

use std::io::{Read, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::process::{family, kill_all};
use crate::wait::{Look, until};

/// How much of a failed program's output an error carries.
const KEPT_OUTPUT: usize = 4000;

/// Runs a command and gives what it wrote to standard output.
///
/// # Errors
/// When it cannot start, fails, or does not end within `bound` (it is then killed with its children).
pub(crate) fn run(command: &mut Command, bound: Duration) -> Result<String> {
    run_with_input(command, b"", bound)
}

/// Like [`run`], with something on standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &[u8], bound: Duration) -> Result<String> {
    let line = line(command);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| Error::Start { command: line.clone(), source })?;
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    if let Some(mut stdin) = child.stdin.take() {
        // A program may end without reading its input; its exit status tells what matters.
        let _ = stdin.write_all(input);
    }
    let status = end_within(&mut child, &line, bound)?;
    let (stdout, stderr) = (collect(stdout), collect(stderr));
    if status.success() {
        return Ok(stdout);
    }
    let output = last_bytes(&format!("{stdout}{stderr}"), KEPT_OUTPUT);
    Err(Error::Command { command: line, status: status.to_string(), output })
}

/// Runs a command and tells only whether it succeeded.
pub(crate) fn succeeds(command: &mut Command, bound: Duration) -> bool {
    run(command, bound).is_ok()
}

fn end_within(child: &mut Child, line: &str, bound: Duration) -> Result<ExitStatus> {
    let ended = until(&format!("the end of `{line}`"), bound, || {
        let status = child.try_wait().map_err(|source| Error::Start { command: line.to_owned(), source })?;
        Ok(status.map_or_else(|| Look::NotYet("it still runs".into()), Look::Ready))
    });
    if ended.is_err() {
        kill_all(&family(child.id().cast_signed()));
        let _ = child.wait();
    }
    ended
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> Option<JoinHandle<Vec<u8>>> {
    pipe.map(|mut pipe| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // A broken pipe ends the output; what was read so far is what there is.
            let _ = pipe.read_to_end(&mut bytes);
            bytes
        })
    })
}

fn collect(reader: Option<JoinHandle<Vec<u8>>>) -> String {
    let bytes = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The command as a person would type it, for messages.
pub(crate) fn line(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|part| part.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// The end of a text, cut at a line where possible.
pub(crate) fn last_bytes(text: &str, limit: usize) -> String {
    let text = text.trim_end();
    let mut start = text.len().saturating_sub(limit);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_secs(5);

    #[test]
    fn a_failed_command_tells_what_it_printed() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"]), SHORT).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("exit status: 3") && text.contains("broken"), "{text}");
    }

    #[test]
    fn a_command_that_hangs_is_killed_at_its_bound() {
        let error =
            run(Command::new("sh").args(["-c", "sleep 60 & wait"]), Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
    }

    #[test]
    fn input_reaches_the_command() {
        assert_eq!(run_with_input(&mut Command::new("cat"), b"hello", SHORT).unwrap(), "hello");
    }
}
