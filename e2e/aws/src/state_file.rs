//! What survives a restart: control states, writers, unfinished switchovers. Replaced atomically.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::config::ControlState;
use crate::rds::cluster::Step;

/// The file's contents.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// Accepted state by control ARN.
    pub(crate) controls: BTreeMap<String, ControlState>,
    /// By global cluster id.
    pub(crate) clusters: BTreeMap<String, SavedCluster>,
}

/// What is kept of a global cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedCluster {
    /// ARN.
    pub(crate) writer: String,
    /// ARNs.
    pub(crate) out_of_sync: Vec<String>,
    /// A switchover to take up again.
    pub(crate) running: Option<SavedSwitchover>,
}

/// An unfinished switchover.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SavedSwitchover {
    /// ARN.
    pub(crate) from: String,
    /// ARN.
    pub(crate) to: String,
    pub(crate) step: Step,
    pub(crate) position: Option<String>,
}

/// Reads the file; none if there is none yet.
///
/// # Errors
/// [`Error::State`] if it is there but can't be read or understood.
pub(crate) fn load(path: &Path) -> Result<Option<Saved>, Error> {
    let fail = |why: String| Error::State { path: path.to_owned(), why };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// Replaces the file: written beside it, synced, renamed over it.
///
/// # Errors
/// [`Error::State`]; the old file stands then.
pub(crate) fn save(path: &Path, saved: &Saved) -> Result<(), Error> {
    let write = || -> std::io::Result<()> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        serde_json::to_writer_pretty(&mut file, saved)?;
        file.flush()?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|error| Error::State { path: path.to_owned(), why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_and_no_file_means_nothing_saved() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aws.json");
        assert_eq!(load(&path).unwrap(), None);
        let saved = Saved {
            controls: BTreeMap::from([("arn:a".to_owned(), ControlState::On)]),
            clusters: BTreeMap::from([(
                "app".to_owned(),
                SavedCluster {
                    writer: "arn:w".to_owned(),
                    out_of_sync: vec!["arn:r".to_owned()],
                    running: Some(SavedSwitchover {
                        from: "arn:w".to_owned(),
                        to: "arn:r".to_owned(),
                        step: Step::Promoting,
                        position: Some("0/3000028".to_owned()),
                    }),
                },
            )]),
        };
        save(&path, &saved).unwrap();
        assert_eq!(load(&path).unwrap(), Some(saved));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_broken_file_is_an_error_and_not_an_empty_state() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("aws.json");
        std::fs::write(&path, "{").unwrap();
        assert!(load(&path).unwrap_err().to_string().contains("aws.json"));
    }
}
