//! The directory underneath, as the mount serves it: from a node id to a descriptor.
//!
//! Rules for everything here: only descriptors of the tree underneath, never the mount; only short local system calls; the
//! gate is entered before the node table is taken, never the other way round.

use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::RwLockReadGuard;
use std::sync::RwLockWriteGuard;
use std::sync::mpsc::Sender;
use std::time::Duration;
use std::time::Instant;

use fuser::FileAttr;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::fs::Statx;
use rustix::io::Errno;

use super::Note;
use super::What;
use super::attrs;
use super::handles::Handle;
use super::handles::Handles;
use super::nodes::Entry;
use super::nodes::Nodes;
use crate::fs::gate::Gate;
use crate::fs::gate::Ino;
use crate::fs::gate::Who;
use crate::model::STATE_DIR;

/// A path handed to the kernel stays below `PATH_MAX` (4096); longer ones are walked in pieces of this many bytes.
const PIECE: usize = 3800;

/// Paths lead through directories of this file system only, and through no link.
const BENEATH: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// Who makes a request.
#[derive(Debug, Clone, Copy)]
pub struct Caller {
    /// User or applier.
    pub who: Who,
    /// Effective user id.
    pub uid: u32,
    /// Effective group id.
    pub gid: u32,
}

/// What the kernel is told of an entry.
#[derive(Debug)]
pub struct Found {
    /// Attributes; `ino` is the node id.
    pub attr: FileAttr,
    /// Generation of the node id.
    pub generation: u64,
}

/// What a mount is served with.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// How long the kernel may trust names and attributes.
    pub ttl: Duration,
    /// Users change nothing.
    pub read_only: bool,
    /// Extended attributes are served.
    pub xattr: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Served {
    dir: OwnedFd,
    dev: u64,
    root: u64,
    daemon: u32,
    gate: Arc<Gate>,
    notes: Sender<Note>,
    nodes: SharedNodes,
    handles: RwLock<Handles>,
    /// See [`Terms`].
    pub terms: Terms,
}

/// The node table, shared with threads that do not serve. Its descriptors belong to the serving threads' table, so they are closed
/// there, before the others can let go of it.
pub type SharedNodes = Arc<RwLock<Nodes>>;

impl Drop for Served {
    fn drop(&mut self) {
        self.nodes_mut().clear();
    }
}

impl Served {
    /// Serves a directory.
    ///
    /// # Errors
    /// Those of looking at it; `ENOTDIR` when it is none.
    pub fn new(dir: OwnedFd, gate: Arc<Gate>, notes: Sender<Note>, terms: Terms) -> Result<Self, Errno> {
        let stat = attrs::of_fd(&dir)?;
        if attrs::kind(stat.stx_mode) != fuser::FileType::Directory {
            return Err(Errno::NOTDIR);
        }
        let root = stat.stx_ino;
        Ok(Self {
            dev: attrs::device(&stat),
            root,
            daemon: rustix::process::geteuid().as_raw(),
            dir,
            gate,
            notes,
            nodes: Arc::new(RwLock::new(Nodes::new(root))),
            handles: RwLock::new(Handles::default()),
            terms,
        })
    }

    /// The directory underneath.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// The inode number of the directory underneath.
    pub fn root_ino(&self) -> u64 {
        self.root
    }

    /// The gate.
    pub fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Whether new files have to be given to their makers.
    pub fn is_root(&self) -> bool {
        self.daemon == 0
    }

    /// The node table, to look.
    pub fn nodes(&self) -> RwLockReadGuard<'_, Nodes> {
        self.nodes.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node table, to change.
    pub fn nodes_mut(&self) -> RwLockWriteGuard<'_, Nodes> {
        self.nodes.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node table, for whoever is not serving; see [`SharedNodes`].
    pub fn shared_nodes(&self) -> SharedNodes {
        Arc::clone(&self.nodes)
    }

    /// The node id of an inode number underneath.
    pub fn id_of(&self, ino: u64) -> u64 {
        self.nodes().id_of(ino)
    }

