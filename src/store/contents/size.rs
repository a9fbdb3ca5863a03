//! How long a content is.

use super::Contents;
use super::Entry;
use crate::model::Hash;
use crate::store::db::StoreError;

impl Contents {
    /// The length in bytes of a content that is here, durable or not; `None` where it is not.
    pub fn size(&self, hash: &Hash) -> Result<Option<u64>, StoreError> {
        Ok(self.find(hash)?.map(|entry| match entry {
            Entry::Piece(piece) => u64::from(piece.raw),
            Entry::List { len, .. } => len,
        }))
    }
}
