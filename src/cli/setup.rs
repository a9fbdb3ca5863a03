//! From what was asked and what is remembered to what a client starts with.

use super::args::Joining;
use super::config::Config;
use super::config::Embedded;
use super::config::StoredPath;
use super::config::hub_key;
use super::embedded;
use super::failure::Code;
use super::failure::Failure;
use super::key::device_key;
use super::output;
use super::places;
use super::places::StateDir;
use super::places::at;
use crate::admin::KeyPair;
use crate::client;
use crate::client::Request;
use crate::fs::mount;
use crate::model::PublicKey;
use crate::net;
use crate::net::ConnectError;
use std::io;
use std::io::BufRead;
use std::io::IsTerminal;
use std::path::Path;
use std::path::PathBuf;

/// What a client starts with.
#[derive(Debug)]
pub struct Setup {
    /// The directory's real path.
    pub dir: PathBuf,
    pub state: StateDir,
    pub key: KeyPair,
    pub config: Config,
    /// The configuration differs from what is remembered, and is worth it once the hub has let us in.
    pub unproven: bool,
}

/// Which directory is meant, and where its state lies; nothing is made but the directory, if `make` says so. A dead mount over the
/// directory is taken away.
#[derive(Debug)]
pub struct Place {
    pub dir: PathBuf,
    pub state: PathBuf,
    /// A client of this state runs.
    pub runs: bool,
}

impl Place {
    /// Finds the place.
    ///
    /// # Errors
    /// When there is no directory, or the state would be synchronized itself.
    pub fn find(dir: &Path, state: Option<&Path>, make: bool) -> Result<Self, Failure> {
        let real = match places::real(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
                std::fs::create_dir_all(dir).map_err(at(dir))?;
                places::real(dir)
            }
            other => other,
        };
        let dir = real.map_err(at(dir))?;
        let state = match state {
            None => places::state_in(&dir),
            Some(state) => match std::fs::canonicalize(state) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => std::path::absolute(state).map_err(at(state))?,
                other => other.map_err(at(state))?,
            },
        };
        if state.starts_with(&dir) && state != places::state_in(&dir) {
            return Err(Failure::new(
                Code::Usage,
                format!("the state in {} would be synchronized itself", state.display()),
                "Give a --state outside of the directory, or none.",
            ));
        }
        let runs = client::request(&state, &Request::Status)?.is_some();
        if !runs && mount::clean_stale(&dir).map_err(at(&dir))? > 0 {
            output::tell(&format!("a mount whose process had died was taken away from {}", places::shell_word(&dir)));
        }
        Ok(Self { dir, state, runs })
    }
}

impl Setup {
    /// What a client of `place` starts with: remembered, said now, or made up for the first start if `may_begin`.
    ///
    /// # Errors
    /// What contradicts what is remembered; a hub nobody vouches for; files that cannot be read or written.
    pub fn new(place: Place, joining: &Joining, may_begin: bool) -> Result<Self, Failure> {
        let Place { dir, state, .. } = place;
        if !std::fs::metadata(&dir).map_err(at(&dir))?.is_dir() {
            return Err(Failure::new(Code::Usage, format!("{} is not a directory", dir.display()), "Give a directory."));
        }
        if mount::device_at(&dir).map_err(at(&dir))?.is_some() {
            return Err(Failure::new(
                Code::Refused,
                format!("{} is mounted already, with its state somewhere else", dir.display()),
                "Give the same --state as its mount, or unmount it first.",
            ));
        }
        let state = StateDir::open(&state)?;
        let key = device_key(joining.state.as_deref())?;
        let remembered = Config::load(&state)?;
        if remembered.is_none() && joining.hub.is_none() && !may_begin {
            return Err(Failure::new(
                Code::Usage,
                format!("{} is not connected to a hub yet", dir.display()),
                "Give --hub HOST:PORT and --hub-key KEY, or mount it once.",
            ));
        }
        let config = wanted(&dir, &state, joining, remembered.as_ref())?;
        let unproven = remembered.as_ref().is_some_and(|old| *old != config);
        let moved = remembered.as_ref().is_some_and(|old| old.hub == config.hub && old.hub_keys == config.hub_keys);
        if remembered.is_none() || (unproven && moved) {
            config.save(&state)?;
        }
        Ok(Self { dir, state, key, config, unproven: unproven && !moved })
    }
}

/// The configuration that was asked for.
fn wanted(dir: &Path, state: &StateDir, joining: &Joining, old: Option<&Config>) -> Result<Config, Failure> {
    let stored = StoredPath(dir.to_owned());
    if let Some(hub) = &joining.hub {
        let hub = hub.to_string();
        let known = old.map(|old| old.hub_keys.clone()).unwrap_or_default();
        let hub_keys = match &joining.hub_key {
            Some(text) => vec![hub_key(text)?.to_string()],
            // The same hub may be reached at another address; its key is what tells.
            None if !known.is_empty() => known,
            None => vec![ask(&hub)?.to_string()],
        };
        let same = old.is_some_and(|old| old.hub == hub && old.hub_keys == hub_keys);
        // A hub of ours that is named by its own address is still ours to run.
        let embedded = old.filter(|_| same).and_then(|old| old.embedded.clone());
        return Ok(Config { dir: stored, hub, hub_keys, embedded });
    }
    match (old, joining.listen) {
        (Some(old), None) => Ok(Config { dir: stored, ..old.clone() }),
        (Some(old), Some(listen)) => match &old.embedded {
            Some(embedded) => {
                let embedded = Some(Embedded { listen, ..embedded.clone() });
                Ok(Config { dir: stored, embedded, ..old.clone() })
            }
            None => Err(Failure::new(
                Code::Usage,
                format!("{} has no hub of its own that could listen, it uses {}", dir.display(), old.hub),
                "Leave --listen away.",
            )),
        },
        (None, listen) => {
            let data = StoredPath(embedded::data_for(dir, &state.path)?);
            let embedded = Some(Embedded { data, listen: listen.unwrap_or(embedded::LISTEN) });
            Ok(Config { dir: stored, hub: String::new(), hub_keys: Vec::new(), embedded })
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        let code = match &error {
            ConnectError::Address { .. } | ConnectError::Unreachable { .. } | ConnectError::NotAHub { .. } => Code::Unreachable,
            ConnectError::WrongHub { .. } | ConnectError::Refused { .. } => Code::Refused,
            ConnectError::Local(_) => Code::Failed,
        };
        Self::new(code, error.to_string(), error.hint())
    }
}

/// The key of the hub at `hub`, if a person on a terminal confirms it.
fn ask(hub: &str) -> Result<PublicKey, Failure> {
    let failed = |error| Failure::new(Code::Failed, format!("the network cannot be used: {error}"), "See the system's limits.");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let key = runtime.block_on(net::fetch_hub_key(hub))?;
    let unconfirmed = || {
        Failure::new(
            Code::Refused,
            format!("nobody has confirmed the key of the hub {hub} yet, it shows {}", key.fingerprint()),
            format!("Compare it with what whoever runs the hub knows, then add --hub-key {key}"),
        )
    };
    if !io::stdin().is_terminal() || !output::is_watched() {
        return Err(unconfirmed());
    }
    output::tell(&format!("The hub {hub} shows the key {}.", key.fingerprint()));
    output::tell("Is that the fingerprint that whoever runs the hub gave you? [yes/no]");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| at(Path::new("standard input"))(error))?;
    if matches!(line.trim().to_lowercase().as_str(), "y" | "yes") { Ok(key) } else { Err(unconfirmed()) }
}
