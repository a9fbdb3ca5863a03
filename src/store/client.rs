//! A client's durable state, the base contents it merges with, and the chunk lists of larger ones.

use super::db::Bytes;
use super::db::Db;
use super::db::Settings;
use super::db::StoreError;
use super::db::set_meta;
use crate::merge::replica::Base;
use crate::merge::replica::ClientState;
use crate::merge::replica::ClientWrite;
use crate::merge::replica::Conflict;
use crate::merge::replica::Intent;
use crate::merge::replica::MAX_NOTICES;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::OpId;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use crate::wire::Chunk;
use redb::ReadableTable;
use redb::ReadableTableMetadata;
use redb::TableDefinition;
use redb::WriteTransaction;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;
use std::time::Instant;

const BASE: Bytes = Bytes::new("base");
const HEAD: Bytes = Bytes::new("head");
const PROPOSED: Bytes = Bytes::new("proposed");
const INTENTS: Bytes = Bytes::new("intents");
const CONFLICTS: Bytes = Bytes::new("conflicts");
const NOTICES: TableDefinition<u64, &[u8]> = TableDefinition::new("notices");
/// Content hash to raw length and zstd frame.
const CONTENTS: TableDefinition<&[u8], (u64, &[u8])> = TableDefinition::new("contents");
/// Content hash and part to chunks.
const LISTS: TableDefinition<(&[u8], u64), &[u8]> = TableDefinition::new("lists");

const INSTANCE: u64 = 1;
const BOOT: u64 = 2;
const POSITION: u64 = 3;

const SETTINGS: Settings = Settings { cache: 16 << 20, quick_repair: false, schema: 1 };
const FILE: &str = "state.redb";
const LEVEL: i32 = 3;
/// How long a content that nothing names is kept after it was put.
const GRACE: Duration = Duration::from_secs(60 * 60);
/// Chunks in one part of a list.
const PART: usize = 1024;

/// The largest content that is kept whole, in bytes.
pub const BASE_MAX: usize = 8 << 20;

/// A client's store: `state.redb` in its state directory. One process at a time; all methods may be called from many threads.
pub struct ClientStore {
    db: Db,
    instance: [u8; 16],
    boot: u64,
    /// When contents and lists were put that a record may be about to name.
    fresh: Mutex<BTreeMap<Hash, Instant>>,
}

impl ClientStore {
    /// Opens the store in the existing directory `dir`, or makes a new one with a new instance id where there is none. Every opening
    /// counts as a boot, durably.
    ///
    /// # Errors
    /// [`StoreError::Busy`], [`StoreError::Damaged`], [`StoreError::NewerSchema`]; the file is not changed then.
    pub fn open_or_create(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(FILE);
        let db = match Db::open(&path, &SETTINGS) {
            Err(StoreError::Missing(_)) => Db::create(&path, &SETTINGS, |txn| {
                let mut instance = [0; 16];
                getrandom::fill(&mut instance).map_err(|error| super::db::at(&path)(std::io::Error::other(error.to_string())))?;
                set_meta(txn, INSTANCE, &instance)?;
                set_meta(txn, BOOT, &0u64)?;
                for table in [BASE, HEAD, PROPOSED, INTENTS, CONFLICTS] {
                    txn.open_table(table)?;
                }
                txn.open_table(NOTICES)?;
                txn.open_table(CONTENTS)?;
                txn.open_table(LISTS)?;
                Ok(())
            })?,
            db => db?,
        };
        let boot = db.meta::<u64>(BOOT)? + 1;
        let txn = db.write()?;
        set_meta(&txn, BOOT, &boot)?;
        txn.commit()?;
        Ok(Self { instance: db.meta(INSTANCE)?, boot, db, fresh: Mutex::new(BTreeMap::new()) })
    }

    /// The random id made with the store.
    pub fn instance(&self) -> [u8; 16] {
        self.instance
    }

