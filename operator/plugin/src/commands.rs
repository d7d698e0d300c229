//! One function for each command: read, build the view, show it; acts ask first and wait for the end.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::CommandFactory;

use crate::act::{Goal, Refusal, Verdict, may_abort, may_switch, reached};
use crate::build::build;
use crate::cli::{
    AbortArgs, Cli, Command, ExplainArgs, Global, HistoryArgs, Output, PlanArgs, StatusArgs, SwitchArgs,
};
use crate::clock::now;
use crate::cluster::{Cluster, Copy, CopyError, Wish, find, read_both};
use crate::exit::Exit;
use crate::explain;
use crate::progress::changes;
use crate::text::{self, Style};
use crate::view::View;

/// Time between two looks at a run.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Attempts to change a copy that others change at the same time (its status changes all the time during a run).
const MOST_ATTEMPTS: u32 = 5;

/// Why a command did not end well.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Copy(#[from] CopyError),
    #[error("cannot write the output: {0}")]
    Output(#[from] std::io::Error),
    #[error("cannot write JSON: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Usage(String),
}

impl Failure {
    fn exit(&self) -> Exit {
        match self {
            Failure::Refused(refusal) => refusal.exit,
            Failure::Copy(CopyError::Unreachable { .. }) => Exit::PeerUnknown,
            Failure::Copy(CopyError::Skew { .. }) => Exit::Skew,
            Failure::Usage(_) | Failure::Copy(CopyError::Config { .. }) => Exit::Usage,
            Failure::Copy(_) | Failure::Output(_) | Failure::Json(_) => Exit::Failed,
        }
    }
}

/// How far an act has come: what is true when a key interrupts it.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Nothing,
    Changing,
    Changed,
}

impl Stage {
    fn interrupted(self) -> &'static str {
        match self {
            Stage::Nothing => "nothing was changed",
            Stage::Changing => {
                "the copies were just being changed; see kubectl region status, \
                 then kubectl region abort, or the same command again"
            }
            Stage::Changed => "what was started goes on: kubectl region status",
        }
    }
}

/// Runs one command and says how it ended.
///
/// After an interruption a question may still wait for its answer: end the runtime without waiting for that.
pub async fn run(options: Cli) -> Exit {
    let global = &options.global;
    let stage = Cell::new(Stage::Nothing);
    let work = async {
        match &options.command {
            Command::Status(args) => status(global, args).await,
            Command::Plan(args) => plan(global, args).await,
            Command::Switch(args) => switch(global, args, &stage).await,
            Command::Abort(args) => abort(global, args, &stage).await,
            Command::History(args) => history(global, args).await,
            Command::Explain(args) => show_findings(global, args),
            Command::Completion(args) => {
                let mut script = Vec::new();
                clap_complete::generate(args.shell, &mut Cli::command(), "kubectl-region", &mut script);
                put(&String::from_utf8_lossy(&script)).map(|()| Exit::Ok)
            }
        }
    };
    let ended = tokio::select! {
        // First, so that the key is listened to before anything begins.
        biased;
        _ = tokio::signal::ctrl_c() => {
            // The terminal has just shown the key on the line of the question.
            let line_end = if std::io::stderr().is_terminal() { "\n" } else { "" };
            eprintln!("{line_end}interrupted; {}", stage.get().interrupted());
            return Exit::Interrupt;
        }
        ended = work => ended,
    };
    ended.unwrap_or_else(|failure| {
        eprintln!("kubectl region: {failure}");
        failure.exit()
    })
}

/// The clusters of both regions and the view of what they say.
async fn look(
    global: &Global,
    name: Option<&str>,
    target: Option<&str>,
) -> Result<(Vec<Cluster>, Vec<Copy>, View), CopyError> {
    let clusters = find(global, name).await?;
    let copies = read_both(&clusters, name).await;
    let view = build(&copies, target, now())?;
    Ok((clusters, copies, view))
}

