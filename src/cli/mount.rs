//! `syncfs mount`: in the foreground, and as the process in the background that a plain `mount` leaves behind.

use super::args;
use super::daemon;
use super::daemon::Ready;
use super::daemon::Report;
use super::failure::Code;
use super::failure::Failure;
use super::output;
use super::parse;
use super::places;
use super::running::Running;
use super::setup::Place;
use super::setup::Setup;
use super::signals::Signals;
use crate::fs::mount::MountOptions;
use crate::fs::mount::device_at;
use rustix::fs::Access;
use std::path::Path;
use std::time::Duration;
use std::time::Instant;

/// How often a running mount is looked after.
const LOOK: Duration = Duration::from_millis(100);
/// How long the hub may take to say that it does not let us in, before a mount in the background says that it is there.
const WORD_OF_THE_HUB: Duration = Duration::from_secs(2);

/// Runs `mount`.
pub fn run(asked: &args::Mount, verbose: u8) -> Result<Code, Failure> {
    if asked.in_background {
        let mut report = Report::open()?;
        return background(asked, verbose, &mut report).inspect_err(|failure| report.failed(failure));
    }
    can_mount()?;
    let setup = set_up(asked)?;
    if asked.foreground {
        return foreground(asked, setup, verbose);
    }
    let word = daemon::start(asked, &setup, verbose)?;
    if let Some(note) = &word.note {
        output::tell(note);
    }
    output::answer(&word.answer)?;
    Ok(Code::Done)
}

fn set_up(asked: &args::Mount) -> Result<Setup, Failure> {
    let place = Place::find(&asked.dir, asked.joining.state.as_deref(), true)?;
    // One that runs without being mounted is about to end, which is waited for.
    if place.runs && device_at(&place.dir).map_err(places::at(&place.dir))?.is_some() {
        let dir = places::shell_word(&place.dir);
        let hint = format!("`syncfs status {dir}` says how it is, `syncfs unmount {dir}` ends it.");
        return Err(Failure::new(Code::Failed, format!("{} is mounted already", place.dir.display()), hint));
    }
    Setup::new(place, &asked.joining, true)
}

/// Says early and clearly what this system lacks.
fn can_mount() -> Result<(), Failure> {
    if !Path::new("/dev/fuse").exists() {
        return Err(Failure::new(
            Code::Failed,
            "this system cannot mount: /dev/fuse is not there",
            "Load the module with `modprobe fuse`, start the container with --device /dev/fuse, or use `syncfs sync`.",
        ));
    }
    if rustix::fs::access("/dev/fuse", Access::READ_OK | Access::WRITE_OK).is_err() {
        return Err(Failure::new(
            Code::Failed,
            "this user may not open /dev/fuse",
            "Have root run `chmod 666 /dev/fuse`, which is the usual mode, or use `syncfs sync`, which needs no mount.",
        ));
    }
    let is_root = rustix::process::geteuid().is_root();
    if !is_root && std::env::var_os("FUSERMOUNT_PATH").is_none() && !in_path("fusermount3") {
        return Err(Failure::new(
            Code::Failed,
            "a normal user mounts with fusermount3, which is not installed",
            "Install the package fuse3, or use `syncfs sync`, which needs no mount.",
        ));
    }
    Ok(())
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn options(asked: &args::Mount) -> MountOptions {
    let parse::MountOptions { allow_other, read_only, no_exec } = parse::MountOptions::together(&asked.options);
    MountOptions { allow_other, read_only, exec: !no_exec, ..MountOptions::default() }
}

fn foreground(asked: &args::Mount, setup: Setup, verbose: u8) -> Result<Code, Failure> {
    output::start_log("warn", verbose);
    let mut signals = Signals::catch()?;
    let running = Running::start(setup, Some(options(asked)), asked.joining.accept_empty)?;
    if let Some(invitation) = running.invitation() {
        output::tell(&invitation);
    } else if output::is_watched() {
        output::tell(&format!("{} is mounted", places::shell_word(&running.dir)));
    }
    until_the_end(running, &mut signals)
}

fn until_the_end(mut running: Running, signals: &mut Signals) -> Result<Code, Failure> {
    while !running.ended() && !signals.wait_for(LOOK) {
        running.look_after();
    }
    running.stop()?;
    Ok(Code::Done)
}

/// The process in the background, until it ends.
fn background(asked: &args::Mount, verbose: u8, report: &mut Report) -> Result<Code, Failure> {
    output::start_log("info", verbose);
    let mut signals = Signals::catch()?;
    let setup = set_up(asked)?;
    // The directory it was started in shall not be kept in use.
    std::env::set_current_dir("/").map_err(places::at(Path::new("/")))?;
    let log = daemon::log_path(&setup.state);
    let mut running = Running::start(setup, Some(options(asked)), asked.joining.accept_empty)?;
    report.ready(first_words(&mut running, &log));
    until_the_end(running, &mut signals)
}

/// What whoever started the mount reads; a refusal of the hub is worth waiting for a moment.
fn first_words(running: &mut Running, log: &Path) -> Ready {
    let until = Instant::now() + WORD_OF_THE_HUB;
    let mut refusal = None;
    while refusal.is_none() && !running.status().connected && Instant::now() < until {
        std::thread::sleep(LOOK / 10);
        refusal = running.refusal().filter(|refusal| !refusal.is_temporary);
    }
    let mut answer = format!("{} is mounted; log: {}", places::shell_word(&running.dir), places::shell_word(log));
    if let Some(invitation) = running.invitation() {
        answer = format!("{answer}\n{invitation}");
    }
    Ready { answer, note: refusal.map(|refusal| refusal.failure.to_string()) }
}
