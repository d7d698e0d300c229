//! Starts a lab.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::thread;

use crate::address::Plan;
use crate::application::Application;
use crate::binaries::{self, Binaries, copy_program};
use crate::cache::{self, create_folder, write};
use crate::certificates::{Authority, Request};
use crate::credentials::Credentials;
use crate::database::Database;
use crate::down;
use crate::error::{Error, Result};
use crate::facts::{Facts, write_credentials};
use crate::kubernetes::{self, Cluster};
use crate::layout::{Lab, read_json, write_json};
use crate::progress::part;
use crate::region::{Place, Region};
use crate::{broker, images, network, packages, process, rootfs, simulator};

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name and index of the lab.
    pub plan: Plan,
    /// A folder with ready-made binaries of Kubernetes (`KUBEBUILDER_ASSETS`), used instead of building them.
    pub assets: Option<PathBuf>,
    /// The folder where Cargo puts the programs of this workspace.
    pub built: PathBuf,
}

impl Options {
    /// Options for a lab, with the build folder that the running program lies in.
    ///
    /// # Errors
    /// When the name or index is not possible.
    pub fn new(name: &str, index: u8) -> Result<Self> {
        let program = std::env::current_exe().map_err(Error::file("find", Path::new("this program")))?;
        let folder = program.parent().unwrap_or(Path::new("."));
        // Tests lie one folder deeper than programs.
        let built = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
        Ok(Self { plan: Plan::new(name, index)?, assets: None, built: built.to_owned() })
    }
}

/// Starts a lab: makes what is missing on this machine, then both regions and AWS.
///
/// A lab that is up already stays as it is, except that images built anew are loaded. What an earlier run left
/// unfinished is removed first.
///
/// # Errors
/// When the machine lacks something (the error says what to do), or a part does not come up within its bound.
pub fn up(options: &Options) -> Result<Facts> {
    packages::ensure()?;
    let root = rootfs::ensure()?;
    let binaries = binaries::ensure(options.assets.as_deref())?;
    let lab = Lab::new(options.plan.clone());
    let _lock = down::lock(&lab)?;
    lab.require_own_index()?;
    let archives = part("images", || images::ensure(&binaries, &options.built))?;
    if is_up(&lab)? {
        part("load changed images", || {
            Region::ALL.into_iter().try_for_each(|region| {
                import_changed(&Cluster { lab: &lab, region, binaries: &binaries }, &archives)
            })
        })?;
        return Facts::read(lab.plan.name());
    }
    if down::remains(&lab) {
        down::remove(&lab)?;
    }
    let credentials = part("network, certificates, passwords", || prepare(&lab, options))?;
    let parts =
        Parts { lab: &lab, binaries: &binaries, credentials: &credentials, root: &root, archives: &archives };
    parts.start()?;
    part("secrets", || parts.secrets())?;
    let facts = Facts::gather(&lab, &binaries, &credentials)?;
    facts.write()?;
    Ok(facts)
}

/// Whether a lab is complete and all that it started still runs.
fn is_up(lab: &Lab) -> Result<bool> {
    if !lab.facts_file().exists() || lab != &Lab::open(lab.plan.name())? {
        return Ok(false);
    }
    Ok(process::status(lab)?.iter().all(|process| process.alive))
}

/// Loads those archives whose name (it holds a key of the content) was not loaded before.
fn import_changed(cluster: &Cluster<'_>, archives: &[PathBuf]) -> Result<()> {
    let loaded = loaded_images(cluster.lab, cluster.region)?;
    let changed: Vec<PathBuf> =
        archives.iter().filter(|archive| !loaded.contains(archive)).cloned().collect();
    kubernetes::node::import(cluster, &changed)?;
    write_json(&images_file(cluster.lab, cluster.region), &archives)
}

fn images_file(lab: &Lab, region: Region) -> PathBuf {
    lab.place(region).join("images.json")
}

fn loaded_images(lab: &Lab, region: Region) -> Result<Vec<PathBuf>> {
    let file = images_file(lab, region);
    if file.exists() { read_json(&file) } else { Ok(Vec::new()) }
}

/// The key of the content of an image that a region has loaded: another one once a program of it was built anew, though
/// the image's name stays. `None` when the region has no such image.
///
/// # Errors
/// When the list of what was loaded cannot be read.
pub fn image_key(lab: &Lab, region: Region, image: &str) -> Result<Option<String>> {
    Ok(images::key_of(&loaded_images(lab, region)?, image))
}

