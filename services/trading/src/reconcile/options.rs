//! The command: options, exit codes, output.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{Arg, ArgAction, Args, ValueEnum};
use services_common::amqp::BrokerConfig;
use services_common::config::{BrokerArgs, ConfigError, DatabaseArgs, HttpArgs, RegionArgs};
use services_common::telemetry::chain;
use services_common::{postgres, shutdown};
use tokio::net::TcpListener;

use super::continuous::{self, Watched};
use super::{Job, Peer, Plan, ReconcileError, Replaying, Report, Window, run};
use crate::message::json;
use crate::names::Application;

/// The stores differ.
const EXIT_DIFFERENT: u8 = 1;
/// Wrong options or configuration; clap's own code for it too.
const EXIT_CONFIGURATION: u8 = 2;
/// It could not be told.
const EXIT_UNKNOWN: u8 = 3;

/// Options of reconciliation. It logs in with core's role and, to replay, with core's broker user.
#[derive(Args, Clone, Debug)]
#[command(mut_args(broker_only_to_replay))]
pub struct ReconcileArgs {
    #[command(flatten)]
    region: RegionArgs,
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    broker: Option<BrokerArgs>,
    #[command(flatten)]
    peer: PeerArgs,
    /// Matched trades are settled: with --job all, compare what becomes of settlements too; as for the stages of trade
    /// matching
    #[arg(long, env = "SETTLEMENTS", action = ArgAction::SetTrue, value_parser = BoolishValueParser::new())]
    settlements: bool,
    /// Seconds after which trade matching sends a settlement again that has not come back; as for its outbound
    #[arg(long, env = "RESEND_AFTER_SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    resend_after_seconds: u64,
    /// Boundary to compare; those between the applications are in all only with --peer-database-host
    #[arg(long, value_enum, default_value_t = Choice::All)]
    job: Choice,
    /// How far back to look: a number with s, m, h or d, like 90m; or all
    #[arg(long, default_value = "1d", value_name = "DURATION|all")]
    since: Since,
    /// Seconds for which a record may be on its way before it is called missing
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(..=86_400))]
    grace: u32,
    /// Send what is missing again into the next stage, verify it, and write an audit row for each boundary. Needs the
    /// broker's options, and a region that holds the lease
    #[arg(long)]
    replay: bool,
    /// Compare nothing and end with 0 where the database is a standby, or, with --replay, where the region does not hold the
    /// lease: for a schedule that runs in both regions
    #[arg(long)]
    only_where_active: bool,
    /// Seconds for which --replay waits while nothing of what it sent arrives
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait: u32,
    /// Who runs it, for the audit row; the database role if not given
    #[arg(long)]
    by: Option<String>,
    /// Go on for ever: look again so many seconds after the end of each look, and tell what is found as metrics, on
    /// --http-listen, and in the log
    #[arg(long, value_name = "SECONDS", conflicts_with_all = ["only_where_active", "output"], value_parser = clap::value_parser!(u32).range(10..=86_400))]
    every: Option<u32>,
    #[command(flatten)]
    http: HttpArgs,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// The other application's database, for the boundary between the two. It is read, and only while it is the primary of the
/// region that holds that application's lease.
#[derive(Args, Clone, Debug)]
struct PeerArgs {
    /// Application whose lease is looked at there; settlement, or trade-matching, if not given
    #[arg(long, env = "PEER_APP")]
    peer_app: Option<String>,
    /// Host of the other application's database, by the name that leads to its writer in whichever region
    #[arg(long, env = "PEER_DATABASE_HOST")]
    peer_database_host: Option<String>,
    /// Port of that database
    #[arg(long, env = "PEER_DATABASE_PORT", default_value_t = 5432)]
    peer_database_port: u16,
    /// Name of that database; settlement, or trading, if not given
    #[arg(long, env = "PEER_DATABASE_NAME")]
    peer_database_name: Option<String>,
    /// Role to log in as there
    #[arg(long, env = "PEER_DATABASE_USER", default_value = "trading_peer")]
    peer_database_user: String,
    /// File with that role's password
    #[arg(long, env = "PEER_DATABASE_PASSWORD_FILE")]
    peer_database_password_file: Option<PathBuf>,
    /// File with the CA certificate (PEM) that that database's certificate must come from
    #[arg(long, env = "PEER_DATABASE_CA_FILE")]
    peer_database_ca_file: Option<PathBuf>,
}

