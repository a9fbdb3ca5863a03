//! Opening, reading and writing files.

use std::cell::RefCell;
use std::io::IoSlice;
use std::os::fd::AsFd;
use std::os::fd::OwnedFd;
use std::time::Duration;
use std::time::SystemTime;

use fuser::FopenFlags;
use fuser::WriteFlags;
use rustix::buffer::spare_capacity;
use rustix::fs::FallocateFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::SeekFrom;
use rustix::fs::Statx;
use rustix::io::Errno;
use rustix::io::ReadWriteFlags;

use super::attrs;
use super::handles::Handle;
use super::served::Caller;
use super::served::Served;
use super::served::by_fd;
use crate::fs::gate::Who;

/// A change time younger than this may hide a second change within the same tick of the file system's clock.
const TICK: Duration = Duration::from_millis(50);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether these open flags can change the content.
pub fn writes(flags: i32) -> bool {
    flags & libc::O_ACCMODE != libc::O_RDONLY || flags & libc::O_TRUNC != 0
}

/// The flags for the file underneath. Not among them: `O_APPEND` (a shared mapping is written back by offset through any
/// handle), `O_DIRECT` (our buffers are not aligned), `O_TRUNC` (asked at the gate first).
pub fn beneath(flags: i32) -> OFlags {
    let kept = libc::O_ACCMODE | libc::O_SYNC | libc::O_DSYNC;
    OFlags::from_bits_retain((flags & kept).cast_unsigned()) | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

impl Served {
    /// Opens a file by node id. Returns the handle number and what the kernel may do with it.
    ///
    /// # Errors
    /// `EROFS` for a blocked file opened to write, `EBUSY` for the applier truncating under a writer, else those of opening.
    pub fn open(&self, caller: Caller, id: u64, flags: i32) -> Result<(u64, FopenFlags), Errno> {
        if writes(flags) {
            self.may_change(caller.who)?;
        }
        let ino = self.ino_of(id);
        // A file that lost its name is reached through whoever has it open (/proc/PID/fd of another process).
        let open = |flags| match self.reach(id, flags) {
            Err(Errno::STALE) => {
                let other = self.handle_on(id, None).ok_or(Errno::STALE)?;
                let fd = rustix::fs::open(by_fd(&other.fd), flags.difference(OFlags::NOFOLLOW), Mode::empty())?;
                let stat = attrs::of_fd(&fd)?;
                Ok((fd, stat))
            }
            other => other,
        };
        let (fd, stat) = self.open_at_gate(caller, ino, flags, open)?;
        let unchanged = self.nodes_mut().unchanged_since_open(ino, stamp(&stat));
        let number = self.keep(Handle { fd, ino, writes: writes(flags) });
        Ok((number, opened_as(unchanged)))
    }

    /// Opens an existing file: asked at the gate and counted there in one step with the opening.
    ///
    /// # Errors
    /// As [`Served::open`]; `ESTALE` when another inode is found than the one asked for.
    pub fn open_at_gate(
        &self,
        caller: Caller,
        ino: u64,
        flags: i32,
        open: impl FnOnce(OFlags) -> Result<(OwnedFd, Statx), Errno>,
    ) -> Result<(OwnedFd, Statx), Errno> {
        if !writes(flags) {
            return open(beneath(flags));
        }
        let gated = self.gated(ino);
        let truncates = flags & libc::O_TRUNC != 0;
        let mut entered = self.gate().enter();
        if truncates {
            entered.may_replace(gated, caller.who)?;
        } else {
            entered.may_change(gated, caller.who)?;
        }
        let (fd, stat) = open(beneath(flags))?;
        if stat.stx_ino != ino {
            return Err(Errno::STALE);
        }
        if truncates && caller.who == Who::Applier {
            truncate(&fd, 0)?;
        }
        entered.writer_opened(gated, caller.who);
        drop(entered);
        if truncates
            && caller.who == Who::User
            && let Err(errno) = truncate(&fd, 0)
        {
            self.writer_closed(ino);
            return Err(errno);
        }
        Ok((fd, stat))
    }

    /// Reads up to `size` bytes and hands them to `reply`.
    ///
    /// # Errors
    /// Those of reading.
    pub fn read<T>(&self, number: u64, offset: u64, size: u32, reply: impl FnOnce(&[u8]) -> T) -> Result<T, Errno> {
        let handle = self.handle(number)?;
        let size = size as usize;
        BUFFER.with_borrow_mut(|buffer| {
            buffer.clear();
            buffer.reserve_exact(size);
            while buffer.len() < size {
                let at = offset + buffer.len() as u64;
                match rustix::io::pread(&handle.fd, spare_capacity(buffer), at) {
                    Ok(0) => break,
                    Ok(_) => {}
                    Err(Errno::INTR) => {}
                    Err(errno) if buffer.is_empty() => return Err(errno),
                    Err(_) => break,
                }
            }
            buffer.truncate(size);
            Ok(reply(buffer))
        })
    }

    /// Writes; a short count only at an error after some bytes.
    ///
    /// # Errors
    /// `EROFS` when the file is blocked by now, else those of writing.
    pub fn write(
        &self,
        caller: Caller,
        number: u64,
        offset: u64,
        data: &[u8],
        from_cache: WriteFlags,
        flags: i32,
    ) -> Result<u32, Errno> {
        let handle = self.handle(number)?;
        self.gate().enter().may_change(self.gated(handle.ino), caller.who)?;
        // Bytes of the page cache have their place; an appending write has the end of the file as it is underneath.
        let appends = flags & libc::O_APPEND != 0 && !from_cache.contains(WriteFlags::FUSE_WRITE_CACHE);
        let mode = if appends { ReadWriteFlags::APPEND } else { ReadWriteFlags::empty() };
        let mut done = 0;
        while done < data.len() {
            let rest = [IoSlice::new(&data[done..])];
            match rustix::io::pwritev2(&handle.fd, &rest, offset + done as u64, mode) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(Errno::INTR) => {}
                Err(errno) if done == 0 => return Err(errno),
                Err(_) => break,
            }
        }
        Ok(u32::try_from(done).unwrap_or(u32::MAX))
    }

    /// Makes a file's content durable, and with `datasync` not more of its attributes than that needs.
    ///
    /// # Errors
    /// Those of fsync.
    pub fn fsync(&self, number: u64, datasync: bool) -> Result<(), Errno> {
        let handle = self.handle(number)?;
        if datasync { rustix::fs::fdatasync(&handle.fd) } else { rustix::fs::fsync(&handle.fd) }
    }

    /// Allocates or frees space, in whatever mode the file system underneath has.
    ///
    /// # Errors
    /// `EROFS` when the file is blocked, else those of fallocate.
    pub fn fallocate(&self, caller: Caller, number: u64, offset: u64, length: u64, mode: i32) -> Result<(), Errno> {
        let handle = self.handle(number)?;
        self.gate().enter().may_change(self.gated(handle.ino), caller.who)?;
        rustix::fs::fallocate(&handle.fd, FallocateFlags::from_bits_retain(mode.cast_unsigned()), offset, length)
    }

    /// Finds data or holes.
    ///
    /// # Errors
    /// `ENXIO` beyond the end, `EINVAL` for another kind of seek.
    pub fn lseek(&self, number: u64, offset: i64, whence: i32) -> Result<u64, Errno> {
        let handle = self.handle(number)?;
        let from = u64::try_from(offset).map_err(|_| Errno::NXIO)?;
        match whence {
            libc::SEEK_DATA => rustix::fs::seek(&handle.fd, SeekFrom::Data(from)),
            libc::SEEK_HOLE => rustix::fs::seek(&handle.fd, SeekFrom::Hole(from)),
            _ => Err(Errno::INVAL),
        }
    }

    /// Copies between two open files without the bytes passing through here.
    ///
    /// # Errors
    /// `EROFS` when the target is blocked, else those of `copy_file_range`.
    pub fn copy(&self, caller: Caller, from: (u64, u64), to: (u64, u64), length: u64) -> Result<u32, Errno> {
        let source = self.handle(from.0)?;
        let target = self.handle(to.0)?;
        self.gate().enter().may_change(self.gated(target.ino), caller.who)?;
        let (mut read_at, mut write_at) = (from.1, to.1);
        // The answer has 32 bits.
        let length = usize::try_from(length).unwrap_or(usize::MAX).min(1 << 30);
        let copied = rustix::fs::copy_file_range(&source.fd, Some(&mut read_at), &target.fd, Some(&mut write_at), length)?;
        Ok(u32::try_from(copied).unwrap_or(u32::MAX))
    }
}