    /// The inode number underneath of a node id.
    pub fn ino_of(&self, id: u64) -> u64 {
        self.nodes().ino_of(id)
    }

    /// An inode number as the gate knows it.
    pub fn gated(&self, ino: u64) -> Ino {
        Ino { dev: self.dev, ino }
    }

    /// May this caller change anything at all?
    ///
    /// # Errors
    /// `EROFS` for users of a mount made with `ro`.
    pub fn may_change(&self, who: Who) -> Result<(), Errno> {
        if self.terms.read_only && who == Who::User { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// The name of the state directory in the root: not listed, not to be replaced, reachable for the daemon's user and root.
    pub fn is_state(&self, dir: u64, name: &[u8]) -> bool {
        dir == self.root && name == STATE_DIR
    }

    /// Refuses to make, remove or rename the state directory.
    ///
    /// # Errors
    /// `EPERM` when the name is that of the state directory.
    pub fn not_state(&self, dir: u64, name: &[u8]) -> Result<(), Errno> {
        if self.is_state(dir, name) { Err(Errno::PERM) } else { Ok(()) }
    }

    /// Whether this caller may reach the state directory.
    pub fn sees_state(&self, caller: Caller) -> bool {
        caller.uid == 0 || caller.uid == self.daemon
    }

    /// Opens what a node id stands for and proves that it is that inode.
    ///
    /// # Errors
    /// `ESTALE` when no known name leads to the inode any more, else those of opening.
    pub fn reach(&self, id: u64, flags: OFlags) -> Result<(OwnedFd, Statx), Errno> {
        let nodes = self.nodes();
        let ino = nodes.ino_of(id);
        let itself = if ino == self.root { Some(&self.dir) } else { nodes.removed(ino) };
        if let Some(itself) = itself {
            let fd = rustix::fs::openat(itself, c".", flags | OFlags::CLOEXEC, Mode::empty())?;
            let stat = attrs::of_fd(&fd)?;
            return Ok((fd, stat));
        }
        let mut problem = Errno::STALE;
        for at in nodes.names(ino).iter().rev() {
            let Some(chain) = nodes.chain(at.dir) else { continue };
            match self.open_beneath(&chain, &at.name, flags) {
                Ok(fd) => {
                    let stat = attrs::of_fd(&fd)?;
                    if stat.stx_ino == ino && attrs::device(&stat) == self.dev {
                        return Ok((fd, stat));
                    }
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => {}
                Err(errno) => problem = errno,
            }
        }
        Err(problem)
    }

    /// A directory, to work on its entries.
    ///
    /// # Errors
    /// Those of [`Served::reach`].
    pub fn directory(&self, id: u64) -> Result<(OwnedFd, Statx), Errno> {
        self.reach(id, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// What a node id stands for, to look at: by an open handle when there is one (it may have no name any more).
    ///
    /// # Errors
    /// Those of [`Served::reach`].
    pub fn stat(&self, id: u64, handle: Option<u64>) -> Result<Statx, Errno> {
        match self.handle_on(id, handle) {
            Some(handle) => attrs::of_fd(&handle.fd),
            None => self.reach(id, OFlags::PATH).map(|(_, stat)| stat),
        }
    }

    fn open_beneath(&self, chain: &[&[u8]], name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
        let mut from: Option<OwnedFd> = None;
        let mut path = Vec::new();
        for part in chain.iter().copied().chain([name]) {
            if path.len() + part.len() > PIECE {
                let base = from.as_ref().map_or(self.dir(), AsFd::as_fd);
                from = Some(open_path(base, &path, OFlags::PATH | OFlags::DIRECTORY)?);
                path.clear();
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(part);
        }
        open_path(from.as_ref().map_or(self.dir(), AsFd::as_fd), &path, flags | OFlags::NOFOLLOW)
    }

    /// Tells the kernel of an entry that was just looked at or made.
    ///
    /// # Errors
    /// `EXDEV` when another file system is mounted there underneath.
    pub fn found(&self, dir: u64, name: &[u8], stat: &Statx) -> Result<Found, Errno> {
        if attrs::device(stat) != self.dev {
            return Err(Errno::XDEV);
        }
        let directory = attrs::kind(stat.stx_mode) == fuser::FileType::Directory;
        let at = Entry { dir, name: name.to_vec() };
        let generation = self.nodes_mut().learned(stat.stx_ino, attrs::birth(stat), directory, at);
        Ok(Found { attr: self.shown(stat), generation })
    }

    /// Attributes as the kernel is told them.
    pub fn shown(&self, stat: &Statx) -> FileAttr {
        let blocked = self.gate.is_blocked(self.gated(stat.stx_ino));
        attrs::shown(stat, self.id_of(stat.stx_ino), blocked)
    }

    /// Keeps an open file; its inode must have been told to the kernel.
    pub fn keep(&self, handle: Handle) -> u64 {
        self.nodes_mut().pin(handle.ino);
        self.handles.write().unwrap_or_else(PoisonError::into_inner).insert(handle)
    }

    /// The open file of a handle number.
    ///
    /// # Errors
    /// `EBADF` for a number that is none.
    pub fn handle(&self, number: u64) -> Result<Arc<Handle>, Errno> {
        self.handles.read().unwrap_or_else(PoisonError::into_inner).get(number).ok_or(Errno::BADF)
    }

    /// The open file of a handle number, or any that is open on the node.
    pub fn handle_on(&self, id: u64, number: Option<u64>) -> Option<Arc<Handle>> {
        let ino = self.ino_of(id);
        let handles = self.handles.read().unwrap_or_else(PoisonError::into_inner);
        number.and_then(|number| handles.get(number)).filter(|handle| handle.ino == ino).or_else(|| handles.any_on(ino))
    }

    /// Closes a handle. The end of the last writer is noted, under every name the file has now.
    pub fn close(&self, number: u64) {
        let Some(handle) = self.handles.write().unwrap_or_else(PoisonError::into_inner).remove(number) else { return };
        let (ino, writes) = (handle.ino, handle.writes);
        drop(handle);
        if writes {
            self.writer_closed(ino);
        }
        let kept = self.nodes_mut().unpin(ino);
        drop(kept);
    }

    /// A writer that was counted at the gate is gone.
    pub fn writer_closed(&self, ino: u64) {
        let names = self.nodes().names(ino).to_vec();
        let notes: Vec<Note> = names.iter().filter_map(|at| self.noted(at.dir, &at.name, What::Closed, Who::User)).collect();
        // Told under the gate's mutex: whoever finds no writer there finds the note in the channel.
        self.gate.writer_closed_and(self.gated(ino), |left| {
            if left.writers == 0 && left.by_user {
                notes.into_iter().for_each(|note| drop(self.notes.send(note)));
            }
        });
    }

    /// Tells the sync engine where to look; what the applier did, or what is in the state directory, is no news to it.
    pub fn note(&self, dir: u64, name: &[u8], what: What, who: Who) {
        if let Some(note) = self.noted(dir, name, what, who) {
            // The engine may have gone before the mount; then nobody is left to be told.
            let _ = self.notes.send(note);
        }
    }

    fn noted(&self, dir: u64, name: &[u8], what: What, who: Who) -> Option<Note> {
        if who == Who::Applier || self.is_state(dir, name) {
            return None;
        }
        let in_state = self.nodes().chain(dir).is_some_and(|chain| chain.first() == Some(&STATE_DIR));
        (!in_state).then(|| Note { dir_ino: dir, name: name.to_vec(), what, at: Instant::now() })
    }

    /// Notes a change of attributes under every name of an inode.
    pub fn note_attr(&self, ino: u64, who: Who) {
        let names = self.nodes().names(ino).to_vec();
        for at in names {
            self.note(at.dir, &at.name, What::Attr, who);
        }
    }
}

fn open_path(base: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    rustix::fs::openat2(base, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
}

/// A path that names the very file behind a descriptor, for calls that take no `O_PATH` descriptor.
pub fn by_fd(fd: impl AsFd) -> String {
    use std::os::fd::AsRawFd;
    format!("/proc/thread-self/fd/{}", fd.as_fd().as_raw_fd())
}
