//! Deltas between contents: offered with an upload, kept with a record, or made anew.

use super::Contents;
use super::PATCHES;
use super::hold;
use super::patch_key;
use crate::merge::delta;
use crate::model::Hash;
use crate::model::codec::decode_stored;
use crate::store::db::StoreError;
use crate::wire::Delta;

/// Bytes of offered patches that wait for their record; beyond it they are forgotten and deltas are made anew.
const OFFERED_MAX: usize = 16 << 20;

impl Contents {
    /// Remembers an uploaded and verified delta to the content `to`, to be kept with the record that replaces the delta's base by it.
    pub fn offer_patch(&self, to: &Hash, delta: Delta) {
        let mut shared = hold(&self.shared);
        if shared.offered_bytes + delta.bytes.len() > OFFERED_MAX {
            shared.offered.clear();
            shared.offered_bytes = 0;
        }
        shared.offered_bytes += delta.bytes.len();
        if let Some(old) = shared.offered.insert((delta.base, *to), delta) {
            shared.offered_bytes -= old.bytes.len();
        }
    }

    /// A delta from one content to another: the uploaded one where there is one, else made from both where both are here and small.
    /// `None` where sending the content is as good.
    pub fn delta_for(&self, from: &Hash, to: &Hash) -> Result<Option<Delta>, StoreError> {
        if let Some(delta) = hold(&self.shared).offered.get(&(*from, *to)) {
            return Ok(Some(delta.clone()));
        }
        if let Some(value) = self.db.read()?.open_table(PATCHES)?.get(patch_key(from, to).as_slice())? {
            return Ok(Some(decode_stored(value.value())?));
        }
        let Some(new) = self.read(to, delta::DELTA_MAX)? else { return Ok(None) };
        let Some(base) = self.read(from, delta::DELTA_MAX)? else { return Ok(None) };
        Ok(delta::make(&base, &new))
    }

    /// The offered delta between the two, which then belongs to the caller's transaction.
    pub(in crate::store) fn take_patch(&self, from: &Hash, to: &Hash) -> Option<Delta> {
        let mut shared = hold(&self.shared);
        let delta = shared.offered.remove(&(*from, *to))?;
        shared.offered_bytes -= delta.bytes.len();
        Some(delta)
    }
}
