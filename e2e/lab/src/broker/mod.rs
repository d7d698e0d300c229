//! A region's RabbitMQ: one node for all applications, TLS only, users from a definitions file.

pub(crate) mod users;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::address::port;
use crate::cache::{create_folder, write_secret};
use crate::credentials::Credentials;
use crate::error::Result;
use crate::kubernetes::base64;
use crate::layout::Lab;
use crate::process::{self, Program, StopSignal};
use crate::region::Region;
use crate::rootfs::{Chroot, own};
use crate::wait::Look;

const READY: Duration = Duration::from_secs(120);
const CONNECTION: Duration = Duration::from_millis(500);
const USER: &str = "rabbitmq";

/// Starts a region's broker; [`wait`] tells when it serves.
pub(crate) fn start(lab: &Lab, region: Region, root: &Path, credentials: &Credentials) -> Result<()> {
    let folder = lab.place(region).join("broker");
    let (etc, data) = (folder.join("etc"), folder.join("data"));
    create_folder(&etc)?;
    create_folder(&data)?;
    write_secret(&etc.join("rabbitmq.conf"), configuration(lab, region))?;
    write_secret(&etc.join("advanced.config"), ADVANCED)?;
    write_secret(&etc.join("enabled_plugins"), "[rabbitmq_management, rabbitmq_federation].\n")?;
    write_secret(&etc.join("definitions.json"), definitions(lab, region, credentials)?.to_string())?;
    let machine = crate::cache::read(Path::new("/proc/sys/kernel/hostname"))?;
    // Erlang looks up the machine's name; without an answer here it would wait for DNS servers out of reach.
    write_secret(
        &etc.join("hosts"),
        format!("127.0.0.1 localhost {}\n", String::from_utf8_lossy(&machine).trim()),
    )?;
    write_secret(&etc.join("resolv.conf"), "# no DNS server is needed here\n")?;
    for file in ["server.crt", "server.key"] {
        write_secret(&etc.join(file), crate::cache::read(&lab.place(region).join("tls").join(file))?)?;
    }
    write_secret(&etc.join("ca.crt"), crate::cache::read(&lab.ca_file())?)?;
    own(root, &folder, USER)?;
    process::start(lab, &epmd(lab, region, root))?;
    process::start(lab, &server(lab, region, root, &etc, &data))
}

/// Erlang's port mapper, started by us so that no stray daemon outlives the lab.
fn epmd(lab: &Lab, region: Region, root: &Path) -> Program {
    let chroot = Chroot::new(root, USER).in_namespace(&lab.plan.namespace(region));
    Program {
        name: "epmd".into(),
        place: region.into(),
        order: 10,
        command: chroot.command_line("/usr/bin/epmd", ["-address", "127.0.0.1"]),
        environment: environment(),
        stop_signal: StopSignal::Terminate,
    }
}

fn server(lab: &Lab, region: Region, root: &Path, etc: &Path, data: &Path) -> Program {
    let chroot = Chroot::new(root, USER)
        .in_namespace(&lab.plan.namespace(region))
        .bind(etc, "/etc/rabbitmq")
        .bind(data, "/var/lib/rabbitmq")
        .bind(&etc.join("hosts"), "/etc/hosts")
        .bind(&etc.join("resolv.conf"), "/etc/resolv.conf");
    Program {
        name: "rabbitmq".into(),
        place: region.into(),
        order: 20,
        command: chroot.command_line::<&str>("/usr/lib/rabbitmq/bin/rabbitmq-server", []),
        environment: environment(),
        stop_signal: StopSignal::Terminate,
    }
}

fn environment() -> BTreeMap<String, String> {
    let mut environment: BTreeMap<String, String> =
        crate::rootfs::ENVIRONMENT.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let own = [
        ("HOME", "/var/lib/rabbitmq"),
        ("RABBITMQ_NODENAME", "rabbit@localhost"),
        ("RABBITMQ_LOGS", "-"),
        // The script then becomes the server instead of waiting for it, so that signals reach the server.
        ("RUNNING_UNDER_SYSTEMD", "true"),
        // Two schedulers that sleep when idle: two brokers and two clusters share this machine.
        ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", "-noinput +S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none"),
        ("ERL_EPMD_ADDRESS", "127.0.0.1"),
    ];
    environment.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    environment
}

