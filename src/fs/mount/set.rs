//! Attributes, access and extended attributes by node id.

use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use fuser::FileAttr;
use fuser::FileType;
use fuser::TimeOrNow;
use rustix::buffer::spare_capacity;
use rustix::fs::Access;
use rustix::fs::AtFlags;
use rustix::fs::Gid;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::Statx;
use rustix::fs::Uid;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::attrs;
use super::files;
use super::handles::Handle;
use super::names::permissions;
use super::served::Caller;
use super::served::Served;
use super::served::by_fd;
use crate::fs::gate::Who;

/// The extended attribute that tells the state of a file; it is answered here and stored nowhere.
pub const STATE: &[u8] = b"user.syncfs.state";

/// What `setattr` sets; the rest stays.
#[derive(Debug, Default)]
pub struct Wanted {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Length in bytes.
    pub size: Option<u64>,
    /// Time of last access.
    pub atime: Option<TimeOrNow>,
    /// Time of last modification.
    pub mtime: Option<TimeOrNow>,
}

/// A file reached by an open handle, or else by name.
#[derive(Debug)]
enum Reached {
    Open(Arc<Handle>),
    Named(OwnedFd),
}

impl AsFd for Reached {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        match self {
            Self::Open(handle) => handle.fd.as_fd(),
            Self::Named(fd) => fd.as_fd(),
        }
    }
}

impl Served {
    fn reached(&self, id: u64, handle: Option<u64>) -> Result<(Reached, Statx), Errno> {
        if let Some(handle) = self.handle_on(id, handle) {
            let stat = attrs::of_fd(&handle.fd)?;
            return Ok((Reached::Open(handle), stat));
        }
        self.reach(id, OFlags::PATH).map(|(fd, stat)| (Reached::Named(fd), stat))
    }

    /// Sets attributes. On a blocked file a change of length is refused; mode, owner and times are answered with success and
    /// stay as they are, because programs that copy attributes after a refused save should not fail twice.
    ///
    /// # Errors
    /// `EROFS` and `EBUSY` by the gate, else those of the system calls.
    pub fn setattr(&self, caller: Caller, id: u64, handle: Option<u64>, wanted: Wanted) -> Result<FileAttr, Errno> {
        self.may_change(caller.who)?;
        let (file, stat) = self.reached(id, handle)?;
        let ino = stat.stx_ino;
        if let Some(size) = wanted.size {
            self.resize(caller, &file, ino, size)?;
        }
        if caller.is_user() && self.gate().is_blocked(self.gated(ino)) {
            return Ok(self.shown(&stat));
        }
        if wanted.uid.is_some() || wanted.gid.is_some() {
            let (uid, gid) = (wanted.uid.map(Uid::from_raw), wanted.gid.map(Gid::from_raw));
            rustix::fs::chownat(&file, c"", uid, gid, AtFlags::EMPTY_PATH)?;
        }
        if let Some(mode) = wanted.mode {
            rustix::fs::chmodat(rustix::fs::CWD, by_fd(&file), permissions(mode), AtFlags::empty())?;
        }
        if wanted.atime.is_some() || wanted.mtime.is_some() {
            let stamps = attrs::stamps(wanted.atime, wanted.mtime);
            rustix::fs::utimensat(&file, c"", &stamps, AtFlags::EMPTY_PATH)?;
        }
        if wanted.mode.is_some() || wanted.atime.is_some() || wanted.mtime.is_some() {
            self.note_attr(ino, caller.who);
        }
        Ok(self.shown(&attrs::of_fd(&file)?))
    }

    /// A truncation through a handle is a write; one by path is a writer for as long as it takes.
    fn resize(&self, caller: Caller, file: &Reached, ino: u64, size: u64) -> Result<(), Errno> {
        let gated = self.gated(ino);
        let mut entered = self.gate().enter();
        if let Reached::Open(handle) = file
            && handle.writes
        {
            entered.may_change(gated, caller.who)?;
            drop(entered);
            return files::truncate(file, size);
        }
        entered.may_replace(gated, caller.who)?;
        if caller.who == Who::Applier {
            return files::truncate(file, size);
        }
        entered.writer_opened(gated, caller.who);
        drop(entered);
        let result = files::truncate(file, size);
        self.writer_closed(ino);
        result
    }

    /// May the daemon's user, who is the caller on a mount without `default_permissions`, do this?
    ///
    /// # Errors
    /// `EROFS` for writing a blocked file, `EACCES` as the file system underneath says.
    pub fn access(&self, caller: Caller, id: u64, mask: i32) -> Result<(), Errno> {
        let (file, stat) = self.reached(id, None)?;
        if mask & libc::W_OK != 0 {
            self.may_change(caller.who)?;
            self.gate().enter().may_change(self.gated(stat.stx_ino), caller.who)?;
        }
        let access = Access::from_bits_retain(mask.cast_unsigned());
        rustix::fs::accessat(rustix::fs::CWD, by_fd(&file), access, AtFlags::EACCESS)
    }

