//! A stage as a process of the real program, started again whenever it ends, as a kubelet does.

use std::fs::File;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::Struck;
use crate::wait::until;

/// From SIGTERM to SIGKILL, as in a Pod.
const GRACE: Duration = Duration::from_secs(30);
/// Between the end of a process and the start of the next one.
const RESTART: Duration = Duration::from_millis(300);

/// How long a process takes, at most, until it has a way to end in order.
const YOUNG: Duration = Duration::from_secs(3);

/// Why a process may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ordered {
    Nothing,
    Killed,
    Told,
}

pub(crate) struct Stage {
    name: String,
    process: watch::Sender<Option<Pid>>,
    ordered: watch::Sender<Ordered>,
    /// Held while something is done to it.
    struck: tokio::sync::Mutex<()>,
    /// What must not be: it ended by itself, or not in time.
    faults: Mutex<Vec<String>>,
    stop: CancellationToken,
}

impl Stage {
    /// Starts it; its output goes to a file.
    pub(crate) fn start(
        name: String,
        arguments: Vec<String>,
        log: &Path,
    ) -> Result<(Arc<Self>, JoinHandle<()>)> {
        let stage = Arc::new(Self {
            name,
            process: watch::Sender::new(None),
            ordered: watch::Sender::new(Ordered::Nothing),
            struck: tokio::sync::Mutex::new(()),
            faults: Mutex::default(),
            stop: CancellationToken::new(),
        });
        let log = File::create(log).with_context(|| format!("{}: its log", stage.name))?;
        let supervising = tokio::spawn(stage.clone().supervise(arguments, log));
        Ok((stage, supervising))
    }

    async fn supervise(self: Arc<Self>, arguments: Vec<String>, log: File) {
        while !self.stop.is_cancelled() {
            let mut child = match program(&arguments, &log, &log) {
                Ok(child) => child,
                Err(error) => return self.fault(&format!("was not started: {error:#}")),
            };
            let began = Instant::now();
            self.ordered.send_replace(Ordered::Nothing);
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
            self.process.send_replace(pid);
            let ended = tokio::select! {
                ended = child.wait() => ended,
                () = self.stop.cancelled() => {
                    self.signal(Signal::SIGCONT);
                    self.ordered.send_replace(Ordered::Told);
                    self.signal(Signal::SIGTERM);
                    self.within_grace(&mut child).await
                }
            };
            self.process.send_replace(None);
            let ended = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
            let good = match *self.ordered.borrow() {
                Ordered::Nothing => false,
                Ordered::Killed => true,
                Ordered::Told if began.elapsed() < YOUNG && ended.starts_with("signal: 15") => true,
                Ordered::Told => ended == "exit status: 0",
            };
            if !good {
                self.fault(&format!("ended: {ended}"));
            }
            sleep(RESTART).await;
        }
    }

    async fn within_grace(&self, child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
        match timeout(GRACE, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                child.kill().await?;
                child.wait().await
            }
        }
    }

    fn signal(&self, signal: Signal) -> bool {
        let process = *self.process.borrow();
        process.is_some_and(|pid| kill(pid, signal).is_ok())
    }

    fn fault(&self, what: &str) {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner);
        faults.push(format!("{} {what}", self.name));
    }

    /// Kills it.
    pub(crate) async fn kill(&self) -> Result<Struck> {
        self.end(Ordered::Killed, Signal::SIGKILL).await
    }

    /// Tells it to end, and waits for that.
    pub(crate) async fn tell(&self) -> Result<Struck> {
        self.end(Ordered::Told, Signal::SIGTERM).await
    }

    async fn end(&self, order: Ordered, signal: Signal) -> Result<Struck> {
        let Ok(_struck) = self.struck.try_lock() else { return Ok(Err("it is struck already")) };
        let Some(before) = *self.process.borrow() else { return Ok(Err("it is being started")) };
        self.ordered.send_replace(order);
        if !self.signal(signal) {
            return Ok(Err("it had just ended"));
        }
        let ended = async || (*self.process.borrow() != Some(before)).then_some(());
        if until(GRACE, "its end", ended).await.is_err() {
            self.fault(&format!("did not end within {GRACE:?} of being told"));
            self.ordered.send_replace(Ordered::Killed);
            self.signal(Signal::SIGKILL);
        }
        Ok(Ok(()))
    }

    /// Lets it stand still for so long.
    pub(crate) async fn pause(&self, lasts: Duration) -> Result<Struck> {
        let Ok(_struck) = self.struck.try_lock() else { return Ok(Err("it is struck already")) };
        if !self.signal(Signal::SIGSTOP) {
            return Ok(Err("it is being started"));
        }
        sleep(lasts).await;
        self.signal(Signal::SIGCONT);
        Ok(Ok(()))
    }

    /// Ends it for good.
    pub(crate) fn stop(&self) {
        self.stop.cancel();
    }

    /// What must not have been.
    pub(crate) fn faults(&self) -> Vec<String> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The program under test; it ends with this one, however that ends.
pub(crate) fn program(arguments: &[String], output: &File, errors: &File) -> Result<Child> {
    let child = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", env!("CARGO_BIN_EXE_services")])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(errors.try_clone()?)
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    child.context("setpriv (util-linux) could not start the program")
}
