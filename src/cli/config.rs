//! What is remembered of a synchronized directory: `config.json` in the client's state directory.

use super::failure::Code;
use super::failure::Failure;
use super::places::StateDir;
use super::places::at;
use crate::model::PublicKey;
use data_encoding::HEXLOWER;
use serde::Deserialize;
use serde::Deserializer;
use serde::Serialize;
use serde::Serializer;
use serde::de::Error;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::io::Write;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

const FILE: &str = "config.json";
const NEW_FILE: &str = "config.json.new";

/// A path in JSON: as text, or where it is not UTF-8 as hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPath(pub PathBuf);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Written {
    Text(String),
    Bytes { bytes: String },
}

impl Serialize for StoredPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = match self.0.to_str() {
            Some(text) => Written::Text(text.into()),
            None => Written::Bytes { bytes: HEXLOWER.encode(self.0.as_os_str().as_bytes()) },
        };
        written.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Written::deserialize(deserializer)? {
            Written::Text(text) => Ok(Self(text.into())),
            Written::Bytes { bytes } => {
                let bytes = HEXLOWER.decode(bytes.as_bytes()).map_err(D::Error::custom)?;
                Ok(Self(OsStr::from_bytes(&bytes).into()))
            }
        }
    }
}

/// The hub in the client's own process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Embedded {
    /// The hub's data directory.
    pub data: StoredPath,
    pub listen: SocketAddr,
}

/// What is remembered of a synchronized directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Config {
    /// The directory's real path.
    pub dir: StoredPath,
    /// `HOST:PORT`.
    pub hub: String,
    /// The hub's keys that are trusted, in their one-line form. None yet where an embedded hub is still to be made.
    pub hub_keys: Vec<String>,
    pub embedded: Option<Embedded>,
}

impl Config {
    /// What is remembered in `state`; `None` where nothing is.
    ///
    /// # Errors
    /// When it cannot be read or is damaged.
    pub fn load(state: &StateDir) -> Result<Option<Self>, Failure> {
        Self::load_from(&state.inside(FILE), &state.path.join(FILE))
    }

    /// As [`Config::load`], for a look from outside at the state directory `state`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn look(state: &Path) -> Result<Option<Self>, Failure> {
        Self::load_from(&state.join(FILE), &state.join(FILE))
    }

    fn load_from(path: &Path, shown: &Path) -> Result<Option<Self>, Failure> {
        let text = match std::fs::read(path) {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
            text => text.map_err(at(shown))?,
        };
        serde_json::from_slice(&text).map(Some).map_err(|error| {
            let sentence = format!("{} is damaged: {error}", shown.display());
            Failure::new(
                Code::Failed,
                sentence,
                "Move the file away and give --hub and --hub-key again; no file of yours is in it.",
            )
        })
    }

    /// Remembers it durably; the old one stays whole until the new one is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn save(&self, state: &StateDir) -> Result<(), Failure> {
        let shown = state.path.join(FILE);
        let text = serde_json::to_vec_pretty(self).map_err(|error| at(&shown)(error.into()))?;
        let write = || {
            let new = state.inside(NEW_FILE);
            let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&text)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            std::fs::rename(new, state.inside(FILE))?;
            state.sync()
        };
        write().map_err(at(&shown))
    }

    /// The keys to trust.
    ///
    /// # Errors
    /// When one is no key.
    pub fn pins(&self) -> Result<Vec<PublicKey>, Failure> {
        self.hub_keys.iter().map(|text| hub_key(text)).collect()
    }
}

/// A hub's key from its text.
///
/// # Errors
/// When it is none, or was mistyped.
pub fn hub_key(text: &str) -> Result<PublicKey, Failure> {
    text.parse().map_err(|error: crate::model::BadKey| {
        Failure::new(
            Code::Usage,
            format!("the hub's key is wrong: {error}"),
            "Paste what `syncfs hub key --data DIR` prints where the hub is.",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What was remembered is known again, also of a directory whose name is not UTF-8.
    #[test]
    fn remembered() {
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::open(base.path()).unwrap();
        assert_eq!(Config::load(&state), Ok(None));
        for name in [&b"/notes"[..], b"/n\xfftes"] {
            let dir = StoredPath(OsStr::from_bytes(name).into());
            let embedded = Some(Embedded { data: dir.clone(), listen: "0.0.0.0:4747".parse().unwrap() });
            let config = Config { dir, hub: "h:1".into(), hub_keys: vec!["k".into()], embedded };
            config.save(&state).unwrap();
            assert_eq!(Config::load(&state), Ok(Some(config.clone())));
            assert_eq!(Config::look(base.path()), Ok(Some(config)));
        }
        assert!(!base.path().join(NEW_FILE).exists());
    }

    /// A damaged file is said to be so, not taken for a first start.
    #[test]
    fn damage_is_not_nothing() {
        let base = tempfile::tempdir().unwrap();
        std::fs::write(base.path().join(FILE), "{").unwrap();
        let error = Config::look(base.path()).unwrap_err();
        assert!(error.to_string().contains("config.json is damaged"), "{error}");
    }
}
