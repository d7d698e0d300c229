//! All services of the data plane in one program, one subcommand each.

mod lease;
mod routing_control;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use lease::LeaseArgs;
use routing_control::ControlArgs;
use services_common::{shutdown, telemetry};
use trading::generate::{self, GenerateArgs};
use trading::migrate::{self, MigrateArgs};
use trading::names::Application;
use trading::reconcile::{self, ReconcileArgs};
use trading::run::{self, StageArgs, StageName, TradingArgs};

/// Services that can be moved between regions.
///
/// A stage works only while the lease in its own region's database names its region; until then it is up, warm and
/// ready, and consumes nothing. Every option of a stage is also an environment variable of the
/// same name.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:\n  \
        services trading migrate   --database-host db.east --database-user trading_migrator …\n  \
        services trading inbound   --region us-east-1 --database-host db.east --broker-url amqps://mq.east:5671 …\n  \
        services generate          --broker-url amqps://mq.trade-matching.trading.lab:5671 --dns 10.99.3.2:53 \\\n                             \
                             --rate 500 --duration 60 -o json\n  \
        services reconcile         --region us-east-1 --database-host db.east --database-user trading_core …\n\n\
        Health: GET /livez /readyz /metrics /status on --http-listen. Core also answers GET /backlog,\n\
        and takes POST /hooks/{pre-warm, drained, after-grant, reconcile, probe, after-open} from the operator."
)]
struct Cli {
    /// What to log, in the syntax of RUST_LOG
    #[arg(long, env = "LOG", default_value = "info,lapin=warn", global = true)]
    log: String,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Trade matching: inbound → ingestion → core → egress → outbound
    Trading {
        #[command(subcommand)]
        stage: Trading,
    },
    /// Settlement: inbound → ingestion → core → egress → outbound, and back to trade matching
    #[command(mut_subcommands(settlement_defaults))]
    Settlement {
        #[command(subcommand)]
        stage: Settlement,
    },
    /// The customer: sends both sides of trades and judges whether any was lost or doubled.
    ///
    /// It keeps books of its own and knows nothing of regions. An open schedule says when each message is due; the
    /// verdict tells what was lost, doubled, answered wrongly or late.
    ///
    /// Exit code 0: nothing lost, doubled or answered wrongly, with --settled nothing unsettled, or a dry run. 1: something
    /// was. 2: it could not run, or not write a file.
    #[command(after_long_help = GENERATE_EXAMPLES, after_help = "--help has examples and more about the options.")]
    Generate(Box<Generate>),
    /// Compares what each stage stored with what the next one stored, also of the other application; sends again what is
    /// missing. Of trade matching, or with APP=settlement of settlement.
    ///
    /// Changes nothing without --replay. It reads with core's database role, and replays with core's broker user too.
    ///
    /// Exit code 0: the stores agree. 1: they differ, or still differ after --replay. 2: wrong options or configuration.
    /// 3: it could not be told: the database cannot be reached or is a standby, or --replay is not allowed here; with
    /// --only-where-active the latter two end with 0.
    Reconcile(Box<ReconcileArgs>),
    /// The lease for a service of your own, in its database: docs/tutorial.md
    #[command(mut_subcommands(lease_defaults))]
    Lease {
        #[command(subcommand)]
        verb: Lease,
    },
    /// Version of this program
    Version,
}

/// The customer, and who starts and stops it.
#[derive(Args)]
struct Generate {
    #[command(flatten)]
    customers: GenerateArgs,
    #[command(flatten)]
    control: ControlArgs,
}

