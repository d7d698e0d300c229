//! A region's Kubernetes cluster: control plane, one node, DNS, and what the product finds in it.

mod control_plane;
mod dns;
pub(crate) mod node;
mod secrets;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::binaries::Binaries;
use crate::command::{run, run_with_input};
use crate::error::Result;
use crate::layout::Lab;
use crate::process::{Program, StopSignal};
use crate::region::Region;

pub(crate) use control_plane::base64;
pub(crate) use secrets::apply as apply_secrets;
pub(crate) use secrets::peer_kubeconfig;

/// One call of kubectl.
const CALL: Duration = Duration::from_secs(20);

/// A region's cluster, seen from the host.
pub(crate) struct Cluster<'a> {
    pub(crate) lab: &'a Lab,
    pub(crate) region: Region,
    pub(crate) binaries: &'a Binaries,
}

impl Cluster<'_> {
    /// Folder of certificates, configuration and data.
    pub(crate) fn folder(&self) -> PathBuf {
        self.lab.place(self.region).join("kubernetes")
    }

    /// Kubeconfig of the cluster's administrator.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.lab.place(self.region).join("kubeconfig")
    }

    /// Runs kubectl against this cluster.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(&mut self.kubectl_command(arguments)?, CALL)
    }

    fn kubectl_command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = Command::new(self.binaries.path("kubectl")?);
        command.arg("--kubeconfig").arg(self.kubeconfig()).args(arguments);
        Ok(command)
    }

    /// Applies objects; fields that others set stay.
    pub(crate) fn apply(&self, objects: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let mut command =
            self.kubectl_command(&["apply", "--server-side", "--field-manager=lab", "-f", "-"])?;
        run_with_input(&mut command, list.as_bytes(), CALL).map(drop)
    }

    /// A program of the cluster, run in the region's network.
    fn program(&self, name: &str, order: u8, arguments: &[String]) -> Result<Program> {
        let binary = self.binaries.path(name)?;
        let mut command = crate::network::enter(self.lab, self.region);
        command.push(binary.display().to_string());
        command.extend_from_slice(arguments);
        Ok(Program {
            name: name.to_owned(),
            place: self.region.into(),
            order,
            command,
            environment: BTreeMap::from([("PATH".to_owned(), self.binaries.search_path())]),
            stop_signal: StopSignal::Terminate,
        })
    }

    /// Name of the region's one node.
    pub(crate) fn node(&self) -> String {
        format!("node-{}", self.lab.plan.namespace(self.region))
    }

    /// Starts everything and waits until pods can run.
    pub(crate) fn up(&self, images: &[PathBuf]) -> Result<()> {
        control_plane::start(self)?;
        node::start_containerd(self)?;
        node::import(self, images)?;
        control_plane::wait(self)?;
        control_plane::start_controllers(self)?;
        node::start_kubelet(self)?;
        dns::start(self)?;
        secrets::apply_basics(self)?;
        node::wait(self)?;
        secrets::wait_for_accounts(self)
    }
}
