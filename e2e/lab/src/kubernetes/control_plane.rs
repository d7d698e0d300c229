//! etcd, kube-apiserver, kube-controller-manager and kube-scheduler of a region.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::Cluster;
use crate::address::port;
use crate::cache::{create_folder, write, write_secret};
use crate::certificates::{Authority, Request, key_pair};
use crate::error::{Error, Result};
use crate::process;
use crate::wait::Look;

const READY: Duration = Duration::from_secs(90);

/// Certificates, kubeconfig, etcd and kube-apiserver.
pub(super) fn start(cluster: &Cluster<'_>) -> Result<()> {
    let folder = cluster.folder();
    create_folder(&folder)?;
    certificates(cluster)?;
    let file = |name: &str| folder.join(name).display().to_string();
    let address = cluster.lab.plan.address(cluster.region).to_string();
    let member = cluster.region.name();

    let etcd = [
        format!("--name={member}"),
        format!("--data-dir={}", file("etcd")),
        // A lab that loses its machine is made anew: no need to wait for the disk.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--initial-advertise-peer-urls=http://127.0.0.1:2380".into(),
        format!("--initial-cluster={member}=http://127.0.0.1:2380"),
    ];
    process::start(cluster.lab, &cluster.program("etcd", 10, &etcd)?)?;

    let apiserver = [
        "--etcd-servers=http://127.0.0.1:2379".into(),
        format!("--secure-port={}", port::KUBERNETES),
        format!("--advertise-address={address}"),
        format!("--tls-cert-file={}", file("apiserver.crt")),
        format!("--tls-private-key-file={}", file("apiserver.key")),
        format!("--client-ca-file={}", file("ca.crt")),
        format!("--service-account-key-file={}", file("service-accounts.pub")),
        format!("--service-account-signing-key-file={}", file("service-accounts.key")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-cluster-ip-range={}", cluster.lab.plan.services(cluster.region)),
        "--authorization-mode=RBAC,Node".into(),
        "--allow-privileged=true".into(),
        format!("--kubelet-client-certificate={}", file("admin.crt")),
        format!("--kubelet-client-key={}", file("admin.key")),
        // Otherwise logs and exec try to resolve the node's name.
        "--kubelet-preferred-address-types=InternalIP".into(),
    ];
    process::start(cluster.lab, &cluster.program("kube-apiserver", 20, &apiserver)?)
}

/// Waits until the API server answers as ready.
pub(super) fn wait(cluster: &Cluster<'_>) -> Result<()> {
    let program = cluster.program("kube-apiserver", 20, &[])?;
    process::until_ready(cluster.lab, &program, READY, || {
        Ok(match cluster.kubectl(&["get", "--raw", "/readyz"]) {
            Ok(_) => Look::Ready(()),
            Err(error) => Look::NotYet(error.to_string()),
        })
    })
}

/// kube-controller-manager and kube-scheduler.
pub(super) fn start_controllers(cluster: &Cluster<'_>) -> Result<()> {
    let file = |name: &str| cluster.folder().join(name).display().to_string();
    let kubeconfig = format!("--kubeconfig={}", cluster.kubeconfig().display());
    let controllers = [
        kubeconfig.clone(),
        format!("--service-account-private-key-file={}", file("service-accounts.key")),
        format!("--root-ca-file={}", file("ca.crt")),
        "--use-service-account-credentials".into(),
        "--leader-elect=false".into(),
    ];
    process::start(cluster.lab, &cluster.program("kube-controller-manager", 30, &controllers)?)?;
    let scheduler = [kubeconfig, "--leader-elect=false".into()];
    process::start(cluster.lab, &cluster.program("kube-scheduler", 30, &scheduler)?)
}

fn certificates(cluster: &Cluster<'_>) -> Result<()> {
    let folder = cluster.folder();
    let plan = &cluster.lab.plan;
    let authority = Authority::new(&format!("{} Kubernetes", plan.namespace(cluster.region)))?;
    write(&folder.join("ca.crt"), authority.certificate())?;
    let addresses: [IpAddr; 3] = [
        [127, 0, 0, 1].into(),
        plan.address(cluster.region).into(),
        plan.kubernetes_service(cluster.region).into(),
    ];
    let names = ["kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"]
        .map(str::to_owned);
    authority.issue(
        &folder,
        "apiserver",
        &Request { name: "kube-apiserver", organisation: None, names: &names, addresses: &addresses },
    )?;
    let admin = authority.issue(
        &folder,
        "admin",
        &Request { name: "admin", organisation: Some("system:masters"), names: &[], addresses: &[] },
    )?;
    key_pair(&folder, "service-accounts")?;
    let text = |path: &Path| std::fs::read_to_string(path).map_err(Error::file("read", path));
    let user = json!({
        "client-certificate-data": base64(text(&admin.certificate)?.as_bytes()),
        "client-key-data": base64(text(&admin.key)?.as_bytes()),
    });
    let config = kubeconfig(cluster, &user)?;
    write_secret(&cluster.kubeconfig(), config.to_string())
}

/// A kubeconfig (JSON is YAML) whose cluster, user and context are named for the region.
pub(super) fn kubeconfig(cluster: &Cluster<'_>, user: &Value) -> Result<Value> {
    let ca = crate::cache::read(&cluster.folder().join("ca.crt"))?;
    let name = cluster.region.name();
    let server = format!("https://{}:{}", cluster.lab.plan.address(cluster.region), port::KUBERNETES);
    Ok(json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {"server": server, "certificate-authority-data": base64(&ca)}}],
        "users": [{"name": name, "user": user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        "current-context": name,
    }))
}

/// Standard Base64 with padding.
pub(crate) fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let value =
            chunk.iter().fold(0_u32, |value, byte| value << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let digit = DIGITS[(value >> (18 - 6 * position) & 63) as usize];
            text.push(if position <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