fn style(global: &Global) -> Style {
    Style { colour: !global.no_color && std::io::stdout().is_terminal() }
}

fn show(global: &Global, view: &View, text: impl FnOnce() -> String) -> Result<(), Failure> {
    let shown = match global.output {
        Output::Text => text(),
        Output::Json => serde_json::to_string_pretty(view)? + "\n",
    };
    put(&shown)
}

/// Writes to standard output; a reader that has gone is an error, not a panic.
fn put(text: &str) -> Result<(), Failure> {
    Ok(std::io::stdout().write_all(text.as_bytes())?)
}

async fn status(global: &Global, args: &StatusArgs) -> Result<Exit, Failure> {
    let (clusters, _, mut view) = look(global, args.name.as_deref(), None).await?;
    show(global, &view, || text::status(&view, style(global)))?;
    if args.watch {
        let limit = Duration::from_secs(args.timeout.into());
        let followed = tokio::time::timeout(
            limit,
            follow(global, &clusters, &mut view, |view| view.run.is_none().then_some(())),
        )
        .await;
        match followed {
            Ok(followed) => followed?,
            Err(_) => return Ok(Exit::Timeout),
        }
    }
    Ok(if args.exit_code { view.exit() } else { Exit::Ok })
}

async fn plan(global: &Global, args: &PlanArgs) -> Result<Exit, Failure> {
    let (_, _, view) = look(global, args.name.as_deref(), Some(&args.region)).await?;
    let shown = view.plan.as_ref();
    show(global, &view, || shown.map(|plan| text::plan(&view, plan)).unwrap_or_default())?;
    match may_switch(&view, &args.region, None) {
        Ok(_) => Ok(Exit::Ok),
        // The findings stand in the plan already.
        Err(refusal)
            if refusal.exit == Exit::Refused && shown.is_some_and(|plan| !plan.blocking.is_empty()) =>
        {
            Ok(Exit::Refused)
        }
        Err(refusal) => Err(refusal.into()),
    }
}

async fn switch(global: &Global, args: &SwitchArgs, stage: &Cell<Stage>) -> Result<Exit, Failure> {
    let (clusters, _, view) = look(global, args.name.as_deref(), Some(&args.region)).await?;
    if view.active.as_ref() == Some(&args.region) && view.wanted.as_ref() == Some(&args.region) {
        eprintln!("{} is active already", args.region);
        return Ok(Exit::Ok);
    }
    let seen = may_switch(&view, &args.region, args.confirm.as_deref())?;
    if args.confirm.is_none() {
        eprint!("{}", text::plan(&view, seen));
        ask(&format!("Type {} to switch: ", args.region), &args.region, &format!("--confirm {}", seen.hash))
            .await?;
    }
    // What was agreed to is read again: it may have changed while a person was thinking.
    let wish = Wish { region: &args.region, reason: &args.reason, plan_hash: Some(&seen.hash) };
    let (name, hash) = (view.name.clone(), seen.hash.clone());
    let may = |view: &View| may_switch(view, &args.region, Some(&hash)).map(|_| ());
    let (generations, mut view) = change_both(&clusters, &name, &wish, stage, may).await?;
    let goal = Goal { region: args.region.clone(), generations, aborts: None };
    finish(global, &clusters, &mut view, &goal, args.no_wait, args.timeout).await
}

