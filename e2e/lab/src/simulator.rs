//! The AWS simulator of a lab: its configuration and its process.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::address::port;
use crate::cache::{hex, write_secret};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::layout::Lab;
use crate::network;
use crate::process::{self, Program, StopSignal};
use crate::region::{Place, Region};
use crate::wait::Look;

use sha2::{Digest as _, Sha256};

/// The application whose traffic and database the lab moves.
pub const APPLICATION: &str = "trade-matching";
const ACCOUNT: &str = "123456789012";
const READY: Duration = Duration::from_secs(20);
const CONNECTION: Duration = Duration::from_millis(500);
/// How soon clients learn of a moved name, in seconds.
const TTL: u32 = 1;
const PROCESS: &str = "aws-simulator";

/// Names of AWS objects of a lab; the same for every lab of one name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsNames {
    /// ARN of the control panel.
    pub control_panel: String,
    /// ARN of each routing control by its name, for instance `trade-matching-ingress-us-east-1`.
    pub routing_controls: BTreeMap<String, String>,
    /// Identifier of the global database cluster.
    pub global_cluster: String,
    /// ARN of each region's database cluster.
    pub database_clusters: BTreeMap<Region, String>,
    /// Name that follows the broker of the active region.
    pub broker_name: String,
    /// Name that follows the database's writer.
    pub writer_name: String,
}

/// The kinds of routing controls an application has in each region.
const CONTROLS: [&str; 3] = ["ingress", "intake", "app"];

impl AwsNames {
    /// Computes all names.
    pub fn new(lab: &Lab) -> Self {
        let digest = |text: &str| hex(&Sha256::digest(format!("{} {text}", lab.plan.name())));
        let arc = format!("arn:aws:route53-recovery-control::{ACCOUNT}:controlpanel");
        let control_panel = format!("{arc}/{}", &digest("panel")[..32]);
        let control = |name: &str| format!("{control_panel}/routingcontrol/{}", &digest(name)[..16]);
        let names = CONTROLS
            .iter()
            .flat_map(|kind| Region::ALL.map(|region| format!("{APPLICATION}-{kind}-{region}")));
        let cluster =
            |region: Region| format!("arn:aws:rds:{region}:{ACCOUNT}:cluster:{APPLICATION}-{region}");
        Self {
            routing_controls: names.map(|name| (name.clone(), control(&name))).collect(),
            control_panel,
            global_cluster: format!("{APPLICATION}-global"),
            database_clusters: Region::ALL.map(|region| (region, cluster(region))).into(),
            broker_name: format!("mq.{APPLICATION}.trading.lab"),
            writer_name: format!("writer.{APPLICATION}.trading.lab"),
        }
    }

    fn control(&self, kind: &str, region: Region) -> &str {
        self.routing_controls.get(&format!("{APPLICATION}-{kind}-{region}")).map_or("", String::as_str)
    }
}

fn at(address: std::net::Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::from((address, port))
}

/// The document that the simulator reads. `program` is the command with the `lab` and `aws-simulator` verbs.
fn configuration(lab: &Lab, credentials: &Credentials, program: &Path) -> Value {
    let plan = &lab.plan;
    let tls = lab.place(Place::AWS).join("tls");
    let aws = plan.address(Place::AWS);
    let names = AwsNames::new(lab);
    let endpoints = plan
        .arc_endpoints()
        .map(|(region, address)| json!({"region": region, "address": at(address, port::AWS)}));
    json!({
        "arc_endpoints": endpoints,
        "rds_listen": at(aws, port::AWS),
        "control_listen": at(aws, port::AWS_CONTROL),
        "dns": dns(lab, &names),
        "tls": {"certificate_file": tls.join("server.crt"), "key_file": tls.join("server.key")},
        "credentials": credentials.aws.values().collect::<Vec<_>>(),
        "account": ACCOUNT,
        "routing_controls": routing_controls(&names),
        "safety_rules": safety_rules(&names),
        "global_clusters": [{
            "id": names.global_cluster,
            "writer_endpoint": names.writer_name,
            "ttl_seconds": TTL,
            "writer": names.database_clusters[&Region::UsEast1],
            "members": Region::ALL.map(|region| member(lab, &names, program, region)),
        }],
        "state_file": lab.place(Place::AWS).join("state.json"),
    })
}

fn dns(lab: &Lab, names: &AwsNames) -> Value {
    let target = |region: Region| json!({"control": names.control("ingress", region), "address": lab.plan.address(region)});
    let regions: BTreeMap<String, _> =
        Region::ALL.map(|region| (format!("{region}.trading.lab"), lab.plan.address(region))).into();
    json!({
        "listen": at(lab.plan.address(Place::AWS), port::DNS),
        "zone": "trading.lab",
        "ttl_seconds": TTL,
        "static_names": regions,
        "failover_names": [{
            "name": names.broker_name,
            "primary": target(Region::UsEast1),
            "secondary": target(Region::UsWest2),
        }],
    })
}

fn routing_controls(names: &AwsNames) -> Vec<Value> {
    let state = |name: &str| if name.ends_with(Region::UsEast1.name()) { "On" } else { "Off" };
    let controls = names.routing_controls.iter().map(|(name, arn)| {
        json!({
            "arn": arn,
            "name": name,
            "panel_arn": names.control_panel,
            "panel_name": APPLICATION,
            "initial_state": state(name),
        })
    });
    controls.collect()
}

/// At most one region may have the application, and at most one the customers: never two On.
fn safety_rules(names: &AwsNames) -> Vec<Value> {
    let rules = ["app", "ingress"].map(|kind| {
        let name = format!("{APPLICATION}-at-most-one-{kind}");
        json!({
            "arn": format!("{}/safetyrule/{}", names.control_panel, &hex(&Sha256::digest(&name))[..16]),
            "name": name,
            "controls": Region::ALL.map(|region| names.control(kind, region)),
            "condition": {"type": "ATLEAST", "threshold": 2, "inverted": true},
            "wait_period_ms": 0,
        })
    });
    rules.into()
}

fn member(lab: &Lab, names: &AwsNames, program: &Path, region: Region) -> Value {
    let command = |verb: &str| {
        let program = program.display().to_string();
        json!([program, "lab", "--name", lab.plan.name(), "database", verb, region.name()])
    };
    json!({
        "arn": names.database_clusters[&region],
        "region": region,
        "address": at(lab.plan.address(region), port::DATABASE),
        "endpoint": format!("{region}.trading.lab"),
        "promote": command("promote"),
        "follow": command("follow"),
        "stop": command("stop"),
    })
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
    fn the_first_region_begins_with_every_control_and_rules_guard_app_and_ingress() {
        let names = AwsNames::new(&Lab::new(Plan::new("tr", 0).unwrap()));
        let controls = routing_controls(&names);
        assert_eq!(controls.len(), 6);
        for control in controls {
            let east = control["name"].as_str().unwrap().ends_with("us-east-1");
            assert_eq!(control["initial_state"] == "On", east, "{control}");
        }
        for rule in safety_rules(&names) {
            for arn in rule["controls"].as_array().unwrap() {
                assert!(names.routing_controls.values().any(|known| known == arn), "{rule}");
            }
        }
    }

    #[test]
    fn names_depend_on_the_lab_alone() {
        let names = |lab: &str| AwsNames::new(&Lab::new(Plan::new(lab, 0).unwrap()));
        assert_eq!(names("tr"), names("tr"));
        assert_ne!(names("tr").control_panel, names("other").control_panel);
    }
}
