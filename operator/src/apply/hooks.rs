//! Hooks: what an application does itself at named points of a run. They run beside the passes; a pass starts or repeats
//! them and reads what they answered. A repeat carries the same run and epoch, so the application can tell.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crds::{Hook, HttpHook, TradingRegion};
use futures::FutureExt as _;
use http::Method;
use k8s_openapi::api::batch::v1::{Job, JobTemplateSpec};
use k8s_openapi::api::core::v1::EnvVar;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use region_plan::{Epoch, HookPoint, HookResult, Region, RunId};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::outcome::Outcome;
use crate::caller::{Call, Caller};
use crate::clock;
use crate::cluster::Wish;
use crate::deadline::within;

/// Pause before a hook that failed is called again, and after its deadline.
const RETRY: Duration = Duration::from_secs(2);
const RETRY_LATE: Duration = Duration::from_secs(10);
/// Pause before a hook that is still at work is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// One call to the API server about a Job.
const JOB_CALL: Duration = Duration::from_secs(3);
/// A finished Job is removed after a day unless its template says otherwise.
const KEEP_JOBS_SECONDS: i32 = 86_400;

/// What a hook is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occasion {
    /// The object's name.
    pub app: String,
    /// Its namespace.
    pub namespace: String,
    /// Where this operator is.
    pub region: Region,
    /// The run.
    pub run: RunId,
    /// The epoch that the hook acts in.
    pub epoch: Epoch,
    /// The side that gives.
    pub from: Region,
    /// The side that takes.
    pub to: Region,
    /// The point.
    pub point: HookPoint,
}

/// Hooks of all objects that are or were called.
#[derive(Clone)]
pub struct HookBoard {
    client: Client,
    wish: Wish,
    entries: Arc<Mutex<HashMap<(RunId, HookPoint), Entry>>>,
}

struct Entry {
    result: HookResult,
    /// Names of the hooks of this point that succeeded.
    done: BTreeSet<String>,
    busy: bool,
    /// When each hook was called first.
    began: HashMap<String, Instant>,
    next: Instant,
}

/// How one call of one hook ended.
enum Answer {
    Done,
    AtWork,
    Failed(String),
}

impl HookBoard {
    /// `wish` is told when a hook ended.
    pub fn new(client: Client, wish: Wish) -> Self {
        Self { client, wish, entries: Arc::default() }
    }

    /// What the hooks of that run answered.
    pub fn results(&self, run: RunId) -> BTreeMap<HookPoint, HookResult> {
        self.lock()
            .iter()
            .filter(|((of, _), _)| *of == run)
            .map(|((_, point), e)| (*point, e.result.clone()))
            .collect()
    }

    /// Forgets a run that has ended.
    pub fn forget(&self, run: RunId) {
        self.lock().retain(|(of, _), _| *of != run);
    }

    /// Starts or repeats the hooks of one point, unless they run, are done, or failed just now.
    pub fn call(
        &self,
        object: &TradingRegion,
        caller: &Result<Caller, String>,
        occasion: Occasion,
    ) -> Outcome {
        let key = (occasion.run, occasion.point);
        let now = Instant::now();
        let done = {
            let mut entries = self.lock();
            let entry = entries.entry(key).or_insert_with(|| Entry {
                result: HookResult::Running,
                done: BTreeSet::new(),
                busy: false,
                began: HashMap::new(),
                next: now,
            });
            if entry.busy || entry.result == HookResult::Succeeded || now < entry.next {
                return Outcome::AlreadyDone;
            }
            entry.busy = true;
            entry.done.clone()
        };
        let due =
            object.spec.hooks.iter().filter(|hook| hook.at == occasion.point && !done.contains(&hook.name));
        let due: Vec<Hook> = due.cloned().collect();
        let (board, caller) = (self.clone(), caller.clone());
        tokio::spawn(async move {
            if AssertUnwindSafe(board.run(key, due, caller, occasion)).catch_unwind().await.is_err() {
                board.note(key, Entry::broke_off);
            }
        });
        Outcome::Done
    }

