//! What each test begins with: both charts installed once, the object applied, both sides steady.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result};
use crds::TradingRegionStatus;
use e2e::clusters::{APPLICATION, NAMESPACE, OPERATOR_NAMESPACE};
use e2e::customer::{Customer, CustomerOptions};
use e2e::object::{Choices, trading_region};
use e2e::wait::{Look, until};
use e2e::{Clusters, deploy, run, timeouts};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt as _};
use lab::{Application, Facts, Region};
use region_plan::Code;
use tokio::sync::OnceCell;

use crate::by_hand;

static INSTALLED: OnceCell<Facts> = OnceCell::const_new();

/// Both clusters, and the region that is active.
pub struct Rig {
    pub clusters: Clusters,
    pub active: Region,
}

impl Rig {
    /// Installs if need be, and waits until both sides are steady with the object as the demo has it.
    pub async fn ready() -> Result<Self> {
        let facts = INSTALLED.get_or_try_init(install).await?;
        let clusters = Clusters::connect(facts).await?;
        let active = clusters.active().await.unwrap_or(Region::ALL[0]);
        run::start(&clusters, &Choices { reason: "test".into(), ..Choices::active(active) }).await?;
        Ok(Self { clusters, active })
    }

    /// The object that moves the application to the other region.
    pub fn there(&self, reason: &str) -> Choices {
        Choices { reason: reason.to_owned(), ..Choices::active(self.active.peer()) }
    }

    /// Applies choices in both clusters.
    pub async fn apply(&self, choices: &Choices) -> Result<()> {
        self.clusters.apply(&trading_region(&self.clusters.facts, choices)?).await
    }

    /// Waits until one side's status satisfies a condition.
    pub async fn sees(
        &self,
        region: Region,
        what: &str,
        condition: impl Fn(&TradingRegionStatus) -> bool,
    ) -> Result<TradingRegionStatus> {
        self.object_sees(APPLICATION, region, what, condition).await
    }

    /// Waits until one side tells a finding whose message names that fact.
    pub async fn tells(&self, region: Region, code: Code, fact: &str) -> Result<()> {
        self.object_tells(APPLICATION, region, code, fact).await
    }

    /// The same of another object.
    pub async fn object_tells(&self, name: &str, region: Region, code: Code, fact: &str) -> Result<()> {
        let what = format!("{name} to tell {} with {fact:?}", code.text());
        let named = |status: &TradingRegionStatus| {
            status.findings.iter().any(|finding| finding.code == code && finding.message.contains(fact))
        };
        self.object_sees(name, region, &what, named).await.map(drop)
    }

    /// Waits until a condition of one side has that state and names that fact.
    pub async fn says(&self, region: Region, type_: &str, state: &str, fact: &str) -> Result<()> {
        let what = format!("condition {type_} to be {state} with {fact:?}");
        let said = |status: &TradingRegionStatus| {
            status
                .conditions
                .iter()
                .any(|one| one.type_ == type_ && one.status == state && one.message.contains(fact))
        };
        self.sees(region, &what, said).await.map(drop)
    }

    /// Waits until neither side has anything to tell.
    pub async fn quiet(&self) -> Result<()> {
        for region in Region::ALL {
            self.sees(region, "nothing left to tell", |status| status.findings.is_empty()).await?;
        }
        Ok(())
    }

    async fn object_sees(
        &self,
        name: &str,
        region: Region,
        what: &str,
        condition: impl Fn(&TradingRegionStatus) -> bool,
    ) -> Result<TradingRegionStatus> {
        until(&format!("{region}: {what}"), timeouts::NOTICE, async || {
            let object = self.clusters.objects(region).get(name).await?;
            let status = object.status.unwrap_or_default();
            Ok(if condition(&status) { Look::Seen(status) } else { Look::NotYet(run::sentence(&status)) })
        })
        .await
    }

