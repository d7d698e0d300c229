//! One function for each command: read, build the view, show it; acts ask first and wait for the end.

use std::cell::Cell;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use clap::CommandFactory;

use crate::act::{Goal, Refusal, Verdict, may_abort, may_repeat, may_switch, reached};
use crate::change::{Stage, change_both};
use crate::cli::{
    AbortArgs, Cli, Command, ExplainArgs, Global, HistoryArgs, Output, PlanArgs, StatusArgs, SwitchArgs,
};
use crate::cluster::{Copy, Wish};
use crate::exit::Exit;
use crate::explain;
use crate::failure::Failure;
use crate::find::Regions;
use crate::hint::Place;
use crate::text::{self, COLUMNS, Style};
use crate::view::View;
use crate::watch::follow;

/// Runs one command and says how it ended.
///
/// After an interruption a question may still wait for its answer: end the runtime without waiting for that.
pub async fn run(options: Cli) -> Exit {
    let global = &options.global;
    let stage = Cell::new(Stage::default());
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
            eprintln!("{line_end}interrupted; {}", stage.take().interrupted());
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
) -> Result<(Regions, Vec<Copy>, View), Failure> {
    let regions = Regions::find(global, name).await?;
    let (copies, view) = regions.look(name, target).await?;
    Ok((regions, copies, view))
}

fn style(global: &Global) -> Style {
    Style { colour: !global.no_color && std::io::stdout().is_terminal(), columns: COLUMNS }
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
    let (regions, _, mut view) = look(global, args.name.as_deref(), None).await?;
    let mut in_time = true;
    if args.watch {
        let limit = Duration::from_secs(args.timeout.into());
        let calm = |view: &View| view.run.is_none().then_some(());
        in_time = follow(global, &regions, &mut view, limit, calm).await.is_some();
    }
    show(global, &view, || text::status(&view, style(global)))?;
    if !in_time {
        eprintln!("a run is still open after {} s", args.timeout);
        return Ok(Exit::Timeout);
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
    let (regions, copies, view) = look(global, args.name.as_deref(), Some(&args.region)).await?;
    if view.active.as_ref() == Some(&args.region) && view.wanted.as_ref() == Some(&args.region) {
        eprintln!("{} is active already", args.region);
        return Ok(Exit::Ok);
    }
    let seen = may_switch(&view, &args.region, args.confirm.as_deref())?;
    let wish = Wish { region: &args.region, reason: &args.reason, plan_hash: Some(&seen.hash) };
    may_repeat(&view, &copies, &wish)?;
    if args.confirm.is_none() {
        eprint!("{}", text::plan(&view, seen));
        ask(&format!("Type {} to switch: ", args.region), &args.region, &format!("--confirm {}", seen.hash))
            .await?;
    }
    // What was agreed to is read again: it may have changed while a person was thinking.
    let may = |view: &View, copies: &[Copy]| {
        may_switch(view, &args.region, Some(&seen.hash))?;
        may_repeat(view, copies, &wish)
    };
    let (generations, mut now) = change_both(&regions, &view.name, &wish, stage, may).await?;
    let goal = Goal { region: args.region.clone(), generations, aborts: None };
    finish(global, &regions, &mut now, &goal, args.no_wait, args.timeout).await
}

async fn abort(global: &Global, args: &AbortArgs, stage: &Cell<Stage>) -> Result<Exit, Failure> {
    let (regions, _, view) = look(global, args.name.as_deref(), None).await?;
    let (back_to, run) = may_abort(&view)?;
    let id = run.clone().unwrap_or_else(|| "none".to_owned());
    let refused = |view: &View, why: String| Refusal {
        exit: Exit::Refused,
        why,
        next: Place::of(view).spell("kubectl region status"),
    };
    match &args.confirm {
        // The whole id: no act rests on a part that two runs could share.
        Some(confirmed) if confirmed.eq_ignore_ascii_case(&id) => {}
        Some(confirmed) => {
            let open =
                if run.is_some() { format!("the open run is {id}") } else { "no run is open".to_owned() };
            let why = format!("{open}, so --confirm has to be {id}, not {confirmed}");
            return Err(refused(&view, why).into());
        }
        None => {
            eprint!("{}", text::status(&view, style(global)));
            eprintln!("Both copies will want {back_to} again. If Git is their source, change it there too.");
            ask(&format!("Type {back_to} to go back: "), &back_to, &format!("--confirm {id}")).await?;
        }
    }
    let wish = Wish { region: &back_to, reason: &args.reason, plan_hash: None };
    let same_run = |view: &View, _: &[Copy]| match may_abort(view)? {
        (region, now) if region == back_to && now == run => Ok(()),
        _ => Err(refused(view, "another run is open now".to_owned())),
    };
    let (generations, mut now) = change_both(&regions, &view.name, &wish, stage, same_run).await?;
    let goal = Goal { region: back_to.clone(), generations, aborts: Some(id) };
    finish(global, &regions, &mut now, &goal, args.no_wait, args.timeout).await
}

async fn history(global: &Global, args: &HistoryArgs) -> Result<Exit, Failure> {
    let (_, _, view) = look(global, args.name.as_deref(), None).await?;
    let Some(id) = &args.run else {
        show(global, &view, || text::history(&view))?;
        return Ok(Exit::Ok);
    };
    let run = view.named_run(id).map_err(|why| Failure::Usage(Place::of(&view).spell(&why)))?;
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

async fn finish(
    global: &Global,
    regions: &Regions,
    view: &mut View,
    goal: &Goal,
    no_wait: bool,
    seconds: u32,
) -> Result<Exit, Failure> {
    let watch = Place::of(view).spell("kubectl region status --watch");
    if no_wait {
        eprintln!("both copies want {} now; watch with {watch}", goal.region);
        return Ok(Exit::Ok);
    }
    let ended = |view: &View| match reached(view, goal) {
        Verdict::Open => None,
        verdict => Some(verdict),
    };
    let verdict = follow(global, regions, view, Duration::from_secs(seconds.into()), ended).await;
    show(global, view, || text::status(view, style(global)))?;
    Ok(match verdict {
        None => {
            eprintln!("not reached within {seconds} s; what was started goes on: {watch}");
            Exit::Timeout
        }
        Some(Verdict::Reached | Verdict::Open) => Exit::Ok,
        Some(Verdict::WaitForUser(why)) => {
            eprintln!("{why}");
            Exit::WaitForUser
        }
        Some(Verdict::GivenUp(why)) => {
            eprintln!("the run was given up: {why}");
            Exit::Failed
        }
    })
}
