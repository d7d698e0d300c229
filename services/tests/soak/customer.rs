//! The customer: the real generator as a process, its books, and what its program says of them.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions};
use lapin::types::FieldTable;
use serde_json::Value;
use tokio::process::Child;
use tokio::time::timeout;
use trading::names;

use crate::Settings;
use crate::side::Side;
use crate::stage::program;

/// Seconds in which everything must be answered and settled once no more faults come.
pub(crate) const WAIT_SECONDS: u64 = 300;
/// A queue of which nothing came for so long is empty.
const IDLE: Duration = Duration::from_secs(2);

pub(crate) struct Customer {
    process: Child,
    books: PathBuf,
    verdict: PathBuf,
    progress: Progress,
}

/// What it says while it runs.
#[derive(Clone)]
pub(crate) struct Progress(PathBuf);

impl Progress {
    /// The last line.
    pub(crate) fn line(&self) -> String {
        let text = fs::read_to_string(&self.0).unwrap_or_default();
        text.lines().rfind(|line| line.contains("sent ")).unwrap_or("not sending yet").trim().to_owned()
    }
}

impl Customer {
    pub(crate) fn start(side: &Side, settings: &Settings) -> Result<Self> {
        let path = |name: &str| PathBuf::from(side.path(name));
        let (books, verdict, progress) = (path("ledger.jsonl"), path("customer.json"), path("customer.log"));
        let text = |number: u64| number.to_string();
        let (url, password, ledger) = (side.broker.url(), side.path("password"), side.path("ledger.jsonl"));
        let (seed, rate, wait) = (text(settings.seed), settings.rate.to_string(), text(WAIT_SECONDS));
        let seconds = text(settings.seconds.as_secs());
        let options = [
            ["--broker-url", &url],
            ["--submit-user", "guest"],
            ["--submit-password-file", &password],
            ["--answers-user", "guest"],
            ["--answers-password-file", &password],
            ["--seed", &seed],
            ["--run-id", "0"],
            ["--rate", &rate],
            ["--customers", "3"],
            ["--duration", &seconds],
            ["--wait", &wait],
            ["--odds", "matched=6,mismatched=2,unmatched=2,amended,cancelled"],
            ["--allocations", "1..3"],
            ["--bad-share", "0.03"],
            ["--ledger", &ledger],
            ["--output", "json"],
        ];
        let mut arguments = vec!["generate".to_owned(), "--settled".to_owned()];
        arguments.extend(options.as_flattened().iter().map(|&word| word.to_owned()));
        let process = program(&arguments, &File::create(&verdict)?, &File::create(&progress)?)?;
        Ok(Self { process, books, verdict, progress: Progress(progress) })
    }

    pub(crate) fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// Waits until it has judged; gives its verdict and what is wrong by it.
    pub(crate) async fn ended(&mut self, limit: Duration) -> Result<(Value, Vec<String>)> {
        let status = timeout(limit, self.process.wait()).await.context("the customer does not end")??;
        let text = fs::read_to_string(&self.verdict)?;
        let verdict: Value = serde_json::from_str(&text).with_context(|| {
            format!("the customer ended with {status} and no verdict: {}", self.progress.line())
        })?;
        let bad = format!("the customer's books: {verdict}");
        Ok((verdict, if status.success() { Vec::new() } else { vec![bad] }))
    }

    /// Answers that came after the books were closed: each must be one that is in them.
    pub(crate) async fn later_answers(&self, side: &Side) -> Result<Vec<String>> {
        let mut known = HashSet::new();
        for line in fs::read_to_string(&self.books)?.lines() {
            let entry: Value = serde_json::from_str(line)?;
            known.extend(
                ["messageId", "settled"].iter().filter_map(|key| entry[key].as_str().map(str::to_owned)),
            );
        }
        ensure!(!known.is_empty(), "nothing was ever answered");
        let connection = side.broker.direct("later answers")?.connect().await?;
        let channel = connection.create_channel().await?;
        let options = BasicConsumeOptions::default();
        let mut answers =
            channel.basic_consume(names::OUT.into(), "".into(), options, FieldTable::default()).await?;
        let mut strange = Vec::new();
        while let Ok(Some(answer)) = timeout(IDLE, answers.next()).await {
            let answer = answer?;
            let id = answer.properties.message_id().as_ref().map(|id| id.to_string()).unwrap_or_default();
            if !known.contains(&id) {
                strange.push(format!("late answer {id}: {}", String::from_utf8_lossy(&answer.data)));
            }
            answer.ack(BasicAckOptions::default()).await?;
        }
        Ok(strange)
    }
}
