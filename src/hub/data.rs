//! A hub's data directory: `hub.key`, the registry, the store, the keys of the transport and the control socket.

use crate::admin::KeyError;
use crate::admin::KeyPair;
use crate::admin::PublicKey;
use crate::admin::Registry;
use crate::admin::RegistryError;
use crate::model::Epoch;
use crate::model::VolumeId;
use crate::net::NetError;
use crate::store::HubStore;
use crate::store::StoreError;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::path::PathBuf;

const KEY_FILE: &str = "hub.key";
/// The transport's own keys; they let clients notice a restart.
pub(super) const TRANSPORT_KEYS: &str = "transport.keys";

/// Why a hub could not be made, started or asked. The text is one sentence, [`HubError::hint`] says what to do.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    #[error("there is no hub in {}", .0.display())]
    Missing(PathBuf),
    #[error("there is a hub in {} already", .0.display())]
    Exists(PathBuf),
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Net(#[from] NetError),
    #[error("the system has no randomness to give")]
    Random,
    /// The operation asked for was understood and is not possible.
    #[error("{0}")]
    Refused(String),
    /// The running hub did not answer as it should.
    #[error("the hub that runs in {} does not answer: {why}", data.display())]
    Control { data: PathBuf, why: String },
}

impl HubError {
    /// What a person can do about it, in one sentence.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Missing(_) => "Make one with `syncfs hub init --data DIR`.",
            Self::Exists(_) => "Start it with `syncfs hub serve --data DIR --listen ADDR`.",
            Self::Refused(_) => "`syncfs admin list --data DIR` shows who is registered.",
            Self::Control { .. } => "Run the same version of syncfs as the hub does, as the same user.",
            Self::Store(StoreError::Busy(_)) => "A hub or another command is using it; stop that one first.",
            Self::Net(_) => "Choose another address with --listen, or see what listens there.",
            _ => "Look at the file named, at the free space, and at who may read and write there.",
        }
    }
}

/// Puts the path into an I/O error.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> HubError {
    move |source| HubError::Io { path: path.into(), source }
}

fn random() -> Result<[u8; 16], HubError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| HubError::Random)?;
    Ok(bytes)
}

/// Whether there is a hub in the directory `data`.
pub fn exists(data: &Path) -> bool {
    match HubStore::open(data) {
        Err(StoreError::Missing(_)) => false,
        // A store that cannot be opened is a store.
        _ => true,
    }
}

/// Makes a hub with a new volume in the directory `data`, which is made with mode 0700 where it is missing, and gives the hub's key.
/// What a crash left half made is completed.
///
/// # Errors
/// [`HubError::Exists`] where there is one.
pub fn init(data: &Path) -> Result<PublicKey, HubError> {
    DirBuilder::new().recursive(true).mode(0o700).create(data).map_err(at(data))?;
    if exists(data) {
        return Err(HubError::Exists(data.into()));
    }
    let key = KeyPair::load_or_create(&data.join(KEY_FILE))?.public();
    Registry::open(data, key)?;
    // The store comes last: where it is, everything is.
    HubStore::create(data, VolumeId(random()?), Epoch(random()?))?;
    Ok(key)
}

/// The public key of the hub in the directory `data`.
///
/// # Errors
/// [`HubError::Missing`] where there is none.
pub fn key(data: &Path) -> Result<PublicKey, HubError> {
    Ok(key_pair(data)?.public())
}

pub(super) fn key_pair(data: &Path) -> Result<KeyPair, HubError> {
    KeyPair::load(&data.join(KEY_FILE)).map_err(|error| match error {
        KeyError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => HubError::Missing(data.into()),
        other => other.into(),
    })
}

/// Opens the registry of the hub in the directory `data`.
pub(super) fn registry(data: &Path) -> Result<Registry, HubError> {
    Ok(Registry::open(data, key(data)?)?)
}

/// Opens the store of the hub in the directory `data`.
pub(super) fn store(data: &Path) -> Result<HubStore, HubError> {
    HubStore::open(data).map_err(|error| match error {
        StoreError::Missing(_) => HubError::Missing(data.into()),
        other => other.into(),
    })
}
