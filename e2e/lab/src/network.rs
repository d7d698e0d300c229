//! Network namespaces, the links to them, and the faults of those links.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{run, succeeds};
use crate::error::{Error, Result};
use crate::layout::Lab;
use crate::region::Place;

const BOUND: Duration = Duration::from_secs(15);

/// The chains of the host's firewall through which traffic of a lab passes.
const HOOKS: [&str; 3] = ["INPUT", "OUTPUT", "FORWARD"];

fn ip(arguments: &str) -> Result<()> {
    run(Command::new("ip").args(arguments.split_whitespace()), BOUND).map(drop)
}

/// `iptables -w` waits for the lock that kube-proxy and others take.
fn iptables(arguments: &str) -> Command {
    let mut command = Command::new("iptables");
    command.args(["-w", "10"]).args(arguments.split_whitespace());
    command
}

/// The file that keeps a place's network namespace.
pub(crate) fn namespace_file(lab: &Lab, place: impl Into<Place>) -> PathBuf {
    Path::new("/run/netns").join(lab.plan.namespace(place))
}

/// The first words of a command line that runs in a place's network.
///
/// `ip netns exec` would remount /sys and hide the cgroups that kubelet needs.
pub fn enter(lab: &Lab, place: impl Into<Place>) -> Vec<String> {
    vec!["nsenter".into(), format!("--net={}", namespace_file(lab, place).display())]
}

/// Makes a place's namespace, its link to the host and its addresses.
pub(crate) fn create(lab: &Lab, place: Place) -> Result<()> {
    let plan = &lab.plan;
    let (namespace, link) = (plan.namespace(place), plan.link(place));
    ip(&format!("netns add {namespace}"))?;
    ip(&format!("link add {link} type veth peer name eth0 netns {namespace}"))?;
    ip(&format!("addr add {}/24 dev {link}", plan.host(place)))?;
    ip(&format!("link set {link} up"))?;
    // Forwarding for this link alone; the machine's own setting stays as it is.
    let forwarding = PathBuf::from(format!("/proc/sys/net/ipv4/conf/{link}/forwarding"));
    std::fs::write(&forwarding, "1").map_err(Error::file("set", &forwarding))?;

    ip(&format!("-n {namespace} link set lo up"))?;
    ip(&format!("-n {namespace} addr add {}/24 dev eth0", plan.address(place)))?;
    if place == Place::AWS {
        for (_, address) in plan.arc_endpoints() {
            ip(&format!("-n {namespace} addr add {address}/24 dev eth0"))?;
        }
    }
    ip(&format!("-n {namespace} link set eth0 up"))?;
    ip(&format!("-n {namespace} route add default via {}", plan.host(place)))?;
    let enter = enter(lab, place);
    let script = "echo 1 >/proc/sys/net/ipv4/ip_forward";
    run(Command::new(&enter[0]).args(&enter[1..]).args(["sh", "-c", script]), BOUND).map(drop)
}

/// Removes a place's namespace and link; what is not there is fine.
pub(crate) fn remove(lab: &Lab, place: Place) -> Result<()> {
    let (namespace, link) = (lab.plan.namespace(place), lab.plan.link(place));
    if namespace_file(lab, place).exists() {
        ip(&format!("netns del {namespace}"))?;
    }
    // The kernel removes the link by itself a moment after its namespace: whoever comes first, it must be gone.
    let device = Path::new("/sys/class/net").join(&link);
    if device.exists()
        && let Err(error) = ip(&format!("link del {link}"))
        && device.exists()
    {
        return Err(error);
    }
    Ok(())
}

fn chain(lab: &Lab) -> String {
    format!("LAB-{}", lab.plan.name())
}

/// Lets the lab's places talk to each other and to the host, whatever the host's firewall says of others.
pub(crate) fn open_firewall(lab: &Lab) -> Result<()> {
    let (chain, network) = (chain(lab), lab.plan.network());
    close_firewall(lab)?;
    run(&mut iptables(&format!("-N {chain}")), BOUND)?;
    run(&mut iptables(&format!("-A {chain} -s {network} -d {network} -j ACCEPT")), BOUND)?;
    for hook in HOOKS {
        run(&mut iptables(&format!("-I {hook} -j {chain}")), BOUND)?;
    }
    Ok(())
}

