//! The index of contents in redb: where each is, how often it is referenced, what may be collected.

use super::super::db::Bytes;
use super::super::db::StoreError;
use crate::model::Hash;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use crate::wire::Chunk;
use redb::ReadableTable;
use redb::TableDefinition;
use redb::WriteTransaction;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Content hash to [`Entry`].
pub(in crate::store) const CONTENTS: Bytes = Bytes::new("contents");
/// Content hash to the number of heads, log records and chunk lists that name it; no row for none.
pub(in crate::store) const REFS: TableDefinition<&[u8], u64> = TableDefinition::new("refs");
/// Contents that nothing names.
pub(in crate::store) const LOOSE: TableDefinition<&[u8], u64> = TableDefinition::new("loose");
/// List number and part to chunks.
pub(in crate::store) const LISTS: TableDefinition<(u64, u64), &[u8]> = TableDefinition::new("lists");
/// Numbers of lists that no entry uses any more and whose parts are being deleted.
pub(in crate::store) const UNLISTING: TableDefinition<u64, u64> = TableDefinition::new("unlisting");
/// Pack number to its durable bytes and how many of them are live.
pub(in crate::store) const PACKS: TableDefinition<u64, (u64, u64)> = TableDefinition::new("packs");
/// Base and result hash to the stored value of an uploaded delta.
pub(in crate::store) const PATCHES: Bytes = Bytes::new("patches");

/// Chunks in one part of a list.
const PART: usize = 1024;

/// Where a content is.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub(in crate::store) enum Entry {
    Piece(Piece),
    List { len: u64, list: u64 },
}

/// A record in a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(in crate::store) struct Piece {
    pub pack: u64,
    pub offset: u64,
    /// Length of the frame and of the content in it, in bytes.
    pub stored: u32,
    pub raw: u32,
}

impl Piece {
    /// The bytes its record takes in the pack.
    pub fn size(&self) -> u64 {
        super::pack::HEADER as u64 + u64::from(self.stored)
    }
}

/// Makes the tables.
pub(in crate::store) fn make_tables(txn: &WriteTransaction) -> Result<(), StoreError> {
    txn.open_table(CONTENTS)?;
    txn.open_table(REFS)?;
    txn.open_table(LOOSE)?;
    txn.open_table(LISTS)?;
    txn.open_table(UNLISTING)?;
    txn.open_table(PACKS)?;
    txn.open_table(PATCHES)?;
    Ok(())
}

/// Changes of reference counts that add up within a transaction.
#[derive(Default)]
pub(in crate::store) struct Shift(BTreeMap<Hash, i64>);

impl Shift {
    pub fn add(&mut self, hash: Option<Hash>) {
        self.by(hash, 1);
    }

    pub fn drop(&mut self, hash: Option<Hash>) {
        self.by(hash, -1);
    }

    fn by(&mut self, hash: Option<Hash>, difference: i64) {
        if let Some(hash) = hash {
            *self.0.entry(hash).or_default() += difference;
        }
    }

    /// The contents that gained a reference.
    pub fn named(&self) -> impl Iterator<Item = &Hash> {
        self.0.iter().filter(|(_, difference)| **difference > 0).map(|(hash, _)| hash)
    }

