//! What people, tests and the demo need to know of a running lab: `lab.json`.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::{Plan, port};
use crate::application::Application;
use crate::binaries::Binaries;
use crate::cache::write_secret;
use crate::credentials::Credentials;
use crate::error::Result;
use crate::layout::{Lab, read_json, to_json};
use crate::region::{Place, Region};
use crate::simulator::AwsNames;

/// A running lab. The file holds passwords and has mode 0600.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Facts {
    /// Name and index.
    pub plan: Plan,
    /// Each region.
    pub regions: BTreeMap<Region, RegionFacts>,
    /// One kubeconfig with a context named for each region; the first region's is the current one.
    pub kubeconfig: PathBuf,
    /// Certificate of the CA that signed brokers, databases and AWS endpoints.
    pub ca_file: PathBuf,
    /// The simulated AWS.
    pub aws: AwsFacts,
    /// Users, passwords and keys.
    pub credentials: Credentials,
    /// Paths of `kubectl` and `helm`.
    pub programs: BTreeMap<String, PathBuf>,
}

/// One region of a running lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegionFacts {
    /// Where its broker, databases and API server answer.
    pub address: Ipv4Addr,
    /// Network namespace, for `nsenter --net=/run/netns/NAME`.
    pub namespace: String,
    /// Kubeconfig of the cluster's administrator.
    pub kubeconfig: PathBuf,
    /// `amqps://` address of the broker, without user.
    pub broker_url: String,
    /// `https://` address of the broker's management API.
    pub broker_management_url: String,
    /// Each application's PostgreSQL; TLS required.
    pub databases: BTreeMap<Application, SocketAddr>,
    /// DNS server of the region (cluster names and `trading.lab`).
    pub dns: SocketAddr,
}

/// The simulated AWS of a running lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AwsFacts {
    /// The five ARC cluster endpoints.
    pub arc_endpoints: Vec<ArcEndpoint>,
    /// RDS API.
    pub rds_url: String,
    /// Control port of the simulator.
    pub control_url: String,
    /// Its DNS server.
    pub dns: SocketAddr,
    /// ARNs and DNS names of each application.
    pub applications: BTreeMap<Application, AwsNames>,
}

/// One ARC cluster endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArcEndpoint {
    /// Region that calls are signed for.
    pub region: String,
    /// Where it answers.
    pub url: String,
}

impl Facts {
    /// Reads the facts of a lab that is up.
    ///
    /// # Errors
    /// When there is no such lab, or its `up` did not finish.
    pub fn read(name: &str) -> Result<Self> {
        read_json(&Lab::open(name)?.facts_file())
    }

    /// The lab these facts are about.
    pub fn lab(&self) -> Lab {
        Lab::new(self.plan.clone())
    }

    /// Gathers the facts of a lab.
    pub(crate) fn gather(lab: &Lab, binaries: &Binaries, credentials: &Credentials) -> Result<Self> {
        let programs = ["kubectl", "helm"]
            .into_iter()
            .map(|program| Ok((program.to_owned(), binaries.path(program)?)))
            .collect::<Result<_>>()?;
        Ok(Self {
            plan: lab.plan.clone(),
            regions: Region::ALL.map(|region| (region, RegionFacts::new(lab, region))).into(),
            kubeconfig: lab.folder().join("kubeconfig"),
            ca_file: lab.ca_file(),
            aws: AwsFacts::new(lab),
            credentials: credentials.clone(),
            programs,
        })
    }

    /// Writes `lab.json` and the merged kubeconfig.
    pub(crate) fn write(&self) -> Result<()> {
        let configs = self
            .regions
            .values()
            .map(|region| read_json(&region.kubeconfig))
            .collect::<Result<Vec<Value>>>()?;
        write_secret(&self.kubeconfig, merged(&configs).to_string())?;
        let file = self.lab().facts_file();
        write_secret(&file, to_json(&file, self)?)
    }
}

impl RegionFacts {
    fn new(lab: &Lab, region: Region) -> Self {
        let address = lab.plan.address(region);
        Self {
            address,
            namespace: lab.plan.namespace(region),
            kubeconfig: lab.place(region).join("kubeconfig"),
            broker_url: format!("amqps://{address}:{}/%2f", port::AMQPS),
            broker_management_url: format!("https://{address}:{}", port::BROKER_MANAGEMENT),
            databases: Application::ALL
                .map(|one| (one, SocketAddr::from((address, one.database_port()))))
                .into(),
            dns: SocketAddr::from((address, port::DNS)),
        }
    }
}

impl AwsFacts {
    fn new(lab: &Lab) -> Self {
        let aws = lab.plan.address(Place::AWS);
        let endpoints = lab.plan.arc_endpoints().map(|(region, address)| ArcEndpoint {
            region: region.to_owned(),
            url: format!("https://{address}"),
        });
        Self {
            arc_endpoints: endpoints.into(),
            rds_url: format!("https://{aws}"),
            control_url: format!("http://{aws}:{}", port::AWS_CONTROL),
            dns: SocketAddr::from((aws, port::DNS)),
            applications: AwsNames::all(lab),
        }
    }
}

/// One kubeconfig of several; the first's context is current.
fn merged(configs: &[Value]) -> Value {
    let all = |key: &str| -> Vec<Value> {
        configs.iter().filter_map(|config| config[key].as_array()).flatten().cloned().collect()
    };
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": all("clusters"),
        "users": all("users"),
        "contexts": all("contexts"),
        "current-context": configs.first().map_or(Value::Null, |config| config["current-context"].clone()),
    })
}

/// Writes users and passwords where the lab's own commands find them.
pub(crate) fn write_credentials(lab: &Lab, credentials: &Credentials) -> Result<()> {
    let file = credentials_file(&lab.folder());
    write_secret(&file, to_json(&file, credentials)?)
}

/// Reads users and passwords; they are there before the lab is complete.
///
/// # Errors
/// When the lab was never started.
pub fn read_credentials(lab: &Lab) -> Result<Credentials> {
    read_json(&credentials_file(&lab.folder()))
}

fn credentials_file(folder: &Path) -> PathBuf {
    folder.join("credentials.json")
}
