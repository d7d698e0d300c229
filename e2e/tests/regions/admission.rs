//! The same cases that the types are tested with, on the real API servers: refused at apply, with the field's name.

#[path = "../../../crds/tests/cases/mod.rs"]
mod cases;

use anyhow::{Result, bail};
use crds::TradingRegion;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::core::ApiResource;
use lab::Region;
use serde_json::Value;

use crate::rig::Rig;

/// Server-side dry run of one object. Answers why it was refused, if it was. A new one is created, because an apply
/// refuses some of it earlier and in words of its own.
async fn dry_run(api: &Api<DynamicObject>, name: &str, object: &Value, new: bool) -> Result<Option<String>> {
    let answer = if new {
        let params = PostParams { dry_run: true, ..PostParams::default() };
        api.create(&params, &serde_json::from_value(object.clone())?).await
    } else {
        let params = PatchParams { dry_run: true, ..PatchParams::apply("admission-test").force() };
        api.patch(name, &params, &Patch::Apply(object)).await
    };
    match answer {
        Ok(_) => Ok(None),
        Err(kube::Error::Api(status)) => Ok(Some(status.message.clone())),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_server_accepts_and_refuses_what_the_types_do() -> Result<()> {
    let rig = Rig::ready().await?;
    let resource = ApiResource::erase::<TradingRegion>(&());
    let api: Api<DynamicObject> =
        Api::namespaced_with(rig.clusters.client(Region::ALL[0]), "default", &resource);
    let mut wrong = Vec::new();
    let (mut accepted, mut refused) = (0, 0);
    for (number, case) in cases::all().into_iter().enumerate() {
        // A case about the name keeps it; the others have one of their own.
        let own = case.object["metadata"]["name"].as_str().filter(|name| *name != e2e::clusters::APPLICATION);
        let name = own.map_or(format!("case-{number}"), str::to_owned);
        let named = |mut object: Value| {
            object["metadata"] = serde_json::json!({"name": name, "namespace": "default"});
            object
        };
        let new = case.old.is_none();
        if let Some(old) = case.old {
            api.patch(&name, &PatchParams::apply("admission-test").force(), &Patch::Apply(named(old)))
                .await?;
        }
        let answer = dry_run(&api, &name, &named(case.object), new).await?;
        match (&answer, &case.refused) {
            (None, None) => accepted += 1,
            (Some(message), Some(expected)) if message.contains(expected.as_str()) => refused += 1,
            _ => wrong
                .push(format!("{}: expected {:?}, the API server said {answer:?}", case.name, case.refused)),
        }
        let _ = api.delete(&name, &Default::default()).await;
    }
    println!("{accepted} accepted, {refused} refused as expected on a real API server");
    if !wrong.is_empty() || accepted == 0 || refused == 0 {
        bail!("{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
    }
    Ok(())
}
