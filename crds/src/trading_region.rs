//! The object itself.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::database::Database;
use crate::drain::Drain;
use crate::hooks::Hook;
use crate::region::RegionSpec;
use crate::routing::Routing;
use crate::status::TradingRegionStatus;
use crate::transition::{Approval, Transition};
use crate::workloads::Workloads;

/// An application that is active in one of two regions and can be moved to the other.
///
/// The same YAML is applied in both clusters; a switch is a change of `activeRegion` in both.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CustomResource, KubeSchema)]
#[kube(
    group = "regions.trading.dev",
    version = "v1alpha1",
    kind = "TradingRegion",
    plural = "tradingregions",
    namespaced,
    shortname = "tr",
    category = "trading",
    status = "TradingRegionStatus",
    derive = "PartialEq",
    doc = "An application that is active in one of two regions and can be moved to the other.",
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name must have at most 40 characters: it names the lease, routing controls and queues"),
    printcolumn(name = "Active", type_ = "string", json_path = ".status.activeRegion", description = "Region that holds the lease"),
    printcolumn(name = "Wanted", type_ = "string", json_path = ".spec.activeRegion", description = "Region that should be active"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase", description = "Where the object stands"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status", description = "The application is served as wanted"),
    printcolumn(name = "Standby", type_ = "string", json_path = ".status.conditions[?(@.type==\"StandbyReady\")].status", description = "A switch could start now"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".status.epoch", priority = 1, description = "Number of the present grant"),
    printcolumn(name = "Lag", type_ = "string", json_path = ".status.lag.value", priority = 1, description = "How far the standby database is behind"),
    printcolumn(name = "Last Recovery", type_ = "string", json_path = ".status.history[0].times.unavailable", priority = 1, description = "How long the last switch interrupted customers"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason", priority = 1, description = "One sentence")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.regions.exists(region, region.name == self.activeRegion)")
        .message("activeRegion must be the name of one of spec.regions")
        .field_path(".activeRegion"),
    validation = Rule::new("self.regions.map(region, region.name) == oldSelf.regions.map(region, region.name)")
        .message("the regions' names and their order cannot change: epochs are numbered by them; create another TradingRegion")
        .field_path(".regions"),
    validation = Rule::new("self.regions.all(region, region.name in self.routing.arc.controls)")
        .message("routing.arc.controls must have an entry for each of spec.regions, under the region's name")
        .field_path(".routing.arc.controls"),
    validation = Rule::new("self.regions.all(region, region.name in self.database.auroraGlobal.clusters)")
        .message("database.auroraGlobal.clusters must have an entry for each of spec.regions, under the region's name")
        .field_path(".database.auroraGlobal.clusters")
)]
pub struct TradingRegionSpec {
    /// The region that should be active. Changing it in both clusters moves the application.
    #[schemars(length(min = 1, max = 32))]
    pub active_region: String,
    /// How a change of `activeRegion` is made.
    #[serde(default)]
    pub transition: Transition,
    /// Manage: the operator acts. Observe: it shows what it would do and changes nothing.
    #[serde(default)]
    pub managed: Managed,
    /// The two regions. Names and order are immutable.
    #[schemars(length(min = 2, max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub regions: Vec<RegionSpec>,
    /// The application's Deployments.
    pub workloads: Workloads,
    /// When the old side counts as empty.
    pub drain: Drain,
    /// Where traffic goes.
    pub routing: Routing,
    /// The application's database.
    pub database: Database,
    /// What the application does itself at named points of a run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub hooks: Vec<Hook>,
    /// Whether a second person must agree before a run starts. This version has no approvals yet: it refuses to be asked
    /// for one before planned switches, and carries out no failover.
    #[serde(default)]
    pub approval: Approval,
}

/// Whether the operator acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Managed {
    /// It acts.
    #[default]
    Manage,
    /// It shows what it would do and changes nothing.
    Observe,
}

impl TradingRegionSpec {
    /// The part of one region.
    pub fn region(&self, name: &str) -> Option<&RegionSpec> {
        self.regions.iter().find(|region| region.name == name)
    }

    /// The first region that is not the named one.
    pub fn other(&self, name: &str) -> Option<&RegionSpec> {
        self.regions.iter().find(|region| region.name != name)
    }
}
