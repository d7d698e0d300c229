//! The lab's two clusters, seen by an administrator.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, Result};
use crds::{TradingRegion, TradingRegionStatus};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use lab::{Application, Facts, Region};

use crate::timeouts::CALL;

/// Namespace of the object and its workloads.
pub const NAMESPACE: &str = "trading";
/// Namespace of the operator.
pub const OPERATOR_NAMESPACE: &str = "trading-region-operator";
/// The application that most tests move, and its object's name.
pub const APPLICATION: &str = Application::TradeMatching.name();

/// Clients of both clusters, and the application whose object they look at.
#[derive(Clone)]
pub struct Clusters {
    /// The lab.
    pub facts: Facts,
    application: Application,
    clients: BTreeMap<Region, Client>,
}

impl Clusters {
    /// Connects to both clusters of a lab that is up, looking at trade matching's object.
    ///
    /// # Errors
    /// When a kubeconfig cannot be read.
    pub async fn connect(facts: &Facts) -> Result<Self> {
        let mut clients = BTreeMap::new();
        for (region, place) in &facts.regions {
            clients.insert(*region, client(&place.kubeconfig).await?);
        }
        Ok(Self { facts: facts.clone(), application: Application::TradeMatching, clients })
    }

    /// The same clusters, looking at another application's object.
    #[must_use]
    pub fn of(&self, application: Application) -> Self {
        Self { application, ..self.clone() }
    }

    /// The client of one cluster.
    pub fn client(&self, region: Region) -> Client {
        self.clients[&region].clone()
    }

    /// The API of the objects in one cluster.
    pub fn objects(&self, region: Region) -> Api<TradingRegion> {
        Api::namespaced(self.client(region), NAMESPACE)
    }

    /// One copy of the object.
    ///
    /// # Errors
    /// When the cluster does not answer or has no such object.
    pub async fn object(&self, region: Region) -> Result<TradingRegion> {
        self.objects(region)
            .get(self.application.name())
            .await
            .with_context(|| format!("reading {} in {region}", self.application))
    }

    /// The status of one copy.
    ///
    /// # Errors
    /// As [`Self::object`].
    pub async fn status(&self, region: Region) -> Result<TradingRegionStatus> {
        Ok(self.object(region).await?.status.unwrap_or_default())
    }

    /// The region that either copy shows as active; none where no copy can be read.
    pub async fn active(&self) -> Option<Region> {
        for region in Region::ALL {
            let active = self.status(region).await.ok().and_then(|status| status.active_region);
            if let Some(active) = active {
                return active.as_str().parse().ok();
            }
        }
        None
    }

    /// Applies the object in both clusters, as `kubectl apply --server-side` would.
    ///
    /// # Errors
    /// When a cluster refuses it.
    pub async fn apply(&self, object: &TradingRegion) -> Result<()> {
        for region in Region::ALL {
            self.apply_in(region, object).await?;
        }
        Ok(())
    }

    /// Applies the object in one cluster.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub async fn apply_in(&self, region: Region, object: &TradingRegion) -> Result<()> {
        let (params, name) = (PatchParams::apply("kubectl").force(), object.name_any());
        self.objects(region)
            .patch(&name, &params, &Patch::Apply(object))
            .await
            .with_context(|| format!("applying {name} in {region}"))?;
        Ok(())
    }

    /// Deletes the object in one cluster; its finalizer decides when it goes.
    ///
    /// # Errors
    /// When the cluster refuses it.
    pub async fn delete(&self, region: Region) -> Result<()> {
        self.objects(region).delete(self.application.name(), &DeleteParams::default()).await?;
        Ok(())
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let file =
        Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
    config.connect_timeout = Some(CALL);
    config.read_timeout = Some(CALL);
    Ok(Client::try_from(config)?)
}
