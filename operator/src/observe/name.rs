//! Which region the customers' name answers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use futures::future::{join, join_all};
use region_plan::{ControlKey, ControlRole, ControlState, Fact, Region, Switch};

use crate::clock;
use crate::sources::Sources;

/// The region at whose broker the customers' name points; `None` in it: at another address.
pub(super) async fn observe(sources: &Sources) -> Fact<Option<Region>> {
    let Some(name) = &sources.name else {
        return Fact::unknown("the spec gives no routing.dns.name");
    };
    let hosts = join_all(sources.hosts.values().map(|host| sources.resolver.addresses(host)));
    let (answer, hosts) = join(sources.resolver.addresses(name), hosts).await;
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return Fact::unknown(why),
    };
    let regions: Result<Vec<_>, String> = sources
        .hosts
        .keys()
        .zip(hosts)
        .map(|(region, found)| found.map(|addresses| (region, addresses)))
        .collect();
    match regions {
        Ok(regions) => Fact::known(region_of(&answer, &regions), clock::now()),
        Err(why) => Fact::unknown(why),
    }
}

/// The only region whose addresses include all that the name answers.
fn region_of(answer: &[IpAddr], regions: &[(&Region, Vec<IpAddr>)]) -> Option<Region> {
    let answer: BTreeSet<_> = answer.iter().collect();
    let holds =
        |addresses: &Vec<IpAddr>| !answer.is_empty() && answer.iter().all(|one| addresses.contains(one));
    let mut found = regions.iter().filter(|(_, addresses)| holds(addresses));
    match (found.next(), found.next()) {
        (Some((region, _)), None) => Some((*region).clone()),
        _ => None,
    }
}

/// Without a name to check, where traffic goes is what the ingress controls say.
pub(super) fn by_controls(controls: &BTreeMap<ControlKey, ControlState>) -> Fact<Option<Region>> {
    let ingress = || controls.iter().filter(|(key, _)| key.role == ControlRole::Ingress);
    if ingress().any(|(_, state)| state.agreed().is_none()) {
        return Fact::unknown(
            "the spec gives no routing.dns.name, and the ARC endpoints do not agree on ingress",
        );
    }
    let mut on =
        ingress().filter(|(_, state)| state.agreed() == Some(Switch::On)).map(|(key, _)| &key.region);
    let region = match (on.next(), on.next()) {
        (Some(region), None) => Some(region.clone()),
        _ => None,
    };
    Fact::known(region, clock::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn a_name_that_answers_both_regions_or_none_answers_no_region() {
        let (a, b) = (Region::from("a"), Region::from("b"));
        let regions = [(&a, vec![ip(1)]), (&b, vec![ip(2), ip(3)])];
        assert_eq!(region_of(&[ip(1)], &regions), Some(a.clone()));
        assert_eq!(region_of(&[ip(3), ip(2)], &regions), Some(b.clone()));
        assert_eq!(region_of(&[ip(1), ip(2)], &regions), None);
        assert_eq!(region_of(&[ip(9)], &regions), None);
        assert_eq!(region_of(&[], &regions), None);
    }

    #[test]
    fn two_regions_behind_one_address_cannot_be_told_apart() {
        let (a, b) = (Region::from("a"), Region::from("b"));
        assert_eq!(region_of(&[ip(1)], &[(&a, vec![ip(1)]), (&b, vec![ip(1)])]), None);
    }

    #[test]
    fn without_a_name_the_agreed_ingress_control_tells() {
        let key = |region: &str| ControlKey { role: ControlRole::Ingress, region: Region::from(region) };
        let on = ControlState { on: 3, off: 0 };
        let off = ControlState { on: 0, off: 3 };
        let unsure = ControlState { on: 2, off: 2 };
        let answered = |a, b| by_controls(&BTreeMap::from([(key("a"), a), (key("b"), b)]));
        assert_eq!(answered(off, on).get(), Some(&Some(Region::from("b"))));
        assert_eq!(answered(off, off).get(), Some(&None));
        assert!(answered(unsure, on).get().is_none());
    }
}
