//! Container images made by hand as OCI archives: one layer, a program, its libraries, nothing else.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::binaries::{Binaries, copy_program};
use crate::cache::{self, create_folder, hex, remove_folder, write};
use crate::command::run;
use crate::error::{Error, Result};

/// The image that holds the namespaces of each pod.
pub(crate) const PAUSE: &str = "localhost/pause:1";

/// The product's images: name, programs of the build folder, and the program that runs by default.
const PRODUCT: [(&str, &[&str]); 2] = [
    ("localhost/trading-services:dev", &["services"]),
    ("localhost/trading-region-operator:dev", &["region-operator", "region-keeper", "kubectl-region"]),
];

/// Changes when images are laid out differently, so that cached archives are made anew.
const LAYOUT: &str = "programs in /";
/// FAILPOINTS arms what the kill tests of the operator need; nothing but this image sets it.
const ENVIRONMENT: [&str; 2] = ["PATH=/", "FAILPOINTS=true"];
const CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
const CALL: Duration = Duration::from_secs(60);

/// Makes the archives of all images whose programs are built, and gives those files.
///
/// A product image is skipped while none of its programs is built; it is made anew only when one of them changed.
///
/// # Errors
/// When a program's libraries cannot be found or an archive cannot be written.
pub(crate) fn ensure(binaries: &Binaries, built: &Path) -> Result<Vec<PathBuf>> {
    let folder = cache::folder()?.join("images");
    create_folder(&folder)?;
    let mut archives = vec![archive(&folder, PAUSE, &[binaries.path("pause")?])?];
    for (name, programs) in PRODUCT {
        let programs: Vec<PathBuf> =
            programs.iter().map(|program| built.join(program)).filter(|path| path.exists()).collect();
        if programs.is_empty() {
            eprintln!("              skip    image {name}: its programs are not in {}", built.display());
            continue;
        }
        archives.push(archive(&folder, name, &programs)?);
    }
    Ok(archives)
}

/// The archive of an image with these programs in `/`; the first is its entry point.
fn archive(folder: &Path, name: &str, programs: &[PathBuf]) -> Result<PathBuf> {
    let mut parts = vec![LAYOUT.to_owned(), ENVIRONMENT.join(" ")];
    for program in programs {
        parts.push(fingerprint(program)?);
    }
    let key = cache::key(parts.iter().map(String::as_bytes));
    let file_name = file_name(name);
    let target = folder.join(format!("{file_name}-{key}.tar"));
    let _lock = cache::lock(&folder.join(format!(".{file_name}.lock")))?;
    if target.exists() {
        return Ok(target);
    }
    // Archives of earlier builds are of no use any more.
    for old in fs::read_dir(folder).map_err(Error::file("list", folder))?.flatten() {
        if old.file_name().to_string_lossy().starts_with(&format!("{file_name}-")) {
            fs::remove_file(old.path()).map_err(Error::file("remove", &old.path()))?;
        }
    }
    let work = folder.join(format!(".{file_name}.unfinished"));
    remove_folder(&work)?;
    root_folder(&work.join("root"), programs)?;
    let archive = pack(&work, name, programs)?;
    fs::rename(&archive, &target).map_err(Error::file("rename to", &target))?;
    remove_folder(&work)?;
    Ok(target)
}

fn file_name(image: &str) -> String {
    image.replace(['/', ':'], "_")
}

/// The key of an image's content, which its archive has in its name.
pub(crate) fn key_of(archives: &[PathBuf], image: &str) -> Option<String> {
    let beginning = format!("{}-", file_name(image));
    archives
        .iter()
        .filter_map(|archive| archive.file_stem()?.to_str())
        .find_map(|name| name.strip_prefix(&beginning).map(str::to_owned))
}

/// Path, size and time of change: enough to see that a program was built anew.
fn fingerprint(program: &Path) -> Result<String> {
    let metadata = fs::metadata(program).map_err(Error::file("read", program))?;
    let changed = metadata.modified().map_err(Error::file("read", program))?;
    let changed = changed.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    Ok(format!("{} {} {changed}", program.display(), metadata.len()))
}

