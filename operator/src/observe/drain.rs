//! Drain checks of the own region. No answer is not zero.

use std::collections::BTreeMap;
use std::time::Duration;

use crds::{DrainCheck, HttpCheck};
use futures::future::join_all;
use http::Method;
use region_plan::Fact;
use serde_json::Value;

use crate::caller::{Call, Caller};
use crate::clock;
use crate::sources::Sources;

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
