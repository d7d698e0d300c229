//! The two regions of a lab, and the places a process may run in.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One of the two regions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Region {
    /// The region that is active when a lab is new.
    #[serde(rename = "us-east-1")]
    UsEast1,
    /// The region that is standby when a lab is new.
    #[serde(rename = "us-west-2")]
    UsWest2,
}

impl Region {
    /// Both regions, the first active one first.
    pub const ALL: [Self; 2] = [Self::UsEast1, Self::UsWest2];

    /// The name AWS gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::UsEast1 => "us-east-1",
            Self::UsWest2 => "us-west-2",
        }
    }

    /// The other region.
    pub fn peer(self) -> Self {
        match self {
            Self::UsEast1 => Self::UsWest2,
            Self::UsWest2 => Self::UsEast1,
        }
    }

    /// The name as a part of an SQL identifier, for replication slots.
    pub fn identifier(self) -> &'static str {
        match self {
            Self::UsEast1 => "us_east_1",
            Self::UsWest2 => "us_west_2",
        }
    }
}

impl fmt::Display for Region {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Region {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|region| region.name() == text)
            .ok_or_else(|| format!("no region {text:?}: the lab has us-east-1 and us-west-2"))
    }
}

/// A network namespace of the lab: a region, or the place where AWS is played.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", untagged)]
pub enum Place {
    /// A region.
    Region(Region),
    /// The AWS simulator's namespace.
    Aws(AwsPlace),
}

/// The one value of [`Place::Aws`], so that a place is a plain string in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum AwsPlace {
    /// The simulator's namespace.
    #[serde(rename = "aws")]
    Aws,
}

impl Place {
    /// The place of the AWS simulator.
    pub const AWS: Self = Self::Aws(AwsPlace::Aws);

    /// All places of a lab.
    pub const ALL: [Self; 3] = [Self::Region(Region::UsEast1), Self::Region(Region::UsWest2), Self::AWS];

    /// Its name, as in folder and namespace names.
    pub fn name(self) -> &'static str {
        match self {
            Self::Region(region) => region.name(),
            Self::Aws(AwsPlace::Aws) => "aws",
        }
    }
}

impl From<Region> for Place {
    fn from(region: Region) -> Self {
        Self::Region(region)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.name())
    }
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|place| place.name() == text)
            .ok_or_else(|| format!("no place {text:?}: the lab has us-east-1, us-west-2 and aws"))
    }
}
