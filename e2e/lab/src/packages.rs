//! Debian packages the lab's machine must have, and the mirror they come from.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::unistd::Uid;

use crate::command::{run, succeeds};
use crate::error::{Error, Result};
use crate::progress::long_part;

/// What the lab uses of the machine's distribution: package and a file that it brings.
const NEEDED: [(&str, &str); 9] = [
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    ("conntrack", "/usr/sbin/conntrack"),
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iproute2", "/usr/sbin/ip"),
    ("iptables", "/usr/sbin/iptables"),
    ("mmdebstrap", "/usr/bin/mmdebstrap"),
    ("runc", "/usr/sbin/runc"),
    ("tar", "/usr/bin/tar"),
    ("util-linux", "/usr/bin/nsenter"),
];

const QUERY: Duration = Duration::from_secs(10);
const INSTALLATION: Duration = Duration::from_secs(600);

/// Sees to it that all needed packages are installed; asks the network only when one is missing.
///
/// # Errors
/// [`Error::Machine`] when this is not root or has no apt: it says what to do.
pub fn ensure() -> Result<()> {
    if !Uid::effective().is_root() {
        return Err(Error::machine(
            "it makes network namespaces, mounts and cgroups, which only root may",
            "run the same command as root (sudo -E cargo xtask ...)",
        ));
    }
    let mut missing: Vec<&str> = NEEDED
        .into_iter()
        .filter(|(_, file)| !Path::new(file).exists())
        .map(|(package, _)| package)
        .collect();
    // A current botocore, pinned by hash, is run against the AWS simulator; Debian parts this from python3.
    if !succeeds(Command::new("python3").args(["-c", "import ensurepip, venv"]), QUERY) {
        missing.push("python3-venv");
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !succeeds(Command::new("apt-get").arg("--version"), QUERY) {
        return Err(Error::machine(
            format!("missing: {}; and there is no apt-get to install them", missing.join(", ")),
            "install them with the package manager of this distribution",
        ));
    }
    long_part(&format!("install {}", missing.join(" ")), || {
        run(Command::new("apt-get").args(["update", "-q"]), INSTALLATION)?;
        let mut install = Command::new("apt-get");
        install.args(["install", "-yq", "--no-install-recommends"]).args(&missing);
        run(install.env("DEBIAN_FRONTEND", "noninteractive"), INSTALLATION).map(drop)
    })
}

/// The Debian mirror that apt is set up with: one with `main` of a Debian suite.
///
/// # Errors
/// [`Error::Machine`] when apt knows no Debian mirror.
pub(crate) fn debian_mirror() -> Result<String> {
    let mut files = vec![Path::new("/etc/apt/sources.list").to_owned()];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.flatten().map(|entry| entry.path()));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .find_map(|text| mirror_in(&text))
        .ok_or_else(|| {
            Error::machine(
                "apt has no Debian mirror in /etc/apt/sources.list or /etc/apt/sources.list.d",
                "add one, for example: deb http://mirror.example/debian trixie main",
            )
        })
}

/// Finds a Debian archive in a sources file of either format (one line, or deb822 paragraphs).
fn mirror_in(text: &str) -> Option<String> {
    let addresses = text.lines().map(str::trim).filter(|line| !line.starts_with('#')).flat_map(|line| {
        let wanted = line.strip_prefix("URIs:").or_else(|| line.strip_prefix("deb ")).unwrap_or("");
        wanted.split_whitespace()
    });
    addresses
        .map(|address| address.trim_end_matches('/'))
        .find(|address| {
            (address.starts_with("http://") || address.starts_with("https://"))
                && address.ends_with("/debian")
        })
        .map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_found_in_both_formats_and_never_in_another_archive() {
        let one_line = "# deb http://old/debian bookworm main\ndeb [signed-by=/k.gpg] https://mirror.example/debian/ bookworm main\n";
        assert_eq!(mirror_in(one_line).unwrap(), "https://mirror.example/debian");
        let paragraphs = "Types: deb\nURIs: http://mirror.example/debian\nSuites: bookworm\n";
        assert_eq!(mirror_in(paragraphs).unwrap(), "http://mirror.example/debian");
        let others = "URIs: http://mirror.example/debian-security\ndeb https://packages.example/apt x main\n";
        assert_eq!(mirror_in(others), None);
    }
}
