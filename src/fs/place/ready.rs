//! What is about to be placed: made and given its attributes in the stage, where nobody sees it unfinished.

use super::PlaceError;
use crate::fs::observe::Look;
use crate::fs::observe::look_at;
use crate::fs::observe::look_fd;
use crate::fs::root::descriptor_path;
use crate::fs::stage::Stage;
use crate::model::Attrs;
use crate::model::Hash;
use crate::model::Mtime;
use rustix::fs::AtFlags;
use rustix::fs::Mode;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// Something in the stage that is ready to be moved into the tree; dropped before that it is made unready again.
pub(super) struct Ready<'a> {
    stage: &'a Stage,
    pub(super) name: Vec<u8>,
    pub(super) held: OwnedFd,
    pub(super) look: Look,
    /// Whether it was made for this place only.
    own: bool,
    pub(super) placed: bool,
}

impl Drop for Ready<'_> {
    fn drop(&mut self) {
        if self.placed {
            return;
        }
        let undone = if self.own { self.stage.discard(&self.name) } else { self.stage.make_private(self.held.as_fd()) };
        if let Err(error) = undone {
            tracing::warn!(%error, "a leftover stays in the stage until the next start");
        }
    }
}

pub(super) fn times(mtime: Mtime) -> Timestamps {
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Timestamps { last_access: omit, last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() } }
}

pub(super) fn bits(mode: u16) -> Mode {
    Mode::from_raw_mode((mode & Attrs::MODE_MASK).into())
}

/// Gives a new thing the owner of the old one or of its directory; only root can, others get their own.
pub(super) fn give_owner(from: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), PlaceError> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let stat = rustix::fs::fstat(from)?;
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // Root of a user namespace, or of a network file system that does not believe in it.
        Err(Errno::PERM | Errno::INVAL) => Ok(()),
        result => Ok(result?),
    }
}

/// Copies the attributes that belong to the user, where both file systems know any and they may be read.
fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<(), PlaceError> {
    let from = descriptor_path(from);
    let mut list = vec![0; 64 << 10];
    let mut value = vec![0; 64 << 10];
    let listed = match rustix::fs::listxattr(&from, &mut list[..]) {
        Err(Errno::OPNOTSUPP | Errno::ACCESS) => return Ok(()),
        listed => listed?,
    };
    for name in list[..listed].split(|&byte| byte == 0) {
        if !name.starts_with(b"user.") || name.starts_with(b"user.syncfs.") {
            continue;
        }
        let len = match rustix::fs::getxattr(&from, name, &mut value[..]) {
            Err(Errno::NODATA | Errno::ACCESS) => continue,
            len => len?,
        };
        rustix::fs::fsetxattr(to, name, &value[..len], XattrFlags::empty())?;
    }
    Ok(())
}

pub(super) fn ready(stage: &Stage, name: Vec<u8>, own: bool) -> Result<Ready<'_>, PlaceError> {
    let (held, look) = look_at(stage.dir(), &name)?.ok_or(PlaceError::NotStaged)?;
    Ok(Ready { stage, name, held, look, own, placed: false })
}

/// The staged content with its attributes. `like` gives the owner: the file it replaces, or the directory it comes into.
pub(super) fn ready_file<'a>(
    stage: &'a Stage,
    like: BorrowedFd<'_>,
    replaces: bool,
    hash: &Hash,
    attrs: &Attrs,
    more: bool,
) -> Result<Ready<'a>, PlaceError> {
    let (name, file) = stage.take(hash, more)?.ok_or(PlaceError::NotStaged)?;
    let mut ready = ready(stage, name, more)?;
    if replaces {
        copy_xattrs(like, file.as_fd())?;
    }
    give_owner(like, stage.dir(), &ready.name)?;
    rustix::fs::fchmod(&file, bits(attrs.mode))?;
    rustix::fs::futimens(&file, &times(attrs.mtime))?;
    ready.look = look_fd(ready.held.as_fd())?;
    Ok(ready)
}

pub(super) fn ready_symlink<'a>(
    stage: &'a Stage,
    like: BorrowedFd<'_>,
    target: &[u8],
    attrs: &Attrs,
) -> Result<Ready<'a>, PlaceError> {
    let name = stage.unused_name()?;
    match rustix::fs::symlinkat(target, stage.dir(), &name[..]) {
        // An empty target.
        Err(Errno::NOENT) => return Err(PlaceError::Io(Errno::NOENT.into())),
        result => result?,
    }
    let mut ready = ready(stage, name, true)?;
    give_owner(like, stage.dir(), &ready.name)?;
    rustix::fs::utimensat(stage.dir(), &ready.name[..], &times(attrs.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
    ready.look = look_fd(ready.held.as_fd())?;
    Ok(ready)
}