/// The simulator calls the lab's commands; a copy of the program stays the same while the original is rebuilt.
fn program_copy(lab: &Lab) -> PathBuf {
    lab.folder().join("bin/xtask")
}

fn prepare(lab: &Lab, options: &Options) -> Result<Credentials> {
    lab.create()?;
    for place in Place::ALL {
        network::create(lab, place)?;
    }
    network::open_firewall(lab)?;
    certificates(lab)?;
    let program = options.built.join("xtask");
    if !program.exists() {
        return Err(Error::machine(
            format!("{} is not built, and the AWS simulator needs it", program.display()),
            "cargo build --package xtask",
        ));
    }
    let copy = program_copy(lab);
    create_folder(copy.parent().unwrap_or(Path::new("/")))?;
    copy_program(&program, &copy)?;
    let credentials = Credentials::generate();
    write_credentials(lab, &credentials)?;
    Ok(credentials)
}

/// One CA signs the certificates of brokers, databases and AWS endpoints; its key is forgotten afterwards.
fn certificates(lab: &Lab) -> Result<()> {
    let authority = Authority::new(&format!("lab {}", lab.plan.name()))?;
    write(&lab.ca_file(), authority.certificate())?;
    let applications = simulator::AwsNames::all(lab);
    let moving = applications.values().flat_map(|names| [&names.broker_name, &names.writer_name]);
    let common: Vec<String> = ["localhost".to_owned()].into_iter().chain(moving.cloned()).collect();
    for place in Place::ALL {
        let mut addresses = vec![[127, 0, 0, 1].into(), lab.plan.address(place).into()];
        if place == Place::AWS {
            addresses.extend(lab.plan.arc_endpoints().map(|(_, address)| IpAddr::from(address)));
        }
        let own = format!("{place}.trading.lab");
        let request = Request {
            name: &own,
            organisation: None,
            names: &[&common[..], std::slice::from_ref(&own)].concat(),
            addresses: &addresses,
        };
        authority.issue(&lab.place(place).join("tls"), "server", &request)?;
    }
    Ok(())
}

/// All that is needed to start the parts of a lab side by side.
struct Parts<'a> {
    lab: &'a Lab,
    binaries: &'a Binaries,
    credentials: &'a Credentials,
    root: &'a Path,
    archives: &'a [PathBuf],
}

impl Parts<'_> {
    fn cluster(&self, region: Region) -> Cluster<'_> {
        Cluster { lab: self.lab, region, binaries: self.binaries }
    }

    /// Starts both regions and AWS at the same time; gives the first error once all have ended.
    fn start(&self) -> Result<()> {
        thread::scope(|scope| {
            let mut running = Vec::new();
            for region in Region::ALL {
                running.push(scope.spawn(move || {
                    part(&format!("Kubernetes of {region}"), || {
                        self.cluster(region).up(self.archives)?;
                        write_json(&images_file(self.lab, region), &self.archives)
                    })
                }));
                running.push(scope.spawn(move || {
                    part(&format!("RabbitMQ of {region}"), || {
                        broker::start(self.lab, region, self.root, self.credentials)?;
                        broker::wait(self.lab, region, self.root)
                    })
                }));
            }
            for application in Application::ALL {
                running.push(scope.spawn(move || {
                    part(&format!("PostgreSQL pair of {application}"), || self.databases(application))
                }));
            }
            running.push(scope.spawn(|| {
                part("AWS simulator", || {
                    simulator::start(self.lab, self.credentials, &program_copy(self.lab))
                })
            }));
            let results: Vec<Result<()>> = running.into_iter().map(join).collect();
            results.into_iter().collect()
        })
    }

    fn databases(&self, application: Application) -> Result<()> {
        let server = |region| Database::new(self.lab, application, region, self.credentials);
        server(Region::UsEast1)?.create_primary()?;
        server(Region::UsWest2)?.create_standby()
    }

    fn secrets(&self) -> Result<()> {
        for region in Region::ALL {
            let peer = kubernetes::peer_kubeconfig(&self.cluster(region.peer()))?;
            kubernetes::apply_secrets(&self.cluster(region), self.credentials, &peer)?;
        }
        Ok(())
    }
}

fn join(running: thread::ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The file that keeps two commands from changing a lab at once.
pub(crate) fn lock_file(lab: &Lab) -> Result<PathBuf> {
    let folder = Path::new("/run/lock");
    cache::create_folder(folder)?;
    Ok(folder.join(format!("trading-region-lab-{}", lab.plan.name())))
}
