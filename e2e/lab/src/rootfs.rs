//! The Debian folder that RabbitMQ and PostgreSQL run from, and programs run inside it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache;
use crate::command::run;
use crate::error::{Error, Result};
use crate::packages;
use crate::progress::long_part;

/// The Debian release that has RabbitMQ 4 and PostgreSQL 17.
const SUITE: &str = "trixie";

/// What is installed in the folder; part of its key in the cache.
const INCLUDED: &str = "ca-certificates,postgresql-17,rabbitmq-server";

const CREATION: Duration = Duration::from_secs(900);
const OWNERSHIP: Duration = Duration::from_secs(30);

/// The folder with PostgreSQL 17 and RabbitMQ 4, made on first use and shared read-only by all labs.
///
/// # Errors
/// When packages are missing, this is not root, or the Debian mirror cannot be reached.
pub fn ensure() -> Result<PathBuf> {
    let key = format!("rootfs-{SUITE}-{}", cache::key([INCLUDED.as_bytes()]));
    let folder = cache::folder()?;
    if folder.join(&key).is_dir() {
        return Ok(folder.join(key));
    }
    packages::ensure()?;
    let mirror = packages::debian_mirror()?;
    long_part("Debian folder with PostgreSQL 17 and RabbitMQ 4", || {
        cache::once(&folder, &key, |root| {
            let mut command = Command::new("mmdebstrap");
            command.arg("--variant=apt").arg(format!("--include={INCLUDED}"));
            // The mirror on the command line keeps other apt sources of this machine out.
            run(command.arg(SUITE).arg(root).arg(mirror), CREATION).map(drop)
        })
    })
}

/// How a program is run inside the Debian folder: with its own mounts, which vanish with it.
#[derive(Debug, Clone)]
pub struct Chroot {
    root: PathBuf,
    network_namespace: Option<String>,
    user: String,
    binds: Vec<(PathBuf, String)>,
}

impl Chroot {
    /// Programs run as `user` (a name of the folder's own users) with `/proc` and `/dev` of the machine.
    pub fn new(root: &Path, user: &str) -> Self {
        Self { root: root.to_owned(), network_namespace: None, user: user.to_owned(), binds: Vec::new() }
    }

    /// Programs run in this named network namespace.
    #[must_use]
    pub fn in_namespace(mut self, name: &str) -> Self {
        self.network_namespace = Some(name.to_owned());
        self
    }

    /// Shows `source`, a file or folder of the machine, at the existing path `inside`.
    #[must_use]
    pub fn bind(mut self, source: &Path, inside: &str) -> Self {
        self.binds.push((source.to_owned(), inside.to_owned()));
        self
    }

    /// The command line that runs `program`; it replaces itself step by step, so its pid is the program's.
    pub fn command_line<S: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = S>,
    ) -> Vec<String> {
        let mut line: Vec<String> = Vec::new();
        if let Some(namespace) = &self.network_namespace {
            line.extend(["nsenter".into(), format!("--net=/run/netns/{namespace}")]);
        }
        line.extend(
            ["unshare", "--mount", "--propagation", "private", "sh", "-ec", SETUP, "chroot-setup"]
                .map(String::from),
        );
        line.push(self.root.display().to_string());
        line.push(self.user.clone());
        line.push(self.binds.len().to_string());
        for (source, inside) in &self.binds {
            line.extend([source.display().to_string(), inside.clone()]);
        }
        line.push(program.to_owned());
        line.extend(arguments.into_iter().map(|argument| argument.as_ref().to_string_lossy().into_owned()));
        line
    }

    /// Like [`Chroot::command_line`], as a command with a clean environment.
    pub fn command<S: AsRef<OsStr>>(&self, program: &str, arguments: impl IntoIterator<Item = S>) -> Command {
        let line = self.command_line(program, arguments);
        let mut command = Command::new(&line[0]);
        command.args(&line[1..]).env_clear().envs(ENVIRONMENT);
        command
    }
}

/// The environment of programs in the folder.
pub const ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/lib/postgresql/17/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("LC_ALL", "C.UTF-8"),
    ("HOME", "/tmp"),
];

/// Gives a folder and all in it to a user of the Debian folder.
pub(crate) fn own(root: &Path, folder: &Path, user: &str) -> Result<()> {
    let passwords = root.join("etc/passwd");
    let text = std::fs::read_to_string(&passwords).map_err(Error::file("read", &passwords))?;
    let (uid, gid) = ids(&text, user)
        .ok_or_else(|| Error::Request(format!("no user {user:?} in {}", passwords.display())))?;
    run(Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(folder), OWNERSHIP).map(drop)
}

/// User and group number of a user in the text of a passwd file.
fn ids<'a>(passwords: &'a str, user: &str) -> Option<(&'a str, &'a str)> {
    passwords.lines().map(|line| line.split(':').collect::<Vec<_>>()).find_map(|fields| match fields[..] {
        [name, _, uid, gid, ..] if name == user => Some((uid, gid)),
        _ => None,
    })
}

/// Arguments: root, user, number of binds, source and target of each, then the program.
/// Shared memory and /tmp are the program's own, so that a killed one leaves nothing on the machine.
const SETUP: &str = r#"
root=$1 user=$2 count=$3; shift 3
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount -t tmpfs -o mode=1777 tmpfs "$root/run"
while [ "$count" -gt 0 ]; do mount --bind "$1" "$root$2"; shift 2; count=$((count - 1)); done
exec chroot --userspec="$user:$user" "$root" "$@"
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binds_come_before_the_program_and_are_counted() {
        let line = Chroot::new(Path::new("/root-folder"), "postgres")
            .in_namespace("tr-us-east-1")
            .bind(Path::new("/data"), "/var/lib/postgresql")
            .command_line("postgres", ["-D", "/x"]);
        assert_eq!(line[..2], ["nsenter", "--net=/run/netns/tr-us-east-1"]);
        let tail: Vec<&str> = line.iter().rev().take(8).rev().map(String::as_str).collect();
        assert_eq!(
            tail,
            ["/root-folder", "postgres", "1", "/data", "/var/lib/postgresql", "postgres", "-D", "/x"]
        );
    }
}
