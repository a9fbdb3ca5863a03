//! What the tasks of a running hub share.

use super::gate::Gate;
use super::writer::Input;
use crate::model::Hash;
use crate::store::HubStore;
use crate::store::StoreError;
use crate::wire::Delta;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::Weak;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;

/// Operations on contents that work at once.
const WORKERS: usize = 16;
/// The longest delta that travels along with a record, in bytes.
const RIDE_MAX: usize = 4 << 10;
/// Deltas remembered for the next client that gets the same record.
const DELTAS: usize = 512;

pub(super) struct Shared {
    pub gate: Gate,
    pub inputs: mpsc::Sender<Input>,
    /// The next session's number.
    pub sessions: AtomicU64,
    /// The open store; nothing while it is reopened after a failure.
    shelf: RwLock<Option<Arc<HubStore>>>,
    /// The store that was opened last, for as long as anybody uses it.
    last: Mutex<Weak<HubStore>>,
    workers: Semaphore,
    deltas: Mutex<BTreeMap<(Hash, Hash), Option<Delta>>>,
}

/// Why an operation on contents was not done.
#[derive(Debug)]
pub(super) enum Failure {
    /// The store is being reopened, or the hub is ending.
    Unavailable,
    Store(StoreError),
}

impl Shared {
    pub fn new(gate: Gate, inputs: mpsc::Sender<Input>) -> Self {
        Self {
            gate,
            inputs,
            sessions: AtomicU64::new(1),
            shelf: RwLock::new(None),
            last: Mutex::new(Weak::new()),
            workers: Semaphore::new(WORKERS),
            deltas: Mutex::new(BTreeMap::new()),
        }
    }

    /// Puts the store where the tasks find it, or takes it away.
    pub fn set_store(&self, store: Option<Arc<HubStore>>) {
        if let Some(store) = &store {
            *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(store);
        }
        *self.shelf.write().unwrap_or_else(PoisonError::into_inner) = store;
    }

    /// Whether anybody still uses the store that was opened last.
    pub fn store_in_use(&self) -> bool {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).strong_count() > 0
    }

    /// Works on the store on a thread that may block. A failure after which the store must be reopened is told to the writer.
    pub async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&HubStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Failure> {
        let _worker = self.workers.acquire().await.map_err(|_| Failure::Unavailable)?;
        let store = self.shelf.read().unwrap_or_else(PoisonError::into_inner).clone().ok_or(Failure::Unavailable)?;
        let done = tokio::task::spawn_blocking(move || work(&store)).await.map_err(|_| Failure::Unavailable)?;
        if let Err(error) = &done
            && error.needs_reopen()
        {
            // A writer that is gone has nothing to reopen.
            let _ = self.inputs.send(Input::StoreFailed).await;
        }
        done.map_err(Failure::Store)
    }

    /// A small delta between two contents, where there is one.
    pub async fn riding_delta(&self, from: Hash, to: Hash) -> Option<Delta> {
        if let Some(known) = self.deltas.lock().unwrap_or_else(PoisonError::into_inner).get(&(from, to)) {
            return known.clone();
        }
        let made = self.work(move |store| store.contents().delta_for(&from, &to)).await;
        // Without it the client asks for the content, which tells it what is the matter.
        let made = made.ok()?.filter(|delta| delta.bytes.len() <= RIDE_MAX);
        let mut deltas = self.deltas.lock().unwrap_or_else(PoisonError::into_inner);
        if deltas.len() >= DELTAS {
            deltas.clear();
        }
        deltas.insert((from, to), made.clone());
        made
    }
}