fn configuration(lab: &Lab, region: Region) -> String {
    let address = lab.plan.address(region);
    format!(
        "listeners.tcp = none
listeners.ssl.1 = {address}:{amqps}
ssl_options.cacertfile = /etc/rabbitmq/ca.crt
ssl_options.certfile = /etc/rabbitmq/server.crt
ssl_options.keyfile = /etc/rabbitmq/server.key
ssl_options.verify = verify_none
ssl_options.fail_if_no_peer_cert = false
management.ssl.ip = {address}
management.ssl.port = {management}
management.ssl.cacertfile = /etc/rabbitmq/ca.crt
management.ssl.certfile = /etc/rabbitmq/server.crt
management.ssl.keyfile = /etc/rabbitmq/server.key
definitions.import_backend = local_filesystem
definitions.local.path = /etc/rabbitmq/definitions.json
# A restart must not give back a permission that was taken since.
definitions.skip_if_unchanged = true
collect_statistics_interval = 500
# The management API's own samples, in seconds; by default they are up to five seconds old.
management.sample_retention_policies.global.minute = 1
management.sample_retention_policies.basic.minute = 1
management.sample_retention_policies.detailed.minute = 1
log.console = true
log.console.level = info
log.file = false
vm_memory_high_watermark.absolute = 1GB
disk_free_limit.absolute = 50MB
",
        amqps = port::AMQPS,
        management = port::BROKER_MANAGEMENT,
    )
}

/// How often a quorum queue reports its counts, in milliseconds: a drain check must not read old ones.
const ADVANCED: &str = "[{rabbit, [{quorum_tick_interval, 500}]}].\n";

fn definitions(lab: &Lab, region: Region, credentials: &Credentials) -> Result<Value> {
    let mut users = Vec::new();
    let mut granted = Vec::new();
    for user in users::all() {
        users.push(json!({
            "name": user.name,
            "password_hash": password_hash(&user.name, credentials.broker(&user.name)?),
            "hashing_algorithm": "rabbit_password_hashing_sha256",
            "tags": user.tags,
        }));
        granted.push(json!({
            "user": user.name,
            "vhost": "/",
            "configure": user.configure,
            "write": user.write_at_first_in(region),
            "read": user.read,
        }));
    }
    Ok(json!({
        "users": users,
        "vhosts": [{"name": "/"}],
        "permissions": granted,
        "parameters": [upstream(lab, region, credentials)?],
        "policies": [{
            "vhost": "/",
            "name": "leftovers",
            "pattern": users::doors(),
            "apply-to": "queues",
            "definition": {"federation-upstream": UPSTREAM},
        }],
    }))
}

const UPSTREAM: &str = "peer";

/// The other region's broker: what customers left in its first queues is fetched from there once somebody takes from
/// the queue of that name here. The sender's validated user comes along, since probes are known by it.
fn upstream(lab: &Lab, region: Region, credentials: &Credentials) -> Result<Value> {
    let peer = region.peer();
    let password = credentials.broker(users::FEDERATION)?;
    let uri = format!(
        "amqps://{}:{password}@{}:{}/%2f?cacertfile=/etc/rabbitmq/ca.crt&verify=verify_peer\
         &server_name_indication={peer}.trading.lab&heartbeat=5",
        users::FEDERATION,
        lab.plan.address(peer),
        port::AMQPS,
    );
    Ok(json!({
        "component": "federation-upstream",
        "vhost": "/",
        "name": UPSTREAM,
        "value": {"uri": uri, "ack-mode": "on-confirm", "trust-user-id": true, "reconnect-delay": 1},
    }))
}

/// RabbitMQ's format: Base64 of a four-byte salt and the digest of salt and password.
fn password_hash(user: &str, password: &str) -> String {
    let salt = &Sha256::digest(user)[..4];
    let digest = Sha256::new().chain_update(salt).chain_update(password).finalize();
    base64(&[salt, &digest[..]].concat())
}

/// Waits until a region's broker accepts connections of applications and of the management API.
pub(crate) fn wait(lab: &Lab, region: Region, root: &Path) -> Result<()> {
    let program = server(lab, region, root, &PathBuf::new(), &PathBuf::new());
    process::until_ready(lab, &program, READY, || {
        for port in [port::AMQPS, port::BROKER_MANAGEMENT] {
            let address = SocketAddr::from((lab.plan.address(region), port));
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
    fn each_user_gets_a_password_and_an_entry_in_both_regions() {
        let lab = Lab::new(Plan::new("tr", 0).unwrap());
        let credentials = Credentials::generate();
        for region in Region::ALL {
            let definitions = definitions(&lab, region, &credentials).unwrap();
            for list in ["users", "permissions"] {
                assert_eq!(definitions[list].as_array().unwrap().len(), credentials.broker.len(), "{list}");
            }
        }
    }

    #[test]
    fn a_password_hash_is_salt_and_digest() {
        // 4 + 32 bytes are 48 characters of Base64.
        assert_eq!(password_hash("a", "b").len(), 48);
        assert_ne!(password_hash("a", "b"), password_hash("a", "c"));
    }
}