impl PeerArgs {
    /// `None` where no host is given.
    async fn peer(self, application: Application, identity: &str) -> Result<Option<Peer>, ConfigError> {
        let Some(database_host) = self.peer_database_host else { return Ok(None) };
        let (app, name) = match application {
            Application::TradeMatching => ("settlement", "settlement"),
            Application::Settlement => ("trade-matching", "trading"),
        };
        let database_password_file = self.peer_database_password_file.ok_or_else(|| ConfigError::Value {
            option: "--peer-database-password-file",
            reason: "--peer-database-host needs it".to_owned(),
        })?;
        let args = DatabaseArgs {
            database_host,
            database_port: self.peer_database_port,
            database_name: self.peer_database_name.unwrap_or_else(|| name.to_owned()),
            database_user: self.peer_database_user,
            database_password_file,
            database_ca_file: self.peer_database_ca_file,
        };
        let database = postgres::options(&args, identity).await.map_err(of_peer)?;
        database.tls_connector().map_err(|error| ConfigError::Value {
            option: "--peer-database-ca-file",
            reason: error.to_string(),
        })?;
        Ok(Some(Peer { app: self.peer_app.unwrap_or_else(|| app.to_owned()), database }))
    }
}

/// The same error, by the option that was meant.
fn of_peer(error: ConfigError) -> ConfigError {
    let peer = |option| match option {
        "--database-password-file" => "--peer-database-password-file",
        "--database-ca-file" => "--peer-database-ca-file",
        other => other,
    };
    match error {
        ConfigError::File { option, path, source } => {
            ConfigError::File { option: peer(option), path, source }
        }
        ConfigError::Value { option, reason } => ConfigError::Value { option: peer(option), reason },
    }
}

/// The stages cannot do without a broker; comparing can.
fn broker_only_to_replay(option: Arg) -> Arg {
    match option.get_id().as_str() {
        "broker_url" | "broker_user" | "broker_password_file" => {
            option.required(false).required_if_eq("replay", "true")
        }
        _ => option,
    }
}

/// What `--job` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Choice {
    /// Raw messages → trades and refusals of ingestion
    #[value(name = "InboundIngress")]
    InboundIngress,
    /// Ingestion → core's trades, refused reports and answers
    #[value(name = "IngressCore")]
    IngressCore,
    /// Core's decisions → egress's answers
    #[value(name = "CoreEgress")]
    CoreEgress,
    /// Egress's answers → what was sent
    #[value(name = "EgressOutbound")]
    EgressOutbound,
    /// Core's matched trades → the settlements made of them
    #[value(name = "CoreSettlements")]
    CoreSettlements,
    /// What came back → what ingestion made of it
    #[value(name = "ReturnInboundIngress")]
    ReturnInboundIngress,
    /// What came back and is valid → allocations, settled trades
    #[value(name = "ReturnIngressCore")]
    ReturnIngressCore,
    /// Settlements that trade matching made → the settlement application's inbound store
    #[value(name = "OutboundSettlementInbound")]
    OutboundSettlementInbound,
    /// Settlement: raw messages → settlements and refusals of ingestion
    #[value(name = "SettlementInboundIngress")]
    SettlementInboundIngress,
    /// Settlement: ingestion → core's settlements, refused ones and answers
    #[value(name = "SettlementIngressCore")]
    SettlementIngressCore,
    /// Settlement: core's decisions → what is to be sent back
    #[value(name = "SettlementCoreEgress")]
    SettlementCoreEgress,
    /// What the settlement application sends back → trade matching's inbound store
    #[value(name = "SettlementOutboundSettlementInbound")]
    SettlementOutboundSettlementInbound,
    /// All of this application, in this order
    All,
}

impl Choice {
    /// `None` for all of them.
    fn job(self) -> Option<Job> {
        Some(match self {
            Self::All => return None,
            Self::InboundIngress => Job::InboundIngress,
            Self::IngressCore => Job::IngressCore,
            Self::CoreEgress => Job::CoreEgress,
            Self::EgressOutbound => Job::EgressOutbound,
            Self::CoreSettlements => Job::CoreSettlements,
            Self::ReturnInboundIngress => Job::ReturnInboundIngress,
            Self::ReturnIngressCore => Job::ReturnIngressCore,
            Self::OutboundSettlementInbound => Job::OutboundSettlementInbound,
            Self::SettlementInboundIngress => Job::SettlementInboundIngress,
            Self::SettlementIngressCore => Job::SettlementIngressCore,
            Self::SettlementCoreEgress => Job::SettlementCoreEgress,
            Self::SettlementOutboundSettlementInbound => Job::SettlementOutboundSettlementInbound,
        })
    }

