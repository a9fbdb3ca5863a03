//! Floor 1: the messages of protocol `syncfs/1` as values, and their frames. No socket here; `net` carries them.
//!
//! A frame is `[u32 length][u16 kind][u16 version]`, little-endian, and the body. The length counts the body only and is checked
//! against the maximum of the kind before anything is allocated. The control stream is the first bidirectional stream, opened by the
//! client: `Hello`, `Welcome`, then [`ToHub`] one way and [`ToClient`] the other. Every content request has its own stream.

mod frame;

pub use frame::FrameError;
pub use frame::HEADER_LEN;
pub use frame::Wire;
pub use frame::frame;
pub use frame::parse_header;
pub use frame::unframe;

use crate::model::DeviceNo;
use crate::model::Epoch;
use crate::model::Hash;
use crate::model::Node;
use crate::model::NodeId;
use crate::model::Op;
use crate::model::Record;
use crate::model::Seq;
use crate::model::Verdict;
use crate::model::VolumeId;
use crate::model::codec::Decode;
use crate::model::codec::Encode;

/// The protocol version this program speaks.
pub const PROTOCOL: u16 = 1;
/// The most groups in one [`ToHub::Propose`].
pub const MAX_GROUPS: usize = 1000;
/// The most records in one [`ToClient::Records`].
pub const MAX_RECORDS: usize = 500;
/// The most held records in one [`ToHub::Ack`].
pub const MAX_HELD: usize = 1000;
/// The largest uncompressed chunk, in bytes; contents up to this size travel whole.
pub const CHUNK_MAX: usize = 256 << 10;

/// The first message of a client on its control stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Hello {
    pub protocol: u16,
    /// The volume the client's base belongs to; `None` on a first start.
    pub volume: Option<VolumeId>,
    /// The history its cursor belongs to.
    pub epoch: Option<Epoch>,
    /// The random id of the client's state directory.
    pub instance: [u8; 16],
    /// How often the client has started with this state.
    pub boot: u64,
    /// The last record it has received and recorded durably, and the hub's chain hash there.
    pub cursor: Seq,
    pub chain: Hash,
    /// Records at or below the cursor that are recorded but not applied.
    pub held: Vec<Seq>,
}

/// A hub's answer to [`Hello`]: the client is connected from here on.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Welcome {
    pub protocol: u16,
    pub volume: VolumeId,
    pub epoch: Epoch,
    pub device: DeviceNo,
    /// The name under which the device is registered.
    pub name: String,
    pub read_only: bool,
    /// The newest committed record.
    pub head: Seq,
    pub catch_up: CatchUp,
}

/// How a hub brings a client from its cursor to the present.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum CatchUp {
    /// [`ToClient::Records`] from cursor + 1 follow.
    Log,
    /// [`ToClient::Listing`]s of every node that changed after the cursor follow, removed ones included.
    Listing,
    /// The client's cursor is not in this hub's history (another epoch, or a restored backup): a listing of everything follows, and
    /// the client offers again what the hub lacks.
    Restored,
}

/// From a client, on the control stream, after [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToHub {
    /// Groups of ops in order; each group is committed whole or not at all. Answered by [`ToClient::Verdicts`] after the durable commit.
    Propose { batch: u64, groups: Vec<Vec<Op>> },
    /// Everything up to `cursor` is durably recorded, all but `held` durably applied.
    Ack { cursor: Seq, held: Vec<Seq> },
}

/// From a hub, on the control stream, after [`Welcome`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ToClient {
    /// Committed records in order; the first follows the last one sent. `chain` is the chain hash after the last of them.
    Records { records: Vec<Sent>, chain: Hash },
    /// Nodes as they are now. After the `last` part the client's cursor is `upto`, the chain hash `chain`.
    Listing { nodes: Vec<(NodeId, Node)>, upto: Seq, chain: Hash, last: bool },
    /// One verdict for each op of each group of a batch, in order.
    Verdicts { batch: u64, verdicts: Vec<Vec<Verdict>> },
}

/// A record and, where it is small, the new content's difference to the one before it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Sent {
    pub record: Record,
    pub delta: Option<Delta>,
}

/// A content as the difference to another one; whoever applies it verifies the result's hash.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Delta {
    /// The content it applies to.
    pub base: Hash,
    pub form: DeltaForm,
    pub bytes: Vec<u8>,
}

/// How the bytes of a [`Delta`] are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum DeltaForm {
    /// A zstd-compressed diff-match-patch delta between UTF-8 texts.
    Text,
    /// A zstd frame with the base as its dictionary.
    Dictionary,
}

/// A piece of a large content: its hash and its length in bytes, at most [`CHUNK_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Chunk {
    pub hash: Hash,
    pub len: u32,
}

/// The first frame of a content stream.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ContentRequest {
    /// Asks for a content; `have` names contents the client could apply a delta to. Answered by one [`ContentReply`].
    Get { hash: Hash, have: Vec<Hash> },
    /// Asks for chunks; answered by one [`ChunkData`] each, in order.
    GetChunks { hashes: Vec<Hash> },
    /// Offers a content of `len` bytes. Answered by [`PutReply`].
    Put { hash: Hash, len: u64, body: PutBody },
}

/// A content on its way to the hub.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PutBody {
    /// zstd-compressed, at most [`CHUNK_MAX`] bytes uncompressed.
    Whole(Vec<u8>),
    Delta(Delta),
    /// The chunk list of a larger content.
    Chunks(Vec<Chunk>),
}

/// A hub's answer to [`ContentRequest::Put`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum PutReply {
    /// Durable on the hub.
    Stored,
    /// The delta's base is not here or does not give the announced hash: send it whole or in chunks.
    SendWhole,
    /// Send these pieces of the chunk list (indices, ascending) as [`ChunkData`] frames, then expect another [`PutReply`].
    SendChunks(Vec<u32>),
    /// Not accepted; `why` is for people.
    Refused { why: String },
}

/// A hub's answer to [`ContentRequest::Get`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ContentReply {
    /// zstd-compressed, at most [`CHUNK_MAX`] bytes uncompressed.
    Whole(Vec<u8>),
    Delta(Delta),
    Chunks(Vec<Chunk>),
    /// The hub does not hold it (any more).
    Absent,
}

/// One chunk, zstd-compressed; `None` where the hub does not hold it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ChunkData {
    pub bytes: Option<Vec<u8>>,
}