/// Removes the lab's chain and with it all cuts.
pub(crate) fn close_firewall(lab: &Lab) -> Result<()> {
    let chain = chain(lab);
    if !succeeds(&mut iptables(&format!("-n -L {chain}")), BOUND) {
        return Ok(());
    }
    for hook in HOOKS {
        while succeeds(&mut iptables(&format!("-C {hook} -j {chain}")), BOUND) {
            run(&mut iptables(&format!("-D {hook} -j {chain}")), BOUND)?;
        }
    }
    run(&mut iptables(&format!("-F {chain}")), BOUND)?;
    run(&mut iptables(&format!("-X {chain}")), BOUND).map(drop)
}

/// A part of the network that loses its packets silently, as a partition does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// All traffic of a place, both ways, with the host too.
    Link(Place),
    /// All traffic between two places, both ways.
    Between(Place, Place),
    /// Packets from the first place to the second; the other direction flows.
    OneWay(Place, Place),
}

impl Cut {
    /// Matches of the firewall rules that make the cut.
    fn matches(self, lab: &Lab) -> Vec<String> {
        let subnet = |place: Place| lab.plan.subnet(place);
        match self {
            Self::Link(place) => vec![format!("-s {}", subnet(place)), format!("-d {}", subnet(place))],
            Self::Between(one, other) => vec![
                format!("-s {} -d {}", subnet(one), subnet(other)),
                format!("-s {} -d {}", subnet(other), subnet(one)),
            ],
            Self::OneWay(from, to) => vec![format!("-s {} -d {}", subnet(from), subnet(to))],
        }
    }
}

/// Makes a cut; one that is there already stays.
///
/// # Errors
/// When the lab is not up.
pub fn cut(lab: &Lab, cut: Cut) -> Result<()> {
    let chain = chain(lab);
    for rule in cut.matches(lab) {
        if !succeeds(&mut iptables(&format!("-C {chain} {rule} -j DROP")), BOUND) {
            run(&mut iptables(&format!("-I {chain} {rule} -j DROP")), BOUND)?;
        }
    }
    Ok(())
}

/// Mends a cut; one that is not there is fine.
///
/// # Errors
/// When the lab is not up.
pub fn mend(lab: &Lab, cut: Cut) -> Result<()> {
    let chain = chain(lab);
    for rule in cut.matches(lab) {
        if succeeds(&mut iptables(&format!("-C {chain} {rule} -j DROP")), BOUND) {
            run(&mut iptables(&format!("-D {chain} {rule} -j DROP")), BOUND)?;
        }
    }
    Ok(())
}

/// Mends all cuts.
///
/// # Errors
/// When the firewall cannot be changed.
pub fn mend_all(lab: &Lab) -> Result<()> {
    open_firewall(lab)
}

/// The firewall rules of the cuts that are in force.
///
/// # Errors
/// When the firewall cannot be read.
pub fn cuts(lab: &Lab) -> Result<Vec<String>> {
    let listing = run(&mut iptables(&format!("-S {}", chain(lab))), BOUND)?;
    Ok(listing.lines().filter(|line| line.ends_with("-j DROP")).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Plan;
    use crate::region::Region;

    #[test]
    fn a_cut_between_regions_leaves_all_other_traffic_alone() {
        let lab = Lab::new(Plan::new("tr", 0).unwrap());
        let [east, west] = Region::ALL.map(Place::from);
        assert_eq!(
            Cut::Between(east, west).matches(&lab),
            ["-s 10.99.1.0/24 -d 10.99.2.0/24", "-s 10.99.2.0/24 -d 10.99.1.0/24"]
        );
        assert_eq!(Cut::OneWay(west, east).matches(&lab), ["-s 10.99.2.0/24 -d 10.99.1.0/24"]);
        assert_eq!(Cut::Link(west).matches(&lab), ["-s 10.99.2.0/24", "-d 10.99.2.0/24"]);
    }
}
