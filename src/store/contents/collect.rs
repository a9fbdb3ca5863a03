//! Deletes contents that nothing names, and rewrites packs that are mostly garbage.

use super::Contents;
use super::Shared;
use super::hold;
use super::index;
use super::index::Entry;
use super::index::Piece;
use super::index::Shift;
use super::pack;
use crate::model::Hash;
use crate::model::codec::decode_stored;
use crate::model::codec::encode_stored;
use crate::store::db::StoreError;
use crate::store::db::at;
use redb::ReadableTable;
use redb::ReadableTableMetadata;
use redb::WriteTransaction;
use std::io;
use std::time::Instant;

impl Shared {
    fn is_wanted(&self, hash: &Hash) -> bool {
        self.pins.contains_key(hash) || self.lists.contains_key(hash)
    }
}

impl Contents {
    /// Deletes up to about `slice` unnamed contents and references of chunk lists in one transaction; where there are none, rewrites
    /// at most one pack (256 MiB) of which less than half is live. Returns how much was done; 0: nothing is left for now.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] once for each pack that has lost records; it is left as it is until the next opening.
    pub fn collect(&self, slice: usize) -> Result<usize, StoreError> {
        let now = Instant::now();
        hold(&self.shared).pins.retain(|_, until| *until > now);
        // Looked for by reading first, so that commits do not wait where there is nothing to delete.
        let idle = {
            let txn = self.db.read()?;
            txn.open_table(index::UNLISTING)?.is_empty()? && self.choose(&txn.open_table(index::LOOSE)?, 1)?.is_empty()
        };
        let done = if idle { 0 } else { self.delete_slice(slice)? };
        match done {
            0 => Ok(usize::from(self.rewrite()?)),
            done => Ok(done),
        }
    }
}

impl Contents {
    fn delete_slice(&self, slice: usize) -> Result<usize, StoreError> {
        let txn = self.db.write()?;
        let done = self.delete(&txn, slice);
        let ended = match done {
            Ok(0) | Err(_) => txn.abort().map_err(StoreError::from),
            Ok(_) => txn.commit().map_err(StoreError::from),
        };
        hold(&self.shared).dying.clear();
        done.and_then(|done| ended.map(|()| done))
    }

    fn delete(&self, txn: &WriteTransaction, slice: usize) -> Result<usize, StoreError> {
        let mut shift = Shift::default();
        let mut done = self.delete_lists(txn, slice, &mut shift)?;
        for hash in self.doom(txn, slice.saturating_sub(done))? {
            done += 1;
            let key = hash.0.as_slice();
            txn.open_table(index::LOOSE)?.remove(key)?;
            let entry = index::entry(&txn.open_table(index::CONTENTS)?, &hash)?;
            txn.open_table(index::CONTENTS)?.remove(key)?;
            match entry {
                Some(Entry::Piece(piece)) => index::release(txn, &piece)?,
                Some(Entry::List { list, .. }) => {
                    txn.open_table(index::UNLISTING)?.insert(list, 0)?;
                }
                None => {}
            }
        }
        shift.write(txn)?;
        Ok(done)
    }

    /// Takes parts of lists that are not used any more, and the references in them.
    fn delete_lists(&self, txn: &WriteTransaction, slice: usize, shift: &mut Shift) -> Result<usize, StoreError> {
        let mut unlisting = txn.open_table(index::UNLISTING)?;
        let mut lists = txn.open_table(index::LISTS)?;
        let mut done = 0;
        while done < slice {
            let Some(list) = unlisting.first()?.map(|(list, _)| list.value()) else { break };
            let part = match lists.range((list, 0)..=(list, u64::MAX))?.next() {
                Some(row) => {
                    let (key, chunks) = row?;
                    for chunk in decode_stored::<Vec<crate::wire::Chunk>>(chunks.value())? {
                        shift.drop(Some(chunk.hash));
                        done += 1;
                    }
                    Some(key.value())
                }
                None => None,
            };
            match part {
                Some(key) => lists.remove(key)?.is_some(),
                None => {
                    done += 1;
                    unlisting.remove(list)?.is_some()
                }
            };
        }
        Ok(done)
    }

    /// Chooses contents to delete; from here on they are as good as gone.
    fn doom(&self, txn: &WriteTransaction, most: usize) -> Result<Vec<Hash>, StoreError> {
        let loose = txn.open_table(index::LOOSE)?;
        let mut chosen = self.choose(&loose, most)?;
        let mut shared = hold(&self.shared);
        chosen.retain(|hash| !shared.is_wanted(hash));
        shared.dying.extend(chosen.iter().copied());
        Ok(chosen)
    }

