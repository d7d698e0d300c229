//! The AWS simulator of a lab: its configuration and its process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::port;
use crate::application::Application;
use crate::cache::{hex, write_secret};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::layout::Lab;
use crate::network;
use crate::process::{self, Program, StopSignal};
use crate::region::{Place, Region};
use crate::wait::Look;

use sha2::{Digest as _, Sha256};

const ACCOUNT: &str = "123456789012";
const READY: Duration = Duration::from_secs(20);
const CONNECTION: Duration = Duration::from_millis(500);
/// How soon clients learn of a moved name, in seconds.
const TTL: u32 = 1;
const PROCESS: &str = "aws-simulator";

/// Names of an application's AWS objects; the same for every lab of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsNames {
    /// Whose they are.
    pub application: Application,
    /// ARN of its control panel.
    pub control_panel: String,
    /// ARN of each routing control by its name, for instance `trade-matching-ingress-us-east-1`.
    pub routing_controls: BTreeMap<String, String>,
    /// Identifier of its global database cluster.
    pub global_cluster: String,
    /// ARN of each region's database cluster.
    pub database_clusters: BTreeMap<Region, String>,
    /// Name that follows the broker of the active region.
    pub broker_name: String,
    /// Name that follows the database's writer.
    pub writer_name: String,
}

/// The kinds of routing controls an application has in each region.
pub(crate) const CONTROLS: [&str; 3] = ["ingress", "intake", "app"];

impl AwsNames {
    /// Those of every application.
    pub fn all(lab: &Lab) -> BTreeMap<Application, Self> {
        Application::ALL.map(|application| (application, Self::new(lab, application))).into()
    }

    /// Those of one application.
    pub fn new(lab: &Lab, application: Application) -> Self {
        let digest = |text: &str| hex(&Sha256::digest(format!("{} {text}", lab.plan.name())));
        let arc = format!("arn:aws:route53-recovery-control::{ACCOUNT}:controlpanel");
        let control_panel = format!("{arc}/{}", &digest(&format!("{application} panel"))[..32]);
        let control = |name: &str| format!("{control_panel}/routingcontrol/{}", &digest(name)[..16]);
        let names = CONTROLS
            .iter()
            .flat_map(|kind| Region::ALL.map(|region| format!("{application}-{kind}-{region}")))
            .chain(application.generator_control().map(str::to_owned));
        let cluster =
            |region: Region| format!("arn:aws:rds:{region}:{ACCOUNT}:cluster:{application}-{region}");
        Self {
            application,
            routing_controls: names.map(|name| (name.clone(), control(&name))).collect(),
            control_panel,
            global_cluster: format!("{application}-global"),
            database_clusters: Region::ALL.map(|region| (region, cluster(region))).into(),
            broker_name: format!("mq.{application}.trading.lab"),
            writer_name: format!("writer.{application}.trading.lab"),
        }
    }

    /// Name of the routing control of a kind: `ingress`, `intake` or `app`.
    pub fn control_name(&self, kind: &str, region: Region) -> String {
        format!("{}-{kind}-{region}", self.application)
    }

    /// Its ARN.
    ///
    /// # Panics
    /// For another kind.
    pub fn control(&self, kind: &str, region: Region) -> &str {
        &self.routing_controls[&self.control_name(kind, region)]
    }
}

/// One application in the simulator's document.
struct Configured<'a> {
    lab: &'a Lab,
    names: AwsNames,
}

fn configured(lab: &Lab) -> [Configured<'_>; 2] {
    Application::ALL.map(|application| Configured { lab, names: AwsNames::new(lab, application) })
}

