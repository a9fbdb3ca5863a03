//! The steps that change the user's tree, as values.

use crate::fs::path::RelPath;
use crate::model::Attrs;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::model::NodeId;

/// One atomic change of the user's tree. `expected` and `ino` are what must be there right before it.
///
/// `more` keeps the staged content for another place; without it the staged file itself becomes the user's.
/// Modes are masked: no set-id bit is ever set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placement {
    CreateDir {
        path: RelPath,
        mode: u16,
    },
    CreateFile {
        path: RelPath,
        hash: Hash,
        attrs: Attrs,
        more: bool,
    },
    CreateSymlink {
        path: RelPath,
        target: Vec<u8>,
        attrs: Attrs,
    },
    /// The old file's `user.*` attributes (and, as root, its owner) stay.
    ReplaceFile {
        path: RelPath,
        expected: Fingerprint,
        hash: Hash,
        attrs: Attrs,
        more: bool,
    },
    ReplaceSymlink {
        path: RelPath,
        expected: Fingerprint,
        target: Vec<u8>,
        attrs: Attrs,
    },
    Rename {
        from: RelPath,
        ino: u64,
        to: RelPath,
    },
    /// Takes a node out of the tree, to be put back by [`Placement::FromLimbo`].
    ToLimbo {
        from: RelPath,
        ino: u64,
        node: NodeId,
    },
    FromLimbo {
        node: NodeId,
        to: RelPath,
    },
    /// Removes a node in limbo: a file or link with this fingerprint, or an empty directory with its inode.
    RemoveLimbo {
        node: NodeId,
        expected: Fingerprint,
    },
    /// Removes a file or a symbolic link.
    RemoveFile {
        path: RelPath,
        expected: Fingerprint,
    },
    RemoveDir {
        path: RelPath,
        ino: u64,
    },
    SetAttrs {
        path: RelPath,
        ino: u64,
        attrs: Attrs,
    },
}

impl Placement {
    /// The file or link that is replaced or removed.
    pub fn expected(&self) -> Option<&Fingerprint> {
        match self {
            Self::ReplaceFile { expected, .. }
            | Self::ReplaceSymlink { expected, .. }
            | Self::RemoveFile { expected, .. }
            | Self::RemoveLimbo { expected, .. } => Some(expected),
            _ => None,
        }
    }
}
