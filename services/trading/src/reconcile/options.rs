//! The command: options, exit codes, output.

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use clap::{Arg, Args, ValueEnum};
use services_common::amqp::BrokerConfig;
use services_common::config::{BrokerArgs, ConfigError, DatabaseArgs, RegionArgs};
use services_common::postgres;
use services_common::telemetry::chain;

use super::{Job, Plan, ReconcileError, Replaying, Report, Window, run};
use crate::message::json;

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
    /// Boundary to compare
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
    /// Seconds that one round of --replay waits for what it sent to arrive
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..=3600))]
    wait: u32,
    /// Who runs it, for the audit row; the database role if not given
    #[arg(long)]
    by: Option<String>,
    /// How the result is printed
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
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
    /// All four, in this order
    All,
}

impl Choice {
    fn jobs(self) -> Vec<Job> {
        match self {
            Self::InboundIngress => vec![Job::InboundIngress],
            Self::IngressCore => vec![Job::IngressCore],
            Self::CoreEgress => vec![Job::CoreEgress],
            Self::EgressOutbound => vec![Job::EgressOutbound],
            Self::All => Job::ALL.to_vec(),
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
pub async fn from_args(args: ReconcileArgs) -> ExitCode {
    let (output, only_where_active) = (args.output, args.only_where_active);
    match execute(args).await {
        Ok(report) => {
            match output {
                Output::Text => println!("{report}"),
                Output::Json => println!("{}", json(&report)),
            }
            ExitCode::from(if report.agrees { 0 } else { EXIT_DIFFERENT })
        }
        Err(error @ (ReconcileError::Standby | ReconcileError::Closed { .. })) if only_where_active => {
            eprintln!("services reconcile: nothing compared: {}", chain(&error));
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("services reconcile: {}", chain(&error));
            ExitCode::from(match error {
                ReconcileError::Config(_) => EXIT_CONFIGURATION,
                ReconcileError::Standby
                | ReconcileError::Closed { .. }
                | ReconcileError::Lease(_)
                | ReconcileError::Read { .. }
                | ReconcileError::Write(_)
                | ReconcileError::Broker(_) => EXIT_UNKNOWN,
            })
        }
    }
}

async fn execute(args: ReconcileArgs) -> Result<Report, ReconcileError> {
    let identity = format!("{}-reconcile {}", args.region.app, args.region.region);
    let database = postgres::options(&args.database, &identity).await?;
    database
        .tls_connector()
        .map_err(|error| ConfigError::Value { option: "--database-ca-file", reason: error.to_string() })?;
    let replay = match args.broker.filter(|_| args.replay) {
        // With --replay they are required.
        None => None,
        Some(broker) => Some(Replaying {
            broker: BrokerConfig::from_args(&broker, &identity).await?,
            wait: Duration::from_secs(args.wait.into()),
            by: args.by.unwrap_or(args.database.database_user),
        }),
    };
    let window = Window { since: args.since.0, grace: Duration::from_secs(args.grace.into()) };
    let (app, region) = (args.region.app, args.region.region);
    run(&Plan { app, region, database, jobs: args.job.jobs(), window, replay }).await
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
        assert_eq!((args.job.jobs(), args.since), (Job::ALL.to_vec(), "24h".parse().unwrap()));
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
            ["--output", "xml"],
        ];
        for [option, value] in wrong {
            let error = parse(&[&format!("{option}={value}")]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation), "{error}");
            assert!(error.to_string().contains(option), "{error}");
        }
    }
}