    /// Writes the counts. What falls to no reference is loose from then on, what rises from there is not any more.
    pub fn write(&self, txn: &WriteTransaction) -> Result<(), StoreError> {
        if self.0.values().all(|&difference| difference == 0) {
            return Ok(());
        }
        let mut refs = txn.open_table(REFS)?;
        let mut loose = txn.open_table(LOOSE)?;
        for (hash, &difference) in self.0.iter().filter(|(_, difference)| **difference != 0) {
            let key = hash.0.as_slice();
            let before = refs.get(key)?.map_or(0, |count| count.value());
            let after = before.checked_add_signed(difference).ok_or_else(|| StoreError::Damaged {
                path: "hub.redb".into(),
                why: format!("content {hash} lost more references than it had"),
            })?;
            match after {
                0 => {
                    refs.remove(key)?;
                    loose.insert(key, 0)?;
                }
                _ => {
                    refs.insert(key, after)?;
                    if before == 0 {
                        loose.remove(key)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// The entry of `hash`.
pub(in crate::store) fn entry(
    table: &impl ReadableTable<&'static [u8], &'static [u8]>,
    hash: &Hash,
) -> Result<Option<Entry>, StoreError> {
    match table.get(hash.0.as_slice())? {
        Some(value) => Ok(Some(decode_stored(value.value())?)),
        None => Ok(None),
    }
}

/// The chunks of list number `list`.
pub(in crate::store) fn list_chunks(
    table: &impl ReadableTable<(u64, u64), &'static [u8]>,
    list: u64,
) -> Result<Vec<Chunk>, StoreError> {
    let mut chunks = Vec::new();
    for part in table.range((list, 0)..=(list, u64::MAX))? {
        chunks.extend(decode_stored::<Vec<Chunk>>(part?.1.value())?);
    }
    Ok(chunks)
}

/// Writes the entries that are new; the record of a content that got an entry meanwhile is garbage.
pub(in crate::store) fn insert_pieces<'a>(
    txn: &WriteTransaction,
    pieces: impl Iterator<Item = (&'a Hash, &'a Piece)>,
) -> Result<(), StoreError> {
    let mut contents = txn.open_table(CONTENTS)?;
    let refs = txn.open_table(REFS)?;
    let mut loose = txn.open_table(LOOSE)?;
    let mut packs = txn.open_table(PACKS)?;
    for (hash, piece) in pieces {
        let key = hash.0.as_slice();
        let known = contents.get(key)?.is_some();
        let (durable, live) = packs.get(piece.pack)?.map_or((0, 0), |row| row.value());
        let gained = if known { 0 } else { piece.size() };
        packs.insert(piece.pack, (durable.max(piece.offset + piece.size()), live + gained))?;
        if !known {
            contents.insert(key, encode_stored(&Entry::Piece(*piece)).as_slice())?;
            if refs.get(key)?.is_none() {
                loose.insert(key, 0)?;
            }
        }
    }
    Ok(())
}

/// Writes the chunk lists that are new; each references its chunks from here on. A list with a chunk that is gone is left out: its
/// content is not here, whoever names it is told so and sends it again.
pub(in crate::store) fn insert_lists<'a>(
    txn: &WriteTransaction,
    new: impl Iterator<Item = (&'a Hash, &'a Arc<(u64, Vec<Chunk>)>)>,
    shift: &mut Shift,
) -> Result<(), StoreError> {
    let mut contents = txn.open_table(CONTENTS)?;
    let refs = txn.open_table(REFS)?;
    let mut loose = txn.open_table(LOOSE)?;
    let mut lists = txn.open_table(LISTS)?;
    for (hash, content) in new {
        let (len, chunks) = content.as_ref();
        let key = hash.0.as_slice();
        if contents.get(key)?.is_some() || !all_known(&contents, chunks)? {
            continue;
        }
        let list = lists.last()?.map_or(1, |(key, _)| key.value().0 + 1);
        for (part, chunks) in chunks.chunks(PART).enumerate() {
            lists.insert((list, part as u64), encode_stored(&chunks.to_vec()).as_slice())?;
        }
        for chunk in chunks {
            shift.add(Some(chunk.hash));
        }
        contents.insert(key, encode_stored(&Entry::List { len: *len, list }).as_slice())?;
        if refs.get(key)?.is_none() {
            loose.insert(key, 0)?;
        }
    }
    Ok(())
}

fn all_known(contents: &impl ReadableTable<&'static [u8], &'static [u8]>, chunks: &[Chunk]) -> Result<bool, StoreError> {
    for chunk in chunks {
        if contents.get(chunk.hash.0.as_slice())?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes that a record in a pack no longer needs.
pub(in crate::store) fn release(txn: &WriteTransaction, piece: &Piece) -> Result<(), StoreError> {
    let mut packs = txn.open_table(PACKS)?;
    let row = packs.get(piece.pack)?.map(|row| row.value());
    if let Some((durable, live)) = row {
        packs.insert(piece.pack, (durable, live.saturating_sub(piece.size())))?;
    }
    Ok(())
}

/// The key of the patch from `from` to `to`.
pub(in crate::store) fn patch_key(from: &Hash, to: &Hash) -> [u8; 64] {
    std::array::from_fn(|i| if i < 32 { from.0[i] } else { to.0[i - 32] })
}