    /// The boundaries, of which those between the applications need a peer.
    fn jobs(self, application: Application, settling: bool, peer: bool) -> Result<Vec<Job>, ConfigError> {
        let wrong = |reason: String| ConfigError::Value { option: "--job", reason };
        match self.job() {
            None => {
                let between = peer.then_some(Job::between(application));
                Ok(Job::within(application, settling).into_iter().chain(between).collect())
            }
            Some(job) if job.application() != application => {
                let command = match job.application() {
                    Application::TradeMatching => "services reconcile",
                    Application::Settlement => "services settlement reconcile",
                };
                Err(wrong(format!("{} is the other application's: {command} has it", job.word())))
            }
            Some(job) if job.is_between() && !peer => {
                Err(wrong(format!("{} needs --peer-database-host", job.word())))
            }
            Some(job) => Ok(vec![job]),
        }
    }
}

/// Formats of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: one JSON object on standard output.
    Json,
}

/// How far back is looked; `None` is everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since(pub Option<Duration>);

impl FromStr for Since {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self(None));
        }
        let wrong = || "write a number with s, m, h or d, like 90m or 1d; or all".to_owned();
        let unit = text.chars().last().ok_or_else(wrong)?;
        let seconds = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return Err(wrong()),
        };
        let number: u32 = text[..text.len() - 1].parse().map_err(|_| wrong())?;
        Ok(Self(Some(Duration::from_secs(u64::from(number) * seconds))))
    }
}

/// Runs as configured, prints the result, and says by the exit code: 0 the stores agree, 1 they differ (with a replay:
/// still), 2 wrong options or configuration, 3 it could not be told.
///
/// Without an `application`, it is the one whose lease is named.
pub async fn from_args(application: Option<Application>, args: ReconcileArgs) -> ExitCode {
    let (output, only_where_active) = (args.output, args.only_where_active);
    let named =
        if args.region.app == "settlement" { Application::Settlement } else { Application::TradeMatching };
    let application = application.unwrap_or(named);
    let outcome = match args.every {
        None => execute(application, &args).await,
        Some(every) => match watch(application, &args, Duration::from_secs(every.into())).await {
            Ok(()) => return ExitCode::SUCCESS,
            Err(error) => Err(error),
        },
    };
    match outcome {
        Ok(report) => {
            match output {
                Output::Text => println!("{report}"),
                Output::Json => println!("{}", json(&report)),
            }
            ExitCode::from(match (report.agrees, report.differs()) {
                (true, _) => 0,
                (false, true) => EXIT_DIFFERENT,
                (false, false) => EXIT_UNKNOWN,
            })
        }
        Err(error @ (ReconcileError::Standby | ReconcileError::Elsewhere { .. })) if only_where_active => {
            eprintln!("services reconcile: nothing compared: {}", chain(&error));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("services reconcile: {}", chain(&error));
            ExitCode::from(match error {
                ReconcileError::Config(_) => EXIT_CONFIGURATION,
                ReconcileError::Standby
                | ReconcileError::Elsewhere { .. }
                | ReconcileError::Closed { .. }
                | ReconcileError::Lease(_)
                | ReconcileError::Peer { .. }
                | ReconcileError::NotPrimary { .. }
                | ReconcileError::TooDifferent { .. }
                | ReconcileError::Read { .. }
                | ReconcileError::Write(_)
                | ReconcileError::Broker(_) => EXIT_UNKNOWN,
            })
        }
    }
}

async fn execute(application: Application, args: &ReconcileArgs) -> Result<Report, ReconcileError> {
    run(&plan(application, args).await?).await
}

/// Looks again and again until the process is told to end.
///
/// # Errors
/// Wrong options or configuration, or an address that cannot be listened on.
async fn watch(
    application: Application,
    args: &ReconcileArgs,
    every: Duration,
) -> Result<(), ReconcileError> {
    let Plan { app, region, jobs, .. } = plan(application, args).await?;
    let address = args.http.http_listen;
    let unusable = |error: std::io::Error| ConfigError::Value {
        option: "--http-listen",
        reason: format!("{address} cannot be used: {error}"),
    };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    let shutdown = shutdown::on_signal().map_err(unusable)?;
    let watched = Watched::new(&app, &region, jobs);
    // Each look reads the files anew: passwords change.
    let looks = continuous::rounds(
        watched.clone(),
        every,
        async || execute(application, args).await,
        shutdown.clone(),
    );
    let serve = async {
        let served = continuous::serve(watched, listener, shutdown.clone()).await;
        // Looks that nobody can read about end too.
        shutdown.cancel();
        served
    };
    let (served, ()) = tokio::join!(serve, looks);
    Ok(served.map_err(unusable)?)
}

