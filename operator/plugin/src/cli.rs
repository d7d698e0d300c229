//! What can be typed.

use std::path::PathBuf;

use clap::builder::{FalseyValueParser, NonEmptyStringValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};

use crate::hint::quoted;

const EXAMPLES: &str = "\
Examples:
  kubectl region status                          what is true now, in both regions
  kubectl region plan us-west-2                  what a switch would do; changes nothing
  kubectl region switch us-west-2 --reason drill shows the plan, asks, switches, shows the progress
  kubectl region abort                           goes back, while that is possible
  kubectl region history                         the last runs and where their time went
  kubectl region explain TR-1001                 what a finding means and what to do, offline

Exit codes: 0 ok, 1 failed, 2 usage, 3 degraded, 4 waits for a person, 5 refused,
6 other region unknown, 7 version skew, 124 timeout, 130 interrupted.";

const COMPLETION: &str = "\
For kubectl region TAB, kubectl's own completion has to be loaded, and kubectl (1.26 or later) asks this program
under another name. Once, in a folder of your PATH:
  ln -s \"$(command -v kubectl-region)\" ~/.local/bin/kubectl_complete-region";

/// See and switch the region of a trading application.
#[derive(Debug, Parser)]
#[command(name = "kubectl-region", bin_name = "kubectl region", version, after_help = EXAMPLES)]
pub struct Cli {
    /// Options of all commands.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of all commands.
#[derive(Clone, Debug, Args)]
pub struct Global {
    /// The kubeconfig [default: as for kubectl, KUBECONFIG or ~/.kube/config]
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kubeconfig: Option<PathBuf>,
    /// Context in which the object is first looked for [default: the current one]
    #[arg(long, global = true, value_parser = NonEmptyStringValueParser::new())]
    pub context: Option<String>,
    /// Contexts of the two regions, where they are not named like the regions
    #[arg(
        long,
        global = true,
        value_delimiter = ',',
        value_name = "A,B",
        conflicts_with = "context",
        value_parser = NonEmptyStringValueParser::new()
    )]
    pub contexts: Vec<String>,
    /// Namespace of the object [default: the context's]
    #[arg(short, long, global = true)]
    pub namespace: Option<String>,
    /// Output format
    #[arg(short, long, global = true, value_enum, default_value_t = Output::Text)]
    pub output: Output,
    /// No colours; also when NO_COLOR is set or the output is no terminal
    #[arg(long, global = true, env = "NO_COLOR", value_parser = FalseyValueParser::new(), hide_env_values = true)]
    pub no_color: bool,
}

impl Global {
    /// The options by which the clusters are found, as they are typed once more.
    pub(crate) fn way(&self) -> String {
        let mut way = String::new();
        if let Some(file) = &self.kubeconfig {
            way += &format!(" --kubeconfig {}", quoted(&file.to_string_lossy()));
        }
        if let Some(context) = &self.context {
            way += &format!(" --context {}", quoted(context));
        }
        if !self.contexts.is_empty() {
            way += &format!(" --contexts {}", quoted(&self.contexts.join(",")));
        }
        way
    }
}

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// The view that the text is made from, `regions.trading.dev/view/v1`.
    Json,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Shows which region is active, whether a switch could start, and what stands in the way
    Status(StatusArgs),
    /// Shows what a switch would do and what stands in its way; changes nothing
    Plan(PlanArgs),
    /// Switches to another region: shows the plan, asks, changes both clusters, shows the progress
    Switch(SwitchArgs),
    /// Goes back to the old region, as long as the old region is not fenced
    Abort(AbortArgs),
    /// Shows the last runs and where their time went
    History(HistoryArgs),
    /// Explains a finding; needs no cluster
    Explain(ExplainArgs),
    /// Prints a completion script for a shell, for the program kubectl-region
    #[command(after_help = COMPLETION)]
    Completion(CompletionArgs),
}

/// `status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// The object [default: the only one in the namespace]
    pub name: Option<String>,
    /// End with 3, 4, 6 or 7 if not all is well
    #[arg(long)]
    pub exit_code: bool,
    /// Follow it until no run is open: a terminal shows it again and again, else each change is a line of standard
    /// error; standard output gets the last one only (with -o json: one document)
    #[arg(short, long)]
    pub watch: bool,
    /// With --watch: how long at most, in seconds
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
}

/// `plan`.
#[derive(Debug, Args)]
pub struct PlanArgs {
    /// The region that would become active
    pub region: String,
    /// The object [default: the only one in the namespace]
    pub name: Option<String>,
}

/// `switch`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kubectl region switch us-west-2 --reason 'quarterly rotation'
  kubectl region plan us-west-2 -o json | jq -r .plan.hash      # for scripts: show first, then act on what was shown
  kubectl region switch us-west-2 --reason drill --confirm HASH")]
pub struct SwitchArgs {
    /// The region that shall become active
    pub region: String,
    /// The object [default: the only one in the namespace]
    pub name: Option<String>,
    /// Why; kept in spec.transition.reason and in the run's record
    #[arg(long, value_parser = reason)]
    pub reason: String,
    /// Hash of the plan that was shown; needed where nobody can be asked
    #[arg(long, value_name = "HASH")]
    pub confirm: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for the end, in seconds; the run goes on after it
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
}

/// `abort`.
#[derive(Debug, Args)]
pub struct AbortArgs {
    /// The object [default: the only one in the namespace]
    pub name: Option<String>,
    /// Why; kept in spec.transition.reason
    #[arg(long, value_parser = reason, default_value = "aborted")]
    pub reason: String,
    /// The open run's whole id, as -o json has it, or none while no run is open; needed where nobody can be asked
    #[arg(long, value_name = "RUN")]
    pub confirm: Option<String>,
    /// Do not wait for the end
    #[arg(long)]
    pub no_wait: bool,
    /// How long to wait for the end, in seconds
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub timeout: u32,
}

/// `history`.
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// The object [default: the only one in the namespace]
    pub name: Option<String>,
    /// Show the steps of one run: its RUN in the list (the last 8 characters of its id), or any beginning or end of its
    /// id that no other run has
    #[arg(long, value_name = "RUN", value_parser = NonEmptyStringValueParser::new())]
    pub run: Option<String>,
}

/// `explain`.
#[derive(Debug, Args)]
pub struct ExplainArgs {
    /// Codes such as TR-1001 [default: list all]
    #[arg(value_name = "CODE")]
    pub codes: Vec<String>,
}

/// `completion`.
#[derive(Debug, Args)]
pub struct CompletionArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// The schema's bounds for a reason, so that it is refused here and not after the question.
fn reason(text: &str) -> Result<String, String> {
    match text.trim().chars().count() {
        1..=256 => Ok(text.trim().to_owned()),
        _ => Err("write 1 to 256 characters".to_owned()),
    }
}
