//! A server process in namespaces of its own that can not outlive this process.

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};

/// How long a contained server may take to vanish once told to; it is killed, so this is generous.
const STOP_LIMIT: Duration = Duration::from_secs(10);
/// How often a condition is looked at while waiting for it.
const POLL: Duration = Duration::from_millis(10);
/// How much of the end of the log an error shows, in bytes.
const LOG_TAIL: usize = 4_000;

/// A shell script that runs as process 1 of its own PID and mount namespaces.
///
/// The script must end when its standard input ends; with it the kernel ends all that it started and
/// unmounts all that it mounted. A pipe, rather than a parent-death signal, because such a signal already
/// fires when the *thread* that started the server ends, and every test has a thread of its own.
pub(super) struct Contained {
    child: Child,
    /// Its end is what stops the script. `None` once stopped.
    commands: Option<ChildStdin>,
    /// Standard output and error of the script. An unnamed file, so it needs no removal.
    log: File,
}

impl Contained {
    /// Runs `script` (POSIX shell, `-eu`) with positional `arguments`.
    ///
    /// # Errors
    /// When the process can not be started, for instance without root.
    pub(super) fn start(script: &str, arguments: &[&str]) -> anyhow::Result<Self> {
        let log = tempfile::tempfile().context("no temporary file for a server's log")?;
        // Own shared memory too: a killed PostgreSQL leaves its block behind, and the next one, whose folder has the same
        // number in a new file system, may take it for one in use.
        let own = ["--mount", "--pid", "--ipc", "--fork", "--kill-child=KILL"];
        let mut child = Command::new("unshare")
            .args(own)
            .args(["sh", "-euc", script, "contained"])
            .args(arguments)
            // A group of its own: an interrupt from the terminal reaches the tests first.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .context("unshare could not be run; these tests need root and util-linux")?;
        let commands = child.stdin.take();
        Ok(Self { child, commands, log })
    }

    /// Sends one line to the script.
    ///
    /// # Errors
    /// When the script has ended.
    pub(super) fn command(&mut self, line: &str) -> anyhow::Result<()> {
        let Some(commands) = &mut self.commands else { bail!("the server was stopped") };
        writeln!(commands, "{line}")
            .with_context(|| format!("the server ended; its log:\n{}", tail(&self.log)))
    }

    /// Everything that the script and its server have printed so far.
    pub(super) fn log(&self) -> String {
        read_since(&self.log, 0)
    }

    /// Bytes of [`Contained::log`] so far.
    pub(super) fn log_end(&self) -> u64 {
        self.log.metadata().map_or(0, |facts| facts.len())
    }

    /// Waits until the log satisfies `reached`.
    ///
    /// # Errors
    /// When `limit` passes first or the script ends; the message holds the end of the log.
    pub(super) async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        reached: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        self.until_since(0, what, limit, reached).await
    }

    /// The same with the log from `start` on: what came before was true of an earlier life of the server.
    ///
    /// # Errors
    /// As [`Contained::until`].
    pub(super) async fn until_since(
        &mut self,
        start: u64,
        what: &str,
        limit: Duration,
        reached: impl Fn(&str) -> bool,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            if reached(&read_since(&self.log, start)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended ({status}) before: {what}; its log:\n{}", tail(&self.log));
            }
            if Instant::now() > deadline {
                bail!("not within {limit:?}: {what}; its log:\n{}", tail(&self.log));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until the script has ended by itself.
    ///
    /// # Errors
    /// When it fails or `limit` passes first.
    pub(super) async fn finished(mut self, limit: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("failed ({status}); its log:\n{}", tail(&self.log)),
                None if Instant::now() > deadline => {
                    bail!("not within {limit:?}; its log:\n{}", tail(&self.log))
                }
                None => tokio::time::sleep(POLL).await,
            }
        }
    }
}

impl Drop for Contained {
    fn drop(&mut self) {
        self.commands = None;
        let deadline = Instant::now() + STOP_LIMIT;
        while let Ok(None) = self.child.try_wait() {
            if Instant::now() > deadline {
                // The script hangs: ending unshare ends it and its namespace.
                let _ = self.child.kill();
                let _ = self.child.wait();
                return;
            }
            std::thread::sleep(POLL);
        }
    }
}

fn read_since(log: &File, start: u64) -> String {
    let length = log.metadata().map_or(0, |facts| facts.len()).saturating_sub(start);
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
    let read = log.read_at(&mut bytes, start).unwrap_or(0);
    bytes.truncate(read);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn tail(log: &File) -> String {
    let text = read_since(log, 0);
    let mut start = text.len().saturating_sub(LOG_TAIL);
    while !text.is_char_boundary(start) {
        start += 1;
    }
    text[start..].to_owned()
}
