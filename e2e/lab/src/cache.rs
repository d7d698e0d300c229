//! Where things that are slow to make are kept between runs, outside the source tree.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// The cache folder: `${XDG_CACHE_HOME:-~/.cache}/trading-region-operator`, made when missing.
///
/// # Errors
/// When neither `XDG_CACHE_HOME` nor `HOME` is set, or the folder cannot be made.
pub fn folder() -> Result<PathBuf> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the XDG convention; callers without command lines need it"
    )]
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let base = variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".cache")))
        .ok_or_else(|| Error::machine("no cache folder is known", "set HOME or XDG_CACHE_HOME"))?;
    let path = base.join("trading-region-operator");
    create_folder(&path)?;
    Ok(path)
}

/// Runs `make` on a fresh folder unless `folder/key` is there already, and gives the finished folder.
///
/// A crash in between leaves only a folder whose name starts with a dot; two callers wait for each other.
pub(crate) fn once(folder: &Path, key: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let done = folder.join(key);
    if done.is_dir() {
        return Ok(done);
    }
    let _lock = lock(&folder.join(format!(".{key}.lock")))?;
    if done.is_dir() {
        return Ok(done);
    }
    let unfinished = folder.join(format!(".{key}.unfinished"));
    remove_folder(&unfinished)?;
    create_folder(&unfinished)?;
    make(&unfinished)?;
    fs::rename(&unfinished, &done).map_err(Error::file("rename to", &done))?;
    Ok(done)
}

/// Holds an exclusive lock on a file until the value is dropped.
pub(crate) fn lock(path: &Path) -> Result<Flock<File>> {
    let file = File::create(path).map_err(Error::file("create lock file", path))?;
    Flock::lock(file, FlockArg::LockExclusive)
        .map_err(|(_, errno)| Error::file("lock", path)(std::io::Error::from(errno)))
}

/// A short key that changes when any of the parts changes.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update((part.len() as u64).to_le_bytes());
        digest.update(part);
    }
    hex(&digest.finalize()[..8])
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn create_folder(path: &Path) -> Result<()> {
    fs::create_dir_all(path).map_err(Error::file("create folder", path))
}

/// Removes a folder and all that is in it; a missing one is fine.
pub(crate) fn remove_folder(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::file("remove folder", path)(error))
        }
        _ => Ok(()),
    }
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(Error::file("read", path))
}

/// Writes a file that anyone may read.
pub(crate) fn write(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_with_mode(path, content.as_ref(), 0o644)
}

/// Writes a file that only its owner may read.
pub(crate) fn write_secret(path: &Path, content: impl AsRef<[u8]>) -> Result<()> {
    write_with_mode(path, content.as_ref(), 0o600)
}

/// Replaces the file in one step, so that a reader never sees half of it.
fn write_with_mode(path: &Path, content: &[u8], mode: u32) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    create_folder(parent)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unfinished = parent.join(format!(".{name}.{}", uuid::Uuid::new_v4().simple()));
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(content))
        .and_then(|()| fs::set_permissions(&unfinished, Permissions::from_mode(mode)))
        .and_then(|()| fs::rename(&unfinished, path));
    written.map_err(Error::file("write", path))
}