async fn abort(global: &Global, args: &AbortArgs, stage: &Cell<Stage>) -> Result<Exit, Failure> {
    let (clusters, _, view) = look(global, args.name.as_deref(), None).await?;
    let (back_to, run) = may_abort(&view)?;
    let id = run.clone().unwrap_or_else(|| "none".to_owned());
    match &args.confirm {
        Some(confirmed) if confirmed.len() >= 4 && id.starts_with(confirmed.as_str()) => {}
        Some(confirmed) => {
            let why = format!("the open run is {id}, not {confirmed}");
            return Err(Refusal { exit: Exit::Refused, why, next: "kubectl region status".to_owned() }.into());
        }
        None => {
            eprint!("{}", text::status(&view, style(global)));
            eprintln!("Both copies will want {back_to} again. If Git is their source, change it there too.");
            ask(&format!("Type {back_to} to go back: "), &back_to, &format!("--confirm {id}")).await?;
        }
    }
    let wish = Wish { region: &back_to, reason: &args.reason, plan_hash: None };
    let same_run = |view: &View| match may_abort(view) {
        Ok((region, now)) if region == back_to && now == run => Ok(()),
        Ok(_) => Err(Refusal {
            exit: Exit::Refused,
            why: "another run is open now".to_owned(),
            next: "kubectl region status".to_owned(),
        }),
        Err(refusal) => Err(refusal),
    };
    let (generations, mut view) = change_both(&clusters, &view.name, &wish, stage, same_run).await?;
    let goal = Goal { region: back_to.clone(), generations, aborts: Some(id) };
    finish(global, &clusters, &mut view, &goal, args.no_wait, args.timeout).await
}

async fn history(global: &Global, args: &HistoryArgs) -> Result<Exit, Failure> {
    let (_, _, view) = look(global, args.name.as_deref(), None).await?;
    let Some(id) = &args.run else {
        show(global, &view, || text::history(&view))?;
        return Ok(Exit::Ok);
    };
    let mut fitting = view
        .run
        .iter()
        .chain(&view.history)
        .filter(|run| run.summary.id.to_string().starts_with(id.as_str()));
    let run = fitting
        .next()
        .ok_or_else(|| Failure::Usage(format!("no run {id}; kubectl region history lists them")))?;
    put(&match global.output {
        Output::Text => text::run_steps(run, view.at),
        Output::Json => serde_json::to_string_pretty(run)? + "\n",
    })?;
    Ok(Exit::Ok)
}

fn show_findings(global: &Global, args: &ExplainArgs) -> Result<Exit, Failure> {
    let explained = |code: &String| {
        let unknown = || Failure::Usage(format!("no finding {code}; kubectl region explain lists all"));
        explain::explain(code).ok_or_else(unknown)
    };
    let found = match args.codes.as_slice() {
        [] => explain::entries(),
        codes => codes.iter().map(explained).collect::<Result<_, _>>()?,
    };
    if global.output == Output::Json {
        put(&(serde_json::to_string_pretty(&found)? + "\n"))?;
        return Ok(Exit::Ok);
    }
    for entry in &found {
        let weight = if entry.blocks { "blocks" } else { "informs" };
        put(&format!("{} {} ({weight}): {}\n", entry.code, entry.name, entry.meaning))?;
        if !args.codes.is_empty() {
            put(&format!("cause: {}\nnext:  {}\ndocs:  {}\n", entry.cause, entry.next, entry.docs))?;
        }
    }
    Ok(Exit::Ok)
}

/// Asks for a word. Without a terminal nobody can answer: the flag that replaces the answer is named.
async fn ask(question: &str, expected: &str, instead: &str) -> Result<(), Failure> {
    if !std::io::stdin().is_terminal() {
        return Err(Failure::Usage(format!("nobody can be asked here: add {instead}")));
    }
    eprint!("{question}");
    std::io::stderr().flush()?;
    // On a thread of its own: while a person thinks, an interruption must be heard.
    let read = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).map(|_| answer)
    });
    let answer = read.await.map_err(std::io::Error::other)??;
    if answer.trim() == expected {
        return Ok(());
    }
    Err(Refusal {
        exit: Exit::Refused,
        why: "not confirmed; nothing was changed".to_owned(),
        next: "try again".to_owned(),
    }
    .into())
}

