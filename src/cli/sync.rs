//! `syncfs sync`: one pass without a mount.

use super::args;
use super::failure::Code;
use super::failure::Failure;
use super::output;
use super::places;
use super::running::Refusal;
use super::running::Running;
use super::setup::Place;
use super::setup::Setup;
use super::signals::Signals;
use crate::client;
use crate::client::Reply;
use crate::client::Request;
use crate::client::status::ClientStatus;
use indicatif::ProgressBar;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// How often is looked whether it is done.
const LOOK: Duration = Duration::from_millis(20);
/// How long a hub may be out of reach before this is given up.
const PATIENCE: Duration = Duration::from_secs(12);

/// Runs `sync`.
pub fn run(asked: &args::Sync, verbose: u8) -> Result<Code, Failure> {
    output::start_log("warn", verbose);
    let mut signals = Signals::catch()?;
    let place = Place::find(&asked.dir, asked.joining.state.as_deref(), false)?;
    if place.runs {
        let (dir, state) = (place.dir, place.state);
        let look = || Ok((of_another_process(&dir, &state)?, None, false));
        return Ok(verdict(&dir, &wait(&mut signals, look)?));
    }
    let setup = Setup::new(place, &asked.joining, false)?;
    let mut running = Running::start(setup, None, asked.joining.accept_empty)?;
    let waited = wait(&mut signals, || {
        running.remember();
        Ok((running.status(), running.refusal(), running.ended()))
    });
    let dir = running.dir.clone();
    let stopped = running.stop();
    let status = waited?;
    stopped?;
    Ok(verdict(&dir, &status))
}

fn of_another_process(dir: &Path, state: &Path) -> Result<ClientStatus, Failure> {
    match client::request(state, &Request::Status)? {
        Some(Reply::Status(status)) => Ok(status),
        _ => Err(Failure::new(
            Code::Unreachable,
            format!("{} was unmounted meanwhile", dir.display()),
            "Run `syncfs sync` again, it works without the mount.",
        )),
    }
}

/// Waits until everything is where it belongs.
fn wait(
    signals: &mut Signals,
    mut look: impl FnMut() -> Result<(ClientStatus, Option<Refusal>, bool), Failure>,
) -> Result<ClientStatus, Failure> {
    let bar = if output::is_watched() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut last_seen = Instant::now();
    loop {
        let (status, refusal, ended) = look()?;
        if status.idle && status.connected {
            bar.finish_and_clear();
            return Ok(status);
        }
        if status.connected {
            last_seen = Instant::now();
        }
        let out_of_patience = last_seen.elapsed() > PATIENCE;
        if let Some(refusal) = refusal.filter(|refusal| !refusal.is_temporary || out_of_patience) {
            return Err(refusal.failure);
        }
        if out_of_patience {
            let hub = status.hub.unwrap_or_else(|| "of this directory".into());
            return Err(Failure::new(
                Code::Unreachable,
                format!("the hub {hub} cannot be reached"),
                "Check that it runs and that UDP to its port is allowed; nothing is lost, run this again later.",
            ));
        }
        if ended {
            return Err(Failure::new(
                Code::Failed,
                "the pass ended before everything was in sync",
                "See above why, and run it again.",
            ));
        }
        bar.set_message(format!("{} to send, {} to receive", status.pending_up, status.pending_down));
        bar.tick();
        if signals.wait_for(LOOK) {
            return Err(Failure::new(
                Code::No,
                "interrupted before everything was in sync",
                "Run it again, it goes on where it was.",
            ));
        }
    }
}

/// Conflicts are the answer no.
fn verdict(dir: &Path, status: &ClientStatus) -> Code {
    for error in &status.errors {
        output::tell(&super::failure::one_line(&format!("{}: {}", error.path.path, error.what)));
    }
    if status.conflicts.is_empty() {
        return Code::Done;
    }
    for conflict in &status.conflicts {
        output::tell(&super::failure::one_line(&format!("conflict: {}", conflict.path.path)));
    }
    output::tell(&format!("`syncfs resolve FILE` decides one; `syncfs conflicts {}` lists them", places::shell_word(dir)));
    Code::No
}
