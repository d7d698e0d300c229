//! The mounted configuration file. Everything is known before the first call; nothing is looked
//! up while a region fails.
//!
//! ```yaml
//! listen: 0.0.0.0:8080               # health and metrics; this is the default
//! aws:
//!   credentialsFolder: /etc/aws      # files access-key-id and secret-access-key;
//!                                    # left out: the environment (IAM roles for service accounts)
//!   caFile: /etc/aws-ca/ca.crt       # only where the endpoints use a private CA
//! apps:
//!   - app: trade-matching
//!     region: us-east-1              # the region that this keeper runs in
//!     period: 2s                     # between renewals; this is the default
//!     arc:
//!       control: arn:aws:route53-recovery-control::…:controlpanel/…/routingcontrol/…  # app-<region>
//!       endpoints:                   # all five of the cluster
//!         - {region: us-east-1, url: "https://…"}
//!     database:                      # this region's own cluster, by address
//!       {host: db.example, port: 5432, name: trading, user: region_keeper,
//!        passwordFile: /etc/db/password, caFile: /etc/db/ca.crt}
//! ```

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use region_aws::ArcEndpoint;
use serde::Deserialize;

/// Every ARC cluster has five endpoints; fewer would weaken "three of five".
pub const ARC_ENDPOINTS: usize = 5;
/// Three replicas read five endpoints each; faster helps nobody, slower eats the lease of 20 s.
const PERIODS: std::ops::RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(5);
/// Applications in one keeper: each is a loop and a database connection.
const MAX_APPS: usize = 64;

/// The whole configuration; see the module for an example.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Address of health and metrics.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// Access to AWS.
    #[serde(default)]
    pub aws: Aws,
    /// The applications whose leases this keeper renews.
    pub apps: Vec<App>,
}

/// Access to AWS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Aws {
    /// Folder with `access-key-id` and `secret-access-key`; without it the SDK's own chain.
    pub credentials_folder: Option<PathBuf>,
    /// The only CA to trust for AWS endpoints; without it the system's roots.
    pub ca_file: Option<PathBuf>,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct App {
    /// Its name, as in the lease row.
    pub app: String,
    /// The region that this keeper runs in and renews for.
    pub region: String,
    /// Between renewals.
    #[serde(default = "default_period")]
    pub period: SignedDuration,
    /// The witness.
    pub arc: Arc,
    /// This region's database.
    pub database: Database,
}

/// The witness of one application.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Arc {
    /// ARN of the routing control `<app>-app-<region>` of this region.
    pub control: String,
    /// All five endpoints of the cluster.
    pub endpoints: Vec<ArcEndpoint>,
}

/// Where the lease row of this region lives.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Database {
    /// Name or address of this region's own cluster, never of the global writer.
    pub host: String,
    /// TCP port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Database name.
    pub name: String,
    /// Role, normally `region_keeper`.
    pub user: String,
    /// File with the password; read at each connect, so that it can be rotated.
    pub password_file: PathBuf,
    /// PEM file with the CA of the server's certificate. May be left out on loopback alone.
    pub ca_file: Option<PathBuf>,
}