fn root_folder(root: &Path, programs: &[PathBuf]) -> Result<()> {
    create_folder(root)?;
    for program in programs {
        copy_program(program, &root.join(program.file_name().unwrap_or_default()))?;
        for library in libraries(program)? {
            let target = root.join(library.strip_prefix("/").unwrap_or(&library));
            create_folder(target.parent().unwrap_or(root))?;
            copy_program(&library, &target)?;
        }
    }
    let certificates = root.join(CERTIFICATES.trim_start_matches('/'));
    write(&certificates, cache::read(Path::new(CERTIFICATES))?)?;
    // A place for programs that look up their user; pods run as this one.
    write(&root.join("etc/passwd"), "trading:x:65532:65532::/:/sbin/nologin\n")
}

/// The shared libraries of a program, by the paths under which the loader finds them.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    match run(Command::new("ldd").arg(program), CALL) {
        Ok(listing) => Ok(parse_libraries(&listing)),
        // ldd fails for a statically linked program, which needs none.
        Err(Error::Command { output, .. }) if output.contains("not a dynamic executable") => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn parse_libraries(listing: &str) -> Vec<PathBuf> {
    let paths = listing.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
    paths.map(PathBuf::from).collect()
}

/// Packs `work/root` as an OCI archive and gives its file.
fn pack(work: &Path, name: &str, programs: &[PathBuf]) -> Result<PathBuf> {
    let image = work.join("image");
    let blobs = image.join("blobs/sha256");
    create_folder(&blobs)?;
    let layer_file = work.join("layer.tar");
    tar(&work.join("root"), &layer_file)?;
    let layer = add_blob(&blobs, &cache::read(&layer_file)?)?;

    let entry =
        programs.first().and_then(|program| program.file_name()).unwrap_or_default().to_string_lossy();
    let config = json!({
        "architecture": architecture(),
        "os": "linux",
        "config": {"Entrypoint": [format!("/{entry}")], "Env": ENVIRONMENT, "User": "65532:65532", "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = add_blob(&blobs, config.to_string().as_bytes())?;
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described(config, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(layer, "application/vnd.oci.image.layer.v1.tar")],
    });
    let manifest = add_blob(&blobs, manifest.to_string().as_bytes())?;
    let mut manifest = described(manifest, "application/vnd.oci.image.manifest.v1+json");
    manifest["annotations"] =
        json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name});
    let index = json!({"schemaVersion": 2, "manifests": [manifest]});
    write(&image.join("index.json"), index.to_string())?;
    write(&image.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let archive = work.join("image.tar");
    tar(&image, &archive)?;
    Ok(archive)
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn described(mut descriptor: Value, media_type: &str) -> Value {
    descriptor["mediaType"] = media_type.into();
    descriptor
}

/// Stores a blob under its digest and gives its descriptor without a media type.
fn add_blob(blobs: &Path, content: &[u8]) -> Result<Value> {
    let digest = hex(&Sha256::digest(content));
    write(&blobs.join(&digest), content)?;
    Ok(json!({"digest": format!("sha256:{digest}"), "size": content.len()}))
}

/// The same folder always gives the same bytes.
fn tar(folder: &Path, target: &Path) -> Result<()> {
    let mut command = Command::new("tar");
    command.args(["--sort=name", "--mtime=@0", "--owner=0", "--group=0", "--numeric-owner"]);
    run(command.arg("-C").arg(folder).arg("-cf").arg(target).arg("."), CALL).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_an_image_is_read_from_its_own_archive() {
        let archives =
            ["/i/localhost_pause_1-aa.tar", "/i/localhost_trading-services_dev-b1.tar"].map(PathBuf::from);
        assert_eq!(key_of(&archives, "localhost/trading-services:dev").as_deref(), Some("b1"));
        assert_eq!(key_of(&archives, "localhost/trading:dev"), None);
    }

    #[test]
    fn libraries_are_read_from_both_kinds_of_lines_of_ldd() {
        let listing = "\tlinux-vdso.so.1 (0x00007fff)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x01)\n\t/lib64/ld-linux-x86-64.so.2 (0x02)\n";
        assert_eq!(
            parse_libraries(listing),
            [PathBuf::from("/lib/x86_64-linux-gnu/libc.so.6"), PathBuf::from("/lib64/ld-linux-x86-64.so.2")]
        );
    }
}
