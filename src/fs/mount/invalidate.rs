//! Telling the kernel what it must not remember. On a thread of its own: such a notification waits for the directory or the
//! page that an operation of the mount may be busy with, so it must never come from inside an operation.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Sender;

use fuser::INodeNo;
use fuser::Notifier;

/// What changed beside the mount. Inode numbers are those underneath.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invalidation {
    /// Mode, length, times of an inode.
    Attributes {
        /// The inode.
        ino: u64,
    },
    /// Content and attributes of a file, or the listing of a directory.
    Content {
        /// The inode.
        ino: u64,
    },
    /// A name: it appeared, vanished or stands for something else.
    Entry {
        /// The directory.
        dir_ino: u64,
        /// The name in it.
        name: Vec<u8>,
    },
}

/// What the thread is told.
#[derive(Debug)]
pub enum Message {
    /// An inode by node id; a negative offset leaves its pages alone.
    Inode { id: u64, offset: i64 },
    /// An entry of the directory with this node id.
    Entry { id: u64, name: Vec<u8> },
    /// The mount has ended.
    Stop,
}

/// Starts the thread. It ends with [`Message::Stop`] or the last sender.
///
/// # Errors
/// Those of starting a thread.
pub fn start(notifier: Notifier) -> io::Result<Sender<Message>> {
    let (sender, messages) = std::sync::mpsc::channel();
    std::thread::Builder::new().name("mount-inval".to_owned()).spawn(move || {
        for message in messages {
            let told = match message {
                Message::Inode { id, offset } => notifier.inval_inode(INodeNo(id), offset, 0),
                Message::Entry { id, name } => notifier.inval_entry(INodeNo(id), OsStr::from_bytes(&name)),
                Message::Stop => break,
            };
            // Not found: the kernel does not know it, which is what was wanted.
            if let Err(error) = told
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::debug!(%error, "the kernel could not be told of a change");
            }
        }
    })?;
    Ok(sender)
}
