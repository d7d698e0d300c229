//! Which replica leads in this cluster: a coordination Lease, as client-go does it (15 s / 10 s / 2 s).
//!
//! Leadership saves double work; it is no fence. What must not happen twice carries a token that the thing written to
//! checks (resourceVersion, epoch). A routing control has none: see "Routing controls" in docs/protocol.md.

use std::future::Future;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use crate::clock;
use crate::deadline::within;
use crate::error::chain;

/// Times of the election.
#[derive(Clone, Copy, Debug)]
pub struct Timings {
    /// Others take over when they saw no renewal for this long.
    pub duration: Duration,
    /// The leader gives up when it could not renew for this long; shorter than `duration`.
    pub renew_deadline: Duration,
    /// Pause between tries.
    pub retry: Duration,
    /// One call to the API server.
    pub call: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
            call: Duration::from_secs(3),
        }
    }
}

/// Leadership ended; this process must stop acting at once.
#[derive(Debug, thiserror::Error)]
pub enum LeadershipLost {
    /// Another replica holds the Lease.
    #[error("the Lease is now held by {0}")]
    TakenBy(String),
    /// The API server did not take a renewal in time.
    #[error("the Lease could not be renewed for {0:?}: {1}")]
    NotRenewed(Duration, String),
}

/// A replica that wants to lead.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    timings: Timings,
}

/// What was last seen of the Lease, and when by the local monotonic clock: clocks of other machines do not count.
#[derive(Debug, Default)]
struct Watched {
    record: Option<(String, Option<MicroTime>)>,
    since: Option<Instant>,
}

impl Watched {
    /// Notes what was read. The local time restarts only when the record changed.
    fn note(&mut self, holder: &str, renewed: Option<MicroTime>, now: Instant) {
        let record = (holder.to_owned(), renewed);
        if self.record.as_ref() != Some(&record) {
            self.record = Some(record);
            self.since = Some(now);
        }
    }

    /// Whether a holder that has been seen unchanged since then may be replaced.
    fn expired(&self, duration: Duration, now: Instant) -> bool {
        self.since.is_some_and(|since| now.duration_since(since) >= duration)
    }
}

impl Election {
    /// An election about the Lease `name`; `me` names this replica.
    pub fn new(api: Api<Lease>, name: &str, me: &str, timings: Timings) -> Self {
        Self { api, name: name.to_owned(), me: me.to_owned(), timings }
    }

    /// Waits until this replica leads. Errors of the API server are logged and tried again.
    pub async fn acquire(&self) {
        let mut watched = Watched::default();
        loop {
            match within(self.timings.call, "the API server", self.try_acquire(&mut watched)).await {
                Ok(Ok(true)) => {
                    tracing::info!(lease = self.name, me = self.me, "this replica leads");
                    return;
                }
                Ok(Ok(false)) => {}
                Ok(Err(error)) => {
                    tracing::warn!(error = chain(&error), "the leader Lease could not be read or taken")
                }
                Err(late) => {
                    tracing::warn!(error = chain(&late), "the leader Lease could not be read or taken")
                }
            }
            tokio::time::sleep(self.timings.retry).await;
        }
    }

    async fn try_acquire(&self, watched: &mut Watched) -> Result<bool, kube::Error> {
        let now = Instant::now();
        let Some(lease) = self.api.get_opt(&self.name).await? else {
            return taken(self.api.create(&PostParams::default(), &self.first(clock::now())).await.map(drop));
        };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        watched.note(&holder, spec.and_then(|s| s.renew_time.clone()), now);
        if !holder.is_empty() && holder != self.me && !watched.expired(self.timings.duration, now) {
            return Ok(false);
        }
        let transitions = spec.and_then(|s| s.lease_transitions).unwrap_or(0) + i32::from(holder != self.me);
        taken(self.write(&lease, Some(transitions)).await)
    }