    /// One after the other; the first that is not done ends this round.
    async fn run(
        &self,
        key: (RunId, HookPoint),
        due: Vec<Hook>,
        caller: Result<Caller, String>,
        occasion: Occasion,
    ) {
        for hook in due {
            self.note(key, |entry| {
                entry.began.entry(hook.name.clone()).or_insert_with(Instant::now);
            });
            let answer = self.call_one(&hook, &caller, &occasion).await;
            tracing::info!(run = %occasion.run, point = ?occasion.point, hook = hook.name, answer = answer.words(), "hook");
            if !matches!(answer, Answer::Done) {
                self.note(key, |entry| entry.pause(&hook, answer));
                return;
            }
            self.note(key, |entry| {
                entry.done.insert(hook.name.clone());
            });
        }
        self.note(key, |entry| {
            entry.result = HookResult::Succeeded;
            entry.busy = false;
        });
        // A full queue holds a wish already.
        let _ = self.wish.try_send(());
    }

    async fn call_one(&self, hook: &Hook, caller: &Result<Caller, String>, occasion: &Occasion) -> Answer {
        match (&hook.http, &hook.job) {
            (Some(http), _) => post(caller, http, occasion).await,
            (None, Some(job)) => {
                match within(JOB_CALL, "the API server", self.job(hook, &job.template, occasion)).await {
                    Ok(Ok(answer)) => answer,
                    Ok(Err(error)) => Answer::Failed(format!("job hook {}: {error}", hook.name)),
                    Err(late) => Answer::Failed(late.to_string()),
                }
            }
            (None, None) => Answer::Failed(format!("hook {} names neither http nor job", hook.name)),
        }
    }

    /// Makes the Job, or looks at the one that was made before.
    async fn job(
        &self,
        hook: &Hook,
        template: &JobTemplateSpec,
        occasion: &Occasion,
    ) -> Result<Answer, kube::Error> {
        let api: Api<Job> = Api::namespaced(self.client.clone(), &occasion.namespace);
        let name = job_name(&hook.name, occasion);
        if let Some(job) = api.get_opt(&name).await? {
            return Ok(state_of(&job, &name));
        }
        match api.create(&PostParams::default(), &job_of(template, &name, occasion)).await {
            Ok(_) => Ok(Answer::AtWork),
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Answer::AtWork),
            Err(error) => Err(error),
        }
    }

    fn note(&self, key: (RunId, HookPoint), change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.lock().get_mut(&key) {
            change(entry);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(RunId, HookPoint), Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    /// A fault of this program ended the round, and its words are in the log: the next round calls again.
    fn broke_off(&mut self) {
        let why = "the call of the hook broke off inside the operator; its log tells why".to_owned();
        self.result = HookResult::Failed { why, at: clock::now(), late: false };
        self.next = Instant::now() + RETRY;
        self.busy = false;
    }

    fn pause(&mut self, hook: &Hook, answer: Answer) {
        let now = Instant::now();
        let deadline = Duration::try_from(hook.deadline.get()).unwrap_or_default();
        let late = self.began.get(&hook.name).is_some_and(|began| now.duration_since(*began) >= deadline);
        let (result, pause) = match answer {
            Answer::Failed(why) => {
                let why =
                    if late { format!("{why} (its deadline of {} has passed)", hook.deadline) } else { why };
                (HookResult::Failed { why, at: clock::now(), late }, if late { RETRY_LATE } else { RETRY })
            }
            Answer::AtWork if late => {
                let why = format!("{} is still at work after its deadline of {}", hook.name, hook.deadline);
                (HookResult::Failed { why, at: clock::now(), late }, RETRY_LATE)
            }
            Answer::AtWork | Answer::Done => (HookResult::Running, ASK_AGAIN),
        };
        self.result = result;
        self.next = now + pause;
        self.busy = false;
    }
}

impl Answer {
    fn words(&self) -> &str {
        match self {
            Answer::Done => "done",
            Answer::AtWork => "at work",
            Answer::Failed(why) => why,
        }
    }
}

async fn post(caller: &Result<Caller, String>, hook: &HttpHook, occasion: &Occasion) -> Answer {
    let caller = match caller {
        Ok(caller) => caller,
        Err(why) => return Answer::Failed(why.clone()),
    };
    let body = body(occasion);
    let deadline = Duration::try_from(hook.timeout.get()).unwrap_or_default();
    let call = Call { method: Method::POST, url: &hook.url, auth: None, json: Some(&body), deadline };
    match caller.call_for_status(call).await {
        Ok(http::StatusCode::ACCEPTED) => Answer::AtWork,
        Ok(_) => Answer::Done,
        Err(error) => Answer::Failed(error.to_string()),
    }
}

fn body(occasion: &Occasion) -> Value {
    json!({
        "app": occasion.app,
        "region": occasion.region,
        "run": occasion.run,
        "epoch": occasion.epoch,
        "from": occasion.from,
        "to": occasion.to,
        "point": occasion.point,
    })
}

/// The same for each repeat in one run and epoch, so that a repeat finds the Job that is there.
fn job_name(hook: &str, occasion: &Occasion) -> String {
    let digest = Sha256::digest(format!("{} {} {hook}", occasion.run, occasion.epoch).as_bytes());
    let suffix: String = digest.iter().take(5).map(|byte| format!("{byte:02x}")).collect();
    let base: String = format!("{}-{hook}", occasion.app).to_lowercase().chars().take(52).collect();
    format!("{}-{suffix}", base.trim_end_matches('-'))
}

fn job_of(template: &JobTemplateSpec, name: &str, occasion: &Occasion) -> Job {
    let meta = template.metadata.clone().unwrap_or_default();
    let mut labels = meta.labels.unwrap_or_default();
    labels.insert("regions.trading.dev/run".to_owned(), occasion.run.to_string());
    let mut spec = template.spec.clone();
    if let Some(spec) = spec.as_mut() {
        spec.ttl_seconds_after_finished.get_or_insert(KEEP_JOBS_SECONDS);
        let pod = spec.template.spec.iter_mut();
        pod.flat_map(|pod| &mut pod.containers).for_each(|container| {
            container.env.get_or_insert_default().extend(environment(occasion));
        });
    }
    Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels),
            annotations: meta.annotations,
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    }
}

