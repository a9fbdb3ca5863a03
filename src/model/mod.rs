//! Floor 0: the words. A volume is a tree of nodes, a node has three registers, a change writes registers.

mod change;
pub mod codec;
mod key;
mod name;
mod node;
mod tree_hash;

pub use change::Change;
pub use change::DeviceNo;
pub use change::Op;
pub use change::OpId;
pub use change::Record;
pub use change::Refusal;
pub use change::Verdict;
pub use key::BadKey;
pub use key::KEY_PREFIX;
pub use key::PublicKey;
pub use key::SPKI_LEN;
pub use name::BadName;
pub use name::NAME_MAX;
pub use name::Name;
pub use name::STATE_DIR;
pub use node::Attrs;
pub use node::Content;
pub use node::Epoch;
pub use node::Fingerprint;
pub use node::Hash;
pub use node::Kind;
pub use node::Mtime;
pub use node::Node;
pub use node::NodeId;
pub use node::Place;
pub use node::Register;
pub use node::Seq;
pub use node::VolumeId;
pub use tree_hash::TreeEntry;
pub use tree_hash::tree_hash;