const GENERATE_EXAMPLES: &str = "\
Examples, where BROKER is --broker-url, --broker-ca-file and the two password files:
  100 messages a second for a minute, in the mix of the original generator:
    services generate BROKER
  Ten customers, one message in twenty bad in every known way, verdict for a program:
    services generate BROKER --customers 10 --rate 1000 --bad-share 0.05 --bad-kinds all -o json
  Small trades that all match, and one in ten that is amended first:
    services generate BROKER --odds matched=9,amended --allocations 1 --quantity 100..500
  Where matched trades are settled: each must be told as SETTLED too, within a quarter of an hour of the end. What was lost
  on its way is sent again after ten minutes (RESEND_AFTER_SECONDS of trade matching's outbound):
    services generate BROKER --settled --wait 900
  As the original sends, ten pairs each five seconds, started and stopped by a routing control:
    services generate BROKER --rate 4 --burst 20 --duration 86400 \\
      --routing-control trade-matching-generator --arc-endpoint us-east-1=https://… (five of these)
  A thousand messages into files, the same ones each time, with no broker at all:
    services generate --dry-run --count 1000 --seed 7 --run-id 0 --output-dir trades";

#[derive(Subcommand)]
enum Trading {
    /// Stores customers' messages before acknowledging them, and passes them on
    Inbound(Box<TradingArgs>),
    /// Validates messages; refuses with a reason that names the field
    Ingestion(Box<TradingArgs>),
    /// Matches trades, writes what it decides, serves the operator's hooks
    Core(Box<TradingArgs>),
    /// Makes the answers, and the settlements, from what core decided
    Egress(Box<TradingArgs>),
    /// Sends the answers to the customers' queue, and the settlements to the settlement application
    Outbound(Box<TradingArgs>),
    /// Brings database and broker of a region up to date; on a standby waits for the migrations to arrive
    Migrate(Box<MigrateArgs>),
}

#[derive(Subcommand)]
enum Settlement {
    /// Stores settlements before acknowledging them, and passes them on
    Inbound(Box<StageArgs>),
    /// Validates settlements; refuses with a reason that names the field
    Ingestion(Box<StageArgs>),
    /// Pairs the two parties' settlements, writes what it decides, serves the operator's hooks
    Core(Box<StageArgs>),
    /// Makes what returns to trade matching from what core decided
    Egress(Box<StageArgs>),
    /// Sends it to trade matching's broker
    Outbound(Box<StageArgs>),
    /// Compares what each stage stored with what the next one stored, also of trade matching; sends again what is missing.
    /// Exit codes as of services reconcile
    Reconcile(Box<ReconcileArgs>),
    /// Brings database and broker of a region up to date; on a standby waits for the migrations to arrive
    Migrate(Box<MigrateArgs>),
}

#[derive(Subcommand)]
enum Lease {
    /// Makes or updates schema `region` and the application's row in it; does nothing on a standby.
    ///
    /// The role needs CREATEROLE, and must hold pg_monitor and pg_signal_backend WITH ADMIN OPTION; or be a member of
    /// region_owner where the roles exist.
    Migrate(Box<LeaseArgs>),
}

/// No database is the obvious one.
fn lease_defaults(verb: clap::Command) -> clap::Command {
    verb.mut_arg("database_name", |name| name.default_value(None::<&str>).required(true))
}

/// The same options as in trade matching, with this application's own names.
fn settlement_defaults(stage: clap::Command) -> clap::Command {
    let own = |name: &'static str, value: &'static str| {
        move |arg: clap::Arg| {
            if arg.get_id() == name { arg.default_value(value) } else { arg }
        }
    };
    stage
        .mut_args(own("app", "settlement"))
        .mut_args(own("probe_user", "st-core"))
        .mut_args(own("database_name", "settlement"))
}

/// The program could not do its work.
const EXIT_FAILED: u8 = 2;

#[tokio::main]
async fn main() -> ExitCode {
    telemetry::install_tls_provider();
    let cli = Cli::parse();
    match run(cli).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("services: {}", telemetry::chain(error.as_ref()));
            ExitCode::from(EXIT_FAILED)
        }
    }
}