fn environment(occasion: &Occasion) -> [EnvVar; 6] {
    let set =
        |name: &str, value: String| EnvVar { name: name.to_owned(), value: Some(value), value_from: None };
    [
        set("REGION_APP", occasion.app.clone()),
        set("REGION_NAME", occasion.region.to_string()),
        set("REGION_RUN", occasion.run.to_string()),
        set("REGION_EPOCH", occasion.epoch.to_string()),
        set("REGION_FROM", occasion.from.to_string()),
        set("REGION_TO", occasion.to.to_string()),
    ]
}

fn state_of(job: &Job, name: &str) -> Answer {
    let conditions = job.status.iter().filter_map(|status| status.conditions.as_ref()).flatten();
    for condition in conditions.filter(|condition| condition.status == "True") {
        match condition.type_.as_str() {
            "Complete" => return Answer::Done,
            "Failed" => {
                let why = condition.message.as_deref().unwrap_or("no message");
                return Answer::Failed(format!("Job {name} failed ({why}); delete it to have it made again"));
            }
            _ => {}
        }
    }
    Answer::AtWork
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occasion() -> Occasion {
        Occasion {
            app: "trade-matching".to_owned(),
            namespace: "trading".to_owned(),
            region: Region::from("us-west-2"),
            run: RunId(uuid::Uuid::nil()),
            epoch: Epoch(4),
            from: Region::from("us-east-1"),
            to: Region::from("us-west-2"),
            point: HookPoint::AfterGrant,
        }
    }

    #[test]
    fn a_repeat_in_the_same_run_and_epoch_finds_the_same_job() {
        let name = job_name("reconcile", &occasion());
        assert_eq!(name, job_name("reconcile", &occasion()));
        assert_ne!(name, job_name("reconcile", &Occasion { epoch: Epoch(6), ..occasion() }));
        assert_ne!(name, job_name("other", &occasion()));
        assert!(job_name(&"x".repeat(63), &occasion()).len() <= 63);
    }

    #[test]
    fn the_body_names_run_and_epoch() {
        let body = body(&occasion());
        assert_eq!(body["epoch"], json!(4));
        assert_eq!(body["point"], json!("AfterGrant"));
        assert_eq!(body["run"], json!(uuid::Uuid::nil()));
    }

    #[test]
    fn a_job_is_done_only_by_its_complete_condition() {
        let job = |conditions: Value| -> Job {
            serde_json::from_value(
                json!({"metadata": {}, "status": {"succeeded": 1, "conditions": conditions}}),
            )
            .unwrap()
        };
        let says = |conditions| match state_of(&job(conditions), "job") {
            Answer::Done => "done",
            Answer::AtWork => "at work",
            Answer::Failed(_) => "failed",
        };
        assert_eq!(says(json!([])), "at work");
        assert_eq!(says(json!([{"type": "SuccessCriteriaMet", "status": "True"}])), "at work");
        assert_eq!(says(json!([{"type": "Complete", "status": "False"}])), "at work");
        assert_eq!(says(json!([{"type": "Complete", "status": "True"}])), "done");
        assert_eq!(says(json!([{"type": "Failed", "status": "True"}])), "failed");
    }
}