    /// How often the store has been opened, this time included.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// All durable state but the bytes of contents.
    pub fn load(&self) -> Result<ClientState, StoreError> {
        let txn = self.db.read()?;
        let node = |key: &[u8]| key.try_into().map(NodeId).map_err(|_| self.db.damaged("a node id of another length"));
        let op = |key: &[u8]| key.try_into().map(OpId).map_err(|_| self.db.damaged("a change id of another length"));
        let mut notices = Vec::new();
        for row in txn.open_table(NOTICES)?.iter()? {
            notices.push(decode_stored(row?.1.value())?);
        }
        let position = match txn.open_table(super::db::META)?.get(POSITION)? {
            Some(position) => Some(decode_stored(position.value())?),
            None => None,
        };
        Ok(ClientState {
            base: rows(&txn.open_table(BASE)?, node)?,
            head: rows(&txn.open_table(HEAD)?, node)?,
            proposed: rows(&txn.open_table(PROPOSED)?, op)?,
            intents: rows(&txn.open_table(INTENTS)?, node)?,
            conflicts: rows(&txn.open_table(CONFLICTS)?, node)?,
            position,
            notices,
        })
    }

    /// Makes the writes and the bytes of `bases` durable, all or none, the writes in order.
    ///
    /// # Errors
    /// [`StoreError::Rejected`] for a base above [`BASE_MAX`] or with another hash; nothing is written then.
    pub fn commit(&self, writes: &[ClientWrite], bases: &[(Hash, &[u8])]) -> Result<(), StoreError> {
        if bases.iter().any(|(_, bytes)| bytes.len() > BASE_MAX) {
            return Err(StoreError::Rejected("too large to be kept whole"));
        }
        self.freshen(bases.iter().map(|(hash, _)| *hash));
        let txn = self.db.write()?;
        for (hash, bytes) in bases {
            let mut contents = txn.open_table(CONTENTS)?;
            if contents.get(hash.0.as_slice())?.is_none() {
                if Hash::of(bytes) != *hash {
                    return Err(StoreError::Rejected("the bytes have another hash"));
                }
                let frame = zstd::bulk::compress(bytes, LEVEL).map_err(|_| StoreError::Rejected("zstd cannot compress"))?;
                contents.insert(hash.0.as_slice(), (bytes.len() as u64, frame.as_slice()))?;
            }
        }
        for write in writes {
            apply(&txn, write)?;
        }
        txn.commit()?;
        Ok(())
    }

    /// The bytes of a base.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] when they are not the content any more.
    pub fn base(&self, hash: &Hash) -> Result<Option<Vec<u8>>, StoreError> {
        let txn = self.db.read()?;
        let contents = txn.open_table(CONTENTS)?;
        let Some(row) = contents.get(hash.0.as_slice())? else { return Ok(None) };
        let (len, frame) = row.value();
        let bytes = zstd::bulk::decompress(frame, (len as usize).min(BASE_MAX)).ok().filter(|bytes| Hash::of(bytes) == *hash);
        bytes.map(Some).ok_or_else(|| self.db.damaged(format!("base {hash} has other bytes")))
    }

    /// Keeps the chunk list of a large base, durably.
    pub fn put_chunks(&self, hash: &Hash, list: &[Chunk]) -> Result<(), StoreError> {
        self.freshen([*hash]);
        let txn = self.db.write()?;
        {
            let mut lists = txn.open_table(LISTS)?;
            for (part, chunks) in list.chunks(PART).enumerate() {
                lists.insert((hash.0.as_slice(), part as u64), encode_stored(&chunks.to_vec()).as_slice())?;
            }
        }
        txn.commit()?;
        Ok(())
    }

    /// The chunk list of a large base.
    pub fn chunks(&self, hash: &Hash) -> Result<Option<Vec<Chunk>>, StoreError> {
        let mut list = Vec::new();
        let txn = self.db.read()?;
        let key = hash.0.as_slice();
        for part in txn.open_table(LISTS)?.range((key, 0)..=(key, u64::MAX))? {
            list.extend(decode_stored::<Vec<Chunk>>(part?.1.value())?);
        }
        Ok((!list.is_empty()).then_some(list))
    }

