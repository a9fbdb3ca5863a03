//! Changes: what a device proposes, what a hub commits, what it answers.

use super::codec::Decode;
use super::codec::Encode;
use super::node::Attrs;
use super::node::Content;
use super::node::Hash;
use super::node::Node;
use super::node::NodeId;
use super::node::Place;
use super::node::Register;
use super::node::Seq;
use std::fmt;

/// The stable number of a registered device; acknowledgements and authorship hang on it, keys may change.
pub type DeviceNo = u32;

/// The random identity of one proposed change; a change sent twice is committed once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct OpId(pub [u8; 16]);

impl fmt::Debug for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// New values for one or more registers of a node; a node is created by writing all three.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct Change {
    /// `Some(None)` removes the node.
    pub place: Option<Option<Place>>,
    pub content: Option<Content>,
    pub attrs: Option<Attrs>,
    /// The versions that a merged or resolved content was made from, none for an ordinary save; at most two.
    pub parents: Vec<Hash>,
}

impl Change {
    /// `node` after this change was committed as `seq`; `None` where the node is not there and the change does not make it.
    pub fn apply(&self, node: Option<&Node>, seq: Seq) -> Option<Node> {
        match node {
            Some(node) => {
                let mut node = node.clone();
                if let Some(place) = &self.place {
                    node.place = Register { seq, value: place.clone() };
                }
                if let Some(content) = &self.content {
                    node.content = Register { seq, value: content.clone() };
                }
                if let Some(attrs) = &self.attrs {
                    node.attrs = Register { seq, value: *attrs };
                }
                Some(node)
            }
            None => Some(Node {
                place: Register { seq, value: self.place.clone()? },
                content: Register { seq, value: self.content.clone()? },
                attrs: Register { seq, value: self.attrs? },
            }),
        }
    }
}

/// A proposal for one node: commit `change` if the registers it writes still have the expected sequence numbers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Op {
    pub id: OpId,
    pub node: NodeId,
    /// The place register's expected number; 0 with all three registers written: the node must not exist yet.
    pub expect_place: Seq,
    /// The content register's expected number. Attributes are never stale: the later in hub order stands.
    pub expect_content: Seq,
    pub change: Change,
}

/// One committed change.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Record {
    pub seq: Seq,
    pub node: NodeId,
    pub change: Change,
    pub author: DeviceNo,
    pub op: OpId,
    /// When the hub committed it, milliseconds since 1970 by its clock; shown to people, decides nothing.
    pub at: u64,
}

/// A hub's answer to one [`Op`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Verdict {
    Committed(Seq),
    /// A register has moved on, or the node is there already or not at all: the node as it is now.
    Stale(Option<Node>),
    /// Another living node has the name.
    NameTaken(NodeId),
    /// The node would become its own ancestor.
    WouldCycle,
    /// A directory with living children cannot be removed.
    NotEmpty,
    /// The wanted parent is removed, unknown or no directory.
    NoParent,
    /// The named content is not durable on the hub: send it first.
    NoContent,
    /// Another change of the same atomic group was not acceptable.
    GroupFailed,
    Refused(Refusal),
}

/// A proposal that will not be accepted however often it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// The device may read only.
    ReadOnly,
    /// The change is malformed: a reserved node, another kind, a target too long.
    Malformed,
    /// The device is not registered any more.
    NotRegistered,
}
