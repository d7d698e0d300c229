//! The chart's reconciliation, run once by hand as an operations team would: a Job made from its CronJob.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use k8s_openapi::api::batch::v1::{CronJob, Job, JobSpec};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{DeleteParams, ListParams, LogParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use lab::Application;

use crate::clusters::{Clusters, NAMESPACE};
use crate::timeouts::RECONCILIATION;
use crate::wait::{Look, until};

/// Runs it where the application is active, looking back so far, and gives the report that its pod has printed.
///
/// # Errors
/// When the application is active nowhere, the Job does not end, or it ends as a failure: then with the report.
pub async fn run(clusters: &Clusters, application: Application, since: Duration) -> Result<String> {
    let region = clusters.of(application).active().await;
    let region = region.with_context(|| format!("{application} is active nowhere"))?;
    let client = clusters.client(region);
    let schedule = format!("{application}-reconcile");
    let cron: CronJob = Api::namespaced(client.clone(), NAMESPACE).get(&schedule).await?;
    let spec = Some(looking_back(cron.spec.job_template.spec.context("a CronJob without a Job")?, since)?);
    let metadata = ObjectMeta { generate_name: Some(format!("{schedule}-")), ..ObjectMeta::default() };
    let jobs: Api<Job> = Api::namespaced(client.clone(), NAMESPACE);
    let job = jobs.create(&PostParams::default(), &Job { metadata, spec, status: None }).await?;
    let name = job.metadata.name.context("a Job without a name")?;
    let ended = ended(&jobs, &name).await;
    let report = log(&client, &name).await;
    jobs.delete(&name, &DeleteParams::background()).await?;
    match ended? {
        "Complete" => report,
        other => bail!("{name} in {region}: {other}\n{}", report?),
    }
}

fn looking_back(mut job: JobSpec, since: Duration) -> Result<JobSpec> {
    let pod = job.template.spec.as_mut().context("a Job without a pod")?;
    let mut args = pod.containers.iter_mut().flat_map(|container| container.args.iter_mut().flatten());
    let arg = args.find(|arg| arg.starts_with("--since=")).context("the chart's Job gives no --since")?;
    *arg = format!("--since={}s", since.as_secs().max(1));
    Ok(job)
}

/// The condition that the Job ends with.
async fn ended(jobs: &Api<Job>, name: &str) -> Result<&'static str> {
    until(&format!("job {name} to end"), RECONCILIATION, async || {
        let status = jobs.get_status(name).await?.status.unwrap_or_default();
        let is = |kind: &str| {
            status
                .conditions
                .iter()
                .flatten()
                .any(|condition| condition.type_ == kind && condition.status == "True")
        };
        let end = ["Complete", "Failed"].into_iter().find(|kind| is(kind));
        Ok(end.map_or_else(|| Look::NotYet(format!("{status:?}")), Look::Seen))
    })
    .await
}

async fn log(client: &Client, job: &str) -> Result<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let of_job = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
    let pod = pods.list(&of_job).await?.items.into_iter().next().context("the Job had no pod")?;
    let name = pod.metadata.name.context("a pod without a name")?;
    Ok(pods.logs(&name, &LogParams::default()).await?)
}
