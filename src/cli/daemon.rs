//! The process in the background: this program again, in a session of its own, that says through its standard output how its start
//! went and then lets go of it.

use super::args;
use super::failure::Code;
use super::failure::Failure;
use super::places;
use super::places::StateDir;
use super::places::at;
use super::setup::Setup;
use serde::Deserialize;
use serde::Serialize;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

const LOG: &str = "log";
const OLD_LOG: &str = "log.old";
/// From this size in bytes a new log is begun at the next start.
const LOG_MAX: u64 = 4 << 20;

/// What the process in the background says about its start, as one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    Ready(Ready),
    Failed(Failure),
}

/// It is mounted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    /// For standard output.
    pub answer: String,
    /// For standard error.
    pub note: Option<String>,
}

/// The log of the process in the background whose state lies in `state`.
pub fn log_path(state: &StateDir) -> PathBuf {
    state.path.join(LOG)
}

/// Starts the process in the background and waits until it is ready.
///
/// # Errors
/// What it says; that it died.
pub fn start(asked: &args::Mount, setup: &Setup, verbose: u8) -> Result<Ready, Failure> {
    let log = open_log(&setup.state)?;
    let program = std::env::current_exe().map_err(at(Path::new("/proc/self/exe")))?;
    let mut command = Command::new(program);
    command.arg("mount").arg("--in-background");
    arguments(&mut command, asked, setup, verbose);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log).spawn();
    let mut child = child.map_err(at(Path::new("/proc/self/exe")))?;
    let mut line = String::new();
    if let Some(words) = child.stdout.take() {
        BufReader::new(words).read_line(&mut line).map_err(at(&log_path(&setup.state)))?;
    }
    match serde_json::from_str(&line) {
        Ok(Word::Ready(ready)) => Ok(ready),
        Ok(Word::Failed(failure)) => Err(failure),
        Err(_) => {
            let status = child.wait().map_err(at(Path::new("/proc/self/exe")))?;
            let log = places::shell_word(&log_path(&setup.state));
            Err(Failure::new(
                Code::Failed,
                format!("the mount ended while it started: {status}"),
                format!("See {log}, or run it with -f."),
            ))
        }
    }
}

/// Everything by its real path, and the hub with the key that was confirmed.
fn arguments(command: &mut Command, asked: &args::Mount, setup: &Setup, verbose: u8) {
    for _ in 0..verbose {
        command.arg("-v");
    }
    let joining = &asked.joining;
    if let Some(hub) = &joining.hub {
        command.arg("--hub").arg(hub.to_string());
        if let [key] = &setup.config.hub_keys[..] {
            command.arg("--hub-key").arg(key);
        }
    }
    if let Some(listen) = joining.listen {
        command.arg("--listen").arg(listen.to_string());
    }
    if joining.accept_empty {
        command.arg("--accept-empty");
    }
    if joining.state.is_some() {
        command.arg("--state").arg(&setup.state.path);
    }
    for options in &asked.options {
        command.arg("-o").arg(options.to_string());
    }
    command.arg("--").arg(&setup.dir);
}

fn open_log(state: &StateDir) -> Result<File, Failure> {
    let path = state.inside(LOG);
    if std::fs::metadata(&path).is_ok_and(|log| log.len() > LOG_MAX) {
        std::fs::rename(&path, state.inside(OLD_LOG)).map_err(at(&log_path(state)))?;
    }
    File::options().create(true).append(true).mode(0o600).open(path).map_err(at(&log_path(state)))
}

/// The way from the process in the background to the one that started it; used once.
#[derive(Debug)]
pub struct Report {
    is_due: bool,
}

impl Report {
    /// Goes into a session of its own.
    ///
    /// # Errors
    /// When this process was not started by [`start`].
    pub fn open() -> Result<Self, Failure> {
        rustix::process::setsid().map_err(|errno| at(Path::new("a new session"))(errno.into()))?;
        Ok(Self { is_due: true })
    }

    /// Says that it is ready.
    pub fn ready(&mut self, ready: Ready) {
        self.say(&Word::Ready(ready));
    }

    /// Says why it could not start. Nobody listens any more once it was ready.
    pub fn failed(&mut self, failure: &Failure) {
        if self.is_due {
            self.say(&Word::Failed(failure.clone()));
        }
    }

    fn say(&mut self, word: &Word) {
        self.is_due = false;
        let said = serde_json::to_string(word).map_err(io::Error::from).and_then(|line| {
            let mut out = io::stdout().lock();
            writeln!(out, "{line}")?;
            out.flush()
        });
        if let Err(error) = said {
            tracing::warn!(%error, "whoever started this mount did not hear how it went");
        }
    }
}
