//! A global cluster's record: the writer, the running switchover, and what each region knew when. Pure.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::config::{GlobalCluster, Member};

/// Past records kept for answers that lag; beyond it the oldest answer is "before all that".
const MOST_RECORDS: usize = 256;

/// Position of a member in the configuration.
pub(crate) type MemberIndex = usize;

/// How far a switchover has come. Recorded before each step, so that a restart repeats the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Step {
    /// Accepted; nothing done to the servers.
    Accepted,
    /// The old primary is being stopped.
    Stopping,
    /// The old primary is stopped, the new one is being promoted.
    Promoting,
    /// The new primary writes; the old one is being made its standby.
    Following,
    /// Cancelled: the old primary is being brought back.
    BringingBack,
}

/// A switchover that runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Running {
    pub(crate) from: MemberIndex,
    pub(crate) to: MemberIndex,
    pub(crate) step: Step,
    /// What FailoverState.Status says.
    pub(crate) status_word: String,
    /// What `stop` printed last.
    pub(crate) position: Option<String>,
}

/// What the API knows of a global cluster at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) writer: MemberIndex,
    pub(crate) running: Option<Running>,
    /// Members that do not follow the writer.
    pub(crate) out_of_sync: BTreeSet<MemberIndex>,
}

/// A global cluster with its past.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) config: GlobalCluster,
    /// Oldest first, never empty.
    records: VecDeque<(Instant, Record)>,
    /// Where the writer endpoint's name points, from when on; oldest first, never empty.
    endpoint: VecDeque<(Instant, MemberIndex)>,
}

impl Cluster {
    /// `writer` is a member's ARN; an unknown one (of an older configuration) gives way to the configured one.
    pub(crate) fn new(config: GlobalCluster, writer: Option<&str>, now: Instant) -> Self {
        let find = |arn: &str| config.members.iter().position(|member| member.arn == arn);
        let writer = writer.and_then(find).or_else(|| find(&config.writer)).unwrap_or_default();
        let record = Record { writer, running: None, out_of_sync: BTreeSet::new() };
        Self { config, records: VecDeque::from([(now, record)]), endpoint: VecDeque::from([(now, writer)]) }
    }

    pub(crate) fn member(&self, index: MemberIndex) -> &Member {
        &self.config.members[index]
    }

    pub(crate) fn find_member(&self, arn: &str) -> Option<MemberIndex> {
        self.config.members.iter().position(|member| member.arn == arn)
    }

    /// The truth now.
    pub(crate) fn current(&self) -> &Record {
        &self.records[self.records.len() - 1].1
    }

    /// What was true `lag` ago.
    pub(crate) fn seen(&self, lag: Duration, now: Instant) -> &Record {
        let then = |at: Instant| now.saturating_duration_since(at) >= lag;
        let record = self.records.iter().rev().find(|(at, _)| then(*at));
        &record.unwrap_or(&self.records[0]).1
    }

    /// Changes the truth.
    pub(crate) fn record(&mut self, now: Instant, change: impl FnOnce(&mut Record)) {
        let mut record = self.current().clone();
        change(&mut record);
        if record != *self.current() {
            self.records.push_back((now, record));
        }
        while self.records.len() > MOST_RECORDS {
            self.records.pop_front();
        }
    }

    /// Ends the running switchover; the writer endpoint's name follows `endpoint_lag` later.
    pub(crate) fn finish(&mut self, writer: MemberIndex, endpoint_lag: Duration, now: Instant) {
        self.record(now, |record| {
            record.writer = writer;
            record.running = None;
        });
        self.endpoint.push_back((now + endpoint_lag, writer));
        while self.endpoint.get(1).is_some_and(|(from, _)| *from <= now) {
            self.endpoint.pop_front();
        }
    }

    /// The member that the writer endpoint's name points at.
    pub(crate) fn endpoint_target(&self, now: Instant) -> &Member {
        let current = self.endpoint.iter().rev().find(|(from, _)| *from <= now);
        self.member(current.map_or(self.endpoint[0].1, |(_, member)| *member))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn cluster() -> Cluster {
        let member = |region: &str| Member {
            arn: format!("arn:aws:rds:{region}:123456789012:cluster:app-{region}"),
            region: region.to_owned(),
            address: "127.0.0.1:5432".parse().unwrap(),
            endpoint: None,
            promote: vec!["true".to_owned()],
            follow: vec!["true".to_owned()],
            stop: vec!["true".to_owned()],
        };
        let members = vec![member("us-east-1"), member("us-west-2")];
        let config = GlobalCluster {
            id: "app-global".to_owned(),
            writer_endpoint: "writer.app.lab".to_owned(),
            ttl_seconds: None,
            engine_version: "17.4".to_owned(),
            writer: members[0].arn.clone(),
            members,
            command_timeout_seconds: 5,
        };
        Cluster::new(config, None, Instant::now())
    }

    #[test]
    fn a_lagging_region_answers_what_was_true_then() {
        let mut cluster = cluster();
        let start = cluster.records[0].0;
        let at = |s| start + Duration::from_secs(s);
        cluster.record(at(10), |record| record.writer = 1);
        let lag = Duration::from_secs(5);
        assert_eq!(cluster.seen(lag, at(14)).writer, 0);
        assert_eq!(cluster.seen(lag, at(15)).writer, 1);
        assert_eq!(cluster.seen(Duration::ZERO, at(10)).writer, 1);
        assert_eq!(
            cluster.seen(Duration::from_secs(3_600), at(20)).writer,
            0,
            "older than the oldest record"
        );
    }

    #[test]
    fn the_writer_endpoint_moves_after_its_own_lag() {
        let mut cluster = cluster();
        let start = cluster.records[0].0;
        let at = |s| start + Duration::from_secs(s);
        cluster.finish(1, Duration::from_secs(3), at(10));
        assert_eq!(cluster.current().writer, 1);
        assert_eq!(cluster.endpoint_target(at(12)).region, "us-east-1");
        assert_eq!(cluster.endpoint_target(at(13)).region, "us-west-2");
    }

    #[test]
    fn past_records_are_bounded() {
        let mut cluster = cluster();
        for turn in 0..2 * MOST_RECORDS {
            cluster.record(Instant::now(), |record| record.writer = (turn + 1) % 2);
        }
        assert_eq!(cluster.records.len(), MOST_RECORDS);
    }
}
