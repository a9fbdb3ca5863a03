//! What a sequencer tells of itself.

use super::Logged;
use super::decide::Sequencer;
use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Seq;
use crate::model::VolumeId;
use crate::model::tree_hash;

/// A registered device as the sequencer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceStatus {
    pub device: DeviceNo,
    /// Everything up to here is durable there, but for `held`.
    pub acked: Seq,
    /// How many records wait there, as a rule in a conflict.
    pub held: usize,
    pub connected: bool,
    pub lapsed: bool,
    /// Milliseconds since 1970; the moment of the last durable note, while connected up to a day old.
    pub last_seen: u64,
    /// The oldest record in the log is there because of this device, perhaps among others.
    pub holds_back: bool,
}

impl Sequencer {
    pub fn volume(&self) -> VolumeId {
        self.volume
    }

    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The newest committed record; it may not be durable yet.
    pub fn seq(&self) -> Seq {
        self.counters.seq
    }

    /// The number of records kept.
    pub fn log_len(&self) -> usize {
        self.log.len()
    }

    /// A record with what belongs to it, as long as it is kept.
    pub fn logged(&self, seq: Seq) -> Option<&Logged> {
        self.log.get(&seq)
    }

    /// A node as it is now, living or removed.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.tree.get(id)
    }

    /// Every node, living or removed.
    pub fn nodes(&self) -> impl Iterator<Item = (&NodeId, &Node)> {
        self.tree.nodes()
    }

    /// The hash over the whole living tree.
    pub fn root_hash(&self) -> Hash {
        tree_hash(self.tree.entries())
    }

    /// Every registered device, ascending.
    pub fn devices(&self) -> Vec<DeviceStatus> {
        let oldest = self.log.keys().next().copied();
        let status = |(device, row): (&DeviceNo, &super::Acked)| DeviceStatus {
            device: *device,
            acked: row.cursor,
            held: row.held.len(),
            connected: self.session_of(*device).is_some(),
            lapsed: row.lapsed,
            last_seen: row.last_seen,
            holds_back: oldest.is_some_and(|seq| !row.lapsed && (row.cursor < seq || row.held.binary_search(&seq).is_ok())),
        };
        self.rows.iter().map(status).collect()
    }
}
