//! Drain checks of the own region. No answer is not zero.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crds::{DrainCheck, HttpCheck};
use futures::future::join_all;
use http::Method;
use region_plan::Fact;
use serde_json::Value;
use tokio::time::Instant;

use crate::caller::{Call, Caller};
use crate::clock;
use crate::sources::Sources;

/// A break between two samples is longer than this many deadlines of an observation: a pass may use up two for the broker, which
/// is asked in two ways, and as long for the writing of the status.
const LONGEST_BREAK: u32 = 4;

/// When this process last saw all checks of an object at zero.
///
/// "Zero since" stands in the object's status, so it outlives its writer. But two zeros on both sides of a time in which
/// nobody looked, such as a change of leader, or in which somebody saw more, say nothing of that time.
#[derive(Debug, Default)]
pub struct Samples(Mutex<HashMap<String, Instant>>);

impl Samples {
    /// Notes a sample. Where zeros were recorded and the sample before this one did not come shortly before, or was not zero,
    /// this one is not known to be zero either: so the hold begins anew.
    pub(super) fn checked(
        &self,
        uid: &str,
        recorded: bool,
        sample: BTreeMap<String, Fact<u64>>,
        now: Instant,
        deadline: Duration,
    ) -> BTreeMap<String, Fact<u64>> {
        let zero = sample.values().all(|fact| fact.get() == Some(&0));
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = if zero { last.insert(uid.to_owned(), now) } else { last.remove(uid) };
        let longest = deadline * LONGEST_BREAK;
        let unbroken = before.is_some_and(|before| now.saturating_duration_since(before) <= longest);
        if !zero || !recorded || unbroken {
            return sample;
        }
        let why = format!("zero, but not seen at zero in the {longest:?} before: the hold begins anew");
        sample.into_keys().map(|name| (name, Fact::unknown(why.clone()))).collect()
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

/// All checks, side by side.
pub(super) async fn observe(
    sources: &Sources,
    checks: &[DrainCheck],
    deadline: Duration,
) -> BTreeMap<String, Fact<u64>> {
    let queues: Vec<&str> =
        checks.iter().filter_map(|check| check.rabbitmq.as_ref()).map(|q| q.queue.as_str()).collect();
    let (by_queue, others) = futures::future::join(
        queue_lengths(sources, &queues),
        join_all(
            checks
                .iter()
                .filter(|check| check.rabbitmq.is_none())
                .map(|check| other(sources, check, deadline)),
        ),
    )
    .await;
    let mut found: BTreeMap<String, Fact<u64>> = others.into_iter().collect();
    for check in checks {
        if let Some(of) = &check.rabbitmq {
            let answer =
                by_queue.get(of.queue.as_str()).cloned().unwrap_or_else(|| Err("not asked".to_owned()));
            found.insert(check.name.clone(), fact(answer));
        }
    }
    found
}

fn fact(answer: Result<u64, String>) -> Fact<u64> {
    match answer {
        Ok(number) => Fact::known(number, clock::now()),
        Err(why) => Fact::unknown(why),
    }
}

/// The management API knows of unacknowledged messages, AMQP of the newest ready ones: the larger number counts.
async fn queue_lengths<'a>(sources: &Sources, queues: &[&'a str]) -> BTreeMap<&'a str, Result<u64, String>> {
    let broker = match &sources.broker {
        Ok(broker) => broker,
        Err(why) => return queues.iter().map(|queue| (*queue, Err(why.clone()))).collect(),
    };
    let counted = join_all(queues.iter().map(|queue| broker.management.messages(queue))).await;
    let counted = counted.into_iter().map(|answer| answer.map_err(|error| error.to_string()));
    let counted: BTreeMap<&str, _> = queues.iter().copied().zip(counted).collect();
    // Declaring a queue that does not exist would close the channel, so only those that are there are asked.
    let there: Vec<&str> = queues.iter().copied().filter(|queue| counted[queue].is_ok()).collect();
    let ready = broker.queues.ready(&there).await;
    let mut ready: BTreeMap<&str, _> = there.into_iter().zip(ready).collect();
    let answer = |(queue, counted)| {
        let ready = ready.remove(queue).unwrap_or_else(|| Err("not asked".to_owned()));
        (queue, larger(counted, ready))
    };
    counted.into_iter().map(answer).collect()
}

