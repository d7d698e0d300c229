//! The one place that computes names and addresses of a lab from its name and index.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::region::{Place, Region};

/// Highest index: below it the second parts `99 - index` and `199 - index` of all labs stay apart.
const HIGHEST_INDEX: u8 = 39;

/// The longest name that still fits into the name of a network interface (15 bytes).
const LONGEST_NAME: usize = 8;

/// The AWS regions whose ARC cluster endpoints the simulator plays, in the order of their addresses.
pub const ARC_ENDPOINT_REGIONS: [&str; 5] =
    ["us-east-1", "us-west-2", "eu-west-1", "ap-northeast-1", "ap-southeast-2"];

/// Ports inside a region and of the simulator.
pub mod port {
    /// HTTPS of a region's kube-apiserver.
    pub const KUBERNETES: u16 = 6443;
    /// AMQPS of a region's RabbitMQ.
    pub const AMQPS: u16 = 5671;
    /// HTTPS of a region's RabbitMQ management API.
    pub const BROKER_MANAGEMENT: u16 = 15671;
    /// HTTPS of the simulated AWS APIs.
    pub const AWS: u16 = 443;
    /// HTTP of the simulator's control port.
    pub const AWS_CONTROL: u16 = 8099;
    /// DNS, over UDP and TCP.
    pub const DNS: u16 = 53;
}

/// Names and addresses of one lab. Two labs with different names and indexes share nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    name: String,
    index: u8,
}

impl Plan {
    /// # Errors
    /// When the name is not a short lower-case word or the index is above 39.
    pub fn new(name: &str, index: u8) -> Result<Self> {
        let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        if name.is_empty() || name.len() > LONGEST_NAME || !name.bytes().all(word) {
            return Err(Error::Request(format!(
                "lab name {name:?}: use 1 to {LONGEST_NAME} lower-case letters or digits"
            )));
        }
        if index > HIGHEST_INDEX {
            return Err(Error::Request(format!("lab index {index}: use 0 to {HIGHEST_INDEX}")));
        }
        Ok(Self { name: name.to_owned(), index })
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The lab's index.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// Second part of the addresses of places.
    fn outer(&self) -> u8 {
        99 - self.index
    }

    /// Second part of the addresses inside clusters.
    fn inner(&self) -> u8 {
        199 - self.index
    }

    /// The network namespace of a place.
    pub fn namespace(&self, place: impl Into<Place>) -> String {
        format!("{}-{}", self.name, place.into())
    }

    /// The host's end of the link to a place.
    pub fn link(&self, place: impl Into<Place>) -> String {
        format!("{}-lab{}", self.name, number(place.into()))
    }

    /// The address of a place: a region, or where RDS, DNS and the control port answer.
    pub fn address(&self, place: impl Into<Place>) -> Ipv4Addr {
        Ipv4Addr::new(10, self.outer(), number(place.into()), 2)
    }

    /// The host's address on the link to a place.
    pub fn host(&self, place: impl Into<Place>) -> Ipv4Addr {
        Ipv4Addr::new(10, self.outer(), number(place.into()), 1)
    }

    /// All addresses of a place and of the host's end of its link, in CIDR notation.
    pub fn subnet(&self, place: impl Into<Place>) -> String {
        format!("10.{}.{}.0/24", self.outer(), number(place.into()))
    }

    /// All places of the lab, in CIDR notation.
    pub fn network(&self) -> String {
        format!("10.{}.0.0/16", self.outer())
    }

    /// Addresses of a region's pods, in CIDR notation.
    pub fn pods(&self, region: Region) -> String {
        format!("10.{}.{}.0/24", self.inner(), number(region.into()))
    }

    /// Addresses of a region's Kubernetes services, in CIDR notation.
    pub fn services(&self, region: Region) -> String {
        format!("{}/18", self.service(region, 0))
    }

    /// The address of the `kubernetes` service of a region.
    pub fn kubernetes_service(&self, region: Region) -> Ipv4Addr {
        self.service(region, 1)
    }

    /// The address of the DNS service of a region.
    pub fn dns_service(&self, region: Region) -> Ipv4Addr {
        self.service(region, 10)
    }

    fn service(&self, region: Region, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.inner(), 64 * number(region.into()), host)
    }

    /// The addresses of the five ARC cluster endpoints with the AWS region of each.
    pub fn arc_endpoints(&self) -> [(&'static str, Ipv4Addr); 5] {
        let mut last = 10;
        ARC_ENDPOINT_REGIONS.map(|region| {
            last += 1;
            (region, Ipv4Addr::new(10, self.outer(), number(Place::AWS), last))
        })
    }
}

/// Third part of the addresses of a place.
fn number(place: Place) -> u8 {
    match place {
        Place::Region(Region::UsEast1) => 1,
        Place::Region(Region::UsWest2) => 2,
        Place::Aws(_) => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_first_lab_has_the_addresses_of_the_wiring_page() {
        let plan = Plan::new("tr", 0).unwrap();
        assert_eq!(plan.namespace(Region::UsEast1), "tr-us-east-1");
        assert_eq!(plan.address(Region::UsEast1).to_string(), "10.99.1.2");
        assert_eq!(plan.address(Region::UsWest2).to_string(), "10.99.2.2");
        assert_eq!(plan.host(Region::UsWest2).to_string(), "10.99.2.1");
        assert_eq!(plan.address(Place::AWS).to_string(), "10.99.3.2");
        assert_eq!(plan.arc_endpoints()[0].1.to_string(), "10.99.3.11");
        assert_eq!(plan.arc_endpoints()[4].1.to_string(), "10.99.3.15");
        assert_eq!(plan.pods(Region::UsEast1), "10.199.1.0/24");
        assert_eq!(plan.services(Region::UsWest2), "10.199.128.0/18");
        assert_eq!(plan.dns_service(Region::UsEast1).to_string(), "10.199.64.10");
    }

    #[test]
    fn no_two_labs_share_an_address_range() {
        let mut seen = BTreeSet::new();
        for index in 0..=HIGHEST_INDEX {
            let plan = Plan::new("tr", index).unwrap();
            assert!(seen.insert(plan.outer()), "index {index} reuses {}", plan.outer());
            assert!(seen.insert(plan.inner()), "index {index} reuses {}", plan.inner());
        }
    }

    #[test]
    fn names_that_do_not_fit_an_interface_are_refused() {
        for name in ["", "Tr", "a-b", "ninechars", "a b", "../x"] {
            assert!(Plan::new(name, 0).is_err(), "{name:?} was accepted");
        }
        let longest = Plan::new("eight678", 39).unwrap();
        assert!(longest.link(Place::AWS).len() <= 15);
        assert!(Plan::new("tr", 40).is_err());
    }
}
