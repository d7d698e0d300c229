//! `cargo xtask lab`: the lab's commands.

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use lab::address::Plan;
use lab::database::{Database, SwitchContext};
use lab::fault::{self, Cut};
use lab::{Application, Lab, Options, Place, Region};

use crate::two_regions::Assets;

const EXAMPLES: &str = "\
Examples:
  cargo xtask lab up                           prints the KUBECONFIG of both clusters
  cargo xtask lab cut us-east-1 us-west-2      the two regions do not hear each other
  cargo xtask lab kill us-east-1 rabbitmq      one process
  cargo xtask lab kill us-east-1 postgres      trade-matching's database; settlement's is postgres-settlement
  cargo xtask lab restore                      mends all cuts, starts again what was killed
  cargo xtask lab aws GET /calls               what AWS was asked; e2e/aws/README.md has the other paths
  cargo xtask lab database --app settlement sql us-east-1 'select pg_is_in_recovery()'

The applications trade-matching and settlement share clusters, brokers and AWS endpoints. Each has its own database
servers (port 5432 and 5433), global cluster (<app>-global), routing controls (<app>-...) and broker name.
A fault of one application's switchovers alone names its cluster:
  cargo xtask lab aws PATCH /faults '{\"switchover\": {\"cluster\": \"settlement-global\", \"hang\": true}}'";

/// Which lab, and what to do with it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Arguments {
    /// Name of the lab: 1 to 8 lower-case letters or digits.
    #[arg(long, default_value = "tr")]
    name: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Starts the lab; the first time this builds and downloads what it needs.
    Up {
        /// Chooses the addresses: 0 gives 10.99.x.x, 1 gives 10.98.x.x. Two labs need two indexes.
        #[arg(long, default_value_t = 0)]
        index: u8,
        #[command(flatten)]
        assets: Assets,
    },
    /// Ends the lab and removes everything of it.
    Down,
    /// Tells what is alive, what is cut, and where each application is.
    Status,
    /// Drops packets silently: of one place, or between two.
    Cut {
        /// us-east-1, us-west-2 or aws.
        place: Place,
        /// The other end; without it, all traffic of the place is lost, that with the host too.
        other: Option<Place>,
        /// Only packets from the first to the second are lost.
        #[arg(long, requires = "other")]
        one_way: bool,
    },
    /// Kills a process as a crash would, or all of a place.
    Kill {
        /// us-east-1, us-west-2 or aws.
        place: Place,
        /// A name that `status` shows (databases: `postgres` of trade-matching, `postgres-settlement`); without it,
        /// everything in the place, pods included.
        process: Option<String>,
    },
    /// Mends all cuts and starts again what was killed.
    Restore {
        /// Only what was killed in this place; cuts stay.
        place: Option<Place>,
        /// Only this process, by the name that `status` shows.
        process: Option<String>,
    },
    /// Asks or changes the simulated AWS: its control port.
    Aws {
        /// GET, POST, PUT, PATCH or DELETE.
        method: String,
        /// Path with query.
        path: String,
        /// JSON.
        #[arg(default_value = "")]
        body: String,
    },
    /// Runs SQL on an application's database in a region, or moves the server to another role as the simulated AWS does.
    Database(DatabaseArguments),
    /// Gathers logs, objects, events and the AWS call log into a folder.
    Bundle {
        /// The folder; it is made.
        target: PathBuf,
    },
}

#[derive(Debug, Args)]
struct DatabaseArguments {
    /// Whose database: trade-matching or settlement.
    #[arg(long, default_value_t = Application::TradeMatching, global = true)]
    app: Application,
    #[command(subcommand)]
    verb: DatabaseVerb,
}

#[derive(Debug, Subcommand)]
enum DatabaseVerb {
    /// Makes the server a running, writable primary.
    Promote {
        /// The server's region.
        region: Region,
        /// Refuse while the server lacks this position of the old primary.
        #[arg(long, env = "OLD_PRIMARY_POSITION")]
        old_primary_position: Option<String>,
    },
    /// Makes the server a standby of the other region's primary.
    Follow {
        /// The server's region.
        region: Region,
        /// The primary's address, which must be the other region's.
        #[arg(long, env = "PRIMARY_ADDRESS")]
        primary_address: Option<String>,
    },
    /// Stops the server cleanly and prints its last position if it was a primary.
    Stop {
        /// The server's region.
        region: Region,
    },
    /// Runs SQL as the superuser.
    Sql {
        /// The server's region.
        region: Region,
        /// The statement.
        text: String,
    },
}

