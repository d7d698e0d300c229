//! Connections of one object to what is outside of Kubernetes: database, broker, ARC, RDS, DNS. They are kept between passes
//! and made anew when the spec or a secret changes. What cannot be set up is known by its reason and hinders nothing else.

pub mod broker;
pub mod database;
pub mod dns;
pub mod queues;
pub mod rules;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use crds::{Broker as BrokerSpec, TradingRegion, TradingRegionSpec};
use region_aws::{ArcClient, ArcEndpoint, AwsAccess, RdsClient, RdsLimits, RulesClient};
use region_plan::{ControlKey, Region};
use tokio::sync::Mutex;

use self::broker::{Management, ManagementOptions};
use self::database::Database;
use self::dns::Resolver;
use self::queues::Queues;
use self::rules::{Refusals, RulesWatch};
use crate::caller::{BasicAuth, Caller};
use crate::cluster::{SecretData, SecretError, Secrets};
use crate::intent::fingerprint;
use crate::observe::global::GlobalWatch;
use crate::observe::routing;

/// How long an act at the RDS API may take.
const RDS_ACT: Duration = Duration::from_secs(10);
/// How long one listing of safety rules may take; nobody waits for it.
const RULES: Duration = Duration::from_secs(5);

/// The broker of the own region, by both of its doors.
pub struct Broker {
    /// Permissions, connections, counts.
    pub management: Management,
    /// Queue lengths.
    pub queues: Queues,
}

/// All connections of one object.
pub struct Sources {
    /// The own region's database instance.
    pub database: Result<Database, String>,
    /// The own region's broker.
    pub broker: Result<Broker, String>,
    /// ARC's five endpoints.
    pub arc: Result<ArcClient, String>,
    /// The ARN of each control.
    pub controls: BTreeMap<ControlKey, String>,
    /// Which roles are guarded by a safety rule.
    pub rules: Arc<RulesWatch>,
    /// Changes that a rule refused.
    pub refused: Refusals,
    /// The RDS API of each region.
    pub rds: BTreeMap<Region, RdsClient>,
    /// The global cluster's name.
    pub global_cluster: String,
    /// ARN of the member cluster in each region.
    pub members: BTreeMap<Region, String>,
    /// The global cluster, asked in the own region beside the passes.
    pub global: Result<Arc<GlobalWatch>, String>,
    /// Plain HTTP calls of checks and hooks.
    pub caller: Result<Caller, String>,
    /// Who answers names.
    pub resolver: Resolver,
    /// The customers' name.
    pub name: Option<String>,
    /// The broker's host of each region: what the customers' name may answer.
    pub hosts: BTreeMap<Region, String>,
    /// What the spec names and cannot be used, in words.
    pub bad_references: Vec<String>,
}

/// Connections of all objects, kept between passes.
pub struct SourceBook {
    me: Region,
    secrets: Arc<Secrets>,
    access: AwsAccess,
    endpoints: ApiEndpoints,
    deadline: Duration,
    kept: Mutex<HashMap<String, (String, Arc<Sources>)>>,
}

/// Other addresses of AWS APIs than AWS's own.
#[derive(Clone, Debug, Default)]
pub struct ApiEndpoints {
    /// The RDS API by region; these win over the spec's.
    pub rds: BTreeMap<String, String>,
    /// ARC's control plane.
    pub arc_config: Option<String>,
}

impl SourceBook {
    /// `deadline` bounds one observation.
    pub fn new(
        me: Region,
        secrets: Arc<Secrets>,
        access: AwsAccess,
        endpoints: ApiEndpoints,
        deadline: Duration,
    ) -> Self {
        Self { me, secrets, access, endpoints, deadline, kept: Mutex::default() }
    }

    /// The connections of that object.
    pub async fn of(&self, object: &TradingRegion) -> Arc<Sources> {
        let uid = object.metadata.uid.clone().unwrap_or_default();
        let secrets = self.secrets_of(object).await;
        let key = format!("{} {}", fingerprint(&object.spec), secrets.versions());
        let mut kept = self.kept.lock().await;
        if let Some((known, sources)) = kept.get(&uid)
            && *known == key
        {
            return Arc::clone(sources);
        }
        let sources = Arc::new(self.build(object, &secrets));
        kept.insert(uid, (key, Arc::clone(&sources)));
        sources
    }

    /// Drops the connections of an object that is gone.
    pub async fn forget(&self, uid: &str) {
        self.kept.lock().await.remove(uid);
    }

    async fn secrets_of(&self, object: &TradingRegion) -> ObjectSecrets {
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let mine = object.spec.region(self.me.as_str());
        let broker = mine.map(|region| &region.broker);
        let ca = broker.and_then(|broker| broker.ca_secret_ref.as_ref());
        ObjectSecrets {
            database: self.secrets.get(namespace, &object.spec.database.connection.secret_ref.name).await,
            broker: match broker {
                Some(broker) => Some(self.secrets.get(namespace, &broker.secret_ref.name).await),
                None => None,
            },
            broker_ca: match ca {
                Some(ca) => Some(self.secrets.get(namespace, &ca.name).await),
                None => None,
            },
        }
    }

