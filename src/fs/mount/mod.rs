//! The mount: a directory served over itself, every call answered from the file system underneath.
//!
//! [`mount`] takes a descriptor of the directory opened *before* anything is mounted over it. Each operation resolves the
//! node id to a descriptor of the tree underneath (`served`), asks the [`Gate`] where it changes
//! something, and makes short local system calls only: nothing waits for a network, a hash or another thread, because a
//! caller inside an operation cannot be killed. What the sync engine must look at goes to it as [`Note`]s; notifications to
//! the kernel come from a thread of their own.

mod attach;
mod attrs;
mod device;
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
mod table;

use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Condvar;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::mpsc::Sender;
use std::time::Duration;
use std::time::Instant;

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
use served::SharedNodes;
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
    /// When: two ends of one rename belong together however late they are heard.
    pub at: Instant,
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
pub struct Mounted {
    mountpoint: PathBuf,
    device: String,
    /// The inode number underneath of the directory.
    root: u64,
    messages: Sender<Message>,
    gate: Arc<Gate>,
    nodes: SharedNodes,
    end: Arc<End>,
}

impl std::fmt::Debug for Mounted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mounted").field("mountpoint", &self.mountpoint).field("device", &self.device).finish_non_exhaustive()
    }
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
    let end = Arc::new(End::default());
    let (started, answer) = std::sync::mpsc::channel();
    let serving = Serving { mountpoint, gate: Arc::clone(&gate), notes, options: options.clone(), end: Arc::clone(&end) };
    let number = dir.as_raw_fd();
    std::thread::Builder::new().name("mount".to_owned()).spawn(move || {
        // SAFETY: `dir` lives until this thread has answered, which is after the last use of this.
        let dir = unsafe { BorrowedFd::borrow_raw(number) };
        serving.run(table::own(dir), &started);
    })?;
    let answer = answer.recv().map_err(|_| io::Error::other("the thread that serves the mount has ended"));
    drop(dir);
    let Started { mountpoint, device, root, messages, nodes } = answer??;
    Ok(Mounted { mountpoint, device, root, messages, gate, nodes, end })
}

fn raise_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    if let Err(errno) = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%errno, "the limit of open files could not be raised");
    }
}

/// What the thread that serves a mount is started with. No descriptor: it has a table of its own ([`table`]).
struct Serving {
    mountpoint: PathBuf,
    gate: Arc<Gate>,
    notes: Sender<Note>,
    options: MountOptions,
    end: Arc<End>,
}

/// What it answers. No descriptor either: those of the node table are closed by who serves.
struct Started {
    mountpoint: PathBuf,
    device: String,
    root: u64,
    messages: Sender<Message>,
    nodes: SharedNodes,
}

impl Serving {
    /// Mounts, tells `started`, and serves until the mount ends.
    fn run(self, dir: io::Result<OwnedFd>, started: &Sender<io::Result<Started>>) {
        let end = Arc::clone(&self.end);
        match dir.and_then(|dir| self.start(dir)) {
            // Whoever asked waits for the answer.
            Err(error) => drop(started.send(Err(error))),
            Ok((session, answer)) => {
                let stop = answer.messages.clone();
                let _ = started.send(Ok(answer));
                let result = session.run().map_err(|error| error.to_string());
                if let Err(error) = &result {
                    tracing::error!(%error, "the mount ended with an error");
                }
                *end.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
                end.told.notify_all();
                // The thread may have ended with its last message.
                let _ = stop.send(Message::Stop);
            }
        }
    }

    fn start(self, dir: OwnedFd) -> io::Result<(fuser::Session<Skin>, Started)> {
        let Self { mountpoint, gate, notes, options, .. } = self;
        let terms = Terms { ttl: options.ttl, read_only: options.read_only, xattr: options.xattr };
        let served = Arc::new(Served::new(dir, gate, notes, terms)?);
        let root = served.root_ino();
        let nodes = served.shared_nodes();
        let fuse = attach::attach(&mountpoint, &options)?;
        let started = session(served, fuse, &options).and_then(|(session, messages)| {
            let device = attach::device_at(&mountpoint)?;
            let device = device.ok_or_else(|| io::Error::other("the mount vanished while it was being made"))?;
            Ok((session, Started { mountpoint: mountpoint.clone(), device, root, messages, nodes }))
        });
        if started.is_err()
            && let Ok(Some(device)) = attach::device_at(&mountpoint)
            && let Err(error) = attach::detach(&mountpoint, &device)
        {
            tracing::warn!(%error, "a mount that could not be served is left behind");
        }
        started
    }
}

fn session(served: Arc<Served>, fuse: OwnedFd, options: &MountOptions) -> io::Result<(fuser::Session<Skin>, Sender<Message>)> {
    let mut config = fuser::Config::default();
    config.n_threads = Some(options.threads.max(2));
    // A descriptor for each thread needs to open the device again, which a user may not be allowed to.
    config.clone_fd = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    let device = match device::Device::beside(fuse.as_fd()) {
        Ok(device) => Some(device),
        Err(error) => {
            tracing::warn!(%error, "a mount with one descriptor for everything: if this process is killed, unmount by hand");
            None
        }
    };
    // The kernel keeps other users out already, by the mount's own options.
    let session = fuser::Session::from_fd(Skin::new(served), fuse, fuser::SessionACL::All, config)?;
    let messages = invalidate::start(device, session.notifier())?;
    Ok((session, messages))
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
        let written = self.gate.written();
        let nodes = self.nodes.read().unwrap_or_else(PoisonError::into_inner);
        written.iter().any(|ino| nodes.may_travel(ino.ino))
    }

    /// Makes the kernel ask again: for what was changed beside the mount, or shown differently from now on. Returns at once;
    /// a thread of its own tells the kernel.
    pub fn invalidate(&self, what: Invalidation) {
        let message = match what {
            Invalidation::Attributes { ino } => Message::Inode { id: nodes::id_of(self.root, ino), offset: -1 },
            Invalidation::Content { ino } => Message::Inode { id: nodes::id_of(self.root, ino), offset: 0 },
            Invalidation::Entry { dir_ino, name } => Message::Entry { id: nodes::id_of(self.root, dir_ino), name },
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
