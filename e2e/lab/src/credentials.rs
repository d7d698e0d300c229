//! Users of brokers, databases and AWS with random passwords, made anew for every lab.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::application::Application;
use crate::broker;
use crate::error::{Error, Result};
use crate::region::Region;

/// Login roles of the database that the product uses.
pub(crate) const DATABASE_ROLES: [&str; 9] = [
    "region_keeper",
    "region_operator",
    "trading_inbound",
    "trading_ingestion",
    "trading_core",
    "trading_egress",
    "trading_outbound",
    "trading_peer",
    "trading_migrator",
];

/// The role by which a standby follows its primary.
pub(crate) const REPLICATOR: &str = "lab_replicator";

/// The caller that tests and people use; the two operators call under their region's name.
const DRIVER: &str = "driver";

/// An AWS access key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AwsKey {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret_access_key: String,
}

/// Users and passwords of one lab.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credentials {
    /// Password of each role that may log in to an application's database, `postgres` included.
    pub database: BTreeMap<Application, BTreeMap<String, String>>,
    /// Password of each broker user.
    pub broker: BTreeMap<String, String>,
    /// Access key of each caller: `us-east-1` and `us-west-2` (their operators) and `driver` (tests).
    pub aws: BTreeMap<String, AwsKey>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for AwsKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AwsKey").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// 122 random bits as 32 characters that need quoting nowhere.
fn random() -> String {
    Uuid::new_v4().simple().to_string()
}

impl Credentials {
    pub(crate) fn generate() -> Self {
        let roles = || DATABASE_ROLES.into_iter().chain(["postgres", REPLICATOR]);
        let passwords =
            || -> BTreeMap<String, String> { roles().map(|role| (role.to_owned(), random())).collect() };
        let database = Application::ALL.map(|application| (application, passwords())).into();
        let broker = broker::users::names().into_iter().map(|user| (user, random())).collect();
        let callers = Region::ALL.map(Region::name).into_iter().chain([DRIVER]);
        let aws = callers.map(|caller| {
            let access_key_id = format!("AKIA{}", &random().to_uppercase()[..16]);
            let secret_access_key = format!("{}{}", random(), &random()[..8]);
            (caller.to_owned(), AwsKey { access_key_id, secret_access_key })
        });
        Self { database, broker, aws: aws.collect() }
    }

    /// Password of a role of an application's database.
    ///
    /// # Errors
    /// When the lab has no such role.
    pub fn database(&self, application: Application, role: &str) -> Result<&str> {
        let roles = self.database.get(&application).ok_or_else(|| {
            Error::Request(format!(
                "no passwords of {application}: `cargo xtask lab down` and `up` make the lab anew"
            ))
        })?;
        find(roles, "database role", role).map(String::as_str)
    }

    /// Password of a broker user.
    ///
    /// # Errors
    /// When the lab has no such user.
    pub fn broker(&self, user: &str) -> Result<&str> {
        find(&self.broker, "broker user", user).map(String::as_str)
    }

    /// Access key of a caller.
    ///
    /// # Errors
    /// When the lab has no such caller.
    pub fn aws(&self, caller: &str) -> Result<&AwsKey> {
        find(&self.aws, "AWS caller", caller)
    }
}

fn find<'a, T>(map: &'a BTreeMap<String, T>, kind: &str, name: &str) -> Result<&'a T> {
    map.get(name).ok_or_else(|| {
        let known: Vec<&str> = map.keys().map(String::as_str).collect();
        Error::Request(format!("no {kind} {name:?}; there are: {}", known.join(", ")))
    })
}