/// Runs one command of the lab.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let name = arguments.name.as_str();
    match arguments.command {
        Command::Up { index, assets } => up(name, index, assets),
        Command::Down => {
            // Names are enough to remove a lab; its index matters only to start one.
            let lab = Lab::open(name).or_else(|_| Plan::new(name, 0).map(Lab::new))?;
            lab::down(&lab)?;
            println!("lab {name} is down");
            Ok(())
        }
        Command::Status => status(&Lab::open(name)?),
        Command::Cut { place, other, one_way } => {
            let cut = match other {
                None => Cut::Link(place),
                Some(other) if one_way => Cut::OneWay(place, other),
                Some(other) => Cut::Between(place, other),
            };
            Ok(fault::cut(&Lab::open(name)?, cut)?)
        }
        Command::Kill { place, process } => {
            let lab = Lab::open(name)?;
            match process {
                Some(process) => Ok(fault::kill(&lab, place, &process)?),
                None => Ok(fault::kill_place(&lab, place)?),
            }
        }
        Command::Restore { place, process } => restore(&Lab::open(name)?, place, process.as_deref()),
        Command::Aws { method, path, body } => {
            println!("{}", lab::control::request(&Lab::open(name)?, &method.to_uppercase(), &path, &body)?);
            Ok(())
        }
        Command::Database(arguments) => database(&Lab::open(name)?, arguments),
        Command::Bundle { target } => {
            lab::bundle(&Lab::open(name)?, &target)?;
            println!("{}", target.display());
            Ok(())
        }
    }
}

fn up(name: &str, index: u8, assets: Assets) -> anyhow::Result<()> {
    let start = std::time::Instant::now();
    let mut options = Options::new(name, index)?;
    options.assets = assets.folder;
    let facts = lab::up(&options)?;
    println!("lab {name} is up after {:.1} s", start.elapsed().as_secs_f64());
    println!("  export KUBECONFIG={}", facts.kubeconfig.display());
    println!("  facts, users and passwords: {}", facts.lab().facts_file().display());
    Ok(())
}

fn status(lab: &Lab) -> anyhow::Result<()> {
    let processes = lab::status(lab)?;
    for process in &processes {
        let state = if process.alive { "alive" } else { "DEAD" };
        println!("{:10} {:25} {:>8}  {state}", process.place, process.name, process.pid);
    }
    for cut in fault::cuts(lab)? {
        println!("cut        {cut}");
    }
    match lab::standings(lab) {
        Ok(all) => all.iter().for_each(|standing| println!("{standing}")),
        Err(error) => println!("where the applications are is not known: {error}"),
    }
    if !lab.facts_file().exists() {
        bail!("the lab is not complete: `cargo xtask lab up` starts it anew");
    }
    if processes.iter().any(|process| !process.alive) {
        bail!("processes are dead: `cargo xtask lab restore` starts them again");
    }
    Ok(())
}

fn restore(lab: &Lab, place: Option<Place>, process: Option<&str>) -> anyhow::Result<()> {
    match (place, process) {
        (Some(place), Some(process)) => fault::restore(lab, place, process)?,
        (Some(place), None) => fault::restore_place(lab, place)?,
        (None, _) => {
            fault::mend_all(lab)?;
            Place::ALL.into_iter().try_for_each(|place| fault::restore_place(lab, place))?;
        }
    }
    Ok(())
}

fn database(lab: &Lab, DatabaseArguments { app, verb }: DatabaseArguments) -> anyhow::Result<()> {
    let credentials = lab::read_credentials(lab)?;
    let open = |region| Database::new(lab, app, region, &credentials).context("open the database");
    match verb {
        DatabaseVerb::Promote { region, old_primary_position } => {
            let context = SwitchContext { old_primary_position, ..SwitchContext::default() };
            Ok(open(region)?.promote(&context)?)
        }
        DatabaseVerb::Follow { region, primary_address } => {
            let context = SwitchContext { primary_address, ..SwitchContext::default() };
            Ok(open(region)?.follow(&context)?)
        }
        DatabaseVerb::Stop { region } => {
            if let Some(position) = open(region)?.stop()? {
                println!("{position}");
            }
            Ok(())
        }
        DatabaseVerb::Sql { region, text } => {
            println!("{}", open(region)?.sql(&text)?);
            Ok(())
        }
    }
}
