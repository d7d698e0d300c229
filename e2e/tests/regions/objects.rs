//! Objects that the operator does not understand, or that ask for what is another's: told, left alone, harmless to what runs.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use crds::TradingRegion;
use e2e::clusters::{APPLICATION, NAMESPACE};
use e2e::object::{Choices, trading_region};
use e2e::wait::{Look, until};
use e2e::{Clusters, run, timeouts};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, CustomResourceExt as _, ResourceExt as _};
use lab::{Region, control};
use region_plan::Code;
use serde_json::{Value, json};

use crate::rig::{Rig, unharmed};
use crate::undo::Undo;

/// A value of `spec.managed` that a later version might serve and this one does not know.
const LATER: &str = "Sometimes";

/// Changes the definition's versions in one cluster.
async fn redefined(
    clusters: &Clusters,
    region: Region,
    change: impl FnOnce(Vec<Value>) -> Vec<Value>,
) -> Result<Undo> {
    let api: Api<CustomResourceDefinition> = Api::all(clusters.client(region));
    let name = TradingRegion::crd_name();
    let write = async |api: &Api<CustomResourceDefinition>, versions: Vec<Value>| {
        let patch = Patch::Merge(json!({"spec": {"versions": versions}}));
        api.patch(name, &PatchParams::default(), &patch).await.map(drop)
    };
    let versions = api.get(name).await?.spec.versions.into_iter().map(serde_json::to_value);
    let before: Vec<Value> = versions.collect::<Result<_, _>>()?;
    write(&api, change(before.clone())).await.context("changing the definition")?;
    Ok(Undo::new(format!("the definition of {region}"), async move { Ok(write(&api, before).await?) }))
}

/// As a later version might: one more value is served.
fn with_a_later_value(mut versions: Vec<Value>) -> Vec<Value> {
    let managed = "/schema/openAPIV3Schema/properties/spec/properties/managed/enum";
    for values in versions.iter_mut().filter_map(|version| version.pointer_mut(managed)?.as_array_mut()) {
        values.push(LATER.into());
    }
    versions
}

/// As a later version might: this one is not served any more.
fn with_a_later_version(mut versions: Vec<Value>) -> Vec<Value> {
    let mut later = versions[0].clone();
    later["name"] = "v1beta1".into();
    later["storage"] = false.into();
    versions[0]["served"] = false.into();
    versions.push(later);
    versions
}

fn untyped(clusters: &Clusters, region: Region) -> Api<DynamicObject> {
    Api::namespaced_with(clusters.client(region), NAMESPACE, &ApiResource::erase::<TradingRegion>(&()))
}

/// Writes until the API server takes it: it serves a changed definition a moment after it was written.
async fn accepted(api: &Api<DynamicObject>, name: &str, object: &Value) -> Result<()> {
    let params = PatchParams::apply("e2e").force();
    until(&format!("{name} to be accepted"), timeouts::NOTICE, async || {
        api.patch(name, &params, &Patch::Apply(object)).await?;
        Ok(Look::Seen(()))
    })
    .await
}

