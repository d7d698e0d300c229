//! The selected Deployments, from the cache. Pure but for the cache's read.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::{TIER_LABEL, TradingRegion};
use jiff::{SignedDuration, Timestamp};
use region_plan::{Fact, Workload, Workloads};

use crate::workloads::{Deployment, Selected, Workloads as Cache};

/// Another TradingRegion of the same namespace, as far as selecting goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rival {
    /// When it was created, then its name: the smaller one is the older.
    pub age: (Option<Timestamp>, String),
    /// Its selector.
    pub selector: BTreeMap<String, String>,
}

impl Rival {
    /// What another object (or this one) selects, and how old it is.
    pub fn of(object: &TradingRegion) -> Self {
        let created = object.metadata.creation_timestamp.as_ref().map(|time| time.0);
        Self {
            age: (created, object.metadata.name.clone().unwrap_or_default()),
            selector: object.spec.workloads.selector.match_labels.clone(),
        }
    }
}

/// What decides which Deployments are selected, and how large they should be.
pub(super) struct Wanted<'a> {
    pub(super) object: &'a TradingRegion,
    pub(super) rivals: &'a [Rival],
    /// Counts that a report tells; they count where no annotation does.
    pub(super) sizes: Option<&'a BTreeMap<String, i32>>,
}

/// The Deployments that this object selects, without those that an older object selects too, as of when the cache was last
/// known to be complete.
pub(super) fn observe(
    cache: &Cache,
    wanted: &Wanted<'_>,
    now: Timestamp,
    oldest: SignedDuration,
) -> Fact<Workloads> {
    let namespace = wanted.object.metadata.namespace.as_deref().unwrap_or_default();
    let selector = &wanted.object.spec.workloads.selector.match_labels;
    let selected = cache.selected(namespace, selector);
    known(selected, now, oldest).map(|found| sum_up(wanted, &found, |name| cache.autoscaled(namespace, name)))
}

/// A broken watch's last state is told with its age while it may still be used, and then with what is broken.
fn known(
    selected: Result<Selected, String>,
    now: Timestamp,
    oldest: SignedDuration,
) -> Fact<Vec<Arc<Deployment>>> {
    match selected {
        Err(why) => Fact::unknown(why),
        Ok(Selected { at, broken: Some(why), .. }) if now.duration_since(at) > oldest => {
            Fact::unknown(format!("not heard of since {at:.0}: {why}"))
        }
        Ok(found) => Fact::known(found.deployments, found.at),
    }
}

fn sum_up(wanted: &Wanted<'_>, selected: &[Arc<Deployment>], autoscaled: impl Fn(&str) -> bool) -> Workloads {
    let age = Rival::of(wanted.object).age;
    let older: Vec<&Rival> = wanted.rivals.iter().filter(|rival| rival.age < age).collect();
    let mut found = Workloads::default();
    for deployment in selected {
        let taken = |rival: &&Rival| rival.selector.iter().all(|(k, v)| deployment.labels.get(k) == Some(v));
        if older.iter().any(taken) {
            found.conflicts.push(deployment.name.clone());
        } else {
            found.items.push(workload(wanted, deployment, autoscaled(&deployment.name)));
        }
    }
    found
}

fn workload(wanted: &Wanted<'_>, deployment: &Deployment, autoscaled: bool) -> Workload {
    let annotated = deployment.active_replicas.as_deref().and_then(|text| text.parse::<i32>().ok());
    let told = wanted.sizes.and_then(|sizes| sizes.get(&deployment.name).copied());
    let wanted = &wanted.object.spec.workloads;
    Workload {
        name: deployment.name.clone(),
        uid: deployment.uid.clone(),
        tier: deployment.labels.get(TIER_LABEL).and_then(|text| text.parse().ok()).unwrap_or_default(),
        active_replicas: annotated.or(told).unwrap_or(deployment.replicas).max(wanted.active.floor),
        standby_replicas: wanted.standby.replicas,
        replicas: deployment.replicas,
        ready: deployment.ready,
        current: deployment.observed_generation >= deployment.generation,
        autoscaled,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    fn deployment(name: &str, replicas: i32, annotated: Option<&str>) -> Arc<Deployment> {
        Arc::new(Deployment {
            name: name.to_owned(),
            uid: format!("uid-{name}"),
            labels: example().spec.workloads.selector.match_labels,
            active_replicas: annotated.map(str::to_owned),
            replicas,
            generation: 2,
            observed_generation: 1,
            ..Deployment::default()
        })
    }

    fn rival(created: i64, name: &str) -> Rival {
        Rival { age: (Timestamp::from_second(created).ok(), name.to_owned()), ..Rival::of(&example()) }
    }

    fn alone(object: &TradingRegion) -> Wanted<'_> {
        Wanted { object, rivals: &[], sizes: None }
    }

    fn object(created: i64) -> TradingRegion {
        let mut object = example();
        let at = Timestamp::from_second(created).unwrap();
        object.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at));
        object
    }

    #[test]
    fn a_broken_watch_grows_old_and_then_says_why() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let selected = |broken: Option<&str>| {
            Ok(Selected { deployments: vec![], at: at(100), broken: broken.map(str::to_owned) })
        };
        let oldest = SignedDuration::from_secs(10);
        assert_eq!(known(selected(Some("no route")), at(109), oldest), Fact::known(vec![], at(100)));
        let late = known(selected(Some("no route")), at(111), oldest);
        assert!(late.why_unknown().unwrap().ends_with("no route"), "{late:?}");
        // Without a known fault the fact's own age tells.
        assert_eq!(known(selected(None), at(111), oldest), Fact::known(vec![], at(100)));
    }

    #[test]
    fn the_older_object_keeps_a_deployment_that_both_select() {
        let selected = [deployment("core", 1, None)];
        let rivals = [rival(10, "other")];
        let newer = sum_up(&Wanted { rivals: &rivals, ..alone(&object(20)) }, &selected, |_| false);
        assert_eq!((newer.items.len(), newer.conflicts), (0, vec!["core".to_owned()]));
        let older = sum_up(&Wanted { rivals: &rivals, ..alone(&object(5)) }, &selected, |_| false);
        assert_eq!((older.items.len(), older.conflicts.len()), (1, 0));
    }

    #[test]
    fn the_wanted_number_is_the_annotation_but_never_below_the_floor() {
        let mut object = object(1);
        object.spec.workloads.active.floor = 2;
        let wanted = alone(&object);
        let replicas =
            |annotated| workload(&wanted, &deployment("core", 0, annotated), false).active_replicas;
        assert_eq!(replicas(Some("5")), 5);
        assert_eq!(replicas(Some("1")), 2);
        assert_eq!(replicas(Some("many")), 2);
        assert_eq!(replicas(None), 2);
    }

    #[test]
    fn without_an_annotation_a_standby_wants_what_the_active_region_has() {
        let mut object = object(1);
        object.spec.workloads.active.floor = 1;
        let sizes = BTreeMap::from([("core".to_owned(), 7)]);
        let wanted = Wanted { sizes: Some(&sizes), ..alone(&object) };
        let replicas =
            |name, annotated| workload(&wanted, &deployment(name, 0, annotated), false).active_replicas;
        assert_eq!(replicas("core", None), 7);
        assert_eq!(replicas("core", Some("3")), 3);
        assert_eq!(replicas("inbound", None), 1, "not told of: the floor");
    }

    #[test]
    fn a_deployment_whose_controller_lags_is_not_current() {
        assert!(!workload(&alone(&object(1)), &deployment("core", 1, None), false).current);
    }
}
