//! Nodes, their registers and what the registers hold.

use super::codec::Decode;
use super::codec::Encode;
use super::name::Name;
use std::fmt;

/// A hub sequence number, dense from 1. 0 is "before everything".
pub type Seq = u64;

/// The random identity of a file, symlink or directory; it stays when the name or the content changes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct NodeId(pub [u8; 16]);

impl NodeId {
    /// The directory at the top; it exists always and is in no register.
    pub const ROOT: Self = Self([0; 16]);
    /// Stands for the staging directory of a replica: nodes that are between two places. Never leaves a replica.
    pub const LIMBO: Self = Self([0xff; 16]);

    /// Whether a hub accepts it for a node: neither [`NodeId::ROOT`] nor [`NodeId::LIMBO`].
    pub fn is_ordinary(&self) -> bool {
        *self != Self::ROOT && *self != Self::LIMBO
    }
}

/// The BLAKE3 hash of a whole content.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }
}

/// The identity of a volume, made with its hub.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct VolumeId(pub [u8; 16]);

/// A random id made with a hub's database; another one means another history.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Epoch(pub [u8; 16]);

fn hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! shown_as_hex {
    ($($name:ident)*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { hex(&self.0, f) }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { hex(&self.0[..4], f) }
        }
    )*};
}
shown_as_hex!(NodeId Hash VolumeId Epoch);

/// Where a node is: its directory and its name there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Place {
    pub parent: NodeId,
    pub name: Name,
}

/// The kind of a node; it never changes in a node's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Kind {
    Dir,
    File,
    Symlink,
}

/// What a node holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum Content {
    Dir,
    /// The BLAKE3 hash of the bytes and their number.
    File {
        hash: Hash,
        len: u64,
    },
    /// The target as bytes, 1 to 4095 of them, never followed by us.
    Symlink {
        target: Vec<u8>,
    },
}

impl Content {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Dir => Kind::Dir,
            Self::File { .. } => Kind::File,
            Self::Symlink { .. } => Kind::Symlink,
        }
    }

    /// The hash of the bytes a hub must hold before this content may be named: files that are not empty.
    pub fn blob(&self) -> Option<Hash> {
        match self {
            Self::File { hash, len } if *len > 0 => Some(*hash),
            _ => None,
        }
    }

    /// The content of a file with these bytes.
    pub fn file(bytes: &[u8]) -> Self {
        Self::File { hash: Hash::of(bytes), len: bytes.len() as u64 }
    }
}

/// A modification time: seconds since 1970 (negative before) and nanoseconds below 10^9.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Mtime {
    pub secs: i64,
    pub nanos: u32,
}

/// Permission bits (07777 less set-id bits) and the modification time; a directory's time is always zero, a symlink's bits 0777.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct Attrs {
    pub mode: u16,
    pub mtime: Mtime,
}

impl Attrs {
    /// The bits that travel: read, write, execute and the sticky bit, never set-uid or set-gid.
    pub const MODE_MASK: u16 = 0o1777;

    /// Attributes as they travel for a node of `kind`.
    pub fn of(kind: Kind, mode: u32, mtime: Mtime) -> Self {
        match kind {
            Kind::Dir => Self { mode: mode as u16 & Self::MODE_MASK, mtime: Mtime::default() },
            Kind::File => Self { mode: mode as u16 & Self::MODE_MASK, mtime },
            Kind::Symlink => Self { mode: 0o777, mtime },
        }
    }
}

/// A value and the sequence number that wrote it.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Register<T> {
    pub seq: Seq,
    pub value: T,
}

/// A node as the hub has it: three independent registers. A place of `None` is a removed node.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Node {
    pub place: Register<Option<Place>>,
    pub content: Register<Content>,
    pub attrs: Register<Attrs>,
}

impl Node {
    pub fn kind(&self) -> Kind {
        self.content.value.kind()
    }

    /// The newest sequence number in the node.
    pub fn newest(&self) -> Seq {
        self.place.seq.max(self.content.seq).max(self.attrs.seq)
    }
}

/// What tells that a file is still the one last seen: device, inode, size, mtime and ctime (seconds, nanoseconds).
/// Equal fingerprints mean equal content; different ones mean "look again".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Fingerprint {
    pub dev: u64,
    pub ino: u64,
    pub size: u64,
    pub mtime: Mtime,
    pub ctime: Mtime,
}