    /// Renews until that fails for too long or another replica holds the Lease.
    pub async fn keep(&self) -> LeadershipLost {
        let mut last_success = Instant::now();
        let mut last_error = String::new();
        loop {
            tokio::time::sleep(self.timings.retry).await;
            match within(self.timings.call, "the API server", self.renew()).await {
                Ok(Ok(None)) => last_success = Instant::now(),
                Ok(Ok(Some(other))) => return LeadershipLost::TakenBy(other),
                Ok(Err(error)) => last_error = chain(&error),
                Err(late) => last_error = late.to_string(),
            }
            if last_success.elapsed() >= self.timings.renew_deadline {
                return LeadershipLost::NotRenewed(self.timings.renew_deadline, last_error);
            }
        }
    }

    /// Renews once. `Some` names another holder.
    async fn renew(&self) -> Result<Option<String>, kube::Error> {
        let lease = self.api.get(&self.name).await?;
        let holder = lease.spec.as_ref().and_then(|s| s.holder_identity.clone()).unwrap_or_default();
        if holder != self.me {
            return Ok(Some(holder));
        }
        self.write(&lease, None).await.map(|()| None)
    }

    /// Gives leadership back, so that the other replica need not wait. Best effort.
    pub async fn release(&self) {
        let give_back = async {
            let lease = self.api.get(&self.name).await?;
            if lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(self.me.as_str()) {
                let patch = serde_json::json!({
                    "metadata": {"resourceVersion": lease.resource_version()},
                    "spec": {"holderIdentity": "", "leaseDurationSeconds": 1},
                });
                self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await?;
            }
            Ok::<_, kube::Error>(())
        };
        if let Ok(Err(error)) = within(self.timings.call, "the API server", give_back).await {
            tracing::warn!(
                error = chain(&error),
                "the leader Lease could not be given back; the next leader waits it out"
            );
        }
    }

    /// A compare-and-set on the resourceVersion that was read.
    async fn write(&self, read: &Lease, acquired: Option<i32>) -> Result<(), kube::Error> {
        let now = MicroTime(clock::now());
        let mut spec = serde_json::json!({
            "holderIdentity": self.me,
            "leaseDurationSeconds": self.timings.duration.as_secs(),
            "renewTime": now,
        });
        if let Some(transitions) = acquired {
            spec["acquireTime"] = serde_json::json!(now);
            spec["leaseTransitions"] = serde_json::json!(transitions);
        }
        let patch =
            serde_json::json!({"metadata": {"resourceVersion": read.resource_version()}, "spec": spec});
        self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop)
    }

    fn first(&self, now: Timestamp) -> Lease {
        Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: Some(LeaseSpec {
                holder_identity: Some(self.me.clone()),
                lease_duration_seconds: i32::try_from(self.timings.duration.as_secs()).ok(),
                acquire_time: Some(MicroTime(now)),
                renew_time: Some(MicroTime(now)),
                lease_transitions: Some(0),
                ..LeaseSpec::default()
            }),
        }
    }
}

/// A lost race is not an error: the other replica leads.
fn taken(written: Result<(), kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(()) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Runs `work` while this replica leads. When leadership ends first, `work` is dropped in the middle of whatever it does;
/// that is safe because every effect carries a token.
///
/// # Errors
/// [`LeadershipLost`]; the process should exit.
pub async fn while_leading<T>(
    election: &Election,
    work: impl Future<Output = T>,
) -> Result<T, LeadershipLost> {
    tokio::select! {
        biased;
        lost = election.keep() => Err(lost),
        done = work => {
            election.release().await;
            Ok(done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Option<MicroTime> {
        Timestamp::from_second(second).ok().map(MicroTime)
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_is_replaced_only_after_no_renewal_was_seen_for_the_whole_duration() {
        let (duration, mut watched) = (Duration::from_secs(15), Watched::default());
        watched.note("a", at(1), Instant::now());
        tokio::time::advance(Duration::from_secs(14)).await;
        watched.note("a", at(1), Instant::now());
        assert!(!watched.expired(duration, Instant::now()));
        watched.note("a", at(2), Instant::now());
        tokio::time::advance(Duration::from_secs(14)).await;
        assert!(!watched.expired(duration, Instant::now()), "a renewal starts the time anew");
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(watched.expired(duration, Instant::now()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_holder_with_a_wrong_clock_is_judged_by_the_local_one() {
        let mut watched = Watched::default();
        watched.note("a", at(4_000_000_000), Instant::now());
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(watched.expired(Duration::from_secs(15), Instant::now()));
    }
}