/// Makes an object in each region.
async fn made(clusters: &Clusters, object: &TradingRegion) -> Result<Undo> {
    let (clusters, name) = (clusters.clone(), object.name_any());
    for region in Region::ALL {
        clusters.objects(region).create(&PostParams::default(), object).await?;
    }
    Ok(Undo::new(name.clone(), async move {
        for region in Region::ALL {
            clusters.objects(region).delete(&name, &DeleteParams::default()).await?;
        }
        Ok(())
    }))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_that_is_not_understood_is_told_and_left_alone_and_the_others_go_on() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    let region = rig.active;
    let name = format!("not-understood-{}", uuid::Uuid::new_v4().simple());
    let name = &name[..30];
    let mut object = serde_json::to_value(trading_region(&rig.clusters.facts, &Choices::active(region))?)?;
    object["metadata"]["name"] = name.into();
    object["spec"]["managed"] = LATER.into();

    let since = services_common::clock::now();
    let definition = redefined(&rig.clusters, region, with_a_later_value).await?;
    let api = untyped(&rig.clusters, region);
    accepted(&api, name, &object).await?;
    let (writer, own_name) = (api.clone(), name.to_owned());
    let broken = Undo::new(name, async move {
        writer.delete(&own_name, &DeleteParams::default()).await?;
        Ok(())
    });
    definition.now().await?;

    let told = told_by_event(&rig, region, name, since).await?;
    assert!(told.contains(LATER), "{told}");
    says_not_understood(&api, name).await?;
    let left = api.get(name).await?;
    let status = left.data["status"].as_object().context("a status")?;
    assert!(left.finalizers().is_empty() && status.keys().eq(["conditions"]), "{left:?}");
    // The object that is understood is still worked on: its next generation is seen, and it has nothing to tell.
    run::start(&rig.clusters, &Choices { reason: "beside a broken one".into(), ..Choices::active(region) })
        .await?;
    rig.quiet().await?;
    customer.answered_more(20).await?;
    broken.now().await?;
    rig.gone(name, region).await?;
    unharmed(customer).await
}

/// The status and reason of a condition, as they stand in the object.
fn condition(object: &DynamicObject, type_: &str) -> (Value, Value) {
    let all = object.data.pointer("/status/conditions").and_then(Value::as_array);
    let found = all.into_iter().flatten().find(|condition| condition["type"] == type_);
    found.map_or_else(Default::default, |found| (found["status"].clone(), found["reason"].clone()))
}

/// Waits until a condition says this.
async fn says(api: &Api<DynamicObject>, name: &str, type_: &str, wanted: [&str; 2]) -> Result<()> {
    until(&format!("{type_} of {name} to be {wanted:?}"), timeouts::NOTICE, async || {
        let said = condition(&api.get(name).await?, type_);
        Ok(if said == (wanted[0].into(), wanted[1].into()) {
            Look::Seen(())
        } else {
            Look::NotYet(format!("it is {said:?}"))
        })
    })
    .await
}

/// The object says of itself that it is not understood.
async fn says_not_understood(api: &Api<DynamicObject>, name: &str) -> Result<()> {
    says(api, name, "Valid", ["False", "Undecodable"]).await?;
    says(api, name, "Ready", ["Unknown", "Undecodable"]).await
}

