//! What the replica wants durable, in as few transactions as may be.

use super::engine::Engine;
use super::engine::Fault;
use super::engine::RETRY;
use super::engine::now;
use crate::fs::observe::Reading;
use crate::merge::replica::ClientWrite;
use crate::merge::replica::Event;
use crate::model::Content;
use crate::model::Hash;
use crate::model::Name;
use crate::model::NodeId;
use crate::store::BASE_MAX;
use crate::store::StoreError;
use std::collections::BTreeSet;
use std::io;
use std::time::Instant;

/// How many bytes of bases go into one transaction.
const BASES: usize = 32 << 20;
/// So many places are made durable one by one; more of them by one `syncfs`.
const SYNC_EACH: usize = 32;

/// What was seen here and may not have reached the disk.
#[derive(Default)]
pub(super) struct Loose {
    places: BTreeSet<(NodeId, Name)>,
    /// Too much to be named.
    whole: bool,
}

impl Loose {
    pub fn seen(&mut self, places: impl IntoIterator<Item = (NodeId, Name)>, sightings: usize) {
        self.places.extend(places);
        self.whole |= sightings > SYNC_EACH || self.places.len() > SYNC_EACH;
        if self.whole {
            self.places.clear();
        }
    }

    pub fn all(&mut self) {
        self.seen([], usize::MAX);
    }
}

impl Engine {
    /// Makes durable what was placed and what the replica wants written, then says so, and tells the hub what waited for it.
    ///
    /// A full disk stalls the engine and nothing is forgotten; any other failure is a [`Fault`].
    pub fn flush(&mut self) -> Result<(), Fault> {
        if let Some(ticket) = self.ticket {
            self.sync_seen().map_err(|error| Fault::Store(format!("what was saved here is not durable: {error}")))?;
            self.placer.sync_dirs().map_err(|error| Fault::Store(format!("the directory is not durable: {error}")))?;
            if let Err(error) = self.commit() {
                if error.needs_reopen() || !is_full(&error) {
                    return Err(error.into());
                }
                tracing::warn!(%error, "the store cannot be written now");
                let since = self.disk_error.take().map_or_else(now, |(_, since)| since);
                self.disk_error = Some((error.to_string(), since));
                self.stalled = Some(Instant::now() + RETRY);
                return Ok(());
            }
            self.disk_error = None;
            self.writes.clear();
            self.ticket = None;
            self.tell(Event::Persisted { ticket });
        }
        for message in std::mem::take(&mut self.outbox) {
            if let Some(session) = &self.session {
                // A connection that has ended is told in its turn.
                let _ = session.out.send(message);
            }
        }
        Ok(())
    }

    /// What was saved here is made durable before it is proposed or becomes the base: a file that lost its bytes in a power cut, or
    /// its name, would else be an edit of what the hub has by then, or its removal.
    fn sync_seen(&mut self) -> io::Result<()> {
        let Loose { places, mut whole } = std::mem::take(&mut self.loose);
        let dirs: BTreeSet<NodeId> = places.iter().map(|(parent, _)| *parent).collect();
        // What is gone is durably so with its directory.
        let there = places.iter().filter_map(|(parent, name)| self.replica.child(*parent, name));
        let dirs = dirs.iter().copied().filter(|dir| *dir == NodeId::ROOT || self.replica.local(*dir).is_some());
        let nodes: Vec<NodeId> = there.chain(dirs).collect();
        for node in nodes {
            // What is not where it was seen is somewhere else.
            whole = whole || !self.path(node).map_or(Ok(false), |path| self.hands.root.sync(&path))?;
        }
        if whole { Ok(rustix::fs::syncfs(self.hands.root.dir())?) } else { Ok(()) }
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        let mut bases: Vec<(Hash, Vec<u8>)> = Vec::new();
        let mut size = 0;
        let mut taken = BTreeSet::new();
        for write in &self.writes {
            let ClientWrite::Base(id, Some(base)) = write else { continue };
            let Content::File { hash, len } = &base.node.content.value else { continue };
            if *len == 0 || *len > BASE_MAX as u64 || self.kept.contains(hash) || taken.contains(hash) {
                continue;
            }
            let Some(bytes) = self.bytes_of(*id, *hash, *len) else { continue };
            if std::str::from_utf8(&bytes).is_err() {
                // Never merged: known without reading it again.
                self.kept.insert(*hash);
                continue;
            }
            size += bytes.len();
            taken.insert(*hash);
            bases.push((*hash, bytes));
            if size > BASES {
                self.put(&[], &bases)?;
                self.kept.extend(bases.drain(..).map(|(hash, _)| hash));
                size = 0;
            }
        }
        self.put(&self.writes, &bases)?;
        // Not before: what a full disk refused is stored by the next attempt.
        self.kept.extend(bases.into_iter().map(|(hash, _)| hash));
        Ok(())
    }

    fn put(&self, writes: &[ClientWrite], bases: &[(Hash, Vec<u8>)]) -> Result<(), StoreError> {
        let bases: Vec<(Hash, &[u8])> = bases.iter().map(|(hash, bytes)| (*hash, bytes.as_slice())).collect();
        self.hands.with_store(|store| store.commit(writes, &bases))
    }

    /// The bytes of a content, from the file here or from the stage.
    fn bytes_of(&self, node: NodeId, hash: Hash, len: u64) -> Option<Vec<u8>> {
        let holds = self.replica.local(node).is_some_and(|local| local.content.as_ref().and_then(Content::blob) == Some(hash));
        let local = if holds { self.local_bytes(node, len) } else { None };
        local.filter(|bytes| Hash::of(bytes) == hash).or_else(|| self.hands.staged(&hash, len))
    }

    /// The bytes of a file here, while it is as it was seen, at most `limit`.
    pub fn local_bytes(&self, node: NodeId, limit: u64) -> Option<Vec<u8>> {
        let seen = self.replica.local(node)?.fingerprint;
        match self.hands.root.read_all(&self.path(node)?, &seen, limit) {
            Ok(Reading::Read(bytes)) => Some(bytes),
            _ => None,
        }
    }
}

/// Whether the disk has no room.
fn is_full(error: &StoreError) -> bool {
    let StoreError::Io { source, .. } = error else { return false };
    matches!(source.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
}