async fn plan(application: Application, args: &ReconcileArgs) -> Result<Plan, ReconcileError> {
    let identity = format!("{}-reconcile {}", args.region.app, args.region.region);
    let database = postgres::options(&args.database, &identity).await?;
    database
        .tls_connector()
        .map_err(|error| ConfigError::Value { option: "--database-ca-file", reason: error.to_string() })?;
    let peer = args.peer.clone().peer(application, &identity).await?;
    let jobs = args.job.jobs(application, args.settlements, peer.is_some())?;
    let replay = match args.broker.as_ref().filter(|_| args.replay) {
        // With --replay they are required.
        None => None,
        Some(broker) => Some(Replaying {
            broker: BrokerConfig::from_args(broker, &identity).await?,
            wait: Duration::from_secs(args.wait.into()),
            by: args.by.clone().unwrap_or_else(|| args.database.database_user.clone()),
        }),
    };
    let window = Window { since: args.since.0, grace: Duration::from_secs(args.grace.into()) };
    let (app, region) = (args.region.app.clone(), args.region.region.clone());
    let resend_after = Duration::from_secs(args.resend_after_seconds);
    Ok(Plan { application, app, region, database, peer, jobs, window, resend_after, replay })
}

#[cfg(test)]
mod tests {
    use clap::{Parser, error::ErrorKind};

    use super::*;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        args: ReconcileArgs,
    }

    fn parse(more: &[&str]) -> Result<ReconcileArgs, clap::Error> {
        let given = [
            "reconcile",
            "--region=us-east-1",
            "--database-host=db",
            "--database-user=trading_core",
            "--database-password-file=/none",
        ];
        Cli::try_parse_from(given.iter().chain(more)).map(|cli| cli.args)
    }

    #[test]
    fn reading_needs_no_broker_and_looks_at_all_boundaries_of_a_day() {
        let args = parse(&[]).unwrap();
        assert!(args.broker.is_none() && !args.replay);
        let jobs = args.job.jobs(Application::TradeMatching, args.settlements, false).unwrap();
        assert_eq!((jobs, args.since), (Job::TRADES.to_vec(), "24h".parse().unwrap()));
    }

    #[test]
    fn each_application_has_its_own_boundaries_and_the_one_towards_the_other_needs_its_database() {
        let jobs = |job: &str, application, peer| {
            let args = parse(&[&format!("--job={job}"), "--settlements"]).unwrap();
            args.job.jobs(application, args.settlements, peer)
        };
        let (trading, settlement) = (Application::TradeMatching, Application::Settlement);
        assert_eq!(jobs("all", trading, false).unwrap().len(), 7);
        assert_eq!(jobs("all", trading, true).unwrap().last(), Some(&Job::OutboundSettlementInbound));
        assert_eq!(jobs("all", settlement, false).unwrap(), Job::SETTLEMENTS);
        assert_eq!(jobs("all", settlement, true).unwrap().len(), 4);
        let foreign = jobs("SettlementCoreEgress", trading, true).unwrap_err().to_string();
        assert!(foreign.contains("services settlement reconcile"), "{foreign}");
        let alone = jobs("OutboundSettlementInbound", trading, false).unwrap_err().to_string();
        assert!(alone.contains("--peer-database-host"), "{alone}");
    }

    #[test]
    fn a_replay_needs_the_broker_with_all_of_its_options() {
        let broker =
            ["--broker-url=amqp://mq", "--broker-user=tm-core", "--broker-password-file=/none", "--replay"];
        assert!(parse(&broker).unwrap().broker.is_some());
        for missing in 0..3 {
            let mut given = broker.to_vec();
            let option = given.remove(missing).split('=').next().unwrap();
            let error = parse(&given).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument);
            assert!(error.to_string().contains(option), "{error}");
        }
    }

    #[test]
    fn wrong_values_are_refused_with_the_name_of_the_option() {
        let wrong = [
            ["--job", "Inbound"],
            ["--since", "soon"],
            ["--since", "1ü"],
            ["--since", "-1h"],
            ["--grace", "86401"],
            ["--wait", "0"],
            ["--every", "9"],
            ["--output", "xml"],
        ];
        for [option, value] in wrong {
            let error = parse(&[&format!("{option}={value}")]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation), "{error}");
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
