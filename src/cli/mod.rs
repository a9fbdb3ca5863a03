//! Floor 5: the command line.

mod admin;
pub mod args;
mod asking;
mod config;
mod daemon;
mod embedded;
pub mod failure;
mod hub;
mod key;
pub mod merge_file;
mod mount;
mod output;
pub mod parse;
mod places;
pub mod render;
mod resolve;
mod running;
mod setup;
mod signals;
mod sync;

use args::Cli;
use args::Command;
use clap::Parser;
use failure::Code;
use failure::Failure;
use merge_file::MergeFile;
use std::io;
use std::process::ExitCode;

/// What `git merge-file` says to wrong usage; 1 to 127 are numbers of conflicts.
const MERGE_USAGE: u8 = 129;

/// Runs the command that the process's arguments say. A failure is told on standard error as one sentence and one hint.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // There is nowhere else to tell it.
            let _ = error.print();
            let merges = std::env::args_os().nth(1).is_some_and(|word| word == "merge-file");
            return match u8::try_from(error.exit_code()) {
                Ok(0) => ExitCode::SUCCESS,
                _ if merges => MERGE_USAGE.into(),
                code => code.unwrap_or(Code::Usage as u8).into(),
            };
        }
    };
    match run(&cli.command, cli.verbose) {
        Ok(code) => code,
        Err(failure) => {
            output::tell(&failure.to_string());
            failure.code().into()
        }
    }
}

fn run(command: &Command, verbose: u8) -> Result<ExitCode, Failure> {
    let code = match command {
        Command::Hub(command) => hub::run(command, verbose),
        Command::Admin(command) => admin::run(command),
        Command::Key(command) => key::run(command),
        Command::Status(asked) if asked.hub => admin::hub_status(asked),
        Command::Status(asked) => asking::status(asked),
        Command::Conflicts(asked) => asking::conflicts(asked),
        Command::Resolve(asked) => resolve::run(asked),
        Command::Confirm(asked) => asking::confirm(asked),
        Command::Unmount(asked) => asking::unmount(asked),
        Command::Mount(asked) => mount::run(asked, verbose),
        Command::Sync(asked) => sync::run(asked, verbose),
        Command::MergeFile(asked) => return Ok(merge(asked)),
    };
    code.map(Code::into)
}

/// Its exit codes are git's.
fn merge(asked: &args::MergeFile) -> ExitCode {
    let args::MergeFile { ours, base, theirs, print, .. } = asked;
    let asked = match (ours, base, theirs) {
        (Some(ours), Some(base), Some(theirs)) => {
            MergeFile::Once { ours: ours.clone(), base: base.clone(), theirs: theirs.clone(), print: *print }
        }
        _ => MergeFile::Batch,
    };
    merge_file::run(&asked, io::stdin().lock(), io::stdout().lock(), io::stderr().lock()).into()
}
