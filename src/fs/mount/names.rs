//! Making, removing and renaming entries.
//!
//! Each asks the gate and acts while it holds it; the system call in between is one on the tree underneath. What an entry
//! stood for is kept open over the call, so that its inode number cannot be reused before the node table knows.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;

use fuser::FopenFlags;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::Statx;
use rustix::fs::Uid;
use rustix::io::Errno;

use super::What;
use super::attrs;
use super::files;
use super::handles::Handle;
use super::nodes::Entry;
use super::served::Caller;
use super::served::Found;
use super::served::Served;
use super::served::by_fd;
use crate::fs::gate::Who;

/// How often a file may vanish between two looks before the caller is told that it does not exist.
const LOOKS: u32 = 8;

/// What is made by [`Served::make`].
#[derive(Debug, Clone, Copy)]
pub enum Made<'a> {
    /// A directory with these permission bits.
    Directory(u32),
    /// A regular file, fifo, socket or device: mode with the file type, device number.
    Node(u32, u32),
    /// A symlink to this target.
    Symlink(&'a [u8]),
}

impl Served {
    /// The entry of a directory; `None` when there is none, which the kernel may remember.
    ///
    /// # Errors
    /// `ENOENT` for the state directory where the caller may not see it; else those of looking.
    pub fn lookup(&self, caller: Caller, parent: u64, name: &[u8]) -> Result<Option<Found>, Errno> {
        let (dir, at) = self.directory(parent)?;
        if self.is_state(at.stx_ino, name) && !self.sees_state(caller) {
            return Err(Errno::NOENT);
        }
        match attrs::of_entry(&dir, name) {
            Ok(stat) => self.found(at.stx_ino, name, &stat).map(Some),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Makes a directory, node or symlink that belongs to the caller.
    ///
    /// # Errors
    /// Those of the system call.
    pub fn make(&self, caller: Caller, parent: u64, name: &[u8], made: Made<'_>) -> Result<Found, Errno> {
        self.may_change(caller.who)?;
        let (dir, at) = self.directory(parent)?;
        self.not_state(at.stx_ino, name)?;
        let bits = match made {
            Made::Directory(mode) => {
                rustix::fs::mkdirat(&dir, name, permissions(mode))?;
                mode
            }
            Made::Node(mode, device) => {
                let device = rustix::fs::makedev((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
                rustix::fs::mknodat(&dir, name, FileType::from_raw_mode(mode), permissions(mode), device)?;
                mode
            }
            Made::Symlink(target) => {
                rustix::fs::symlinkat(target, &dir, name)?;
                0
            }
        };
        let fd = entry(&dir, name)?;
        let stat = self.give(caller, &at, &fd, bits)?;
        let found = self.found(at.stx_ino, name, &stat)?;
        self.note(at.stx_ino, name, What::Appeared, caller.who);
        Ok(found)
    }

    /// Creates and opens a file, or opens the one there is when `O_EXCL` is not asked for.
    ///
    /// # Errors
    /// `EEXIST` with `O_EXCL`, `EROFS` for a blocked file, `ESTALE` when something that is no file turned up, else those of
    /// opening.
    pub fn create(
        &self,
        caller: Caller,
        parent: u64,
        name: &[u8],
        mode: u32,
        flags: i32,
    ) -> Result<(Found, u64, FopenFlags), Errno> {
        self.may_change(caller.who)?;
        let (dir, at) = self.directory(parent)?;
        self.not_state(at.stx_ino, name)?;
        let writes = files::writes(flags);
        for _ in 0..LOOKS {
            let mut entered = self.gate().enter();
            let create = files::beneath(flags) | OFlags::CREATE | OFlags::EXCL;
            match rustix::fs::openat(&dir, name, create, permissions(mode)) {
                Ok(fd) => {
                    let stat = attrs::of_fd(&fd)?;
                    if writes {
                        entered.writer_opened(self.gated(stat.stx_ino), caller.who);
                    }
                    drop(entered);
                    let stat = self.give(caller, &at, &fd, mode).unwrap_or(stat);
                    let opened = self.opened(&at, name, fd, &stat, writes);
                    self.note(at.stx_ino, name, What::Appeared, caller.who);
                    return opened;
                }
                Err(Errno::EXIST) if flags & libc::O_EXCL == 0 => drop(entered),
                Err(errno) => return Err(errno),
            }
            let there = match attrs::of_entry(&dir, name) {
                Ok(there) => there,
                Err(Errno::NOENT) => continue,
                Err(errno) => return Err(errno),
            };
            if attrs::kind(there.stx_mode) != fuser::FileType::RegularFile {
                return Err(Errno::STALE);
            }
            let open = |flags| {
                let fd = rustix::fs::openat(&dir, name, flags, Mode::empty())?;
                let stat = attrs::of_fd(&fd)?;
                Ok((fd, stat))
            };
            match self.open_at_gate(caller, there.stx_ino, flags, open) {
                Ok((fd, stat)) => return self.opened(&at, name, fd, &stat, writes),
                Err(Errno::NOENT | Errno::STALE) => {}
                Err(errno) => return Err(errno),
            }
        }
        Err(Errno::NOENT)
    }

    fn opened(
        &self,
        at: &Statx,
        name: &[u8],
        fd: OwnedFd,
        stat: &Statx,
        writes: bool,
    ) -> Result<(Found, u64, FopenFlags), Errno> {
        match self.found(at.stx_ino, name, stat) {
            Ok(found) => {
                let number = self.keep(Handle { fd, ino: stat.stx_ino, writes });
                Ok((found, number, files::opened_as(false)))
            }
            Err(errno) => {
                if writes {
                    self.writer_closed(stat.stx_ino);
                }
                Err(errno)
            }
        }
    }

    /// One more name for an inode.
    ///
    /// # Errors
    /// `EROFS` for a blocked file, else those of linking.
    pub fn link(&self, caller: Caller, id: u64, parent: u64, name: &[u8]) -> Result<Found, Errno> {
        self.may_change(caller.who)?;
        let (fd, stat) = self.reach(id, OFlags::PATH)?;
        let (dir, at) = self.directory(parent)?;
        self.not_state(at.stx_ino, name)?;
        let entered = self.gate().enter();
        entered.may_change(self.gated(stat.stx_ino), caller.who)?;
        rustix::fs::linkat(rustix::fs::CWD, by_fd(&fd), &dir, name, AtFlags::SYMLINK_FOLLOW)?;
        drop(entered);
        let found = self.found(at.stx_ino, name, &attrs::of_fd(&fd)?)?;
        self.note(at.stx_ino, name, What::Appeared, caller.who);
        Ok(found)
    }

    /// Removes a file, or with `directory` an empty directory.
    ///
    /// # Errors
    /// `EROFS` for a blocked file, `EBUSY` for the applier while somebody writes it, else those of unlinking.
    pub fn remove(&self, caller: Caller, parent: u64, name: &[u8], directory: bool) -> Result<(), Errno> {
        self.may_change(caller.who)?;
        let (dir, at) = self.directory(parent)?;
        self.not_state(at.stx_ino, name)?;
        // Held since before the look: nobody puts another file there in between.
        let mut entered = self.gate().enter();
        let victim = entry(&dir, name)?;
        let stat = attrs::of_fd(&victim)?;
        entered.may_replace(self.gated(stat.stx_ino), caller.who)?;
        rustix::fs::unlinkat(&dir, name, if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() })?;
        if is_last(&stat) {
            entered.gone(self.gated(stat.stx_ino));
        }
        drop(entered);
        let gone = Entry { dir: at.stx_ino, name: name.to_vec() };
        let mut nodes = self.nodes_mut();
        nodes.unnamed(stat.stx_ino, &gone, is_last(&stat));
        let victim = nodes.keep_removed(stat.stx_ino, victim);
        drop(nodes);
        drop(victim);
        self.note(at.stx_ino, name, What::Vanished, caller.who);
        Ok(())
    }

    /// Renames, with `NOREPLACE` and `EXCHANGE`. An exchange overtakes no writer: his inode is only moved.
    ///
    /// # Errors
    /// `EROFS` when either file is blocked, `EBUSY` for the applier when the target is being written, else those of renaming.
    pub fn rename(&self, caller: Caller, from: (u64, &[u8]), to: (u64, &[u8]), flags: u32) -> Result<(), Errno> {
        self.may_change(caller.who)?;
        let flags = RenameFlags::from_bits_retain(flags);
        let exchange = flags.contains(RenameFlags::EXCHANGE);
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let (from_dir, from_at) = self.directory(from.0)?;
        let (to_dir, to_at) = self.directory(to.0)?;
        self.not_state(from_at.stx_ino, from.1)?;
        self.not_state(to_at.stx_ino, to.1)?;
        // Held since before the look: nobody puts another file there in between.
        let mut entered = self.gate().enter();
        let moved = entry(&from_dir, from.1)?;
        let moved_stat = attrs::of_fd(&moved)?;
        let target = match entry(&to_dir, to.1) {
            Ok(fd) => Some((attrs::of_fd(&fd)?, fd)),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(errno),
        };

        entered.may_change(self.gated(moved_stat.stx_ino), caller.who)?;
        if let Some((stat, _)) = &target {
            let gated = self.gated(stat.stx_ino);
            if exchange || stat.stx_ino == moved_stat.stx_ino {
                entered.may_change(gated, caller.who)?;
            } else if !flags.contains(RenameFlags::NOREPLACE) {
                entered.may_replace(gated, caller.who)?;
            }
        } else if !flags.contains(RenameFlags::NOREPLACE) {
            entered.may_appear(caller.who)?;
        }
        if caller.is_user() {
            entered.moves();
        }
        // Paths are put together from the table: nobody may look between the rename and its being known.
        let mut victim = None;
        let mut nodes = self.nodes_mut();
        rustix::fs::renameat_with(&from_dir, from.1, &to_dir, to.1, flags)?;
        let old = Entry { dir: from_at.stx_ino, name: from.1.to_vec() };
        let new = Entry { dir: to_at.stx_ino, name: to.1.to_vec() };
        let same = target.as_ref().is_some_and(|(stat, _)| stat.stx_ino == moved_stat.stx_ino);
        if !same {
            if let Some((stat, fd)) = target {
                let last = !exchange && is_last(&stat);
                nodes.unnamed(stat.stx_ino, &new, last);
                if last {
                    entered.gone(self.gated(stat.stx_ino));
                }
                if exchange {
                    nodes.named(stat.stx_ino, old.clone());
                }
                victim = if exchange { Some(fd) } else { nodes.keep_removed(stat.stx_ino, fd) };
            }
            nodes.unnamed(moved_stat.stx_ino, &old, false);
            nodes.named(moved_stat.stx_ino, new.clone());
        }
        drop(nodes);
        // Told before the gate is left: who finds no further move there finds both ends of this one in the channel.
        if !same {
            self.note(old.dir, &old.name, if exchange { What::Appeared } else { What::Vanished }, caller.who);
            self.note(new.dir, &new.name, What::Appeared, caller.who);
        }
        drop(entered);
        drop(victim);
        Ok(())
    }

    /// Makes something new the caller's, where the daemon is root and may; a set-group-id directory keeps its group.
    fn give(&self, caller: Caller, parent: &Statx, fd: impl AsFd, mode: u32) -> Result<Statx, Errno> {
        let stat = attrs::of_fd(&fd)?;
        if !self.is_root() {
            return Ok(stat);
        }
        let inherits = u32::from(parent.stx_mode) & libc::S_ISGID != 0;
        let gid = if inherits { stat.stx_gid } else { caller.gid };
        if stat.stx_uid == caller.uid && stat.stx_gid == gid {
            return Ok(stat);
        }
        let (uid, gid) = (Some(Uid::from_raw(caller.uid)), Some(Gid::from_raw(gid)));
        rustix::fs::chownat(&fd, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        if mode & 0o7000 != 0 && attrs::kind(stat.stx_mode) != fuser::FileType::Symlink {
            let bits = permissions(u32::from(stat.stx_mode));
            rustix::fs::chmodat(rustix::fs::CWD, by_fd(&fd), bits, AtFlags::empty())?;
        }
        attrs::of_fd(&fd)
    }
}

/// The permission bits of a mode.
pub fn permissions(mode: u32) -> Mode {
    Mode::from_bits_retain(mode & 0o7777)
}

fn entry(dir: impl AsFd, name: &[u8]) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn is_last(stat: &Statx) -> bool {
    stat.stx_nlink <= 1 || attrs::kind(stat.stx_mode) == fuser::FileType::Directory
}

impl Caller {
    /// Whether a block holds for this caller.
    pub fn is_user(self) -> bool {
        self.who == Who::User
    }
}