    fn build(&self, object: &TradingRegion, secrets: &ObjectSecrets) -> Sources {
        let spec = &object.spec;
        let database = self.database(object, secrets);
        let broker = self.broker(spec, secrets);
        let rds = self.rds(spec);
        let members: BTreeMap<Region, String> = spec
            .database
            .aurora_global
            .clusters
            .iter()
            .map(|(name, c)| (Region(name.clone()), c.arn.clone()))
            .collect();
        let by_arn = members.iter().map(|(region, arn)| (arn.clone(), region.clone())).collect();
        let global_cluster = spec.database.aurora_global.global_cluster.clone();
        let global = rds
            .get(&self.me)
            .map(|client| GlobalWatch::new(client.clone(), &global_cluster, by_arn))
            .ok_or_else(|| format!("the spec names no database cluster of {}", self.me));
        let controls = routing::controls(spec);
        let rules = RulesClient::new(self.endpoints.arc_config.as_deref(), &self.access, RULES);
        let arc = self.arc(spec);
        let bad_references = [database.as_ref().err(), broker.as_ref().err(), arc.as_ref().err()];
        let bad_references = bad_references.into_iter().flatten().cloned().collect();
        Sources {
            database,
            broker,
            arc,
            rules: RulesWatch::new(rules, controls.clone()),
            refused: Refusals::default(),
            controls,
            rds,
            global_cluster,
            members,
            global,
            caller: Caller::new(None).map_err(|error| error.to_string()),
            resolver: Resolver::new(
                spec.routing.dns.as_ref().and_then(|dns| dns.server.clone()),
                self.deadline,
            ),
            name: spec.routing.dns.as_ref().map(|dns| dns.name.clone()),
            hosts: hosts(spec),
            bad_references,
        }
    }

    fn database(&self, object: &TradingRegion, secrets: &ObjectSecrets) -> Result<Database, String> {
        let spec = &object.spec;
        let data = secrets.database.as_ref().map_err(ToString::to_string)?;
        let region =
            spec.region(self.me.as_str()).ok_or_else(|| format!("the spec does not name {}", self.me))?;
        Database::new(
            object.metadata.name.as_deref().unwrap_or_default(),
            &region.database.instance,
            &spec.database.connection.database,
            data,
            self.deadline,
        )
    }

    fn broker(&self, spec: &TradingRegionSpec, secrets: &ObjectSecrets) -> Result<Broker, String> {
        let region =
            spec.region(self.me.as_str()).ok_or_else(|| format!("the spec does not name {}", self.me))?;
        let data =
            secrets.broker.as_ref().ok_or("no broker secret")?.as_ref().map_err(ToString::to_string)?;
        let (user, password) = login(data).map_err(|error| error.to_string())?;
        let ca = ca(&region.broker, secrets).map_err(|error| error.to_string())?;
        let queues = Queues::new(&region.broker.amqp_url, &user, &password, ca.clone(), self.deadline)?;
        let options = ManagementOptions {
            url: region.broker.management_url.clone(),
            auth: BasicAuth::new(&user, &password).map_err(|error| error.to_string())?,
            customers: region.broker.customer_users.clone(),
            readers: region.broker.answer_users.clone(),
            vhost: queues.vhost().to_owned(),
            deadline: self.deadline,
        };
        let caller = Caller::new(ca.as_deref().map(str::as_bytes)).map_err(|error| error.to_string())?;
        Ok(Broker { management: Management::new(caller, options), queues })
    }

    fn arc(&self, spec: &TradingRegionSpec) -> Result<ArcClient, String> {
        let endpoint = |e: &crds::ArcEndpoint| ArcEndpoint { region: e.region.clone(), url: e.url.clone() };
        let endpoints: Vec<_> = spec.routing.arc.endpoints.iter().map(endpoint).collect();
        ArcClient::new(&endpoints, &self.access).map_err(|error| error.to_string())
    }

    fn rds(&self, spec: &TradingRegionSpec) -> BTreeMap<Region, RdsClient> {
        let limits = RdsLimits { describe: self.deadline, act: RDS_ACT };
        let clusters = spec.database.aurora_global.clusters.iter();
        clusters
            .map(|(name, cluster)| {
                let url = self.endpoints.rds.get(name).or(cluster.endpoint.as_ref());
                (Region(name.clone()), RdsClient::new(name, url.map(String::as_str), &self.access, limits))
            })
            .collect()
    }
}

struct ObjectSecrets {
    database: Result<Arc<SecretData>, SecretError>,
    broker: Option<Result<Arc<SecretData>, SecretError>>,
    broker_ca: Option<Result<Arc<SecretData>, SecretError>>,
}

impl ObjectSecrets {
    /// Changes whenever one of them does.
    fn versions(&self) -> String {
        let version = |secret: &Result<Arc<SecretData>, SecretError>| match secret {
            Ok(data) => data.version().to_owned(),
            Err(error) => error.to_string(),
        };
        let all = [Some(&self.database), self.broker.as_ref(), self.broker_ca.as_ref()];
        all.into_iter().flatten().map(version).collect::<Vec<_>>().join(" ")
    }
}

fn login(data: &SecretData) -> Result<(String, String), SecretError> {
    Ok((data.text("username")?.to_owned(), data.text("password")?.to_owned()))
}

fn ca(broker: &BrokerSpec, secrets: &ObjectSecrets) -> Result<Option<String>, SecretError> {
    match (&broker.ca_secret_ref, &secrets.broker_ca) {
        (Some(reference), Some(data)) => {
            Ok(Some(data.as_ref().map_err(Clone::clone)?.text(&reference.key)?.to_owned()))
        }
        _ => Ok(None),
    }
}

fn hosts(spec: &TradingRegionSpec) -> BTreeMap<Region, String> {
    let host = |url: &str| {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or_default();
        authority.rsplit_once(':').map_or(authority, |(host, _)| host).to_owned()
    };
    spec.regions.iter().map(|region| (Region(region.name.clone()), host(&region.broker.amqp_url))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::example;

    #[test]
    fn the_hosts_of_both_brokers_are_what_the_customers_name_may_answer() {
        let mut spec = example().spec;
        spec.regions[0].broker.amqp_url = "amqps://mq.east.example.com:5671/trading".to_owned();
        assert_eq!(hosts(&spec)[&Region::from("us-east-1")], "mq.east.example.com");
    }
}
