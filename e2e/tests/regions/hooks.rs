//! Every hook point, as an HTTP call and as a Job.

use anyhow::Result;
use e2e::clusters::NAMESPACE;
use e2e::object::{Choices, application_hooks};
use e2e::run;
use k8s_openapi::api::batch::v1::Job;
use kube::Api;
use kube::api::ListParams;
use lab::{Application, Region};
use region_plan::HookPoint;
use serde_json::{Value, json};

use crate::rig::Rig;

fn job_hook(point: HookPoint) -> Value {
    json!({
        "name": format!("job-{point:?}").to_lowercase(),
        "at": format!("{point:?}"),
        "deadline": "60s",
        "job": {"template": {"spec": {"template": {"spec": {
            "restartPolicy": "Never",
            "automountServiceAccountToken": false,
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "hook",
                "image": "localhost/trading-services:dev",
                "imagePullPolicy": "Never",
                "args": ["version"],
                "securityContext": {
                    "allowPrivilegeEscalation": false,
                    "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
            }],
        }}}}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn each_point_calls_the_application_and_runs_its_job_once() -> Result<()> {
    let rig = Rig::ready().await?;
    let mut hooks = application_hooks(Application::TradeMatching).as_array().cloned().unwrap_or_default();
    hooks.extend(HookPoint::ALL.map(job_hook));
    let [old, new] =
        run::switch(&rig.clusters, &Choices { hooks: hooks.into(), ..rig.there("all hooks") }).await?;
    assert_eq!(old.hooks_done, [HookPoint::Drained]);
    let done = [HookPoint::PreWarm, HookPoint::AfterGrant, HookPoint::Probe, HookPoint::AfterOpen];
    assert_eq!(new.hooks_done, done);
    let run_id = new.id.to_string();
    let mut jobs = 0;
    for region in Region::ALL {
        let api: Api<Job> = Api::namespaced(rig.clusters.client(region), NAMESPACE);
        for job in api.list(&ListParams::default()).await? {
            let text = serde_json::to_string(&job.metadata)?;
            if text.contains(&run_id) {
                jobs += 1;
                assert_eq!(job.status.and_then(|status| status.succeeded), Some(1), "{text}");
            }
        }
    }
    assert_eq!(jobs, HookPoint::ALL.len(), "each job hook ran once, in the region of its point");
    Rig::ready().await?;
    Ok(())
}
