//! containerd, kubelet and kube-proxy of a region's one node.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::Cluster;
use crate::cache::{create_folder, write};
use crate::cgroup;
use crate::command::{run, succeeds};
use crate::error::{Error, Result};
use crate::images::PAUSE;
use crate::process;
use crate::wait::Look;

const READY: Duration = Duration::from_secs(90);
/// How often kubelet is started at most.
const STARTS: u32 = 3;
const IMPORT: Duration = Duration::from_secs(120);
const CALL: Duration = Duration::from_secs(10);

fn socket(cluster: &Cluster<'_>) -> PathBuf {
    cluster.lab.runtime(cluster.region).join("containerd.sock")
}

/// Starts containerd and waits until it answers.
pub(super) fn start_containerd(cluster: &Cluster<'_>) -> Result<()> {
    let folder = cluster.folder();
    let cni = folder.join("cni");
    create_folder(&cni)?;
    write(&cni.join("10-bridge.conflist"), cni_configuration(cluster).to_string())?;
    let configuration = folder.join("containerd.toml");
    write(&configuration, containerd_configuration(cluster))?;
    let program =
        cluster.program("containerd", 15, &["--config".into(), configuration.display().to_string()])?;
    process::start(cluster.lab, &program)?;
    process::until_ready(cluster.lab, &program, READY, || {
        let mut version = ctr(cluster)?;
        Ok(if succeeds(version.arg("version"), CALL) {
            Look::Ready(())
        } else {
            Look::NotYet("its socket does not answer".into())
        })
    })
}

fn ctr(cluster: &Cluster<'_>) -> Result<Command> {
    let mut command = Command::new(cluster.binaries.path("ctr")?);
    command.arg("--address").arg(socket(cluster)).args(["--namespace", "k8s.io"]);
    Ok(command)
}

/// Loads image archives; layers that are there already are not unpacked again.
pub(crate) fn import(cluster: &Cluster<'_>, archives: &[PathBuf]) -> Result<()> {
    archives.iter().try_for_each(|archive| {
        run(ctr(cluster)?.args(["images", "import", "--local"]).arg(archive), IMPORT).map(drop)
    })
}

fn containerd_configuration(cluster: &Cluster<'_>) -> String {
    let state = cluster.lab.runtime(cluster.region);
    let state = state.display();
    let folder = cluster.folder();
    let folder = folder.display();
    format!(
        r#"version = 3
root = "{folder}/containerd"
state = "{state}/containerd"

[grpc]
address = "{state}/containerd.sock"

[ttrpc]
address = "{state}/containerd.sock.ttrpc"

# Its socket has one path for the whole machine, where two regions get in each other's way.
[plugins.'io.containerd.nri.v1.nri']
disable = true

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"

[plugins.'io.containerd.cri.v1.runtime']
# Without CAP_SYS_RESOURCE runc cannot lower the score, and dies.
restrict_oom_score_adj = true
# Network namespaces of pods then lie in the region's own folder, where `down` finds them.
netns_mounts_under_state_dir = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{folder}/cni"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "/usr/sbin/runc"
Root = "{state}/runc"
SystemdCgroup = false
"#
    )
}

fn cni_configuration(cluster: &Cluster<'_>) -> serde_json::Value {
    json!({
        "cniVersion": "1.0.0",
        "name": cluster.lab.plan.namespace(cluster.region),
        "plugins": [{
            "type": "bridge",
            "bridge": "cni0",
            "isGateway": true,
            "ipMasq": true,
            "hairpinMode": true,
            "ipam": {
                "type": "host-local",
                "dataDir": cluster.folder().join("addresses"),
                "ranges": [[{"subnet": cluster.lab.plan.pods(cluster.region)}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// Starts kubelet and kube-proxy.
pub(super) fn start_kubelet(cluster: &Cluster<'_>) -> Result<()> {
    cgroup::create(cluster.lab, cluster.region)?;
    let folder = cluster.folder();
    let configuration = folder.join("kubelet.json");
    write(&configuration, kubelet_configuration(cluster).to_string())?;
    let region = cluster.region;
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig().display());
    let kubelet = [
        kubeconfig.clone(),
        format!("--config={}", configuration.display()),
        format!("--root-dir={}", folder.join("kubelet").display()),
        format!("--hostname-override={}", cluster.node()),
        format!("--node-ip={}", cluster.lab.plan.address(region)),
        format!("--node-labels=topology.kubernetes.io/region={region},topology.kubernetes.io/zone={region}a"),
    ];
    process::start(cluster.lab, &cluster.program("kubelet", 40, &kubelet)?)?;
    let proxy = [
        kubeconfig,
        format!("--hostname-override={}", cluster.node()),
        "--proxy-mode=iptables".into(),
        format!("--cluster-cidr={}", cluster.lab.plan.pods(region)),
        // Pods on one bridge would otherwise answer each other past the address translation.
        "--masquerade-all".into(),
        // It may not write these settings of the machine.
        "--conntrack-max-per-core=0".into(),
        "--conntrack-min=0".into(),
        "--conntrack-tcp-timeout-established=0".into(),
        "--conntrack-tcp-timeout-close-wait=0".into(),
    ];
    process::start(cluster.lab, &cluster.program("kube-proxy", 40, &proxy)?)
}

fn kubelet_configuration(cluster: &Cluster<'_>) -> serde_json::Value {
    let folder = cluster.folder();
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "readOnlyPort": 0,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup::name(cluster.lab, cluster.region),
        "enforceNodeAllocatable": ["pods"],
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": format!("unix://{}", socket(cluster).display()),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": false},
            "x509": {"clientCAFile": folder.join("ca.crt")},
        },
        "authorization": {"mode": "AlwaysAllow"},
        "clusterDNS": [cluster.lab.plan.dns_service(cluster.region)],
        "clusterDomain": "cluster.local",
        "resolvConf": "",
        "volumePluginDir": folder.join("kubelet/plugins"),
        "podLogsDir": folder.join("pod-logs"),
        "serializeImagePulls": false,
        // Images are loaded once and pulled from nowhere: on a full disk kubelet must not remove them. 100 switches that off.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
    })
}

/// Waits until the node is Ready. Every kubelet of a machine makes its socket for device plugins at one fixed path; one of
/// two that do so at the same moment ends, and is started again.
pub(super) fn wait(cluster: &Cluster<'_>) -> Result<()> {
    for _ in 1..STARTS {
        match ready(cluster) {
            Err(Error::Ended { .. }) => start_kubelet(cluster)?,
            end => return end,
        }
    }
    ready(cluster)
}

fn ready(cluster: &Cluster<'_>) -> Result<()> {
    let program = cluster.program("kubelet", 40, &[])?;
    let node = cluster.node();
    let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].status} {.status.conditions[?(@.type==\"Ready\")].message}";
    process::until_ready(cluster.lab, &program, READY, || {
        Ok(match cluster.kubectl(&["get", "node", &node, "-o", path]) {
            Ok(answer) if answer.starts_with("True") => Look::Ready(()),
            Ok(answer) => Look::NotYet(format!("node {node} Ready: {answer}")),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
}
