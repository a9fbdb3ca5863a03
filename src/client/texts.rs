//! Three-way merges: the bytes of the three versions, and what came out of them.

use super::engine::Engine;
use super::engine::now;
use crate::merge::replica::Event;
use crate::merge::replica::MergeOutcome;
use crate::merge::text::Merge;
use crate::merge::text::merge;
use crate::model::Content;
use crate::model::Hash;
use crate::model::NodeId;
use crate::store::BASE_MAX;
use crate::wire::Hello;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;
use tokio::sync::oneshot;

/// What waits for something else to come.
#[derive(Default)]
pub(super) struct Waiting {
    /// Merges that wait for a content, or for room on the disk.
    pub merges: BTreeMap<NodeId, (Option<Content>, Content, Content)>,
    /// Contents asked for on their behalf.
    asked: BTreeSet<Hash>,
    /// Contents that cannot be had.
    unavailable: BTreeSet<Hash>,
    /// A connection that waits for the first complete look.
    pub hello: Option<oneshot::Sender<Hello>>,
}

impl Waiting {
    pub fn arrived(&mut self, hashes: &[Hash]) {
        self.asked.retain(|hash| !hashes.contains(hash));
    }

    /// What was asked for is asked for again: the answers were thrown away.
    pub fn forget(&mut self) {
        self.merges.clear();
        self.asked.clear();
        self.unavailable.clear();
    }

    /// `final_word`: the hub itself does not have it.
    pub fn failed(&mut self, hash: &Hash, final_word: bool) {
        if self.asked.remove(hash) && final_word {
            self.unavailable.insert(*hash);
        }
    }
}

enum Bytes {
    Here(Vec<u8>),
    Missing(Hash, u64),
}

impl Engine {
    pub fn merge(&mut self, node: NodeId, base: Option<Content>, ours: Content, theirs: Content) {
        if let Some(outcome) = self.merged(node, base.as_ref(), &ours, &theirs) {
            self.waiting.merges.remove(&node);
            self.tell(Event::Merged { node, base, ours, theirs, outcome });
        } else {
            self.waiting.merges.insert(node, (base, ours, theirs));
        }
    }

    /// Tries again the merges that had to wait.
    pub fn retry_merges(&mut self) {
        for (node, (base, ours, theirs)) in std::mem::take(&mut self.waiting.merges) {
            self.merge(node, base, ours, theirs);
        }
    }

    /// The outcome; none while a version is on its way or the disk has no room.
    fn merged(&mut self, node: NodeId, base: Option<&Content>, ours: &Content, theirs: &Content) -> Option<MergeOutcome> {
        let local = self.replica.local(node)?;
        let (place, is_as_seen) = (local.place.clone(), local.content.as_ref() == Some(ours));
        let ours = match ours.blob() {
            None => Vec::new(),
            Some(_) if !is_as_seen => return Some(MergeOutcome::Conflict),
            Some(_) => match self.local_bytes(node, BASE_MAX as u64) {
                Some(bytes) => bytes,
                None => {
                    // It has changed since: what is there now is another merge, and this one's outcome means nothing.
                    self.observe(BTreeSet::from([(place.parent, place.name)]));
                    let again = self.replica.local(node).and_then(|local| local.content.as_ref());
                    return (again != Some(ours)).then_some(MergeOutcome::Conflict);
                }
            },
        };
        let mut texts = Vec::new();
        for content in [base, Some(theirs)] {
            match self.version(content) {
                Bytes::Here(bytes) => texts.push(bytes),
                Bytes::Missing(hash, len) => return self.get_version(node, hash, len),
            }
        }
        let [base, theirs] = texts.as_slice() else { return Some(MergeOutcome::Conflict) };
        let merged = catch_unwind(AssertUnwindSafe(|| merge(base, &ours, theirs)));
        let Ok(Merge::Clean(bytes)) = merged else { return Some(MergeOutcome::Conflict) };
        let staged = self.hands.stage_bytes(&bytes).map_err(|error| error.to_string());
        let staged = staged.and_then(|hash| self.hands.stage.sync(&[hash]).map_err(|error| error.to_string()));
        match staged {
            Ok(()) => Some(MergeOutcome::Clean(Content::file(&bytes))),
            Err(why) => {
                self.disk_error = Some((format!("a merge cannot be staged: {why}"), now()));
                None
            }
        }
    }

    fn version(&self, content: Option<&Content>) -> Bytes {
        let Some(Content::File { hash, len }) = content else { return Bytes::Here(Vec::new()) };
        if *len == 0 {
            return Bytes::Here(Vec::new());
        }
        match self.hands.base(hash).or_else(|| self.hands.staged(hash, *len)) {
            Some(bytes) => Bytes::Here(bytes),
            None => Bytes::Missing(*hash, *len),
        }
    }

    /// Asks the hub for a version that is not here. Without a connection the merge waits for one.
    fn get_version(&mut self, node: NodeId, hash: Hash, len: u64) -> Option<MergeOutcome> {
        if self.waiting.unavailable.remove(&hash) {
            return Some(MergeOutcome::Conflict);
        }
        if self.session.is_some() && self.waiting.asked.insert(hash) {
            self.fetch_for_merge(node, hash, len);
        }
        None
    }

    /// The bytes of a version, if they are here.
    pub fn version_bytes(&self, content: Option<&Content>) -> Option<Vec<u8>> {
        match self.version(content) {
            Bytes::Here(bytes) => Some(bytes),
            Bytes::Missing(..) => None,
        }
    }
}