/// Changes both copies, each only if what it rests on still holds in a fresh reading. Answers the new generations.
///
/// A copy that the second change did not reach leaves the copies in disagreement: then nothing moves, and it is said.
async fn change_both(
    clusters: &[Cluster],
    name: &str,
    wish: &Wish<'_>,
    stage: &Cell<Stage>,
    may: impl Fn(&View) -> Result<(), Refusal>,
) -> Result<(Vec<i64>, View), Failure> {
    let mut generations: Vec<Option<i64>> = vec![None; clusters.len()];
    let mut attempts = 0;
    loop {
        let copies = read_both(clusters, Some(name)).await;
        let view = build(&copies, Some(wish.region), now())?;
        // After the first change the copies differ on purpose; the check belongs to the moment before it.
        if generations.iter().all(Option::is_none) {
            may(&view)?;
        }
        let Some(next) = generations.iter().position(Option::is_none) else {
            stage.set(Stage::Changed);
            let ordered = view.regions.iter().map(|region| position(&copies, &region.context));
            return Ok((
                ordered.map(|at| at.and_then(|at| generations[at]).unwrap_or_default()).collect(),
                view,
            ));
        };
        attempts += 1;
        stage.set(Stage::Changing);
        let result = match &copies[next].object {
            Ok(object) => clusters[next].wish(object, wish).await,
            Err(why) => Err(why.clone()),
        };
        match result {
            Ok(generation) => generations[next] = Some(generation),
            Err(CopyError::Changed { .. }) if attempts < MOST_ATTEMPTS => {}
            Err(why) => {
                if generations.iter().any(Option::is_some) {
                    eprintln!(
                        "only one copy was changed, so nothing moves; next: kubectl region abort, or the same command again"
                    );
                }
                return Err(why.into());
            }
        }
    }
}

fn position(copies: &[Copy], context: &str) -> Option<usize> {
    copies.iter().position(|copy| copy.context == context)
}

async fn finish(
    global: &Global,
    clusters: &[Cluster],
    view: &mut View,
    goal: &Goal,
    no_wait: bool,
    seconds: u32,
) -> Result<Exit, Failure> {
    if no_wait {
        eprintln!("both copies want {} now; watch with kubectl region status --watch", goal.region);
        return Ok(Exit::Ok);
    }
    let limit = Duration::from_secs(seconds.into());
    let ended = |view: &View| match reached(view, goal) {
        Verdict::Open => None,
        verdict => Some(verdict),
    };
    let Ok(followed) = tokio::time::timeout(limit, follow(global, clusters, view, ended)).await else {
        eprintln!("not reached within {seconds} s; what was started goes on: kubectl region status --watch");
        return Ok(Exit::Timeout);
    };
    let verdict = followed?;
    show(global, view, || text::status(view, style(global)))?;
    Ok(match verdict {
        Verdict::Reached | Verdict::Open => Exit::Ok,
        Verdict::WaitForUser(why) => {
            eprintln!("{why}");
            Exit::WaitForUser
        }
        Verdict::GivenUp(why) => {
            eprintln!("the run was given up: {why}");
            Exit::Failed
        }
    })
}

/// Looks again and again, shows what changed, and ends when `ended` says so. The caller sets the limit of time.
async fn follow<T>(
    global: &Global,
    clusters: &[Cluster],
    view: &mut View,
    ended: impl Fn(&View) -> Option<T>,
) -> Result<T, Failure> {
    let in_place = global.output == Output::Text && std::io::stderr().is_terminal();
    let mut before: Option<View> = None;
    let mut drawn = 0;
    loop {
        // A look that fails shows nothing new; the last view stays and its ages grow.
        let copies = read_both(clusters, Some(&view.name)).await;
        if let Ok(fresh) = build(&copies, None, now()) {
            *view = fresh;
        }
        if in_place {
            let screen = text::status(view, style(global));
            // Up over what was drawn last, and clear from there.
            let up = if drawn > 0 { format!("\u{1b}[{drawn}A\u{1b}[J") } else { String::new() };
            drawn = screen.lines().count();
            eprint!("{up}{screen}");
        } else {
            for change in changes(before.as_ref(), view) {
                eprintln!("{}", text::change(&change, view.at));
            }
        }
        if let Some(end) = ended(view) {
            return Ok(end);
        }
        before = Some(view.clone());
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
