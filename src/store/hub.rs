//! A hub's durable state and, beside it, its contents.

use super::contents::Contents;
use super::contents::PACK_MAX;
use super::contents::PATCHES;
use super::contents::Shift;
use super::contents::make_tables;
use super::contents::patch_key;
use super::db::Bytes;
use super::db::Db;
use super::db::Settings;
use super::db::StoreError;
use super::db::set_meta;
use crate::merge::sequencer::Counters;
use crate::merge::sequencer::HubState;
use crate::merge::sequencer::HubWrite;
use crate::merge::sequencer::Logged;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::VolumeId;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;
use std::path::Path;
use std::sync::Arc;

const HEADS: Bytes = Bytes::new("heads");
const LOG: TableDefinition<u64, &[u8]> = TableDefinition::new("log");
const ACKED: TableDefinition<u64, &[u8]> = TableDefinition::new("acked");

const VOLUME: u64 = 1;
const EPOCH: u64 = 2;
const COUNTERS: u64 = 3;

const SETTINGS: Settings = Settings { cache: 256 << 20, quick_repair: true, schema: 1 };
const FILE: &str = "hub.redb";
const PACKS_DIR: &str = "packs";

/// A hub's store: `hub.redb` and `packs/` in one directory. One process at a time; all methods may be called from many threads.
pub struct HubStore {
    db: Arc<Db>,
    contents: Contents,
}

impl HubStore {
    /// Makes the store of a new volume in the existing directory `dir`.
    ///
    /// # Errors
    /// [`StoreError::Exists`] where there is a store, or packs without one.
    pub fn create(dir: &Path, volume: VolumeId, epoch: Epoch) -> Result<Self, StoreError> {
        let packs = dir.join(PACKS_DIR);
        if packs.symlink_metadata().is_ok() {
            return Err(StoreError::Exists(packs));
        }
        let db = Db::create(&dir.join(FILE), &SETTINGS, |txn| {
            set_meta(txn, VOLUME, &volume)?;
            set_meta(txn, EPOCH, &epoch)?;
            set_meta(txn, COUNTERS, &HubState::new(volume, epoch).counters)?;
            txn.open_table(HEADS)?;
            txn.open_table(LOG)?;
            txn.open_table(ACKED)?;
            make_tables(txn)
        })?;
        Self::with(db, &packs, PACK_MAX)
    }

    /// Opens the store in `dir`.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Busy`], [`StoreError::Damaged`], [`StoreError::NewerSchema`]; nothing is changed then.
    pub fn open(dir: &Path) -> Result<Self, StoreError> {
        Self::with(Db::open(&dir.join(FILE), &SETTINGS)?, &dir.join(PACKS_DIR), PACK_MAX)
    }

    fn with(db: Db, packs: &Path, pack_max: u64) -> Result<Self, StoreError> {
        let db = Arc::new(db);
        Ok(Self { contents: Contents::open(db.clone(), packs, pack_max)?, db })
    }

    /// The contents.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// All durable state.
    pub fn load(&self) -> Result<HubState, StoreError> {
        let mut state = HubState::new(self.db.meta(VOLUME)?, self.db.meta(EPOCH)?);
        state.counters = self.db.meta::<Counters>(COUNTERS)?;
        let txn = self.db.read()?;
        for row in txn.open_table(HEADS)?.iter()? {
            let (id, node) = row?;
            let id = id.value().try_into().map_err(|_| self.db.damaged("a node id of another length"))?;
            state.heads.insert(NodeId(id), decode_stored(node.value())?);
        }
        for row in txn.open_table(LOG)?.iter()? {
            let (seq, logged) = row?;
            state.log.insert(seq.value(), decode_stored(logged.value())?);
        }
        for row in txn.open_table(ACKED)?.iter()? {
            let (device, acked) = row?;
            let device = device.value().try_into().map_err(|_| self.db.damaged("a device number out of range"))?;
            state.acked.insert(device, decode_stored(acked.value())?);
        }
        Ok(state)
    }

    /// Makes the writes durable, all or none, in order. Contents that they name are kept from then on; contents that nothing names
    /// any more may be collected.
    pub fn commit(&self, writes: &[HubWrite]) -> Result<(), StoreError> {
        let txn = self.db.write()?;
        let mut shift = Shift::default();
        for write in writes {
            self.write(&txn, write, &mut shift)?;
        }
        shift.write(&txn)?;
        txn.commit()?;
        self.contents.unpin(shift.named());
        Ok(())
    }

