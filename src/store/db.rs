//! One redb database: created whole or not at all, opened with its schema checked, every commit in two phases.

use crate::model::codec::CodecError;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use redb::Builder;
use redb::Database;
use redb::ReadTransaction;
use redb::ReadableDatabase;
use redb::TableDefinition;
use redb::WriteTransaction;
use redb::backends::FileBackend;
use rustix::fs::FlockOperation;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;

/// A table of byte strings by byte strings.
pub(super) type Bytes = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Single values of a database by number; 0 is the schema number.
pub(super) const META: TableDefinition<u64, &[u8]> = TableDefinition::new("meta");
const SCHEMA: u64 = 0;

/// Why a store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// An operation on a file failed.
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    /// Bytes could not be made durable; what was not durable before is as good as lost.
    #[error("{path} cannot be made durable: {source}")]
    Sync { path: PathBuf, source: io::Error },
    /// The database failed.
    #[error("database: {0}")]
    Database(Box<redb::Error>),
    /// There is no database yet.
    #[error("{0} does not exist")]
    Missing(PathBuf),
    /// There is a database, or what belongs to one, where a new one was to be made.
    #[error("{0} exists already; nothing was changed")]
    Exists(PathBuf),
    /// Another process uses the database.
    #[error("{0} is in use by another process")]
    Busy(PathBuf),
    /// The file is not what this program wrote; it is left as it is.
    #[error("{path} is damaged: {why}; it was left as it is")]
    Damaged { path: PathBuf, why: String },
    /// A newer program wrote the database.
    #[error("{path} has schema {found}, this program reads up to {known}; use the newer program")]
    NewerSchema { path: PathBuf, found: u64, known: u64 },
    /// A stored value cannot be read.
    #[error("stored value: {0}")]
    Value(#[from] CodecError),
    /// The bytes given are not the content announced, or break a limit; nothing was stored.
    #[error("content not accepted: {0}")]
    Rejected(&'static str),
    /// An earlier failure to make bytes durable; the store must be reopened.
    #[error("the store failed before and must be reopened")]
    Failed,
}

impl StoreError {
    /// Whether the store must be dropped and opened again before it is used further.
    pub fn needs_reopen(&self) -> bool {
        match self {
            Self::Sync { .. } | Self::Database(_) | Self::Failed => true,
            Self::Io { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::NotFound)
            }
            _ => false,
        }
    }
}

macro_rules! from_redb {
    ($($name:ident)*) => {$(
        impl From<redb::$name> for StoreError {
            fn from(error: redb::$name) -> Self { Self::Database(Box::new(error.into())) }
        }
    )*};
}
from_redb!(StorageError TableError TransactionError CommitError);

/// Puts the path of the file into an I/O error.
pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { path: path.into(), source }
}

/// Makes the entries of a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), StoreError> {
    File::open(dir).and_then(|file| file.sync_all()).map_err(|source| StoreError::Sync { path: dir.into(), source })
}

/// How a database is used.
pub(super) struct Settings {
    /// Bytes of page cache.
    pub cache: usize,
    /// Keep the allocator's state in every commit: slower commits, an open after a crash that does not read the whole file.
    pub quick_repair: bool,
    /// The schema this program writes, from 1.
    pub schema: u64,
}

/// An open database.
pub(super) struct Db {
    database: Database,
    path: PathBuf,
    quick_repair: bool,
}

