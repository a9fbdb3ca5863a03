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
mod mount;
mod output;
pub mod parse;
mod places;
pub mod render;
mod running;
mod setup;
mod signals;
mod sync;

use args::Cli;
use args::Command;
use clap::Parser;
use failure::Code;
use failure::Failure;
use std::process::ExitCode;

/// Runs the command that the process's arguments say. A failure is told on standard error as one sentence and one hint.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(code) => code.into(),
        Err(failure) => {
            output::tell(&failure.to_string());
            failure.code().into()
        }
    }
}

fn run(cli: &Cli) -> Result<Code, Failure> {
    match &cli.command {
        Command::Hub(command) => hub::run(command, cli.verbose),
        Command::Admin(command) => admin::run(command),
        Command::Key(command) => key::run(command),
        Command::Status(asked) if asked.hub => admin::hub_status(asked),
        Command::Status(asked) => asking::status(asked),
        Command::Conflicts(asked) => asking::conflicts(asked),
        Command::Resolve(asked) => asking::resolve(asked),
        Command::Confirm(asked) => asking::confirm(asked),
        Command::Unmount(asked) => asking::unmount(asked),
        Command::Mount(asked) => mount::run(asked, cli.verbose),
        Command::Sync(asked) => sync::run(asked, cli.verbose),
        Command::MergeFile(_) => Err(Failure::new(Code::Failed, "not here", "yet")),
    }
}
