//! Telling the kernel what it must not remember. On a thread of its own: such a notification waits for the directory or the
//! page that an operation of the mount may be busy with, so it must never come from inside an operation.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::Sender;

use fuser::INodeNo;
use fuser::Notifier;

use super::device::Device;
use super::table;

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

/// Who tells the kernel.
#[derive(Debug)]
enum Voice {
    Own(Device),
    /// Where the device may not be opened again: by a descriptor that serves as well.
    Shared(Notifier),
}

impl Voice {
    fn tell(&self, message: &Message) -> io::Result<()> {
        match (self, message) {
            (Self::Own(device), Message::Inode { id, offset }) => device.inval_inode(*id, *offset),
            (Self::Own(device), Message::Entry { id, name }) => device.inval_entry(*id, name),
            (Self::Shared(notifier), Message::Inode { id, offset }) => notifier.inval_inode(INodeNo(*id), *offset, 0),
            (Self::Shared(notifier), Message::Entry { id, name }) => notifier.inval_entry(INodeNo(*id), OsStr::from_bytes(name)),
            (_, Message::Stop) => Ok(()),
        }
    }
}

/// Starts the thread. It ends with [`Message::Stop`] or the last sender. Where `device` is given, the thread has a table of
/// descriptors with nothing else in it.
///
/// # Errors
/// Those of starting a thread and of giving it its table.
pub fn start(device: Option<Device>, notifier: Notifier) -> io::Result<Sender<Message>> {
    let (sender, messages) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("mount-inval".to_owned());
    let Some(device) = device else {
        thread.spawn(move || pass_on(&Voice::Shared(notifier), messages))?;
        return Ok(sender);
    };
    let (begun, answer) = std::sync::mpsc::channel();
    let number = device.as_fd().as_raw_fd();
    thread.spawn(move || {
        // SAFETY: `device` lives until this thread has answered, which is after the last use of this.
        let own = table::own(unsafe { BorrowedFd::borrow_raw(number) });
        let voice = own.map(|own| Voice::Own(own.into()));
        match voice {
            // Whoever asked waits for the answer.
            Err(error) => drop(begun.send(Err(error))),
            Ok(voice) => {
                let _ = begun.send(Ok(()));
                pass_on(&voice, messages);
            }
        }
    })?;
    answer.recv().map_err(|_| io::Error::other("the thread that tells the kernel has ended"))??;
    Ok(sender)
}

fn pass_on(voice: &Voice, messages: Receiver<Message>) {
    for message in messages {
        match voice.tell(&message) {
            Ok(()) if matches!(message, Message::Stop) => break,
            // Not found: the kernel does not know it, which is what was wanted.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::debug!(%error, "the kernel could not be told of a change");
            }
            _ => {}
        }
    }
}
