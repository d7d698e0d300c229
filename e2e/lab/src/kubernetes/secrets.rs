//! Namespaces, secrets and the reader of the peer's objects, as the page of shared names says.

use std::time::Duration;

use serde_json::{Value, json};

use super::Cluster;
use super::control_plane::{base64, kubeconfig};
use crate::application::Application;
use crate::cache::read;
use crate::credentials::Credentials;
use crate::error::Result;
use crate::region::Region;
use crate::wait::{Look, until};

/// Namespace of the workloads and of the TradingRegion.
pub(crate) const WORKLOADS: &str = "trading";
/// Namespace of the operator.
pub(crate) const OPERATOR: &str = "trading-region-operator";
/// The stages of every application's pipeline.
const STAGES: [&str; 5] = ["inbound", "ingestion", "core", "egress", "outbound"];
/// The role as which an application's reconciliation reads the other application's database.
const PEER_READER: &str = "trading_peer";
/// The service account of the peer's operator.
const READER: &str = "region-peer-reader";
/// How long the controller manager may take to begin its work.
const ACCOUNTS: Duration = Duration::from_secs(90);

/// Namespaces, and the account by which the other region's operator may read TradingRegions and nothing else.
pub(super) fn apply_basics(cluster: &Cluster<'_>) -> Result<()> {
    let metadata = json!({"name": READER, "namespace": "kube-system"});
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.apply(&[namespace(WORKLOADS), namespace(OPERATOR)])?;
    cluster.apply(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": READER},
            "rules": [{
                "apiGroups": ["regions.trading.dev"],
                "resources": ["tradingregions"],
                "verbs": ["get", "list", "watch"],
            }],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": READER},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": READER},
            "subjects": [{"kind": "ServiceAccount", "name": READER, "namespace": "kube-system"}],
        }),
    ])
}

/// Waits until pods are admitted: the controller manager makes each namespace's default account some time after the
/// namespace, and until then every pod of it is refused.
pub(super) fn wait_for_accounts(cluster: &Cluster<'_>) -> Result<()> {
    [WORKLOADS, OPERATOR].into_iter().try_for_each(|namespace| {
        let get = ["get", "serviceaccount", "default", "--namespace", namespace];
        until(&format!("the default service account of {namespace}"), ACCOUNTS, || {
            Ok(cluster
                .kubectl(&get)
                .map_or_else(|error| Look::NotYet(error.to_string()), |_| Look::Ready(())))
        })
    })
}

/// A kubeconfig for the peer's operator, by a token of the reader's account.
pub(crate) fn peer_kubeconfig(cluster: &Cluster<'_>) -> Result<String> {
    let token =
        cluster.kubectl(&["create", "token", READER, "--namespace=kube-system", "--duration=8760h"])?;
    Ok(kubeconfig(cluster, &json!({"token": token.trim()}))?.to_string())
}

/// All secrets that the product finds in a region's cluster.
pub(crate) fn apply(cluster: &Cluster<'_>, credentials: &Credentials, peer_kubeconfig: &str) -> Result<()> {
    let ca = String::from_utf8_lossy(&read(&cluster.lab.ca_file())?).into_owned();
    let mut objects = vec![
        secret(WORKLOADS, "trading-ca", &json!({"ca.crt": ca})),
        secret(OPERATOR, "trading-ca", &json!({"ca.crt": ca})),
    ];
    for application in Application::ALL {
        objects.extend(secrets_of(application, credentials, &ca)?);
        let peer = peer_secret(application, cluster.region.peer());
        objects.push(secret(WORKLOADS, &peer, &json!({"kubeconfig": peer_kubeconfig})));
    }
    let key = credentials.aws(cluster.region.name())?;
    objects.push(secret(
        OPERATOR,
        "aws-credentials",
        &json!({"access-key-id": key.access_key_id, "secret-access-key": key.secret_access_key}),
    ));
    cluster.apply(&objects)
}

/// Users and passwords of one application: of its stages and migrator, of the users as whom it submits to the other
/// application and reads that one's database, of operator and keeper.
fn secrets_of(application: Application, credentials: &Credentials, ca: &str) -> Result<Vec<Value>> {
    let user = |username: &str, password: &str| json!({"username": username, "password": password});
    let (prefix, users) = (application.secret_prefix(), application.user_prefix());
    let mut brokers: Vec<(&str, String)> =
        STAGES.iter().map(|stage| (*stage, format!("{users}-{stage}"))).collect();
    brokers.push(("migrator", application.migrator_user().to_owned()));
    let mut objects = Vec::new();
    for (role, broker) in brokers {
        let database = format!("trading_{role}");
        let password = credentials.database(application, &database)?;
        objects.push(secret(WORKLOADS, &format!("{prefix}-database-{role}"), &user(&database, password)));
        let password = credentials.broker(&broker)?;
        objects.push(secret(WORKLOADS, &format!("{prefix}-broker-{role}"), &user(&broker, password)));
    }
    let (other, submitter) = application.peer();
    let password = credentials.broker(submitter)?;
    objects.push(secret(WORKLOADS, &format!("{prefix}-broker-peer"), &user(submitter, password)));
    let password = credentials.database(other, PEER_READER)?;
    objects.push(secret(WORKLOADS, &format!("{prefix}-database-peer"), &user(PEER_READER, password)));
    let database = json!({
        "keeper-username": "region_keeper",
        "keeper-password": credentials.database(application, "region_keeper")?,
        "operator-username": "region_operator",
        "operator-password": credentials.database(application, "region_operator")?,
        "ca.crt": ca,
    });
    let mut broker = user("region-operator", credentials.broker("region-operator")?);
    broker["ca.crt"] = ca.into();
    objects.extend([
        secret(WORKLOADS, &format!("{application}-database"), &database),
        secret(OPERATOR, &format!("{application}-database"), &database),
        secret(WORKLOADS, &format!("{application}-broker"), &broker),
    ]);
    Ok(objects)
}

fn peer_secret(application: Application, peer: Region) -> String {
    format!("{application}-peer-{peer}")
}

fn secret(namespace: &str, name: &str, values: &Value) -> Value {
    let data: serde_json::Map<String, Value> = values
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.clone(), base64(value.as_str().unwrap_or_default().as_bytes()).into()))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    })
}
