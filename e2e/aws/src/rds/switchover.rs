//! Carries a switchover out on the real servers: stop the old primary, promote the new one, old follows new.

use std::io::{Read, Seek, SeekFrom};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::process::Command;
use tokio::time::{sleep_until, timeout};

use super::cluster::{MemberIndex, Running, Step};
use crate::clock;
use crate::config::Member;
use crate::world::World;

/// How often `follow` is tried before the old primary is left out of sync.
const FOLLOW_TRIES: u32 = 3;

/// Between two tries of `follow`.
const FOLLOW_PAUSE: Duration = Duration::from_secs(2);

/// How many bytes of a command's output are looked at.
const KEPT_OUTPUT: u64 = 2_000;

/// What a command of a switchover did; shown by `GET /state`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct CommandReport {
    pub(crate) region: String,
    pub(crate) role: &'static str,
    pub(crate) milliseconds: u128,
    /// `done`, or why not.
    pub(crate) result: String,
}

/// The last switchover of a cluster; shown by `GET /state`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct SwitchoverReport {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) began: jiff::Timestamp,
    pub(crate) commands: Vec<CommandReport>,
    /// `running`, `completed` or `cancelled`.
    pub(crate) outcome: &'static str,
}

/// Carries out the switchover that the cluster's record says is running, from the step it has reached.
pub(crate) async fn carry_out(world: Arc<World>, cluster_id: String) {
    let Some(running) = world.running(&cluster_id) else { return };
    let run = Run { from: running.from, to: running.to, began: clock::now().instant, world, cluster_id };
    let mut faults = run.world.faults.subscribe();
    let script = faults.borrow().switchover_of(&run.cluster_id);
    run.begin_report(&running);
    if running.step == Step::Accepted {
        sleep_until((run.began + Duration::from_secs_f64(script.before_effect_seconds)).into()).await;
        // The sender lives in the world, so this ends only when the hang is taken away.
        let _ = faults.wait_for(|faults| !faults.switchover_of(&run.cluster_id).hang).await;
    }
    let writer = run.effect(running.step, running.position).await;
    sleep_until((run.began + Duration::from_secs_f64(script.total_seconds)).into()).await;
    let completed = writer == run.to;
    run.world.finish_switchover(
        &run.cluster_id,
        writer,
        Duration::from_secs_f64(script.endpoint_lag_seconds),
        if completed { "completed" } else { "cancelled" },
    );
    run.world.persist_or_log().await;
}

/// One switchover under way.
struct Run {
    world: Arc<World>,
    cluster_id: String,
    from: MemberIndex,
    to: MemberIndex,
    began: Instant,
}

impl Run {
    /// Moves the servers; returns the member that is the writer afterwards.
    async fn effect(&self, step: Step, mut position: Option<String>) -> MemberIndex {
        if step == Step::BringingBack {
            return self.bring_back().await;
        }
        if step <= Step::Stopping {
            self.step(Step::Stopping, None).await;
            match self.command(self.from, "stop", &[]).await {
                Ok(last_line) => position = last_line,
                Err(()) => return self.bring_back().await,
            }
        }
        if step <= Step::Promoting {
            self.step(Step::Promoting, position.clone()).await;
            let environment = position.map(|position| ("OLD_PRIMARY_POSITION", position));
            if self.command(self.to, "promote", environment.as_slice()).await.is_err() {
                return self.bring_back().await;
            }
        }
        self.step(Step::Following, None).await;
        let in_sync = self.follow(self.from, self.to).await;
        self.world.set_in_sync(&self.cluster_id, self.from, in_sync);
        self.to
    }

    /// Undoes a failed switchover: the old primary writes again.
    async fn bring_back(&self) -> MemberIndex {
        self.step(Step::BringingBack, None).await;
        let back = self.command(self.from, "promote", &[]).await.is_ok();
        self.world.set_in_sync(&self.cluster_id, self.from, back);
        self.from
    }