impl Db {
    /// Makes the database `path`, filled by `fill`, and opens it. It appears under its name only when it is whole and durable.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is one.
    pub fn create(
        path: &Path,
        settings: &Settings,
        fill: impl FnOnce(&WriteTransaction) -> Result<(), StoreError>,
    ) -> Result<Self, StoreError> {
        let dir = path.parent().unwrap_or(Path::new("."));
        let gate = File::open(dir).map_err(at(dir))?;
        rustix::fs::flock(&gate, FlockOperation::LockExclusive).map_err(|error| at(dir)(error.into()))?;
        if path.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(path.into()));
        }
        let temp = temp_of(path);
        remove_leftover(&temp)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&temp).map_err(at(&temp))?;
        let database = FileBackend::new(file).and_then(|backend| Builder::new().create_with_backend(backend));
        let database = database.map_err(|error| opening(&temp, error))?;
        let txn = begin(&database, settings.quick_repair)?;
        txn.open_table(META)?.insert(SCHEMA, encode_stored(&settings.schema).as_slice())?;
        fill(&txn)?;
        txn.commit()?;
        database.close().map_err(|error| opening(&temp, error))?;
        let file = File::open(&temp).map_err(at(&temp))?;
        file.sync_all().map_err(|source| StoreError::Sync { path: temp.clone(), source })?;
        std::fs::rename(&temp, path).map_err(at(path))?;
        sync_dir(dir)?;
        drop(gate);
        Self::open(path, settings)
    }

    /// Opens the database `path`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Busy`], [`StoreError::Damaged`] and [`StoreError::NewerSchema`] say what is the matter;
    /// the file is not changed then.
    pub fn open(path: &Path, settings: &Settings) -> Result<Self, StoreError> {
        let meta = match path.metadata() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing(path.into())),
            meta => meta.map_err(at(path))?,
        };
        if meta.len() == 0 {
            return Err(StoreError::Damaged { path: path.into(), why: "the file is empty".into() });
        }
        let database = Builder::new().set_cache_size(settings.cache).open(path).map_err(|error| opening(path, error))?;
        let db = Self::of(database, path, settings)?;
        remove_leftover(&temp_of(path))?;
        Ok(db)
    }

    fn of(database: Database, path: &Path, settings: &Settings) -> Result<Self, StoreError> {
        let db = Self { database, path: path.into(), quick_repair: settings.quick_repair };
        match db.meta::<u64>(SCHEMA)? {
            found if found > settings.schema => Err(StoreError::NewerSchema { path: path.into(), found, known: settings.schema }),
            found if found < settings.schema => Err(db.damaged(format!("schema {found} was never released"))),
            _ => Ok(db),
        }
    }

    /// As [`Db::open`], on another disk.
    #[cfg(test)]
    pub fn open_on(disk: impl redb::StorageBackend, settings: &Settings) -> Result<Self, StoreError> {
        let path = Path::new("simulated");
        let database = Builder::new().set_cache_size(settings.cache).create_with_backend(disk);
        Self::of(database.map_err(|error| opening(path, error))?, path, settings)
    }

    /// Begins the one write transaction; waits for the one before.
    pub fn write(&self) -> Result<WriteTransaction, StoreError> {
        begin(&self.database, self.quick_repair)
    }

    /// Begins to read the last committed state.
    pub fn read(&self) -> Result<ReadTransaction, StoreError> {
        Ok(self.database.begin_read()?)
    }

    /// The single value `key`.
    pub fn meta<T: Decode<()>>(&self, key: u64) -> Result<T, StoreError> {
        let table = match self.read()?.open_table(META) {
            Err(redb::TableError::Storage(error)) => return Err(error.into()),
            Err(error) => return Err(self.damaged(error.to_string())),
            Ok(table) => table,
        };
        match table.get(key)? {
            Some(value) => Ok(decode_stored(value.value())?),
            None => Err(self.damaged(format!("value {key} is missing"))),
        }
    }

    /// The error for a database that breaks its own rules.
    pub fn damaged(&self, why: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: self.path.clone(), why: why.into() }
    }
}

/// Writes the single value `key`.
pub(super) fn set_meta<T: Encode>(txn: &WriteTransaction, key: u64, value: &T) -> Result<(), StoreError> {
    txn.open_table(META)?.insert(key, encode_stored(value).as_slice())?;
    Ok(())
}

fn begin(database: &Database, quick_repair: bool) -> Result<WriteTransaction, StoreError> {
    let mut txn = database.begin_write()?;
    txn.set_two_phase_commit(true);
    txn.set_quick_repair(quick_repair);
    Ok(txn)
}

fn temp_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

fn remove_leftover(temp: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(temp) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(temp)(error)),
        _ => Ok(()),
    }
}

fn opening(path: &Path, error: redb::DatabaseError) -> StoreError {
    let path = path.to_path_buf();
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => StoreError::Busy(path),
        redb::DatabaseError::Storage(redb::StorageError::Corrupted(why)) => StoreError::Damaged { path, why },
        redb::DatabaseError::Storage(redb::StorageError::Io(source)) => match source.kind() {
            io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => StoreError::Damaged { path, why: source.to_string() },
            _ => StoreError::Io { path, source },
        },
        error => StoreError::Database(Box::new(error.into())),
    }
}
