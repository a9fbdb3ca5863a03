//! What a client keeps durably, as values: the writes that the replica asks for and the state they add up to.

use crate::model::Change;
use crate::model::Content;
use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::OpId;
use crate::model::Register;
use crate::model::Seq;
use crate::model::VolumeId;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use std::collections::BTreeMap;

/// One durable write of a client. All writes of one [`super::Action::Persist`] belong in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientWrite {
    /// The last agreed version of a node; `None` forgets it.
    Base(NodeId, Option<Base>),
    /// The hub's newest version of a node where it is not the base; `None`: they are equal again.
    Head(NodeId, Option<Node>),
    /// A change that is about to be proposed; `None`: its fate is known.
    Proposed(OpId, Option<Proposed>),
    /// A merged content that is about to be put in place of ours; `None`: it is in place, or was given up.
    Intent(NodeId, Option<Intent>),
    /// A content of ours and one of the hub's that do not merge; `None`: resolved.
    Conflict(NodeId, Option<Conflict>),
    /// Where in the hub's history the client stands.
    Position(Position),
    /// Something a person should be told; the oldest beyond [`MAX_NOTICES`] are forgotten.
    Notice(Notice),
}

/// How many notices are kept.
pub const MAX_NOTICES: usize = 200;

/// The last version of a node on which this client and the hub agreed.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Base {
    pub node: Node,
    /// The file here when it last held the base's content; tells without reading that it still does.
    pub seen: Option<Fingerprint>,
}

/// A change whose proposal may have reached the hub.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Proposed {
    pub node: NodeId,
    pub change: Change,
}

/// A merged content on its way into the file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Intent {
    /// What the file held.
    pub before: Content,
    /// What it will hold.
    pub after: Content,
    /// The hub's version that is merged into `after`: the base as soon as `after` is in place.
    pub base: Register<Content>,
    /// `before` and the hub's version, as parents of `after`.
    pub parents: Vec<Hash>,
}

/// An open conflict of one file.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Conflict {
    /// `None`: both sides added a file at one path.
    pub base: Option<Content>,
    pub ours: Content,
    pub theirs: Content,
    /// When it was noticed, milliseconds since 1970.
    pub since: u64,
}

/// Where in a hub's history a client stands.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Position {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub device: DeviceNo,
    /// The last record received and recorded durably, and the chain hash after it.
    pub cursor: Seq,
    pub chain: Hash,
    /// When the client last knew that it had everything, milliseconds since 1970.
    pub last_sync: u64,
}

/// Something that happened and a person should know; nothing waits for it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Notice {
    /// The path as bytes, relative to the root.
    pub path: Vec<u8>,
    pub what: String,
    /// Milliseconds since 1970.
    pub at: u64,
}

/// All that a client keeps but the bytes of contents, as loaded at its start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClientState {
    pub base: BTreeMap<NodeId, Base>,
    pub head: BTreeMap<NodeId, Node>,
    pub proposed: BTreeMap<OpId, Proposed>,
    pub intents: BTreeMap<NodeId, Intent>,
    pub conflicts: BTreeMap<NodeId, Conflict>,
    pub position: Option<Position>,
    /// Oldest first.
    pub notices: Vec<Notice>,
}

fn set<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

impl ClientState {
    /// The state after `write`; what a store does on disk and the tests do in memory.
    pub fn apply(&mut self, write: &ClientWrite) {
        match write.clone() {
            ClientWrite::Base(id, value) => set(&mut self.base, id, value),
            ClientWrite::Head(id, value) => set(&mut self.head, id, value),
            ClientWrite::Proposed(id, value) => set(&mut self.proposed, id, value),
            ClientWrite::Intent(id, value) => set(&mut self.intents, id, value),
            ClientWrite::Conflict(id, value) => set(&mut self.conflicts, id, value),
            ClientWrite::Position(position) => self.position = Some(position),
            ClientWrite::Notice(notice) => {
                self.notices.push(notice);
                if self.notices.len() > MAX_NOTICES {
                    self.notices.remove(0);
                }
            }
        }
    }
}
