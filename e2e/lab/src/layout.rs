//! Where a lab keeps its files, and how a lab that exists is found again.

use std::path::{Path, PathBuf};

use crate::address::Plan;
use crate::cache::{create_folder, read, write};
use crate::error::{Error, Result};
use crate::region::Place;

/// Where all labs of a machine live.
const LABS: &str = "/var/lib/trading-region-lab";

/// Names, addresses and folders of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lab {
    /// Its addresses.
    pub plan: Plan,
}

impl Lab {
    /// A lab that may not exist yet.
    pub fn new(plan: Plan) -> Self {
        Self { plan }
    }

    /// Finds a lab by its name.
    ///
    /// # Errors
    /// When no lab of that name was started on this machine.
    pub fn open(name: &str) -> Result<Self> {
        let path = Path::new(LABS).join(name).join("plan.json");
        if !path.exists() {
            return Err(Error::Request(format!(
                "no lab {name:?} on this machine: `cargo xtask lab --name {name} up` makes it"
            )));
        }
        Ok(Self::new(read_json(&path)?))
    }

    /// Refuses an index that another lab of this machine has: its addresses would be taken.
    pub(crate) fn require_own_index(&self) -> Result<()> {
        let Ok(labs) = std::fs::read_dir(LABS) else { return Ok(()) };
        for folder in labs.flatten().map(|entry| entry.path()).filter(|path| *path != self.folder()) {
            let Ok(other) = read_json::<Plan>(&folder.join("plan.json")) else { continue };
            if other.index() == self.plan.index() {
                return Err(Error::Request(format!(
                    "lab {:?} has index {} already: choose another (--index), or end it (lab --name {} down)",
                    other.name(),
                    other.index(),
                    other.name()
                )));
            }
        }
        Ok(())
    }

    /// Its folder.
    pub fn folder(&self) -> PathBuf {
        Path::new(LABS).join(self.plan.name())
    }

    /// The folder of one region, or of the AWS simulator.
    pub fn place(&self, place: impl Into<Place>) -> PathBuf {
        self.folder().join(place.into().name())
    }

    /// Short-lived files of a place (sockets), on a path short enough for Unix sockets.
    pub(crate) fn runtime(&self, place: impl Into<Place>) -> PathBuf {
        self.runtime_root().join(place.into().name())
    }

    /// Short-lived files of all places.
    pub(crate) fn runtime_root(&self) -> PathBuf {
        PathBuf::from(format!("/run/trading-region-lab-{}", self.plan.name()))
    }

    /// The certificate of the private CA of brokers, databases and AWS endpoints.
    pub fn ca_file(&self) -> PathBuf {
        self.folder().join("ca.crt")
    }

    /// Facts for people, tests and the demo; written last, so it is there only when all is up.
    pub fn facts_file(&self) -> PathBuf {
        self.folder().join("lab.json")
    }

    /// Makes the folders and remembers the plan.
    pub(crate) fn create(&self) -> Result<()> {
        for place in Place::ALL {
            create_folder(&self.place(place))?;
            create_folder(&self.runtime(place))?;
        }
        write_json(&self.folder().join("plan.json"), &self.plan)
    }
}

pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read(path)?;
    serde_json::from_slice(&bytes).map_err(|source| Error::Format { path: path.to_owned(), source })
}

pub(crate) fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<()> {
    write(path, to_json(path, value)?)
}

pub(crate) fn to_json(path: &Path, value: &impl serde::Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(value).map_err(|source| Error::Format { path: path.to_owned(), source })
}