    /// Deletes up to `slice` bases and list parts whose content no base, head, intent or conflict names, and that this process has not
    /// put within the last hour.
    /// Deletes nothing while a proposal's fate is unknown: its content has no other name. Returns how many; 0: nothing is left.
    pub fn sweep(&self, slice: usize) -> Result<usize, StoreError> {
        let txn = self.db.write()?;
        if !txn.open_table(PROPOSED)?.is_empty()? {
            txn.abort()?;
            return Ok(0);
        }
        let mut kept = named(&txn)?;
        kept.extend(self.fresh(Instant::now()));
        let mut swept = 0;
        {
            let is_kept = |key: &[u8]| <[u8; 32]>::try_from(key).is_ok_and(|hash| kept.contains(&Hash(hash)));
            let mut contents = txn.open_table(CONTENTS)?;
            for row in contents.extract_if(|key, _| !is_kept(key))?.take(slice) {
                row?;
                swept += 1;
            }
            let mut lists = txn.open_table(LISTS)?;
            for row in lists.extract_if(|(key, _), _| !is_kept(key))?.take(slice.saturating_sub(swept)) {
                row?;
                swept += 1;
            }
        }
        match swept {
            0 => txn.abort()?,
            _ => txn.commit()?,
        }
        Ok(swept)
    }

    fn freshen(&self, hashes: impl IntoIterator<Item = Hash>) {
        let now = Instant::now();
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).extend(hashes.into_iter().map(|hash| (hash, now)));
    }

    fn fresh(&self, now: Instant) -> Vec<Hash> {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.retain(|_, since| now.duration_since(*since) < GRACE);
        fresh.keys().copied().collect()
    }
}

fn rows<K: Ord, V: Decode<()>>(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    key: impl Fn(&[u8]) -> Result<K, StoreError>,
) -> Result<BTreeMap<K, V>, StoreError> {
    let mut all = BTreeMap::new();
    for row in table.iter()? {
        let (id, value) = row?;
        all.insert(key(id.value())?, decode_stored(value.value())?);
    }
    Ok(all)
}

fn set<V: Encode>(txn: &WriteTransaction, table: Bytes, key: &[u8; 16], value: &Option<V>) -> Result<(), StoreError> {
    let mut table = txn.open_table(table)?;
    match value {
        Some(value) => table.insert(key.as_slice(), encode_stored(value).as_slice())?.is_some(),
        None => table.remove(key.as_slice())?.is_some(),
    };
    Ok(())
}

fn apply(txn: &WriteTransaction, write: &ClientWrite) -> Result<(), StoreError> {
    match write {
        ClientWrite::Base(id, value) => set(txn, BASE, &id.0, value),
        ClientWrite::Head(id, value) => set(txn, HEAD, &id.0, value),
        ClientWrite::Proposed(id, value) => set(txn, PROPOSED, &id.0, value),
        ClientWrite::Intent(id, value) => set(txn, INTENTS, &id.0, value),
        ClientWrite::Conflict(id, value) => set(txn, CONFLICTS, &id.0, value),
        ClientWrite::Position(position) => set_meta(txn, POSITION, position),
        ClientWrite::Notice(notice) => {
            let mut notices = txn.open_table(NOTICES)?;
            let next = notices.last()?.map_or(0, |(number, _)| number.value() + 1);
            notices.insert(next, encode_stored(notice).as_slice())?;
            if notices.len()? > MAX_NOTICES as u64 {
                notices.pop_first()?;
            }
            Ok(())
        }
    }
}

/// Every content that the state names.
fn named(txn: &WriteTransaction) -> Result<BTreeSet<Hash>, StoreError> {
    let mut named = BTreeSet::new();
    let mut add = |content: &Content| named.extend(content.blob());
    for row in txn.open_table(BASE)?.iter()? {
        add(&decode_stored::<Base>(row?.1.value())?.node.content.value);
    }
    for row in txn.open_table(HEAD)?.iter()? {
        add(&decode_stored::<Node>(row?.1.value())?.content.value);
    }
    for row in txn.open_table(INTENTS)?.iter()? {
        let intent = decode_stored::<Intent>(row?.1.value())?;
        [&intent.before, &intent.after, &intent.base.value].into_iter().for_each(&mut add);
    }
    for row in txn.open_table(CONFLICTS)?.iter()? {
        let conflict = decode_stored::<Conflict>(row?.1.value())?;
        conflict.base.iter().chain([&conflict.ours, &conflict.theirs]).for_each(&mut add);
    }
    Ok(named)
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
