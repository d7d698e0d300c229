//! The control port: plain HTTP and JSON for tests and people.

use std::sync::Arc;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::dns::{Found, lookup};
use crate::faults::Faults;
use crate::world::{Inner, World};

type Failure = (StatusCode, Json<Value>);

/// Serves until stopped.
pub(crate) async fn serve(listener: TcpListener, world: Arc<World>, stop: CancellationToken) {
    let router = Router::new()
        .route("/calls", get(calls).delete(clear_calls))
        .route("/faults", get(faults).put(put_faults).patch(patch_faults))
        .route("/state", get(state))
        .route("/reset", post(reset))
        .with_state(world);
    if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await {
        tracing::error!(%error, "control port ended");
    }
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn calls(State(world): State<Arc<World>>, Query(query): Query<After>) -> Json<Value> {
    let inner = world.lock();
    Json(json!({ "calls": inner.calls.after(query.after), "dropped": inner.calls.dropped() }))
}

async fn clear_calls(State(world): State<Arc<World>>) -> StatusCode {
    world.lock().calls.clear();
    StatusCode::NO_CONTENT
}

async fn faults(State(world): State<Arc<World>>) -> Json<Faults> {
    Json(world.faults.borrow().clone())
}

/// Replaces all settings; those left out become their defaults.
async fn put_faults(
    State(world): State<Arc<World>>,
    Json(new): Json<Value>,
) -> Result<Json<Faults>, Failure> {
    change(&world, |_| Ok(new))
}

/// Changes the settings named (a JSON merge patch: null removes).
async fn patch_faults(
    State(world): State<Arc<World>>,
    Json(patch): Json<Value>,
) -> Result<Json<Faults>, Failure> {
    change(&world, |now| {
        let mut merged = serde_json::to_value(now)?;
        merge(&mut merged, patch);
        Ok(merged)
    })
}

/// Changes the settings in one step, so that two patches at once both count; invalid ones change nothing.
fn change(
    world: &World,
    new: impl FnOnce(&Faults) -> Result<Value, serde_json::Error>,
) -> Result<Json<Faults>, Failure> {
    let mut result = Err(String::new());
    world.faults.send_if_modified(|faults| {
        result = new(faults).and_then(serde_json::from_value).map_err(|error| error.to_string()).and_then(
            |new: Faults| {
                let (rules, clusters) = (world.rule_names(), world.cluster_ids());
                new.validate(&world.arc_regions(), &world.rds_regions(), &rules, &clusters).map(|()| new)
            },
        );
        let Ok(new) = &result else { return false };
        faults.clone_from(new);
        true
    });
    result.map(Json).map_err(|why| bad(&why))
}

fn bad(why: &str) -> Failure {
    (StatusCode::BAD_REQUEST, Json(json!({ "error": why })))
}

/// RFC 7396. A tagged setting (an endpoint's mode) is replaced as a whole: its parts belong together.
fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) if !patch.contains_key("mode") => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = patch,
    }
}

async fn state(State(world): State<Arc<World>>) -> Json<Value> {
    let now = clock::now().instant;
    let inner = world.lock();
    let names = (world.config.dns.static_names.keys())
        .chain(world.config.dns.failover_names.iter().map(|name| &name.name))
        .chain(world.config.global_clusters.iter().map(|cluster| &cluster.writer_endpoint));
    let answers: serde_json::Map<String, Value> = names
        .map(|name| {
            let plain = name.trim_end_matches('.').to_ascii_lowercase();
            let address = match lookup(&world.config, &inner, &plain, now) {
                Found::Address(address, _) => json!(address),
                Found::NoName | Found::Foreign => Value::Null,
            };
            (name.clone(), address)
        })
        .collect();
    Json(json!({
        "seed": inner.seed,
        "controls": controls(&world, &inner, now),
        "global_clusters": global_clusters(&inner),
        "dns": answers,
    }))
}

fn controls(world: &World, inner: &Inner, now: std::time::Instant) -> Vec<Value> {
    let regions = world.arc_regions();
    let of = |(index, control): (usize, &crate::RoutingControl)| {
        let seen = regions.iter().enumerate();
        let seen: serde_json::Map<String, Value> = seen
            .map(|(i, region)| ((*region).to_owned(), json!(inner.register.seen(index, i, now))))
            .collect();
        json!({
            "name": control.name,
            "arn": control.arn,
            "accepted": inner.register.accepted(index),
            "seen": seen,
            "health_check": inner.register.seen(index, regions.len(), now),
        })
    };
    inner.register.controls().enumerate().map(of).collect()
}

fn global_clusters(inner: &Inner) -> Vec<Value> {
    let of = |cluster: &crate::rds::cluster::Cluster| {
        let record = cluster.current();
        json!({
            "id": cluster.config.id,
            "writer": cluster.member(record.writer).arn,
            "writer_region": cluster.member(record.writer).region,
            "status": if record.running.is_some() { "switching-over" } else { "available" },
            "step": record.running.as_ref().map(|running| running.step),
            "out_of_sync": record.out_of_sync.iter().map(|&m| &cluster.member(m).arn).collect::<Vec<_>>(),
            "last_switchover": inner.reports.get(&cluster.config.id),
        })
    };
    inner.clusters.iter().map(of).collect()
}

/// Healthy settings, an empty call log, controls as configured and saved. Writers stay where they are.
async fn reset(State(world): State<Arc<World>>) -> Result<StatusCode, Failure> {
    world.reset();
    let saved = world.persist().await;
    saved.map(|()| StatusCode::NO_CONTENT).map_err(|error| bad(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_changes_what_it_names_and_replaces_a_mode_as_a_whole() {
        let mut settings = json!({"arc": {"a": {"mode": "slow", "ms": 5}, "b": {"mode": "dead"}}, "x": 1});
        merge(&mut settings, json!({"arc": {"a": {"mode": "ok"}, "b": null}}));
        assert_eq!(settings, json!({"arc": {"a": {"mode": "ok"}}, "x": 1}));
    }
}