    /// Waits until a region whose part of a switch has ended runs no pods; its controls are Off.
    pub async fn stands_by(&self, region: Region) -> Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.clusters.client(region), NAMESPACE);
        let ours = ListParams::default().labels(&format!("app.kubernetes.io/part-of={APPLICATION}"));
        until(&format!("the pods of {region} to go"), timeouts::NOTICE, async || {
            let listed = deployments.list(&ours).await?.into_iter();
            let scaled: Vec<String> = listed
                .filter(|deployment| deployment.spec.as_ref().and_then(|spec| spec.replicas) != Some(0))
                .map(|deployment| deployment.name_any())
                .collect();
            Ok(if scaled.is_empty() { Look::Seen(()) } else { Look::NotYet(format!("still up: {scaled:?}")) })
        })
        .await?;
        by_hand::all_off(self, region).await
    }

    /// Waits until an object is gone.
    pub async fn gone(&self, name: &str, region: Region) -> Result<()> {
        let objects = self.clusters.objects(region);
        until(&format!("{name} to be gone from {region}"), timeouts::NOTICE, async || {
            Ok(match objects.get_metadata_opt(name).await? {
                None => Look::Seen(()),
                Some(object) => Look::NotYet(format!("kept by {:?}", object.finalizers())),
            })
        })
        .await
    }

    /// A customer whose first trades were answered.
    pub async fn customer(&self) -> Result<Customer> {
        let options = CustomerOptions { rate: 20, ..CustomerOptions::default() };
        let customer = Customer::start(&self.clusters.facts, &options)?;
        customer.answered(20).await?;
        Ok(customer)
    }

    fn operators(&self, region: Region) -> (Api<Pod>, ListParams) {
        let api = Api::namespaced(self.clusters.client(region), OPERATOR_NAMESPACE);
        (api, ListParams::default().labels("app.kubernetes.io/component=operator"))
    }

    /// Ends both operators of a region; their Deployment makes new ones.
    pub async fn restart_operator(&self, region: Region) -> Result<()> {
        let (api, all) = self.operators(region);
        api.delete_collection(&DeleteParams::default(), &all).await?;
        Ok(())
    }

    /// The containers of a region's operators that run.
    pub async fn running_operators(&self, region: Region) -> Result<Vec<String>> {
        let (api, all) = self.operators(region);
        let pods = api.list(&all).await?;
        let containers = pods.iter().flat_map(containers);
        let running = containers
            .filter(|container| container.state.as_ref().is_some_and(|state| state.running.is_some()));
        Ok(running.filter_map(|container| container.container_id.clone()).collect())
    }

    /// Operators of a region that ended with a failure: their containers, as far as kubelet remembers them, by pod.
    pub async fn killed_operators(&self, region: Region) -> Result<BTreeMap<String, BTreeSet<String>>> {
        let (api, all) = self.operators(region);
        let pods = api.list(&all).await?.into_iter();
        Ok(pods.map(|pod| (pod.name_any(), failed(&pod))).filter(|(_, failed)| !failed.is_empty()).collect())
    }

    /// Replaces the pods of killed operators: kubelet would wait longer each time before it starts them again.
    pub async fn replace_killed_operators(&self, region: Region) -> Result<()> {
        let (api, _) = self.operators(region);
        for pod in self.killed_operators(region).await?.keys() {
            api.delete(pod, &DeleteParams::default()).await?;
        }
        Ok(())
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

fn failed(pod: &Pod) -> BTreeSet<String> {
    let states = containers(pod).flat_map(|container| [&container.state, &container.last_state]).flatten();
    let ends = states.filter_map(|state| state.terminated.as_ref()).filter(|end| end.exit_code != 0);
    ends.filter_map(|end| end.container_id.clone()).collect()
}

/// The customer's last word: trades are answered, none was lost or doubled.
pub async fn unharmed(customer: Customer) -> Result<()> {
    customer.answered_more(20).await?;
    let verdict = customer.finish().await?;
    assert_eq!((verdict.lost, verdict.doubled), (0, 0), "{verdict:?}");
    Ok(())
}

async fn install() -> Result<Facts> {
    let facts = Facts::read("tr").context("these tests need the lab: run them with `cargo xtask test`")?;
    deploy::install(&facts, &[Application::TradeMatching], 0).await?;
    Ok(facts)
}
