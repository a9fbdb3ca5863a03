//! What the engine and its tasks work on together.

use crate::fs::gate::Gate;
use crate::fs::root::Root;
use crate::fs::stage::Stage;
use crate::fs::stage::StageError;
use crate::model::Hash;
use crate::store::ClientStore;
use crate::store::StoreError;
use std::io::Read;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;

/// The directory, the stage, the store and the gate.
pub(super) struct Hands {
    pub root: Arc<Root>,
    pub stage: Arc<Stage>,
    pub gate: Arc<Gate>,
    /// Empty while it is opened again after a failure.
    store: RwLock<Option<ClientStore>>,
}

impl Hands {
    pub fn new(root: Arc<Root>, stage: Arc<Stage>, gate: Arc<Gate>, store: ClientStore) -> Self {
        Self { root, stage, gate, store: RwLock::new(Some(store)) }
    }

    /// Works with the store; nobody closes it meanwhile.
    pub fn with_store<T>(&self, work: impl FnOnce(&ClientStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let store = self.store.read().unwrap_or_else(PoisonError::into_inner);
        work(store.as_ref().ok_or(StoreError::Failed)?)
    }

    /// Closes the store and opens it again with `open`.
    pub fn reopen(&self, open: impl FnOnce() -> Result<ClientStore, StoreError>) -> Result<(), StoreError> {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        *store = None;
        *store = Some(open()?);
        Ok(())
    }

    /// Closes the store for good.
    pub fn close(&self) {
        *self.store.write().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// The bytes of a base, if they are kept here; a failure is as good as "no" and is said by whoever writes next.
    pub fn base(&self, hash: &Hash) -> Option<Vec<u8>> {
        match self.with_store(|store| store.base(hash)) {
            Ok(bytes) => bytes,
            Err(error) => {
                tracing::warn!(%error, %hash, "a base cannot be read");
                None
            }
        }
    }

    /// The bytes of a staged content of at most `limit` bytes.
    pub fn staged(&self, hash: &Hash, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.stage.open_content(hash).ok()??;
        file.take(limit + 1).read_to_end(&mut bytes).ok()?;
        (bytes.len() as u64 <= limit && Hash::of(&bytes) == *hash).then_some(bytes)
    }

    /// Stages bytes; durable after [`Stage::sync`].
    pub fn stage_bytes(&self, bytes: &[u8]) -> Result<Hash, StageError> {
        let hash = Hash::of(bytes);
        if !self.stage.has(&hash)? {
            let mut writer = self.stage.writer(hash, bytes.len() as u64)?;
            writer.write(bytes)?;
            writer.finish()?;
        }
        Ok(hash)
    }
}
