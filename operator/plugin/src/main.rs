//! kubectl-region: see and switch the region of a trading application.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let mut words = std::env::args();
    if words.next().is_some_and(|name| kubectl_region::asked_by(&name)) {
        let proposals = kubectl_region::proposals(&words.collect::<Vec<_>>());
        let told = std::io::stdout().write_all(proposals.as_bytes());
        return if told.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let options = match kubectl_region::Cli::try_parse() {
        Ok(options) => options,
        Err(wrong) => {
            // Printing can only fail when nobody reads it.
            let _ = wrong.print();
            return kubectl_region::Exit::for_usage(&wrong).into();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let exit = runtime.block_on(kubectl_region::run(options));
            // A thread may still wait for an answer that nobody needs any more.
            runtime.shutdown_background();
            exit.into()
        }
        Err(why) => {
            eprintln!("kubectl region: no runtime: {why}");
            kubectl_region::Exit::Failed.into()
        }
    }
}
