//! Attributes: from the file system underneath to FUSE and back.

use std::os::fd::AsFd;
use std::time::Duration;
use std::time::SystemTime;

use fuser::FileAttr;
use fuser::FileType;
use fuser::INodeNo;
use fuser::TimeOrNow;
use rustix::fs::AtFlags;
use rustix::fs::Statx;
use rustix::fs::StatxFlags;
use rustix::fs::StatxTimestamp;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_NOW;
use rustix::fs::UTIME_OMIT;
use rustix::io::Errno;

/// Time of birth (seconds, nanoseconds) where the file system keeps one.
pub type Birth = Option<(i64, u32)>;

/// The attributes behind a descriptor (also an `O_PATH` one).
pub fn of_fd(fd: impl AsFd) -> Result<Statx, Errno> {
    of(fd, c"", AtFlags::EMPTY_PATH)
}

/// The attributes of an entry of a directory; a symlink is not followed.
pub fn of_entry(dir: impl AsFd, name: &[u8]) -> Result<Statx, Errno> {
    of(dir, name, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

fn of(dir: impl AsFd, name: impl rustix::path::Arg, flags: AtFlags) -> Result<Statx, Errno> {
    rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)
}

/// Device number as `st_dev` has it.
pub fn device(stat: &Statx) -> u64 {
    rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor)
}

/// See [`Birth`].
pub fn birth(stat: &Statx) -> Birth {
    let known = StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::BTIME);
    known.then_some((stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec))
}

/// The kind of a file, from its mode.
pub fn kind(mode: u16) -> FileType {
    match u32::from(mode) & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

/// As FUSE wants it, under the node id `id`; a blocked file is shown without its write bits.
pub fn shown(stat: &Statx, id: u64, blocked: bool) -> FileAttr {
    let perm = stat.stx_mode & 0o7777;
    let hidden = if blocked && kind(stat.stx_mode) != FileType::Directory { 0o222 } else { 0 };
    FileAttr {
        ino: INodeNo(id),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
        crtime: SystemTime::UNIX_EPOCH,
        kind: kind(stat.stx_mode),
        perm: perm & !hidden,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        rdev: (stat.stx_rdev_minor & 0xff) | (stat.stx_rdev_major << 8) | ((stat.stx_rdev_minor & !0xff) << 12),
        blksize: stat.stx_blksize,
        flags: 0,
    }
}

/// The attributes of "no such entry": node id 0 makes the kernel remember the absence.
pub fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 0,
        flags: 0,
    }
}

fn time(stamp: StatxTimestamp) -> SystemTime {
    let seconds = Duration::from_secs(stamp.tv_sec.unsigned_abs());
    let whole =
        if stamp.tv_sec >= 0 { SystemTime::UNIX_EPOCH.checked_add(seconds) } else { SystemTime::UNIX_EPOCH.checked_sub(seconds) };
    whole.map_or(SystemTime::UNIX_EPOCH, |whole| whole + Duration::from_nanos(stamp.tv_nsec.into()))
}

/// Both times of a `utimensat`; what is not given stays as it is.
pub fn stamps(atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>) -> Timestamps {
    Timestamps { last_access: stamp(atime), last_modification: stamp(mtime) }
}

fn stamp(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Timespec { tv_sec: seconds(after), tv_nsec: after.subsec_nanos().into() },
            // fuser 0.18.0 subtracts the nanoseconds of a time before 1970 that should be added; the parts are unharmed.
            Err(before) => {
                let parts = before.duration();
                Timespec { tv_sec: -seconds(parts), tv_nsec: parts.subsec_nanos().into() }
            }
        },
    }
}

fn seconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}