/// What the kernel may do with an open file. Here a `BackingId` would be chosen for passthrough: one per inode, and not
/// while another handle on the inode is open in cached mode.
pub fn opened_as(unchanged: bool) -> FopenFlags {
    let kept = if unchanged { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::empty() };
    kept | FopenFlags::FOPEN_NOFLUSH
}

/// Sets the length of the file behind a descriptor, also one that cannot be written through.
///
/// # Errors
/// Those of ftruncate or of opening the file to write.
pub fn truncate(fd: impl AsFd, size: u64) -> Result<(), Errno> {
    match rustix::fs::ftruncate(&fd, size) {
        Err(Errno::INVAL | Errno::BADF) => {
            let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let fd = rustix::fs::open(by_fd(&fd), flags, Mode::empty())?;
            rustix::fs::ftruncate(&fd, size)
        }
        other => other,
    }
}

/// What tells whether a file changed since pages of it were cached; `None` when it is too young to tell.
fn stamp(stat: &Statx) -> Option<(i64, u32)> {
    let changed = Duration::new(u64::try_from(stat.stx_ctime.tv_sec).ok()?, stat.stx_ctime.tv_nsec);
    let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed).ok()?;
    (age > TICK).then_some((stat.stx_ctime.tv_sec, stat.stx_ctime.tv_nsec))
}