    /// Unnamed contents that nobody may be about to name, as far as one can tell now.
    fn choose(&self, loose: &impl ReadableTable<&'static [u8], u64>, most: usize) -> Result<Vec<Hash>, StoreError> {
        let mut chosen = Vec::new();
        for row in loose.iter()? {
            if chosen.len() >= most {
                break;
            }
            let key = row?.0;
            let hash = Hash(key.value().try_into().map_err(|_| self.db.damaged("a hash of another length"))?);
            if !hold(&self.shared).is_wanted(&hash) {
                chosen.push(hash);
            }
        }
        Ok(chosen)
    }

    /// Copies what is live in the emptiest pack to the end of the active one and deletes it, where less than half is live.
    fn rewrite(&self) -> Result<bool, StoreError> {
        let _flush = hold(&self.flush);
        if hold(&self.shared).failed {
            return Err(StoreError::Failed);
        }
        let (active, spared) = {
            let shared = hold(&self.shared);
            (shared.active.as_ref().map(|active| active.number), shared.spared.clone())
        };
        let mut worst: Option<(u64, u64, u64)> = None;
        for row in self.db.read()?.open_table(index::PACKS)?.iter()? {
            let (number, sizes) = row?;
            let (number, (durable, live)) = (number.value(), sizes.value());
            if Some(number) != active
                && !spared.contains(&number)
                && live * 2 < durable
                && worst.is_none_or(|(_, _, least)| live < least)
            {
                worst = Some((number, durable, live));
            }
        }
        let Some((number, durable, live)) = worst else { return Ok(false) };
        let moves = if live == 0 { Ok(Vec::new()) } else { self.copy_live(number, durable) };
        if let Err(StoreError::Damaged { .. }) = moves {
            hold(&self.shared).spared.insert(number);
        }
        let moves = moves?;
        let dirty = std::mem::take(&mut hold(&self.shared).dirty);
        let moved = self.sync(dirty).and_then(|()| self.record_moves(number, &moves));
        if let Err(error) = moved {
            hold(&self.shared).failed = true;
            return Err(error);
        }
        hold(&self.files).remove(&number);
        let path = pack::path_of(&self.dir, number);
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(&path)(error)),
            _ => Ok(true),
        }
    }

    fn copy_live(&self, number: u64, durable: u64) -> Result<Vec<(Hash, Piece, Piece)>, StoreError> {
        let path = pack::path_of(&self.dir, number);
        let damaged = |offset: u64| StoreError::Damaged { path: path.clone(), why: format!("no record at {offset}") };
        let file = self.file(number)?;
        let txn = self.db.read()?;
        let contents = txn.open_table(index::CONTENTS)?;
        let mut moves = Vec::new();
        let mut offset = 0;
        while offset < durable {
            let header = pack::read_header(&file, offset).map_err(at(&path))?.ok_or_else(|| damaged(offset))?;
            let old = Piece { pack: number, offset, stored: header.stored, raw: header.raw };
            if index::entry(&contents, &header.hash)? == Some(Entry::Piece(old)) {
                let frame = pack::read_frame(&file, offset, header.stored, &header.hash).map_err(at(&path))?;
                let record = pack::record(&header.hash, header.raw, &frame.ok_or_else(|| damaged(offset))?);
                let new = self.append(&mut hold(&self.shared), header.raw, &record)?;
                moves.push((header.hash, old, new));
            }
            offset += old.size();
        }
        Ok(moves)
    }

    fn record_moves(&self, number: u64, moves: &[(Hash, Piece, Piece)]) -> Result<(), StoreError> {
        let txn = self.db.write()?;
        {
            let mut contents = txn.open_table(index::CONTENTS)?;
            let mut packs = txn.open_table(index::PACKS)?;
            for (hash, old, new) in moves {
                let live = index::entry(&contents, hash)? == Some(Entry::Piece(*old));
                if live {
                    contents.insert(hash.0.as_slice(), encode_stored(&Entry::Piece(*new)).as_slice())?;
                }
                let (durable, before) = packs.get(new.pack)?.map_or((0, 0), |row| row.value());
                let gained = if live { new.size() } else { 0 };
                packs.insert(new.pack, (durable.max(new.offset + new.size()), before + gained))?;
            }
            packs.remove(number)?;
        }
        txn.commit()?;
        Ok(())
    }
}
