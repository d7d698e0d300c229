//! From the two copies of the object to what the decision knows of people's wishes. Pure.

use std::sync::Arc;

use crds::{
    ApprovalRequired, Managed, OnDeadline as SpecOnDeadline, TradingRegion, TradingRegionSpec, TransitionMode,
};
use region_plan::{DrainPolicy, Epoch, Fact, Intent, Limits, Management, Mode, OnDeadline, Region, Wanted};
use sha2::{Digest, Sha256};

use crate::cluster::PeerCopy;

/// What both copies ask for.
pub fn intent(mine: &TradingRegion, peer: &Fact<PeerCopy>) -> Intent {
    let spec = &mine.spec;
    let mut hooks: Vec<_> = spec.hooks.iter().map(|hook| hook.at).collect();
    hooks.sort();
    hooks.dedup();
    Intent {
        app: mine.metadata.name.clone().unwrap_or_default(),
        regions: spec.regions.iter().map(|region| Region(region.name.clone())).collect(),
        mine: wanted(mine),
        peer: peer_wanted(peer),
        drain: DrainPolicy {
            hold: spec.drain.hold_for.get(),
            deadline: spec.drain.deadline.get(),
            on_deadline: match spec.drain.on_deadline {
                SpecOnDeadline::Abort => OnDeadline::Abort,
                SpecOnDeadline::Proceed => OnDeadline::Proceed,
                SpecOnDeadline::WaitForUser => OnDeadline::WaitForUser,
            },
        },
        hooks,
        dns_name: spec.routing.dns.as_ref().map(|dns| dns.name.clone()),
        approval_required: spec.approval.required == ApprovalRequired::Always,
        management: match spec.managed {
            Managed::Manage => Management::Manage,
            Managed::Observe => Management::Observe,
        },
        deleting: mine.metadata.deletion_timestamp.is_some(),
        limits: Limits::default(),
    }
}

fn wanted(copy: &TradingRegion) -> Wanted {
    let transition = &copy.spec.transition;
    Wanted {
        active: Region(copy.spec.active_region.clone()),
        mode: match transition.mode {
            TransitionMode::Planned => Mode::Planned,
            TransitionMode::Failover => {
                Mode::Failover { from_epoch: transition.from_epoch.unwrap_or(Epoch(0)) }
            }
        },
        generation: copy.metadata.generation.unwrap_or_default(),
        fingerprint: fingerprint(&copy.spec),
    }
}

fn peer_wanted(peer: &Fact<PeerCopy>) -> Fact<Wanted> {
    match present(peer) {
        Fact::Known { value, at } => Fact::known(wanted(&value), at),
        Fact::Unknown { why } => Fact::unknown(why),
    }
}

/// The other copy, where not existing is a reason for not knowing.
fn present(peer: &Fact<PeerCopy>) -> Fact<Arc<TradingRegion>> {
    match peer {
        Fact::Known { value: Some(copy), at } => Fact::known(Arc::clone(copy), *at),
        Fact::Known { value: None, .. } => {
            Fact::unknown("the other cluster has no TradingRegion of this name; apply the same object there")
        }
        Fact::Unknown { why } => Fact::unknown(why.clone()),
    }
}

/// A digest of the parts of the spec that both copies must share: all but who is active, how that changes, and whether
/// this side acts.
pub fn fingerprint(spec: &TradingRegionSpec) -> String {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        for own in ["activeRegion", "transition", "managed"] {
            fields.remove(own);
        }
    }
    // Objects are sorted by key, so equal specs give equal texts.
    let digest = Sha256::digest(value.to_string().as_bytes());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::testing::example;

    fn known(copy: TradingRegion) -> Fact<PeerCopy> {
        Fact::known(Some(Arc::new(copy)), Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn copies_that_differ_only_in_who_is_active_share_their_fingerprint() {
        let (a, mut b) = (example(), example());
        b.spec.active_region = "us-west-2".to_owned();
        b.spec.transition.reason = Some("another reason".to_owned());
        b.spec.managed = Managed::Observe;
        assert_eq!(fingerprint(&a.spec), fingerprint(&b.spec));
        b.spec.drain.hold_for = crds::Duration::from_secs(9);
        assert_ne!(fingerprint(&a.spec), fingerprint(&b.spec));
    }

    #[test]
    fn an_absent_peer_object_is_unknown_and_says_what_to_do() {
        let intent = intent(&example(), &Fact::known(None, Timestamp::UNIX_EPOCH));
        assert!(intent.peer.why_unknown().unwrap().contains("apply the same object there"));
    }

    #[test]
    fn both_wishes_are_taken_from_their_own_copies() {
        let mut theirs = example();
        theirs.spec.active_region = "us-west-2".to_owned();
        let intent = intent(&example(), &known(theirs));
        assert_eq!(intent.mine.active, Region::from("us-east-1"));
        assert_eq!(intent.peer.get().unwrap().active, Region::from("us-west-2"));
        assert_eq!(intent.regions, [Region::from("us-east-1"), Region::from("us-west-2")]);
    }

    #[test]
    fn each_hook_point_is_named_once_in_the_order_of_a_run() {
        let mut object = example();
        let first = object.spec.hooks[0].clone();
        object.spec.hooks.push(first);
        object.spec.hooks.reverse();
        let points = intent(&object, &known(example())).hooks;
        let mut sorted = points.clone();
        sorted.sort();
        sorted.dedup();
        assert_eq!(points, sorted);
    }

    #[test]
    fn an_object_with_a_deletion_time_is_being_deleted() {
        let mut object = example();
        let at = k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(Timestamp::UNIX_EPOCH);
        object.metadata.deletion_timestamp = Some(at);
        assert!(intent(&object, &known(example())).deleting);
    }
}