fn larger(counted: Result<Option<u64>, String>, ready: Result<u64, String>) -> Result<u64, String> {
    match (counted, ready) {
        (Ok(Some(counted)), Ok(ready)) => Ok(counted.max(ready)),
        (Ok(None), Ok(_)) => Err("the management API has not counted this queue yet".to_owned()),
        (Err(why), _) | (_, Err(why)) => Err(why),
    }
}

async fn other(sources: &Sources, check: &DrainCheck, deadline: Duration) -> (String, Fact<u64>) {
    let answer = match (&check.sql, &check.http) {
        (Some(sql), _) => match &sources.database {
            Ok(database) => database.number(&sql.query).await,
            Err(why) => Err(why.clone()),
        },
        (None, Some(http)) => match &sources.caller {
            Ok(caller) => number_at(caller, http, deadline).await,
            Err(why) => Err(why.clone()),
        },
        (None, None) => Err(format!("check {} names no source", check.name)),
    };
    (check.name.clone(), fact(answer))
}

async fn number_at(caller: &Caller, check: &HttpCheck, deadline: Duration) -> Result<u64, String> {
    let call = Call { method: Method::GET, url: &check.url, auth: None, json: None, deadline };
    let body = caller.call(call).await.map_err(|error| error.to_string())?;
    let document: Value =
        serde_json::from_slice(&body).map_err(|error| format!("{}: no JSON: {error}", check.url))?;
    pointed(&document, &check.json_pointer).map_err(|why| format!("{}: {why}", check.url))
}

fn pointed(document: &Value, pointer: &str) -> Result<u64, String> {
    let value = document.pointer(pointer).ok_or_else(|| format!("nothing at {pointer:?}"))?;
    value.as_u64().ok_or_else(|| format!("{value} at {pointer:?} is not a count"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(1);

    fn sample(numbers: &[Option<u64>]) -> BTreeMap<String, Fact<u64>> {
        let fact = |number: &Option<u64>| match number {
            Some(number) => Fact::known(*number, jiff::Timestamp::UNIX_EPOCH),
            None => Fact::unknown("no answer"),
        };
        numbers.iter().enumerate().map(|(index, number)| (index.to_string(), fact(number))).collect()
    }

    #[test]
    fn a_leader_that_finds_zeros_recorded_by_another_does_not_take_them_for_its_own() {
        let (samples, start) = (Samples::default(), Instant::now());
        let zero = || sample(&[Some(0), Some(0)]);
        let first = samples.checked("u", true, zero(), start, DEADLINE);
        assert!(first.values().all(|fact| fact.get().is_none()), "{first:?}");
        let next = samples.checked("u", true, zero(), start + DEADLINE, DEADLINE);
        assert_eq!(next, zero(), "it looks on from then");
        assert_eq!(
            samples.checked("other", false, zero(), start, DEADLINE),
            zero(),
            "nothing was recorded yet"
        );
    }

    #[test]
    fn a_break_between_two_zeros_or_another_number_in_it_begins_the_hold_anew() {
        let (samples, start) = (Samples::default(), Instant::now());
        let zero = || sample(&[Some(0)]);
        let at = |seconds, found| samples.checked("u", true, found, start + DEADLINE * seconds, DEADLINE);
        at(0, zero());
        assert_eq!(at(4, zero()), zero());
        assert_ne!(at(9, zero()), zero(), "a break of five deadlines");
        assert_eq!(at(10, zero()), zero());
        for seen in [Some(4), None] {
            assert_eq!(at(11, sample(&[seen])), sample(&[seen]), "what is not zero is told as it is");
            assert_ne!(at(11, zero()), zero(), "even if the record of it was lost");
        }
    }

    #[test]
    fn one_missing_answer_makes_the_length_unknown() {
        assert_eq!(larger(Ok(Some(3)), Ok(5)), Ok(5));
        assert_eq!(larger(Ok(Some(7)), Ok(5)), Ok(7));
        assert!(larger(Ok(Some(0)), Err("gone".to_owned())).is_err());
        assert!(larger(Err("gone".to_owned()), Ok(0)).is_err());
        assert!(larger(Ok(None), Ok(0)).is_err());
    }

    #[test]
    fn only_a_count_at_the_pointer_is_a_number() {
        let document = json!({"in": {"flight": 4, "text": "4", "less": -1}});
        assert_eq!(pointed(&document, "/in/flight"), Ok(4));
        for pointer in ["/in/text", "/in/less", "/in", "/gone"] {
            assert!(pointed(&document, pointer).is_err(), "{pointer}");
        }
    }
}
