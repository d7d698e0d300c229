//! CoreDNS of a region: the cluster's names itself, the names of the lab from the AWS simulator, nothing else.

use serde_json::json;

use super::Cluster;
use crate::address::port;
use crate::cache::write;
use crate::error::Result;
use crate::process;
use crate::region::Place;

/// The zone that the simulator answers.
pub(crate) const ZONE: &str = "trading.lab";

/// Starts CoreDNS on the region's address and makes it the cluster's DNS service.
pub(super) fn start(cluster: &Cluster<'_>) -> Result<()> {
    let file = cluster.folder().join("Corefile");
    write(&file, configuration(cluster))?;
    let program = cluster.program("coredns", 45, &["-conf".into(), file.display().to_string()])?;
    process::start(cluster.lab, &program)?;
    cluster.apply(&objects(cluster))
}

fn configuration(cluster: &Cluster<'_>) -> String {
    let address = cluster.lab.plan.address(cluster.region);
    let simulator = cluster.lab.plan.address(Place::AWS);
    let kubeconfig = cluster.kubeconfig();
    let kubeconfig = kubeconfig.display();
    // No cache for the lab's zone: how soon a failover name moves is what tests measure.
    format!(
        "{ZONE}:{port} {{
    bind {address}
    errors
    forward . {simulator} {{
        max_fails 0
    }}
}}
cluster.local:{port} in-addr.arpa:{port} {{
    bind {address}
    errors
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        ttl 5
    }}
}}
.:{port} {{
    bind {address}
    template ANY ANY {{
        rcode NXDOMAIN
    }}
}}
",
        port = port::DNS
    )
}

/// A service without selector, and its one endpoint: the process on the region's address.
fn objects(cluster: &Cluster<'_>) -> [serde_json::Value; 2] {
    let ports = |target: &str| {
        json!([
            {"name": "dns", "protocol": "UDP", "port": port::DNS, target: port::DNS},
            {"name": "dns-tcp", "protocol": "TCP", "port": port::DNS, target: port::DNS},
        ])
    };
    let plan = &cluster.lab.plan;
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": plan.dns_service(cluster.region), "ports": ports("targetPort")},
    });
    let endpoints = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "kube-dns",
            "namespace": "kube-system",
            "labels": {"kubernetes.io/service-name": "kube-dns"},
        },
        "addressType": "IPv4",
        "ports": ports("port"),
        "endpoints": [{"addresses": [plan.address(cluster.region)], "conditions": {"ready": true}}],
    });
    [service, endpoints]
}