/// Why the configuration cannot be used. Permanent: the file must change.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text does not have the documented form.
    #[error("the configuration is not understood: {0}")]
    Parse(String),
    /// A value makes no sense.
    #[error("the configuration's {field} {problem}")]
    Value {
        /// The field, with the application it belongs to.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] with the field at fault.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Reads YAML or JSON and checks every value.
    ///
    /// # Errors
    /// [`ConfigError`] with the field at fault.
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let config: Self =
            serde_saphyr::from_str(text).map_err(|error| ConfigError::Parse(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.apps.is_empty() || self.apps.len() > MAX_APPS {
            let problem = format!("must list 1 to {MAX_APPS} applications");
            return Err(value("apps", problem));
        }
        let mut names = BTreeSet::new();
        for app in &self.apps {
            if !names.insert(&app.app) {
                return Err(value("apps", format!("names {} twice", app.app)));
            }
            app.check()?;
        }
        Ok(())
    }
}

impl App {
    /// Time between renewals.
    pub fn period(&self) -> Duration {
        // Checked to be positive when the file was read.
        self.period.unsigned_abs()
    }

    fn check(&self) -> Result<(), ConfigError> {
        let field = |name: &str| format!("apps[{}].{name}", self.app);
        let texts = [
            ("app", &self.app),
            ("region", &self.region),
            ("database.host", &self.database.host),
            ("database.name", &self.database.name),
            ("database.user", &self.database.user),
        ];
        if let Some((name, _)) = texts.iter().find(|(_, text)| text.trim().is_empty()) {
            return Err(value(&field(name), "must not be empty".to_owned()));
        }
        if self.period.is_negative() || !PERIODS.contains(&self.period()) {
            let problem = format!("must lie between {:?} and {:?}", PERIODS.start(), PERIODS.end());
            return Err(value(&field("period"), problem));
        }
        if self.database.ca_file.is_none() && !region_lease::is_loopback(&self.database.host) {
            let problem = "must be given: the password may not travel without TLS".to_owned();
            return Err(value(&field("database.caFile"), problem));
        }
        if !self.arc.control.starts_with("arn:") || !self.arc.control.contains(":controlpanel/") {
            let problem = "must be the ARN of a routing control".to_owned();
            return Err(value(&field("arc.control"), problem));
        }
        if self.arc.endpoints.len() != ARC_ENDPOINTS {
            let problem = format!(
                "must list all {ARC_ENDPOINTS} endpoints of the cluster, not {}",
                self.arc.endpoints.len()
            );
            return Err(value(&field("arc.endpoints"), problem));
        }
        Ok(())
    }
}

fn value(field: &str, problem: String) -> ConfigError {
    ConfigError::Value { field: field.to_owned(), problem }
}

fn default_listen() -> SocketAddr {
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 8080))
}

fn default_period() -> SignedDuration {
    SignedDuration::from_secs(2)
}

fn default_port() -> u16 {
    5432
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
aws: {credentialsFolder: /etc/aws}
apps:
  - app: trade-matching
    region: us-east-1
    arc:
      control: arn:aws:route53-recovery-control::123456789012:controlpanel/p/routingcontrol/c
      endpoints:
        - {region: us-east-1, url: "https://10.99.3.11"}
        - {region: us-west-2, url: "https://10.99.3.12"}
        - {region: eu-west-1, url: "https://10.99.3.13"}
        - {region: ap-northeast-1, url: "https://10.99.3.14"}
        - {region: ap-southeast-2, url: "https://10.99.3.15"}
    database: {host: 10.99.1.2, name: trading, user: region_keeper, passwordFile: /p, caFile: /c}
"#;

    fn refusal(from: &str, to: &str) -> String {
        assert!(GOOD.contains(from), "{from}");
        Config::parse(&GOOD.replace(from, to)).unwrap_err().to_string()
    }

    #[test]
    fn the_documented_form_is_read_with_its_defaults() {
        let config = Config::parse(GOOD).unwrap();
        assert_eq!(config.apps[0].period(), Duration::from_secs(2));
        assert_eq!(config.apps[0].database.port, 5432);
        assert_eq!(config.listen, default_listen());
    }

    #[test]
    fn a_period_may_be_written_as_people_write_it() {
        let text =
            GOOD.replace("region: us-east-1\n    arc", "region: us-east-1\n    period: 750ms\n    arc");
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.apps[0].period(), Duration::from_millis(750));
    }

    #[test]
    fn every_mistake_is_named_with_its_field() {
        let four = "        - {region: us-east-1, url: \"https://10.99.3.11\"}\n";
        assert!(refusal(four, "").contains("apps[trade-matching].arc.endpoints must list all 5"));
        let slow = refusal("    arc:", "    period: 30s\n    arc:");
        assert!(slow.contains("apps[trade-matching].period"), "{slow}");
        assert!(refusal("    arc:", "    period: -2s\n    arc:").contains("period"));
        assert!(refusal("user: region_keeper", "user: ''").contains("database.user"));
        assert!(refusal("    arc:", "    surprise: 1\n    arc:").contains("surprise"));
        assert!(refusal(", caFile: /c", "").contains("database.caFile"));
        assert!(refusal("arn:aws:", "nonsense:").contains("arc.control"));
    }
}
