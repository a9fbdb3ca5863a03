//! A hub's contents: content-addressed by BLAKE3, compressed, in append-only pack files; their index is in the hub's database.
//!
//! A content of at most [`CHUNK_MAX`] bytes is one *piece*, a larger one a list of chunks, which are pieces. What was put is readable
//! at once and durable after [`Contents::make_durable`]; only then [`Contents::has`] says so. A content that nothing names is kept for
//! 24 hours of this process's life after it was last put or asked for, then [`Contents::collect`] may delete it.
//!
//! All methods may be called from many threads. Order of what is held at once: `flush`, then the write transaction, then `shared`.

mod collect;
mod index;
mod pack;
mod patches;
mod size;

#[cfg(test)]
pub(super) use index::LOOSE;
pub(super) use index::PATCHES;
#[cfg(test)]
pub(super) use index::REFS;
pub(super) use index::Shift;
pub(super) use index::make_tables;
pub(super) use index::patch_key;
pub(super) use pack::PACK_MAX;

use super::chunker;
use super::db::Db;
use super::db::StoreError;
use super::db::at;
use super::db::sync_dir;
use crate::model::Hash;
use crate::wire::CHUNK_MAX;
use crate::wire::Chunk;
use crate::wire::Delta;
use index::Entry;
use index::Piece;
use redb::ReadableTable;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

/// How long a content that nothing names is kept after it was put or asked for.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);
/// The same once a record has named it; another record that was checked before may still be about to.
const GRACE_NAMED: Duration = Duration::from_secs(10 * 60);
/// Pieces and bytes that may wait for their index entries; then whoever puts the next makes them durable.
const PENDING_MAX: usize = 4096;
const UNSYNCED_MAX: u64 = 64 << 20;
/// Pack files kept open for reading.
const OPEN_MAX: usize = 64;
/// The most chunks of one content: 64 GiB at the usual chunk size.
pub const LIST_MAX: usize = 1 << 20;
const LEVEL: i32 = 3;

/// The contents of a hub. See the module.
pub struct Contents {
    db: Arc<Db>,
    dir: PathBuf,
    /// A pack is closed when it has reached this size, in bytes.
    pack_max: u64,
    /// Held while index entries are written.
    flush: Mutex<()>,
    shared: Mutex<Shared>,
    files: Mutex<BTreeMap<u64, Arc<File>>>,
}

#[derive(Default)]
struct Shared {
    active: Option<Active>,
    next_pack: u64,
    /// Appended, not in the index yet.
    pieces: BTreeMap<Hash, Piece>,
    lists: BTreeMap<Hash, Arc<(u64, Vec<Chunk>)>>,
    /// Packs with bytes that are not durable.
    dirty: BTreeMap<u64, Arc<File>>,
    /// How many bytes, about.
    unsynced: u64,
    /// Packs that cannot be rewritten because they are damaged.
    spared: BTreeSet<u64>,
    /// Until when a content is kept although nothing may name it.
    pins: BTreeMap<Hash, Instant>,
    /// Being deleted by a transaction under way: as good as gone.
    dying: BTreeSet<Hash>,
    offered: BTreeMap<(Hash, Hash), Delta>,
    offered_bytes: usize,
    failed: bool,
}

/// The pack that is appended to.
struct Active {
    number: u64,
    file: Arc<File>,
    end: u64,
}

fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Contents {
    /// Opens the packs in `dir` (made if absent), cuts off what was never indexed and removes packs that hold nothing indexed.
    pub(super) fn open(db: Arc<Db>, dir: &Path, pack_max: u64) -> Result<Self, StoreError> {
        if dir.symlink_metadata().is_err() {
            DirBuilder::new().mode(0o700).create(dir).map_err(at(dir))?;
            sync_dir(dir.parent().unwrap_or(Path::new(".")))?;
        }
        let known: BTreeMap<u64, u64> = db
            .read()?
            .open_table(index::PACKS)?
            .iter()?
            .map(|row| row.map(|(number, sizes)| (number.value(), sizes.value().0)))
            .collect::<Result<_, _>>()?;
        let mut next_pack = known.keys().last().map_or(1, |last| last + 1);
        for entry in dir.read_dir().map_err(at(dir))? {
            let entry = entry.map_err(at(dir))?;
            if let Some(number) = entry.file_name().to_str().and_then(pack::number_of)
                && !known.contains_key(&number)
            {
                std::fs::remove_file(entry.path()).map_err(at(&entry.path()))?;
                next_pack = next_pack.max(number + 1);
            }
        }
        let mut active = None;
        for (&number, &durable) in &known {
            let path = pack::path_of(dir, number);
            let file = match pack::open(dir, number) {
                Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    return Err(StoreError::Damaged { path, why: "the pack is missing".into() });
                }
                file => file?,
            };
            let len = file.metadata().map_err(at(&path))?.len();
            if len < durable {
                let why = format!("the pack has {len} bytes of {durable}");
                return Err(StoreError::Damaged { path, why });
            }
            if len > durable {
                file.set_len(durable).map_err(at(&path))?;
            }
            if number + 1 == next_pack && durable < pack_max {
                active = Some(Active { number, file: Arc::new(file), end: durable });
            }
        }
        Ok(Self {
            db,
            dir: dir.into(),
            pack_max,
            flush: Mutex::new(()),
            shared: Mutex::new(Shared { active, next_pack, ..Shared::default() }),
            files: Mutex::new(BTreeMap::new()),
        })
    }

    /// Whether the content is durable here. From then on it is kept for 24 hours, named or not.
    pub fn has(&self, hash: &Hash) -> Result<bool, StoreError> {
        let mut shared = hold(&self.shared);
        if shared.dying.contains(hash) || self.indexed(hash)?.is_none() {
            return Ok(false);
        }
        shared.pins.insert(*hash, Instant::now() + GRACE);
        Ok(true)
    }

    /// The zstd frame of a content of at most [`CHUNK_MAX`] bytes.
    pub fn get_whole(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        // A second look: the pack may have been rewritten between the index and the file.
        for last in [false, true] {
            let Some(Entry::Piece(piece)) = self.find(hash)? else { return Ok(None) };
            match self.file(piece.pack) {
                Ok(file) => {
                    let path = pack::path_of(&self.dir, piece.pack);
                    let frame = pack::read_frame(&file, piece.offset, piece.stored, hash).map_err(at(&path))?;
                    let why = || format!("the record at {} is not content {hash}", piece.offset);
                    return frame.map(Some).ok_or_else(|| StoreError::Damaged { path, why: why() });
                }
                Err(StoreError::Io { source, .. }) if !last && source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// The zstd frame of a chunk; chunks and contents of one piece are the same.
    pub fn get_chunk(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        self.get_whole(hash)
    }

    /// The chunks of a content above [`CHUNK_MAX`] bytes.
    pub fn chunks_of(&self, hash: &Hash) -> Result<Option<Vec<Chunk>>, StoreError> {
        if let Some(list) = hold(&self.shared).lists.get(hash) {
            return Ok(Some(list.1.clone()));
        }
        let txn = self.db.read()?;
        match index::entry(&txn.open_table(index::CONTENTS)?, hash)? {
            Some(Entry::List { list, .. }) => Ok(Some(index::list_chunks(&txn.open_table(index::LISTS)?, list)?)),
            _ => Ok(None),
        }
    }

    /// The bytes of a content of at most `limit` bytes; `None` where it is absent or longer.
    pub fn read(&self, hash: &Hash, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let (len, chunks) = match self.find(hash)? {
            Some(Entry::Piece(piece)) if piece.raw as usize <= limit => return self.read_piece(hash, piece.raw as usize),
            Some(Entry::List { len, .. }) if len <= limit as u64 => (len, self.chunks_of(hash)?),
            _ => return Ok(None),
        };
        let Some(chunks) = chunks else { return Ok(None) };
        let mut bytes = Vec::with_capacity(len as usize);
        for chunk in chunks {
            match self.read_piece(&chunk.hash, chunk.len as usize)? {
                Some(part) => bytes.extend(part),
                None => return Ok(None),
            }
        }
        Ok(Some(bytes))
    }

    /// Stores a content given as its bytes, in chunks where it is above [`CHUNK_MAX`].
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the bytes have another hash.
    pub fn put_whole(&self, hash: &Hash, bytes: &[u8]) -> Result<(), StoreError> {
        if Hash::of(bytes) != *hash {
            return Err(StoreError::Rejected("the bytes have another hash"));
        }
        if bytes.len() <= CHUNK_MAX {
            return self.put_piece(hash, bytes.len(), || compress(bytes));
        }
        let cut = chunker::chunk_with(bytes, |chunk, bytes| {
            self.put_piece(&chunk.hash, bytes.len(), || compress(bytes)).map_err(io::Error::other)
        });
        // The source is memory: an error of the chunker is one of ours.
        let cut = cut.map_err(|error| match error.downcast::<StoreError>() {
            Ok(error) => error,
            Err(error) => at(&self.dir)(error),
        })?;
        self.enlist(hash, cut.len, cut.list())
    }

    /// Stores a content of at most [`CHUNK_MAX`] bytes given as a zstd frame, as it travels.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when it is no frame, holds too much, or its bytes have another hash.
    pub fn put_frame(&self, hash: &Hash, frame: &[u8]) -> Result<(), StoreError> {
        let bytes = expand(frame, CHUNK_MAX).ok_or(StoreError::Rejected("the frame is malformed or too large"))?;
        if Hash::of(&bytes) != *hash {
            return Err(StoreError::Rejected("the bytes have another hash"));
        }
        match frame.len() <= pack::frame_limit(bytes.len()) {
            true => self.put_piece(hash, bytes.len(), || Ok(frame.to_vec())),
            false => self.put_piece(hash, bytes.len(), || compress(&bytes)),
        }
    }

    /// Stores a chunk given as a zstd frame; as [`Contents::put_frame`].
    pub fn put_chunk(&self, hash: &Hash, frame: &[u8]) -> Result<(), StoreError> {
        self.put_frame(hash, frame)
    }

    /// The indices, ascending and without repeats of one chunk, of the chunks that are not here. Those that are will be kept for 24 hours.
    pub fn missing_chunks(&self, list: &[Chunk]) -> Result<Vec<u32>, StoreError> {
        let mut seen = BTreeSet::new();
        let mut missing = Vec::new();
        for (batch, chunks) in list.chunks(256).enumerate() {
            let mut shared = hold(&self.shared);
            // Begun while `shared` is held, so that what is dying is either marked or gone.
            let txn = self.db.read()?;
            let contents = txn.open_table(index::CONTENTS)?;
            for (at, chunk) in chunks.iter().enumerate().filter(|(_, chunk)| seen.insert(chunk.hash)) {
                let known = shared.pieces.contains_key(&chunk.hash)
                    || !shared.dying.contains(&chunk.hash)
                        && matches!(index::entry(&contents, &chunk.hash)?, Some(Entry::Piece(_)));
                if known {
                    shared.pins.insert(chunk.hash, Instant::now() + GRACE);
                } else {
                    missing.push((batch * 256 + at) as u32);
                }
            }
        }
        Ok(missing)
    }

    /// Stores a content above [`CHUNK_MAX`] bytes as the list of its chunks, all of them here, after reading them once.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] when the list is not one of a content of `len` bytes with that hash, or a chunk is not here.
    pub fn put_chunk_list(&self, hash: &Hash, len: u64, list: Vec<Chunk>) -> Result<(), StoreError> {
        let sum: u64 = list.iter().map(|chunk| u64::from(chunk.len)).sum();
        if len <= CHUNK_MAX as u64 || sum != len || list.len() > LIST_MAX {
            return Err(StoreError::Rejected("the chunk list does not fit the length"));
        }
        if !self.missing_chunks(&list)?.is_empty() {
            return Err(StoreError::Rejected("a chunk is missing"));
        }
        let mut whole = blake3::Hasher::new();
        for chunk in &list {
            match self.read_piece(&chunk.hash, CHUNK_MAX)? {
                Some(bytes) if bytes.len() == chunk.len as usize && !bytes.is_empty() => whole.update(&bytes),
                Some(_) => return Err(StoreError::Rejected("a chunk has another length")),
                None => return Err(StoreError::Rejected("a chunk is missing")),
            };
        }
        if whole.finalize().as_bytes() != &hash.0 {
            return Err(StoreError::Rejected("the chunks make another content"));
        }
        self.enlist(hash, len, list)
    }

    /// Makes all that was put before durable: pack bytes first, then their index. Returns at once when there is nothing to do, so one
    /// call serves all that wait.
    pub fn make_durable(&self) -> Result<(), StoreError> {
        let _flush = hold(&self.flush);
        let (pieces, lists, dirty) = {
            let mut shared = hold(&self.shared);
            if shared.failed {
                return Err(StoreError::Failed);
            }
            if shared.pieces.is_empty() && shared.lists.is_empty() {
                return Ok(());
            }
            shared.unsynced = 0;
            (shared.pieces.clone(), shared.lists.clone(), std::mem::take(&mut shared.dirty))
        };
        let written = self.sync(dirty).and_then(|()| {
            let txn = self.db.write()?;
            let mut shift = Shift::default();
            index::insert_pieces(&txn, pieces.iter())?;
            index::insert_lists(&txn, lists.iter(), &mut shift)?;
            shift.write(&txn)?;
            txn.commit()?;
            self.unpin(shift.named());
            Ok(())
        });
        let mut shared = hold(&self.shared);
        if let Err(error) = written {
            shared.failed = true;
            return Err(error);
        }
        shared.pieces.retain(|hash, _| !pieces.contains_key(hash));
        shared.lists.retain(|hash, _| !lists.contains_key(hash));
        Ok(())
    }

    /// References hold these from now on, and soon nothing else has to.
    pub(super) fn unpin<'a>(&self, named: impl Iterator<Item = &'a Hash>) {
        let soon = Instant::now() + GRACE_NAMED;
        let mut shared = hold(&self.shared);
        for hash in named {
            shared.pins.entry(*hash).and_modify(|until| *until = soon.min(*until));
        }
    }

    fn indexed(&self, hash: &Hash) -> Result<Option<Entry>, StoreError> {
        index::entry(&self.db.read()?.open_table(index::CONTENTS)?, hash)
    }

    /// Where a content is, durable or not.
    fn find(&self, hash: &Hash) -> Result<Option<Entry>, StoreError> {
        {
            let shared = hold(&self.shared);
            if let Some(piece) = shared.pieces.get(hash) {
                return Ok(Some(Entry::Piece(*piece)));
            }
            if let Some(list) = shared.lists.get(hash) {
                return Ok(Some(Entry::List { len: list.0, list: 0 }));
            }
        }
        self.indexed(hash)
    }

    fn read_piece(&self, hash: &Hash, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(frame) = self.get_whole(hash)? else { return Ok(None) };
        let why = || format!("content {hash} does not decompress");
        expand(&frame, limit).map(Some).ok_or_else(|| StoreError::Damaged { path: self.dir.clone(), why: why() })
    }

    fn put_piece(&self, hash: &Hash, raw: usize, frame: impl FnOnce() -> Result<Vec<u8>, StoreError>) -> Result<(), StoreError> {
        {
            let mut shared = hold(&self.shared);
            if shared.pieces.contains_key(hash) || (!shared.dying.contains(hash) && self.indexed(hash)?.is_some()) {
                shared.pins.insert(*hash, Instant::now() + GRACE);
                return Ok(());
            }
        }
        let record = pack::record(hash, raw as u32, &frame()?);
        let mut shared = hold(&self.shared);
        if shared.failed {
            return Err(StoreError::Failed);
        }
        if !shared.pieces.contains_key(hash) {
            let piece = self.append(&mut shared, raw as u32, &record)?;
            shared.pieces.insert(*hash, piece);
        }
        shared.pins.insert(*hash, Instant::now() + GRACE);
        let full = shared.pieces.len() >= PENDING_MAX || shared.unsynced >= UNSYNCED_MAX;
        drop(shared);
        if full { self.make_durable() } else { Ok(()) }
    }

    /// Appends a record to the active pack; not durable yet.
    fn append(&self, shared: &mut Shared, raw: u32, record: &[u8]) -> Result<Piece, StoreError> {
        if shared.active.as_ref().is_none_or(|active| active.end >= self.pack_max) {
            let number = shared.next_pack;
            let file = Arc::new(pack::create(&self.dir, number)?);
            shared.next_pack += 1;
            sync_dir(&self.dir)?;
            shared.active = Some(Active { number, file, end: 0 });
        }
        let Some(active) = &mut shared.active else { return Err(StoreError::Failed) };
        active.file.write_all_at(record, active.end).map_err(at(&pack::path_of(&self.dir, active.number)))?;
        let stored = (record.len() - pack::HEADER) as u32;
        let piece = Piece { pack: active.number, offset: active.end, stored, raw };
        active.end += record.len() as u64;
        shared.dirty.insert(active.number, active.file.clone());
        shared.unsynced += record.len() as u64;
        Ok(piece)
    }

    fn enlist(&self, hash: &Hash, len: u64, list: Vec<Chunk>) -> Result<(), StoreError> {
        let mut shared = hold(&self.shared);
        shared.pins.insert(*hash, Instant::now() + GRACE);
        if shared.dying.contains(hash) || self.indexed(hash)?.is_none() {
            shared.lists.insert(*hash, Arc::new((len, list)));
        }
        Ok(())
    }

    fn sync(&self, dirty: BTreeMap<u64, Arc<File>>) -> Result<(), StoreError> {
        for (number, file) in dirty {
            file.sync_data().map_err(|source| StoreError::Sync { path: pack::path_of(&self.dir, number), source })?;
        }
        Ok(())
    }

    fn file(&self, number: u64) -> Result<Arc<File>, StoreError> {
        let mut files = hold(&self.files);
        if let Some(file) = files.get(&number) {
            return Ok(file.clone());
        }
        let file = Arc::new(pack::open(&self.dir, number)?);
        if files.len() >= OPEN_MAX {
            files.pop_first();
        }
        files.insert(number, file.clone());
        Ok(file)
    }
}

fn compress(bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
    zstd::bulk::compress(bytes, LEVEL).map_err(|_| StoreError::Rejected("zstd cannot compress"))
}

/// The content of a zstd frame, at most `limit` bytes.
fn expand(frame: &[u8], limit: usize) -> Option<Vec<u8>> {
    zstd::bulk::decompress(frame, limit).ok()
}

#[cfg(test)]
mod tests;
