//! The Go programs of the lab, built once per machine from the pinned modules in `tools/`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::cache;
use crate::command::{run, succeeds};
use crate::error::{Error, Result};
use crate::progress::long_part;

/// A cold build of kube-apiserver takes minutes on two cores.
const BUILD: Duration = Duration::from_secs(3600);
const QUERY: Duration = Duration::from_secs(10);

/// One `go.mod` of `tools/` and the programs built from it.
struct Family {
    folder: &'static str,
    /// Program and package.
    programs: &'static [(&'static str, &'static str)],
    linker: &'static str,
    tags: &'static str,
}

/// Without these `kubectl version` says v0.0.0.
const KUBERNETES_VERSION: &str = "-s -w -X k8s.io/component-base/version.gitVersion=v1.36.3 \
    -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=36";

const FAMILIES: [Family; 6] = [
    Family { folder: "etcd", programs: &[("etcd", "go.etcd.io/etcd/server/v3")], linker: "-s -w", tags: "" },
    Family {
        folder: "kubernetes",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
            ("kubelet", "k8s.io/kubernetes/cmd/kubelet"),
        ],
        linker: KUBERNETES_VERSION,
        tags: "",
    },
    Family {
        folder: "containerd",
        programs: &[
            ("containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
            ("containerd-shim-runc-v2", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
            ("ctr", "github.com/containerd/containerd/v2/cmd/ctr"),
        ],
        linker: "-s -w",
        tags: "no_btrfs no_zfs no_devmapper",
    },
    Family { folder: "helm", programs: &[("helm", "helm.sh/helm/v4/cmd/helm")], linker: "-s -w", tags: "" },
    Family {
        folder: "coredns",
        programs: &[("coredns", "github.com/coredns/coredns")],
        linker: "-s -w",
        tags: "",
    },
    Family { folder: "pause", programs: &[("pause", ".")], linker: "-s -w", tags: "" },
];

/// The built programs.
#[derive(Debug, Clone)]
pub struct Binaries {
    folders: Vec<PathBuf>,
}

impl Binaries {
    /// The path of a program.
    ///
    /// # Errors
    /// When no such program belongs to the lab.
    pub fn path(&self, program: &str) -> Result<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(program))
            .find(|path| path.exists())
            .ok_or_else(|| Error::Request(format!("the lab has no program {program:?}")))
    }

    /// A `PATH` with all of them before the machine's own programs.
    pub fn search_path(&self) -> String {
        let own: Vec<String> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("{}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", own.join(":"))
    }
}

/// Where the `go.mod` folders are.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tools")
}

/// Sees to it that all programs are built. Those found in `assets` (as `KUBEBUILDER_ASSETS` names it) are copied
/// instead.
///
/// # Errors
/// When Go is missing or a build fails.
pub fn ensure(assets: Option<&Path>) -> Result<Binaries> {
    let cache = cache::folder()?;
    let folders =
        FAMILIES.iter().map(|family| ensure_family(&cache, family, assets)).collect::<Result<_>>()?;
    Ok(Binaries { folders })
}

fn ensure_family(cache: &Path, family: &Family, assets: Option<&Path>) -> Result<PathBuf> {
    let source = tools().join(family.folder);
    let mut sum = Vec::new();
    for file in ["go.mod", "go.sum", "main.go"].map(|file| source.join(file)) {
        if file.exists() {
            sum.extend(cache::read(&file)?);
        }
    }
    let key = cache::key([&sum, family.linker.as_bytes(), family.tags.as_bytes()]);
    cache::once(cache, &format!("{}-{key}", family.folder), |target| {
        family.programs.iter().try_for_each(|(program, package)| {
            let given = assets.map(|assets| assets.join(program)).filter(|path| path.exists());
            match given {
                Some(given) => copy_program(&given, &target.join(program)),
                None => build(family, &source, program, package, target),
            }
        })
    })
}

fn build(family: &Family, source: &Path, program: &str, package: &str, target: &Path) -> Result<()> {
    if !succeeds(Command::new("go").arg("version"), QUERY) {
        return Err(Error::machine(
            format!("{program} must be built, and there is no Go"),
            "install Go 1.26 or newer (https://go.dev/dl) and put its bin folder on the PATH",
        ));
    }
    long_part(&format!("build {program}"), || {
        let mut go = Command::new("go");
        go.arg("build").arg("-trimpath").args(["-ldflags", family.linker, "-tags", family.tags]);
        go.arg("-o").arg(target.join(program)).arg(package);
        run(go.current_dir(source).env("CGO_ENABLED", "0"), BUILD).map(drop)
    })
}

/// Copies an executable file.
pub(crate) fn copy_program(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).map_err(Error::file("copy", from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).map_err(Error::file("set mode of", to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_that_kubernetes_tells_is_the_one_that_is_built() {
        let module = fs::read_to_string(tools().join("kubernetes/go.mod")).unwrap();
        let version = module.lines().find_map(|line| line.trim().strip_prefix("k8s.io/kubernetes ")).unwrap();
        let version = version.split_whitespace().next().unwrap();
        assert!(KUBERNETES_VERSION.contains(&format!("gitVersion={version} ")), "go.mod has {version}");
    }
}