fn at(address: std::net::Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// The document that the simulator reads. `program` is the command with the `lab` and `aws-simulator` verbs.
fn configuration(lab: &Lab, credentials: &Credentials, program: &Path) -> Value {
    let plan = &lab.plan;
    let tls = lab.place(Place::AWS).join("tls");
    let aws = plan.address(Place::AWS);
    let applications = configured(lab);
    let endpoints = plan
        .arc_endpoints()
        .map(|(region, address)| json!({"region": region, "address": at(address, port::AWS)}));
    json!({
        "arc_endpoints": endpoints,
        "rds_listen": at(aws, port::AWS),
        "control_listen": at(aws, port::AWS_CONTROL),
        "dns": dns(lab, &applications),
        "tls": {"certificate_file": tls.join("server.crt"), "key_file": tls.join("server.key")},
        "credentials": credentials.aws.values().collect::<Vec<_>>(),
        "account": ACCOUNT,
        "routing_controls": applications.iter().flat_map(Configured::routing_controls).collect::<Vec<_>>(),
        "safety_rules": applications.iter().flat_map(Configured::safety_rules).collect::<Vec<_>>(),
        "global_clusters": applications.each_ref().map(|application| application.global_cluster(program)),
        "state_file": lab.place(Place::AWS).join("state.json"),
    })
}

fn dns(lab: &Lab, applications: &[Configured<'_>]) -> Value {
    let regions: BTreeMap<String, _> =
        Region::ALL.map(|region| (format!("{region}.trading.lab"), lab.plan.address(region))).into();
    json!({
        "listen": at(lab.plan.address(Place::AWS), port::DNS),
        "zone": "trading.lab",
        "ttl_seconds": TTL,
        "static_names": regions,
        "failover_names": applications.iter().map(Configured::failover_name).collect::<Vec<_>>(),
    })
}

impl Configured<'_> {
    /// The name of the brokers follows the customers' control.
    fn failover_name(&self) -> Value {
        let target = |region: Region| json!({"control": self.names.control("ingress", region), "address": self.lab.plan.address(region)});
        json!({
            "name": self.names.broker_name,
            "primary": target(Region::UsEast1),
            "secondary": target(Region::UsWest2),
        })
    }

    fn routing_controls(&self) -> Vec<Value> {
        let state = |name: &str| if name.ends_with(Region::UsWest2.name()) { "Off" } else { "On" };
        let controls = self.names.routing_controls.iter().map(|(name, arn)| {
            json!({
                "arn": arn,
                "name": name,
                "panel_arn": self.names.control_panel,
                "panel_name": self.names.application,
                "initial_state": state(name),
            })
        });
        controls.collect()
    }

    /// At most one region may have the application, and at most one the customers: never two On.
    fn safety_rules(&self) -> Vec<Value> {
        let rules = ["app", "ingress"].map(|kind| {
            let name = format!("{}-at-most-one-{kind}", self.names.application);
            json!({
                "arn": format!("{}/safetyrule/{}", self.names.control_panel, &hex(&Sha256::digest(&name))[..16]),
                "name": name,
                "controls": Region::ALL.map(|region| self.names.control(kind, region)),
                "condition": {"type": "ATLEAST", "threshold": 2, "inverted": true},
                "wait_period_ms": 0,
            })
        });
        rules.into()
    }

    fn global_cluster(&self, program: &Path) -> Value {
        json!({
            "id": self.names.global_cluster,
            "writer_endpoint": self.names.writer_name,
            "ttl_seconds": TTL,
            "writer": self.names.database_clusters[&Region::UsEast1],
            "members": Region::ALL.map(|region| self.member(program, region)),
        })
    }

    fn member(&self, program: &Path, region: Region) -> Value {
        let plan = &self.lab.plan;
        let command = |verb: &str| {
            let program = program.display().to_string();
            let application = self.names.application.name();
            json!([
                program,
                "lab",
                "--name",
                plan.name(),
                "database",
                "--app",
                application,
                verb,
                region.name()
            ])
        };
        json!({
            "arn": self.names.database_clusters[&region],
            "region": region,
            "address": at(plan.address(region), self.names.application.database_port()),
            "endpoint": format!("{region}.trading.lab"),
            "promote": command("promote"),
            "follow": command("follow"),
            "stop": command("stop"),
        })
    }
}

/// Starts the simulator and waits until all its listeners accept connections.
pub(crate) fn start(lab: &Lab, credentials: &Credentials, program: &Path) -> Result<()> {
    let file = lab.place(Place::AWS).join("simulator.json");
    let document = configuration(lab, credentials, program);
    write_secret(&file, document.to_string())?;
    let mut command = network::enter(lab, Place::AWS);
    command.extend([
        program.display().to_string(),
        PROCESS.into(),
        "--config".into(),
        file.display().to_string(),
    ]);
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let mut environment = BTreeMap::from([("PATH".to_owned(), path.to_owned())]);
    // Its database commands find the Debian folder through the cache.
    if let Some(base) = crate::cache::folder()?.parent() {
        environment.insert("XDG_CACHE_HOME".into(), base.display().to_string());
    }
    let program = Program {
        name: PROCESS.into(),
        place: Place::AWS,
        order: 10,
        command,
        environment,
        stop_signal: StopSignal::Terminate,
    };
    process::start(lab, &program)?;
    process::until_ready(lab, &program, READY, || {
        let aws = lab.plan.address(Place::AWS);
        let arc = lab.plan.arc_endpoints().map(|(_, address)| at(address, port::AWS));
        for address in
            [at(aws, port::AWS), at(aws, port::AWS_CONTROL), at(aws, port::DNS)].into_iter().chain(arc)
        {
            if let Err(error) = TcpStream::connect_timeout(&address, CONNECTION) {
                return Ok(Look::NotYet(format!("{address}: {error}")));
            }
        }
        Ok(Look::Ready(()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Plan;

    #[test]
    fn the_first_region_and_the_generators_begin_on_and_rules_guard_app_and_ingress() {
        let lab = Lab::new(Plan::new("tr", 0).unwrap());
        for application in configured(&lab) {
            let controls = application.routing_controls();
            let of = |state: &str| {
                let named = controls.iter().filter(|control| control["initial_state"] == state);
                named.map(|control| control["name"].as_str().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(of("Off").len(), 3);
            assert!(of("Off").iter().all(|name| name.ends_with("us-west-2")));
            let generators = application.names.application.generator_control();
            assert_eq!(of("On").len(), 3 + usize::from(generators.is_some()));
            let rules = application.safety_rules();
            assert_eq!(rules.len(), 2);
            for arn in rules.iter().flat_map(|rule| rule["controls"].as_array().unwrap()) {
                let own = &application.names.routing_controls;
                assert!(own.values().any(|known| known == arn), "{arn} in {rules:?}");
            }
        }
    }

    #[test]
    fn no_name_in_aws_belongs_to_two_applications() {
        let lab = Lab::new(Plan::new("tr", 0).unwrap());
        let all: Vec<String> = AwsNames::all(&lab)
            .into_values()
            .flat_map(|names| {
                let single =
                    [names.control_panel, names.global_cluster, names.broker_name, names.writer_name];
                let many = names.routing_controls.into_values().chain(names.database_clusters.into_values());
                many.chain(single).collect::<Vec<_>>()
            })
            .collect();
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), all.len(), "{all:?}");
    }

    #[test]
    fn a_command_moves_the_server_of_its_own_application() {
        let lab = Lab::new(Plan::new("tr", 0).unwrap());
        for application in configured(&lab) {
            let cluster = application.global_cluster(Path::new("xtask"));
            for (member, region) in cluster["members"].as_array().unwrap().iter().zip(Region::ALL) {
                let words: Vec<&str> =
                    member["promote"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
                let own = application.names.application.name();
                assert_eq!(words[4..], ["database", "--app", own, "promote", region.name()]);
            }
        }
    }

    #[test]
    fn names_depend_on_the_lab_alone() {
        let names = |lab: &str| AwsNames::all(&Lab::new(Plan::new(lab, 0).unwrap()));
        assert_eq!(names("tr"), names("tr"));
        let panel = |lab: &str| names(lab)[&Application::TradeMatching].control_panel.clone();
        assert_ne!(panel("tr"), panel("other"));
    }
}
