//! What a hub keeps durably, as values: the writes that the sequencer asks for and the state they add up to.

use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Record;
use crate::model::Seq;
use crate::model::VolumeId;
use crate::model::codec::Decode;
use crate::model::codec::Encode;
use std::collections::BTreeMap;

/// One durable write of a hub. All writes of one [`super::Action::Persist`] belong in one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HubWrite {
    /// The node's present registers, living or removed.
    Head(NodeId, Node),
    /// A committed record, which every registered client still has to acknowledge.
    Log(Logged),
    /// Every registered client has applied the record: it and its patch are deleted.
    Unlog(Seq),
    /// What a device has acknowledged; `None` when the device does not count any more.
    Acked(DeviceNo, Option<Acked>),
    /// The sequencer's own numbers.
    Counters(Counters),
}

/// A record in the log with the chain hash after it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Logged {
    pub record: Record,
    pub chain: Hash,
    /// The content that the record's content replaced, so that a delta can be made for whoever holds it.
    pub replaced: Option<Hash>,
}

/// A device's acknowledgement: everything up to `cursor` is durably applied there, all but `held`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Acked {
    pub cursor: Seq,
    /// Ascending, each at most `cursor`.
    pub held: Vec<Seq>,
    /// When the device was last connected, milliseconds since 1970.
    pub last_seen: u64,
    /// Silent past the limit: does not hold the log back any more, and re-baselines when it returns.
    pub lapsed: bool,
}

/// The sequencer's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Counters {
    /// The newest committed record.
    pub seq: Seq,
    /// The chain hash after it.
    pub chain: Hash,
    /// The newest record deleted from the log.
    pub floor: Seq,
    /// The chain hash after `floor`.
    pub floor_chain: Hash,
}

/// All that a hub keeps, as loaded at its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubState {
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub counters: Counters,
    pub heads: BTreeMap<NodeId, Node>,
    pub log: BTreeMap<Seq, Logged>,
    pub acked: BTreeMap<DeviceNo, Acked>,
}

impl HubState {
    /// An empty volume.
    pub fn new(volume: VolumeId, epoch: Epoch) -> Self {
        let start = Hash::of(&epoch.0);
        Self {
            volume,
            epoch,
            counters: Counters { seq: 0, chain: start, floor: 0, floor_chain: start },
            heads: BTreeMap::new(),
            log: BTreeMap::new(),
            acked: BTreeMap::new(),
        }
    }

    /// The state after `write`; what a store does on disk and the tests do in memory.
    pub fn apply(&mut self, write: &HubWrite) {
        match write {
            HubWrite::Head(id, node) => {
                self.heads.insert(*id, node.clone());
            }
            HubWrite::Log(logged) => {
                self.log.insert(logged.record.seq, logged.clone());
            }
            HubWrite::Unlog(seq) => {
                self.log.remove(seq);
            }
            HubWrite::Acked(device, Some(acked)) => {
                self.acked.insert(*device, acked.clone());
            }
            HubWrite::Acked(device, None) => {
                self.acked.remove(device);
            }
            HubWrite::Counters(counters) => self.counters = *counters,
        }
    }
}