/// The note of a warning about that object that was given since then: it is not understood.
async fn told_by_event(rig: &Rig, region: Region, name: &str, since: Timestamp) -> Result<String> {
    let events: Api<Event> = Api::namespaced(rig.clusters.client(region), NAMESPACE);
    let told = |event: &Event| {
        let last =
            event.series.as_ref().map(|series| &series.last_observed_time).or(event.event_time.as_ref());
        event.regarding.as_ref().is_some_and(|regarding| regarding.name.as_deref() == Some(name))
            && event.reason.as_deref() == Some("Undecodable")
            && last.is_some_and(|time| time.0 >= since)
    };
    until(&format!("a warning that {name} is not understood"), timeouts::NOTICE, async || {
        let all = events.list(&ListParams::default()).await?;
        Ok(match all.iter().find(|event| told(event)) {
            Some(event) => Look::Seen(event.note.clone().unwrap_or_default()),
            None => Look::NotYet(format!("{} other events", all.items.len())),
        })
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_with_another_version_of_the_definition_is_told_and_does_not_stop_trading() -> Result<()> {
    let rig = Rig::ready().await?;
    let standby = rig.active.peer();
    let customer = rig.customer().await?;

    // Its object holds what this version does not know.
    let since = services_common::clock::now();
    let definition = redefined(&rig.clusters, standby, with_a_later_value).await?;
    let object = untyped(&rig.clusters, standby);
    let managed = |value: &'static str| json!({"spec": {"managed": value}});
    let writer = object.clone();
    let back = Undo::new("spec.managed", async move {
        let patch = Patch::Merge(managed("Manage"));
        writer.patch(APPLICATION, &PatchParams::default(), &patch).await?;
        Ok(())
    });
    until("the later value to be accepted", timeouts::NOTICE, async || {
        object.patch(APPLICATION, &PatchParams::default(), &Patch::Merge(managed(LATER))).await?;
        Ok(Look::Seen(()))
    })
    .await?;
    rig.tells(rig.active, Code::PeerUnknown, "is not understood by this version").await?;
    told_by_event(&rig, standby, APPLICATION, since).await?;
    says_not_understood(&object, APPLICATION).await?;
    let report = |object: &DynamicObject| object.data.pointer("/status/side").cloned();
    assert!(report(&object.get(APPLICATION).await?).is_some(), "the report of the side was dropped");
    customer.answered_more(20).await?;
    back.now().await?;
    says(&object, APPLICATION, "Valid", ["True", "AsWanted"]).await?;
    definition.now().await?;
    rig.quiet().await?;

    // It serves another version only.
    let definition = redefined(&rig.clusters, standby, with_a_later_version).await?;
    rig.tells(rig.active, Code::PeerUnknown, "does not serve TradingRegion as").await?;
    customer.answered_more(20).await?;
    definition.now().await?;
    rig.quiet().await?;
    unharmed(customer).await
}

/// Each Deployment's identity and generation, which changes with every change of its spec.
async fn deployments(clusters: &Clusters, region: Region) -> Result<BTreeMap<String, (String, i64)>> {
    let api: Api<Deployment> = Api::namespaced(clusters.client(region), NAMESPACE);
    let all = api.list(&ListParams::default()).await?.into_iter();
    Ok(all
        .map(|one| {
            let generation = one.metadata.generation.unwrap_or_default();
            (one.name_any(), (one.uid().unwrap_or_default(), generation))
        })
        .collect())
}

/// The state of each routing control as the simulated ARC has accepted it.
fn controls(clusters: &Clusters) -> Result<Value> {
    let state = control::request(&clusters.facts.lab(), "GET", "/state", "")?;
    let state: Value = serde_json::from_str(&state)?;
    let of = |one: &Value| json!([one["name"], one["accepted"]]);
    Ok(state["controls"].as_array().into_iter().flatten().map(of).collect())
}

/// All that an operator might change of an application: Deployments of both regions and routing controls.
pub async fn touchable(clusters: &Clusters) -> Result<impl PartialEq + std::fmt::Debug + use<>> {
    let [first, second] = Region::ALL;
    let both = [deployments(clusters, first).await?, deployments(clusters, second).await?];
    assert!(both.iter().all(|one| one.len() >= 3), "{both:?}");
    Ok((both, controls(clusters)?))
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_select_nothing_or_what_an_older_one_has_say_so_and_touch_nothing() -> Result<()> {
    let rig = Rig::ready().await?;
    let customer = rig.customer().await?;
    let before = touchable(&rig.clusters).await?;

    let named = |name: &str| -> Result<TradingRegion> {
        let mut object = trading_region(&rig.clusters.facts, &Choices::active(rig.active))?;
        object.metadata.name = Some(name.to_owned());
        Ok(object)
    };
    let same = named("second-of-the-same")?;
    let mut nobody = named("selects-nobody")?;
    nobody.spec.workloads.selector.match_labels =
        [("app.kubernetes.io/part-of".to_owned(), "nobody".to_owned())].into();
    let undo = [made(&rig.clusters, &same).await?, made(&rig.clusters, &nobody).await?];
    for region in Region::ALL {
        rig.object_tells(&same.name_any(), region, Code::SelectedByOlder, "trade-matching-core").await?;
        rig.object_tells(&nobody.name_any(), region, Code::NothingSelected, region.name()).await?;
    }
    customer.answered_more(20).await?;
    rig.quiet().await?;
    for undo in undo {
        undo.now().await?;
    }
    for region in Region::ALL {
        rig.gone(&same.name_any(), region).await?;
        rig.gone(&nobody.name_any(), region).await?;
    }
    assert_eq!(touchable(&rig.clusters).await?, before, "no Deployment and no routing control was touched");
    rig.quiet().await?;
    unharmed(customer).await
}