async fn run(cli: Cli) -> Result<ExitCode, Box<dyn std::error::Error>> {
    telemetry::start(&cli.log)?;
    match cli.command {
        Command::Version => println!("services {}", env!("CARGO_PKG_VERSION")),
        Command::Generate(args) => {
            let Generate { customers, control } = *args;
            let shutdown = shutdown::on_signal()?;
            let control = control.watch(shutdown.clone()).await?;
            let outcome = generate::from_args(customers, control, shutdown).await?;
            return Ok(if outcome.good() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Lease { verb: Lease::Migrate(args) } => told(lease::migrate(*args).await?),
        Command::Reconcile(args) => return Ok(reconcile::from_args(None, *args).await),
        Command::Trading { stage } => match stage {
            Trading::Inbound(args) => run_stage(StageName::Inbound, *args).await?,
            Trading::Ingestion(args) => run_stage(StageName::Ingestion, *args).await?,
            Trading::Core(args) => run_stage(StageName::Core, *args).await?,
            Trading::Egress(args) => run_stage(StageName::Egress, *args).await?,
            Trading::Outbound(args) => run_stage(StageName::Outbound, *args).await?,
            Trading::Migrate(args) => migrate_to(Application::TradeMatching, *args).await?,
        },
        Command::Settlement { stage } => match stage {
            Settlement::Inbound(args) => run_settlement(StageName::Inbound, *args).await?,
            Settlement::Ingestion(args) => run_settlement(StageName::Ingestion, *args).await?,
            Settlement::Core(args) => run_settlement(StageName::Core, *args).await?,
            Settlement::Egress(args) => run_settlement(StageName::Egress, *args).await?,
            Settlement::Outbound(args) => run_settlement(StageName::Outbound, *args).await?,
            Settlement::Reconcile(args) => {
                return Ok(reconcile::from_args(Some(Application::Settlement), *args).await);
            }
            Settlement::Migrate(args) => migrate_to(Application::Settlement, *args).await?,
        },
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_stage(name: StageName, args: TradingArgs) -> Result<(), Box<dyn std::error::Error>> {
    Ok(run::from_args(name, args, shutdown::on_signal()?).await?)
}

async fn run_settlement(name: StageName, args: StageArgs) -> Result<(), Box<dyn std::error::Error>> {
    Ok(run::settlement_from_args(name, args, shutdown::on_signal()?).await?)
}

async fn migrate_to(application: Application, args: MigrateArgs) -> Result<(), Box<dyn std::error::Error>> {
    told(migrate::from_args(application, args).await?);
    Ok(())
}

fn told(done: Vec<String>) {
    for line in done {
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn default_of(path: [&str; 2], argument: &str) -> Vec<String> {
        let mut command = Cli::command();
        command.build();
        let stage = path.iter().fold(&command, |command, name| command.find_subcommand(name).unwrap());
        let argument = stage.get_arguments().find(|known| known.get_id() == argument).unwrap();
        argument.get_default_values().iter().map(|value| value.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_options_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn settlements_are_switched_on_by_a_flag_that_only_trade_matching_has() {
        let parsed = |application: &str, more: &[&str]| {
            let mut words = vec!["services", application, "egress", "--region=r", "--database-host=d"];
            words.extend(["--database-user=u", "--database-password-file=f", "--broker-url=b"]);
            words.extend(["--broker-user=u", "--broker-password-file=f"]);
            words.extend(more);
            Cli::try_parse_from(words).is_ok()
        };
        assert!(parsed("trading", &[]) && parsed("trading", &["--settlements"]));
        assert!(parsed("settlement", &[]) && !parsed("settlement", &["--settlements"]));
    }

    #[test]
    fn each_application_has_its_own_names_by_default() {
        for stage in ["inbound", "core", "outbound", "migrate"] {
            assert_eq!(default_of(["trading", stage], "app"), ["trade-matching"]);
            assert_eq!(default_of(["settlement", stage], "app"), ["settlement"]);
            assert_eq!(default_of(["settlement", stage], "database_name"), ["settlement"]);
        }
        assert_eq!(default_of(["settlement", "reconcile"], "app"), ["settlement"]);
        assert_eq!(default_of(["settlement", "reconcile"], "database_name"), ["settlement"]);
        assert_eq!(default_of(["trading", "inbound"], "probe_user"), ["tm-core"]);
        assert_eq!(default_of(["settlement", "inbound"], "probe_user"), ["st-core"]);
    }
}