    /// The target of a symlink.
    ///
    /// # Errors
    /// `EINVAL` when it is none.
    pub fn readlink(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let (fd, _) = self.reach(id, OFlags::PATH)?;
        rustix::fs::readlinkat(&fd, c"", Vec::new()).map(std::ffi::CString::into_bytes)
    }

    /// Makes the entries of a directory durable.
    ///
    /// # Errors
    /// Those of fsync.
    pub fn fsync_directory(&self, id: u64) -> Result<(), Errno> {
        let (fd, _) = self.reach(id, OFlags::RDONLY | OFlags::DIRECTORY)?;
        rustix::fs::fsync(&fd)
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// `ENODATA` when there is none, `EOPNOTSUPP` where there are none.
    pub fn getxattr(&self, id: u64, name: &[u8]) -> Result<Vec<u8>, Errno> {
        let (file, stat) = self.reached(id, None)?;
        if name == STATE {
            let blocked = self.gate().is_blocked(self.gated(stat.stx_ino));
            return Ok(if blocked { b"conflict".to_vec() } else { b"ok".to_vec() });
        }
        let path = by_fd(&file);
        sized(|| rustix::fs::getxattr_query(&path, name), |value| rustix::fs::getxattr(&path, name, spare_capacity(value)))
    }

    /// The names of the extended attributes, each with a NUL after it. The one answered here is not among them, or every copy
    /// with attributes would try to set it.
    ///
    /// # Errors
    /// Those of listing.
    pub fn listxattr(&self, id: u64) -> Result<Vec<u8>, Errno> {
        let (file, _) = self.reached(id, None)?;
        let path = by_fd(&file);
        sized(|| rustix::fs::listxattr_query(&path), |names| rustix::fs::listxattr(&path, spare_capacity(names)))
    }

    /// Sets (`Some`) or removes (`None`) an extended attribute.
    ///
    /// # Errors
    /// `EROFS` for a blocked file, `EPERM` for the one that is answered here, else those of the system call.
    pub fn setxattr(&self, caller: Caller, id: u64, name: &[u8], value: Option<&[u8]>, flags: i32) -> Result<(), Errno> {
        self.may_change(caller.who)?;
        if name == STATE {
            return Err(Errno::PERM);
        }
        let (file, stat) = self.reached(id, None)?;
        let path = by_fd(&file);
        let entered = self.gate().enter();
        entered.may_change(self.gated(stat.stx_ino), caller.who)?;
        match value {
            Some(value) => rustix::fs::setxattr(path, name, value, XattrFlags::from_bits_retain(flags.cast_unsigned())),
            None => rustix::fs::removexattr(path, name),
        }
    }

    /// One piece of a directory's listing, from a cookie on. `add` is given each entry and the cookie after it, and says
    /// whether there is room for more; it must not touch the gate or the tables for long.
    ///
    /// # Errors
    /// Those of opening and reading the directory.
    pub fn list(&self, id: u64, from: u64, mut add: impl FnMut(&OwnedFd, u64, Listed<'_>) -> bool) -> Result<(), Errno> {
        let (dir, at) = self.reach(id, OFlags::RDONLY | OFlags::DIRECTORY)?;
        if from != 0 {
            rustix::fs::seek(&dir, rustix::fs::SeekFrom::Start(from))?;
        }
        let reader = rustix::fs::openat(&dir, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = rustix::fs::RawDir::new(&dir, buffer.spare_capacity_mut());
        while let Some(listed) = entries.next() {
            let listed = listed?;
            let name = listed.file_name().to_bytes();
            if self.is_state(at.stx_ino, name) {
                continue;
            }
            let kind = listed.file_type();
            let entry = Listed { name, ino: listed.ino(), kind: kind_of(kind), next: listed.next_entry_cookie() };
            if !add(&reader, at.stx_ino, entry) {
                break;
            }
        }
        Ok(())
    }
}

/// An entry of a listing.
#[derive(Debug)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a [u8],
    /// Inode number underneath.
    pub ino: u64,
    /// Its kind, where the file system tells it in listings.
    pub kind: Option<FileType>,
    /// The cookie after it.
    pub next: u64,
}

fn kind_of(kind: rustix::fs::FileType) -> Option<FileType> {
    match kind {
        rustix::fs::FileType::Unknown => None,
        known => Some(attrs::kind(u16::try_from(known.as_raw_mode()).ok()?)),
    }
}

/// Reads something whose length is asked first and may have grown since.
fn sized(
    query: impl Fn() -> Result<usize, Errno>,
    read: impl Fn(&mut Vec<u8>) -> Result<usize, Errno>,
) -> Result<Vec<u8>, Errno> {
    loop {
        let size = query()?;
        let mut value = Vec::with_capacity(size);
        if size == 0 {
            return Ok(value);
        }
        match read(&mut value) {
            Err(Errno::RANGE) => {}
            other => return other.map(|_| value),
        }
    }
}