    async fn follow(&self, standby: MemberIndex, writer: MemberIndex) -> bool {
        let Some(primary) = self.world.member(&self.cluster_id, writer) else { return false };
        let environment = [("PRIMARY_ADDRESS", primary.address.to_string())];
        for attempt in 1..=FOLLOW_TRIES {
            if self.command(standby, "follow", &environment).await.is_ok() {
                return true;
            }
            if attempt < FOLLOW_TRIES {
                tokio::time::sleep(FOLLOW_PAUSE).await;
            }
        }
        false
    }

    async fn step(&self, step: Step, position: Option<String>) {
        self.world.set_step(&self.cluster_id, step, position);
        self.world.persist_or_log().await;
    }

    /// Runs a command of a member and reports it. Gives the last line that it printed.
    async fn command(
        &self,
        member: MemberIndex,
        role: &'static str,
        environment: &[(&str, String)],
    ) -> Result<Option<String>, ()> {
        let Some(member) = self.world.member(&self.cluster_id, member) else { return Err(()) };
        let began = clock::now().instant;
        let result =
            run_command(&member, role, environment, self.world.command_timeout(&self.cluster_id)).await;
        let report = CommandReport {
            region: member.region.clone(),
            role,
            milliseconds: clock::now().instant.saturating_duration_since(began).as_millis(),
            result: result.as_ref().map_or_else(Clone::clone, |_| "done".to_owned()),
        };
        match &result {
            Ok(_) => {
                tracing::info!(region = report.region, role, milliseconds = %report.milliseconds, "command done")
            }
            Err(why) => tracing::error!(region = report.region, role, why, "command failed"),
        }
        self.world.report_command(&self.cluster_id, report);
        result.map_err(drop)
    }

    fn begin_report(&self, running: &Running) {
        let name = |member| self.world.member(&self.cluster_id, member).map_or_else(String::new, |m| m.arn);
        self.world.set_report(
            &self.cluster_id,
            SwitchoverReport {
                from: name(running.from),
                to: name(running.to),
                began: clock::now().wall,
                commands: Vec::new(),
                outcome: "running",
            },
        );
    }
}

async fn run_command(
    member: &Member,
    role: &str,
    environment: &[(&str, String)],
    limit: Duration,
) -> Result<Option<String>, String> {
    let argv = match role {
        "stop" => &member.stop,
        "promote" => &member.promote,
        _ => &member.follow,
    };
    let (program, arguments) = argv.split_first().ok_or("the command is empty")?;
    // Files, not pipes: a server that the command leaves running would keep a pipe open.
    let (mut printed, mut errors) = (capture()?, capture()?);
    let mut child = Command::new(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (*name, value)))
        .stdin(Stdio::null())
        .stdout(printed.try_clone().map_err(|error| error.to_string())?)
        .stderr(errors.try_clone().map_err(|error| error.to_string())?)
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{program} can't be run: {error}"))?;
    let status = timeout(limit, child.wait())
        .await
        .map_err(|_| format!("not done after {} s: {}", limit.as_secs(), tail(&mut errors)))?
        .map_err(|error| error.to_string())?;
    if !status.success() {
        return Err(format!("{status}: {}", tail(&mut errors)));
    }
    let printed = tail(&mut printed);
    Ok(printed.lines().rev().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned))
}

fn capture() -> Result<std::fs::File, String> {
    tempfile::tempfile().map_err(|error| format!("no file for the command's output: {error}"))
}

/// The last [`KEPT_OUTPUT`] bytes of what was printed.
fn tail(file: &mut std::fs::File) -> String {
    let mut kept = Vec::new();
    let length = file.metadata().map_or(0, |metadata| metadata.len());
    let start = SeekFrom::Start(length.saturating_sub(KEPT_OUTPUT));
    let read = file.seek(start).and_then(|_| file.take(KEPT_OUTPUT).read_to_end(&mut kept));
    match read {
        Ok(_) => String::from_utf8_lossy(&kept).trim().to_owned(),
        Err(error) => format!("(output unreadable: {error})"),
    }
}