    /// Collects contents; see [`Contents::collect`].
    pub fn collect(&self, slice: usize) -> Result<usize, StoreError> {
        self.contents.collect(slice)
    }

    /// As [`HubStore::open`] with the database on another disk.
    #[cfg(test)]
    pub(super) fn open_on(disk: impl redb::StorageBackend, packs: &Path) -> Result<Self, StoreError> {
        Self::with(Db::open_on(disk, &SETTINGS)?, packs, PACK_MAX)
    }

    /// As [`HubStore::open`] with packs that are closed at `pack_max` bytes.
    #[cfg(test)]
    pub(super) fn open_with(dir: &Path, pack_max: u64) -> Result<Self, StoreError> {
        Self::with(Db::open(&dir.join(FILE), &SETTINGS)?, &dir.join(PACKS_DIR), pack_max)
    }

    /// Rows of the reference counts and the unnamed contents.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (std::collections::BTreeMap<Hash, u64>, std::collections::BTreeSet<Hash>) {
        use super::contents::LOOSE;
        use super::contents::REFS;
        let txn = self.db.read().unwrap();
        let hash = |key: &[u8]| Hash(key.try_into().unwrap());
        let refs = txn.open_table(REFS).unwrap();
        let refs = refs.iter().unwrap().map(|row| row.map(|(key, count)| (hash(key.value()), count.value())).unwrap());
        let loose = txn.open_table(LOOSE).unwrap().iter().unwrap().map(|row| hash(row.unwrap().0.value())).collect();
        (refs.collect(), loose)
    }

    fn write(&self, txn: &WriteTransaction, write: &HubWrite, shift: &mut Shift) -> Result<(), StoreError> {
        match write {
            HubWrite::Head(id, node) => {
                let mut heads = txn.open_table(HEADS)?;
                if let Some(old) = heads.insert(id.0.as_slice(), encode_stored(node).as_slice())? {
                    shift.drop(named_by_head(&decode_stored(old.value())?));
                }
                shift.add(named_by_head(node));
            }
            HubWrite::Log(logged) => {
                let mut log = txn.open_table(LOG)?;
                if let Some(old) = log.insert(logged.record.seq, encode_stored(logged).as_slice())? {
                    forget(txn, &decode_stored(old.value())?, shift)?;
                }
                let (new, replaced) = named_by_record(logged);
                shift.add(new);
                shift.add(replaced);
                if let (Some(new), Some(replaced)) = (new, replaced)
                    && let Some(delta) = self.contents.take_patch(&replaced, &new)
                {
                    txn.open_table(PATCHES)?.insert(patch_key(&replaced, &new).as_slice(), encode_stored(&delta).as_slice())?;
                }
            }
            HubWrite::Unlog(seq) => {
                if let Some(old) = txn.open_table(LOG)?.remove(seq)? {
                    forget(txn, &decode_stored(old.value())?, shift)?;
                }
            }
            HubWrite::Acked(device, acked) => {
                let mut table = txn.open_table(ACKED)?;
                match acked {
                    Some(acked) => table.insert(u64::from(*device), encode_stored(acked).as_slice())?.is_some(),
                    None => table.remove(u64::from(*device))?.is_some(),
                };
            }
            HubWrite::Counters(counters) => set_meta(txn, COUNTERS, counters)?,
        }
        Ok(())
    }
}

/// A head holds its content even where the node is removed: it may be placed again without its bytes being sent again.
fn named_by_head(node: &Node) -> Option<Hash> {
    node.content.value.blob()
}

/// The content of a record, and the one it replaced.
fn named_by_record(logged: &Logged) -> (Option<Hash>, Option<Hash>) {
    (logged.record.change.content.as_ref().and_then(|content| content.blob()), logged.replaced)
}

fn forget(txn: &WriteTransaction, logged: &Logged, shift: &mut Shift) -> Result<(), StoreError> {
    let (new, replaced) = named_by_record(logged);
    shift.drop(new);
    shift.drop(replaced);
    if let (Some(new), Some(replaced)) = (new, replaced) {
        txn.open_table(PATCHES)?.remove(patch_key(&replaced, &new).as_slice())?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash;

#[cfg(test)]
#[path = "hub_tests.rs"]
mod tests;
