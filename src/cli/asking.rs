//! What other processes ask of a running client: `status`, `conflicts`, `confirm`, `unmount`; `resolve` has a room of its own.

use super::args;
use super::config::Config;
use super::failure::Code;
use super::failure::Failure;
use super::output;
use super::places;
use super::places::StateDir;
use super::places::at;
use super::render;
use crate::client;
use crate::client::Reply;
use crate::client::Request;
use crate::client::status::ClientStatus;
use crate::fs::mount;
use std::io;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;
use std::time::SystemTime;

/// How often is looked whether something has changed.
const LOOK: Duration = Duration::from_millis(50);

/// A client that may be running: by its state, and the directory it is asked about.
pub struct Asked {
    /// The real path of the directory.
    pub dir: PathBuf,
    state: PathBuf,
}

impl Asked {
    /// The client of `dir`, or of the directory above the current one, or of `state`.
    pub fn find(dir: Option<&Path>, state: Option<&Path>) -> Result<Self, Failure> {
        if let Some(state) = state {
            let state = std::fs::canonicalize(state).map_err(at(state))?;
            let dir = match Config::look(&state)? {
                Some(config) => config.dir.0,
                None => dir.unwrap_or(&state).to_owned(),
            };
            return Ok(Self { dir, state });
        }
        let start = match dir {
            Some(dir) => places::real(dir).map_err(at(dir))?,
            None => std::env::current_dir().map_err(at(Path::new(".")))?,
        };
        Self::above(&start)
    }

    /// The client of the nearest directory that is synchronized, from `start` upwards.
    pub fn above(start: &Path) -> Result<Self, Failure> {
        for dir in start.ancestors() {
            let state = places::state_in(dir);
            // A dead mount does not let anybody look, and is the place all the same.
            let is_dead = |error: &io::Error| error.raw_os_error() == Some(libc::ENOTCONN);
            let found = match std::fs::symlink_metadata(&state) {
                Ok(meta) => meta.is_dir(),
                Err(error) => is_dead(&error),
            };
            if found {
                return Ok(Self { dir: dir.to_owned(), state });
            }
        }
        Err(Failure::new(
            Code::Usage,
            format!("{} is not in a synchronized directory", start.display()),
            "Give the directory, or its --state; `syncfs mount DIR` begins a new one.",
        ))
    }

    pub fn request(&self, request: &Request) -> Result<Reply, Failure> {
        match client::request(&self.state, request)? {
            Some(Reply::Refused { sentence, hint }) => Err(Failure::new(Code::Refused, sentence, hint)),
            Some(reply) => Ok(reply),
            None => Err(self.nobody()),
        }
    }

    fn nobody(&self) -> Failure {
        let dir = places::shell_word(&self.dir);
        Failure::new(
            Code::Unreachable,
            format!("{} is not mounted", self.dir.display()),
            format!("Mount it with `syncfs mount {dir}`, or give its --state if that is not in the directory."),
        )
    }

    pub fn status(&self) -> Result<ClientStatus, Failure> {
        match self.request(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            _ => Err(strange()),
        }
    }
}

fn strange() -> Failure {
    Failure::new(Code::Unreachable, "the client answered another question", "Run the same version of syncfs as the mount does.")
}

/// Runs `status` of a client.
pub fn status(asked: &args::Status) -> Result<Code, Failure> {
    let client = Asked::find(asked.dir.as_deref(), asked.state.as_deref())?;
    let show = |status: &ClientStatus| {
        if asked.json {
            output::answer_json(status)
        } else {
            output::answer(&render::client_status(&client.dir.display().to_string(), status, SystemTime::now()))
        }
    };
    let mut shown = client.status()?;
    show(&shown)?;
    if !asked.watch {
        return Ok(if shown.idle && shown.conflicts.is_empty() { Code::Done } else { Code::No });
    }
    loop {
        std::thread::sleep(LOOK);
        let now = client.status()?;
        if now != shown {
            show(&now)?;
            shown = now;
        }
    }
}

/// Runs `conflicts`.
pub fn conflicts(asked: &args::Conflicts) -> Result<Code, Failure> {
    let client = Asked::find(asked.dir.as_deref(), asked.state.as_deref())?;
    let conflicts = client.status()?.conflicts;
    if asked.json {
        output::answer_json(&conflicts)?;
    } else if conflicts.is_empty() {
        output::tell("no conflicts");
    } else {
        output::answer(&render::conflicts(&conflicts, SystemTime::now()))?;
    }
    Ok(if conflicts.is_empty() { Code::Done } else { Code::No })
}

/// Runs `confirm`.
pub fn confirm(asked: &args::Confirm) -> Result<Code, Failure> {
    let client = Asked::find(asked.dir.as_deref(), asked.state.as_deref())?;
    client.request(&Request::Confirm)?;
    output::answer("the deletions go on")?;
    Ok(Code::Done)
}

/// Runs `unmount`.
pub fn unmount(asked: &args::Unmount) -> Result<Code, Failure> {
    let dir = places::real(&asked.dir).map_err(at(&asked.dir))?;
    let state = match &asked.state {
        Some(state) => std::fs::canonicalize(state).map_err(at(state))?,
        None => places::state_in(&dir),
    };
    let client = Asked { dir: dir.clone(), state };
    match client::request(&client.state, &Request::Stop { wait_idle: asked.wait })? {
        Some(Reply::Refused { sentence, hint }) => return Err(Failure::new(Code::Refused, sentence, hint)),
        Some(_) => {}
        None => return without_client(&client, asked.wait),
    }
    // It has stopped when it answers no more and the directory is plain; how long the last changes take is the hub's affair.
    while client::request(&client.state, &Request::Status)?.is_some() || is_mounted(&dir)? {
        std::thread::sleep(LOOK);
    }
    // Its hub ends after it; the next mount shall find everything free.
    StateDir::open(&client.state)?.wait_until_free().map_err(at(&client.state))?;
    Ok(Code::Done)
}

fn is_mounted(dir: &Path) -> Result<bool, Failure> {
    Ok(mount::device_at(dir).map_err(at(dir))?.is_some())
}

/// A mount whose process is dead is taken away, and one whose state is unknown is asked by the kernel to end.
fn without_client(client: &Asked, wait: bool) -> Result<Code, Failure> {
    let dir = &client.dir;
    if mount::clean_stale(dir).map_err(at(dir))? > 0 {
        return Ok(Code::Done);
    }
    if wait || !is_mounted(dir)? {
        return Err(client.nobody());
    }
    let unmounted = if rustix::process::geteuid().is_root() {
        rustix::mount::unmount(dir, rustix::mount::UnmountFlags::NOFOLLOW).map_err(io::Error::from)
    } else {
        Command::new("fusermount3")
            .arg("-u")
            .arg("--")
            .arg(dir)
            .status()
            .and_then(|status| if status.success() { Ok(()) } else { Err(io::ErrorKind::ResourceBusy.into()) })
    };
    unmounted.map_err(|error| {
        let hint = "Close what uses it, or give its --state, with which it ends all the same.";
        Failure::new(Code::Failed, format!("{} cannot be unmounted: {error}", dir.display()), hint)
    })?;
    Ok(Code::Done)
}
