//! The mount: a directory served over itself, every call answered from the file system underneath.
//!
//! [`mount`] takes a descriptor of the directory opened *before* anything is mounted over it. Each operation resolves the
//! node id to a descriptor of the tree underneath ([`served`]), asks the [`Gate`](crate::fs::gate::Gate) where it changes
//! something, and makes short local system calls only: nothing waits for a network, a hash or another thread, because a
//! caller inside an operation cannot be killed. What the sync engine must look at goes to it as [`Note`]s; notifications to
//! the kernel come from a thread of their own.

mod attach;
mod attrs;
mod files;
mod handles;
mod invalidate;
mod names;
mod nodes;
mod ops;
mod options;
mod served;
mod set;
mod skin;

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Sender;
use std::time::Duration;

use rustix::process::Resource;
use rustix::process::Rlimit;

pub use attach::clean_stale;
pub use attach::device_at;
pub use invalidate::Invalidation;
pub use options::BadOption;
pub use options::MountOptions;

use crate::fs::gate::Gate;
use invalidate::Message;
use served::Served;
use served::Terms;
use skin::Skin;

/// Where the sync engine must look again. It says that something happened, not what is there now.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Note {
    /// Inode number underneath of the directory.
    pub dir_ino: u64,
    /// The name in it.
    pub name: Vec<u8>,
    /// What happened.
    pub what: What,
}

/// What happened to an entry, through the mount and not by the applier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum What {
    /// The last handle open for writing was closed; the name is the one the file has now. Also when nothing was written.
    Closed,
    /// Made, linked or renamed to.
    Appeared,
    /// Removed or renamed away.
    Vanished,
    /// Permission bits or times were set.
    Attr,
}

/// A mount that is served. Dropping it unmounts.
#[derive(Debug)]
pub struct Mounted {
    mountpoint: PathBuf,
    device: String,
    served: Arc<Served>,
    messages: Sender<Message>,
    end: Arc<End>,
}

/// How the session ended, once it has.
#[derive(Debug, Default)]
struct End {
    result: Mutex<Option<Result<(), String>>>,
    told: Condvar,
}

/// Mounts over a directory and serves it.
///
/// `dir` is the directory, opened before this call (and after [`clean_stale`]). Threads are started; none of them holds the
/// gate's mutex or waits beyond single local system calls. A note is sent after the change it tells of has succeeded and may
/// arrive before the caller's system call returns. The process's limit of open files is raised as far as it may be: every
/// file open in the mount is open here too.
///
/// # Errors
/// `AlreadyExists` when a served mount of ours is there; `NotADirectory`; what mounting says.
pub fn mount(
    dir: OwnedFd,
    mountpoint: &Path,
    gate: Arc<Gate>,
    notes: Sender<Note>,
    options: &MountOptions,
) -> io::Result<Mounted> {
    let mountpoint = attach::real_path(mountpoint)?;
    clean_stale(&mountpoint)?;
    if attach::device_at(&mountpoint)?.is_some() {
        let text = format!("{} is mounted already", mountpoint.display());
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, text));
    }
    raise_file_limit();
    let terms = Terms { ttl: options.ttl, read_only: options.read_only, xattr: options.xattr };
    let served = Arc::new(Served::new(dir, gate, notes, terms)?);
    let fuse = attach::attach(&mountpoint, options)?;
    let started = start(&served, fuse, options).and_then(|(messages, end)| {
        let device = attach::device_at(&mountpoint)?;
        let device = device.ok_or_else(|| io::Error::other("the mount vanished while it was being made"))?;
        Ok(Mounted { mountpoint: mountpoint.clone(), device, served, messages, end })
    });
    if started.is_err()
        && let Ok(Some(device)) = attach::device_at(&mountpoint)
        && let Err(error) = attach::detach(&mountpoint, &device)
    {
        tracing::warn!(%error, "a mount that could not be served is left behind");
    }
    started
}

fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if let Err(errno) = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%errno, "the limit of open files could not be raised");
    }
}

fn start(served: &Arc<Served>, fuse: OwnedFd, options: &MountOptions) -> io::Result<(Sender<Message>, Arc<End>)> {
    let mut config = fuser::Config::default();
    config.n_threads = Some(options.threads.max(2));
    // A descriptor for each thread needs to open the device again, which a user may not be allowed to.
    config.clone_fd = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    // The kernel keeps other users out already, by the mount's own options.
    let session = fuser::Session::from_fd(Skin::new(Arc::clone(served)), fuse, fuser::SessionACL::All, config)?;
    let messages = invalidate::start(session.notifier())?;
    let end = Arc::new(End::default());
    let (told, stop) = (Arc::clone(&end), messages.clone());
    std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
        let result = session.run().map_err(|error| error.to_string());
        if let Err(error) = &result {
            tracing::error!(%error, "the mount ended with an error");
        }
        *told.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
        told.told.notify_all();
        let _ = stop.send(Message::Stop);
    })?;
    Ok((messages, end))
}

impl Mounted {
    /// The real path of the mount point.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Unmounts, lazily: the directory is plain at once; files still open through the mount go on until they are closed
    /// ([`Mounted::wait`] tells) or the process ends. Not to be called from a thread that serves the mount. Again is no error.
    ///
    /// # Errors
    /// `ResourceBusy` when something else is mounted over it, else what unmounting says.
    pub fn unmount(&self) -> io::Result<()> {
        if self.has_ended() {
            return Ok(());
        }
        attach::flush(&self.mountpoint);
        attach::detach(&self.mountpoint, &self.device)
    }

    /// Whether nothing is served any more: unmounted, by us or by others, and the last file closed.
    pub fn has_ended(&self) -> bool {
        self.end.result.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Waits until nothing is served any more.
    ///
    /// # Errors
    /// What made the session fail.
    pub fn wait(&self) -> io::Result<()> {
        let result = self.end.result.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.end.told.wait_while(result, |result| result.is_none()).unwrap_or_else(PoisonError::into_inner);
        result.clone().unwrap_or(Ok(())).map_err(io::Error::other)
    }

    /// As [`Mounted::wait`], for this long at most. Returns whether it ended.
    pub fn wait_for(&self, longest: Duration) -> bool {
        let result = self.end.result.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.end.told.wait_timeout_while(result, longest, |result| result.is_none());
        waited.unwrap_or_else(PoisonError::into_inner).0.is_some()
    }

    /// Whether a file is open for writing that is synchronized.
    pub fn is_any_written(&self) -> bool {
        self.served.is_any_written()
    }

    /// Makes the kernel ask again: for what was changed beside the mount, or shown differently from now on. Returns at once;
    /// a thread of its own tells the kernel.
    pub fn invalidate(&self, what: Invalidation) {
        let message = match what {
            Invalidation::Attributes { ino } => Message::Inode { id: self.served.id_of(ino), offset: -1 },
            Invalidation::Content { ino } => Message::Inode { id: self.served.id_of(ino), offset: 0 },
            Invalidation::Entry { dir_ino, name } => Message::Entry { id: self.served.id_of(dir_ino), name },
        };
        // Nobody is there to be told once the mount has ended.
        let _ = self.messages.send(message);
    }

    /// Makes the kernel ask again for the attributes of an inode (by its number underneath): when a block begins or ends.
    pub fn invalidate_attrs(&self, ino: u64) {
        self.invalidate(Invalidation::Attributes { ino });
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Err(error) = self.unmount() {
            tracing::warn!(%error, mountpoint = %self.mountpoint.display(), "could not unmount");
        }
    }
}
