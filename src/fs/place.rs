//! The only code that changes the user's tree: single atomic steps, each checked against what is expected right before the act.

use super::observe::Look;
use super::observe::look_at;
use super::observe::look_fd;
use super::path::RelPath;
use super::root::Root;
use super::root::descriptor_path;
use super::root::open_at;
use super::root::open_below;
use super::stage::STAGE_PATH;
use super::stage::Stage;
use super::stage::StageError;
use super::stage::limbo_name;
use crate::model::Attrs;
use crate::model::Fingerprint;
use crate::model::Kind;
use crate::model::Mtime;
pub use placement::Placement;
use ready::Ready;
use ready::bits;
use ready::give_owner;
use ready::ready;
use ready::ready_file;
use ready::ready_symlink;
use ready::times;
use rustix::fs::AtFlags;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

mod placement;
mod ready;
#[cfg(test)]
mod tests;

/// So many things are made durable one by one; more of them by one `syncfs`.
const SYNC_EACH: usize = 32;

/// What a [`Placement`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// What was there (or in limbo) right before; `None` for what was created. When only an inode was expected the content may
    /// have changed since it was last seen: this fingerprint tells.
    pub before: Option<Look>,
    /// What is there now; `None` for what was removed. If it was changed again at once its fingerprint fits nothing, so that
    /// the next look finds the change.
    pub now: Option<Look>,
}

/// Why a [`Placement`] was not done; the tree is as it was.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Something else is there than expected.
    #[error("it has changed meanwhile")]
    Changed,
    /// The name is taken.
    #[error("the name is taken")]
    Exists,
    /// The mount says that it is in use.
    #[error("it is in use")]
    Busy,
    /// The directory is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// The disk is full, or the user's share of it.
    #[error("no space left on the disk (ENOSPC)")]
    NoSpace,
    /// It, or the directory for it, is not there.
    #[error("it is not there any more")]
    Gone,
    /// The content is not in the stage, or the node not in limbo.
    #[error("it is not in the stage")]
    NotStaged,
    #[error(transparent)]
    Io(io::Error),
}

impl From<Errno> for PlaceError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::BUSY => Self::Busy,
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            Errno::EXIST => Self::Exists,
            Errno::NOTEMPTY => Self::NotEmpty,
            Errno::NOENT | Errno::NOTDIR | Errno::LOOP => Self::Gone,
            Errno::ISDIR => Self::Changed,
            error => Self::Io(error.into()),
        }
    }
}

impl From<io::Error> for PlaceError {
    fn from(error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(number) => Errno::from_raw_os_error(number).into(),
            None => Self::Io(error),
        }
    }
}

impl From<StageError> for PlaceError {
    fn from(error: StageError) -> Self {
        match error {
            StageError::WrongBytes => Self::NotStaged,
            StageError::NoSpace => Self::NoSpace,
            StageError::Io(error) => error.into(),
        }
    }
}

/// A name in an open directory: looked at underneath, changed through the mount where there is one.
struct Spot {
    under: OwnedFd,
    over: Option<OwnedFd>,
    name: Vec<u8>,
}

impl Spot {
    fn act(&self) -> BorrowedFd<'_> {
        self.over.as_ref().unwrap_or(&self.under).as_fd()
    }

    fn look(&self) -> Result<(OwnedFd, Look), PlaceError> {
        look_at(self.under.as_fd(), &self.name)?.ok_or(PlaceError::Gone)
    }
}

/// What an act left, from the descriptor held since before it. Where that is not `before` but for its name and attributes, or
/// cannot be told any more, the fingerprint fits nothing.
fn settled(before: &Look, mtime: Mtime, held: BorrowedFd<'_>) -> Look {
    let after = look_fd(held);
    let doubtful = match &after {
        Ok(after) if before.kind() == Some(Kind::Dir) => before.fingerprint.ino != after.fingerprint.ino,
        Ok(after) => (before.fingerprint.size, mtime) != (after.fingerprint.size, after.fingerprint.mtime),
        Err(_) => true,
    };
    let mut look = after.unwrap_or_else(|_| before.clone());
    if doubtful {
        look.fingerprint = Fingerprint { ctime: Mtime::default(), ..before.fingerprint };
    }
    look
}

/// Does [`Placement`]s, and remembers what must be made durable for them.
#[derive(Debug)]
pub struct Placer {
    root: Arc<Root>,
    stage: Arc<Stage>,
    /// By inode, because a path may lead elsewhere when its turn comes.
    touched: BTreeMap<u64, OwnedFd>,
    /// Too many, a link, or one that may not be opened: the file system as a whole.
    whole: bool,
}

impl Placer {
    pub fn new(root: Arc<Root>, stage: Arc<Stage>) -> Self {
        Self { root, stage, touched: BTreeMap::new(), whole: false }
    }

    /// Does one step. Contents must be durable in the stage ([`Stage::sync`]); the step itself is durable after
    /// [`Placer::sync_dirs`].
    ///
    /// # Errors
    /// [`PlaceError`]; the tree is then as it was. A [`Placement::SetAttrs`] may have set one of the two attributes,
    /// and a [`Placement::CreateDir`] without write permission for its owner may have left that permission.
    pub fn place(&mut self, placement: &Placement) -> Result<Placed, PlaceError> {
        let stage = self.stage.clone();
        match placement {
            Placement::CreateDir { path, mode } => self.create_dir(&stage, path, *mode),
            Placement::CreateFile { path, hash, attrs, more } => {
                let spot = self.spot(path)?;
                let ready = ready_file(&stage, spot.under.as_fd(), false, hash, attrs, *more)?;
                self.install(ready, spot, None)
            }
            Placement::CreateSymlink { path, target, attrs } => {
                let spot = self.spot(path)?;
                let ready = ready_symlink(&stage, spot.under.as_fd(), target, attrs)?;
                self.install(ready, spot, None)
            }
            Placement::ReplaceFile { path, expected, hash, attrs, more } => {
                let spot = self.spot(path)?;
                let (old, _) = still(&spot, expected, Kind::File)?;
                let ready = ready_file(&stage, old.as_fd(), true, hash, attrs, *more)?;
                self.install(ready, spot, Some((expected, Kind::File)))
            }
            Placement::ReplaceSymlink { path, expected, target, attrs } => {
                let spot = self.spot(path)?;
                let (old, _) = still(&spot, expected, Kind::Symlink)?;
                let ready = ready_symlink(&stage, old.as_fd(), target, attrs)?;
                self.install(ready, spot, Some((expected, Kind::Symlink)))
            }
            Placement::Rename { from, ino, to } => {
                let (from, to) = (self.spot(from)?, self.spot(to)?);
                self.shift(from, Some(*ino), to)
            }
            Placement::ToLimbo { from, ino, node } => {
                let (from, to) = (self.spot(from)?, self.stage_spot(limbo_name(node))?);
                self.shift(from, Some(*ino), to)
            }
            Placement::FromLimbo { node, to } => {
                let (from, to) = (self.stage_spot(limbo_name(node))?, self.spot(to)?);
                self.shift(from, None, to)
            }
            Placement::RemoveLimbo { node, expected } => {
                let spot = self.stage_spot(limbo_name(node))?;
                let (_, look) = look_at(spot.under.as_fd(), &spot.name)?.ok_or(PlaceError::NotStaged)?;
                let same = match look.kind() {
                    Some(Kind::Dir) => look.fingerprint.ino == expected.ino,
                    _ => look.fingerprint == *expected,
                };
                self.remove(spot, look, same)
            }
            Placement::RemoveFile { path, expected } => {
                let spot = self.spot(path)?;
                let (_, look) = spot.look()?;
                let same = look.kind() != Some(Kind::Dir) && look.fingerprint == *expected;
                self.remove(spot, look, same)
            }
            Placement::RemoveDir { path, ino } => {
                let spot = self.spot(path)?;
                let (_, look) = spot.look()?;
                let same = look.kind() == Some(Kind::Dir) && look.fingerprint.ino == *ino;
                self.remove(spot, look, same)
            }
            Placement::SetAttrs { path, ino, attrs } => self.set_attrs(path, *ino, attrs),
        }
    }

    /// Makes the steps since the last call durable: the directories they changed, and the files whose attributes they set.
    ///
    /// # Errors
    /// When the disk reports an error: then nothing since the last call may be taken for durable, and asking again does not help.
    pub fn sync_dirs(&mut self) -> io::Result<()> {
        let touched = std::mem::take(&mut self.touched);
        if std::mem::take(&mut self.whole) {
            return Ok(rustix::fs::syncfs(self.root.dir())?);
        }
        touched.values().try_for_each(|dir| Ok(rustix::fs::fsync(dir)?))
    }

    fn spot(&self, path: &RelPath) -> Result<Spot, PlaceError> {
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Err(PlaceError::Io(io::Error::new(io::ErrorKind::InvalidInput, "the root itself cannot be placed")));
        };
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let under = open_below(self.root.dir(), &parent, flags)?;
        let over = match self.root.mounted()? {
            Some(mounted) => Some(open_below(mounted.as_fd(), &parent, flags)?),
            None => None,
        };
        if let Some(over) = &over
            && !parent.is_root()
            && rustix::fs::fstat(over)?.st_ino != rustix::fs::fstat(&under)?.st_ino
        {
            return Err(PlaceError::Changed);
        }
        Ok(Spot { under, over, name: name.as_bytes().to_vec() })
    }

    fn stage_spot(&self, name: Vec<u8>) -> Result<Spot, PlaceError> {
        let under = self.stage.dir().try_clone_to_owned()?;
        let over = match self.root.mounted()? {
            Some(mounted) => Some(open_at(mounted.as_fd(), STAGE_PATH, OFlags::PATH | OFlags::DIRECTORY)?),
            None => None,
        };
        Ok(Spot { under, over, name })
    }

    /// Remembers a directory, or a file whose attributes were set, for [`Placer::sync_dirs`].
    fn touch(&mut self, thing: BorrowedFd<'_>) {
        if self.whole {
            return;
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = rustix::fs::fstat(thing)
            .and_then(|stat| Ok((stat.st_ino, rustix::fs::open(descriptor_path(thing), flags, Mode::empty())?)));
        match opened {
            Ok((ino, fd)) if self.touched.len() < SYNC_EACH || self.touched.contains_key(&ino) => {
                self.touched.insert(ino, fd);
            }
            _ => {
                self.whole = true;
                self.touched.clear();
            }
        }
    }

    /// Moves what is ready into its place: over the expected thing, or where nothing is.
    fn install(&mut self, mut ready: Ready<'_>, to: Spot, over: Option<(&Fingerprint, Kind)>) -> Result<Placed, PlaceError> {
        let from = self.stage_spot(ready.name.clone())?;
        let (before, flags) = match over {
            Some((expected, kind)) => (Some(still(&to, expected, kind)?.1), RenameFlags::empty()),
            None => (None, RenameFlags::NOREPLACE),
        };
        rename(&from, &to, flags)?;
        ready.placed = true;
        self.touch(to.under.as_fd());
        let now = settled(&ready.look, ready.look.fingerprint.mtime, ready.held.as_fd());
        Ok(Placed { before, now: Some(now) })
    }

    fn create_dir(&mut self, stage: &Stage, path: &RelPath, mode: u16) -> Result<Placed, PlaceError> {
        let spot = self.spot(path)?;
        let name = stage.unused_name()?;
        rustix::fs::mkdirat(stage.dir(), &name[..], Mode::RWXU)?;
        let ready = ready(stage, name, true)?;
        give_owner(spot.under.as_fd(), stage.dir(), &ready.name)?;
        // To be moved a directory must be writable to its owner.
        rustix::fs::chmod(descriptor_path(ready.held.as_fd()), bits(mode) | Mode::RWXU)?;
        let ino = ready.look.fingerprint.ino;
        let placed = self.install(ready, spot, None)?;
        if bits(mode).contains(Mode::RWXU) {
            return Ok(placed);
        }
        let attrs = Attrs { mode, mtime: Mtime::default() };
        let placed = self.set_attrs(path, ino, &attrs)?;
        Ok(Placed { before: None, ..placed })
    }

    /// Moves a thing to a name that is free.
    fn shift(&mut self, from: Spot, ino: Option<u64>, to: Spot) -> Result<Placed, PlaceError> {
        let gone = if ino.is_none() { PlaceError::NotStaged } else { PlaceError::Gone };
        let (held, before) = look_at(from.under.as_fd(), &from.name)?.ok_or(gone)?;
        if ino.is_some_and(|ino| ino != before.fingerprint.ino) {
            return Err(PlaceError::Changed);
        }
        rename(&from, &to, RenameFlags::NOREPLACE)?;
        self.touch(from.under.as_fd());
        self.touch(to.under.as_fd());
        let now = settled(&before, before.fingerprint.mtime, held.as_fd());
        Ok(Placed { before: Some(before), now: Some(now) })
    }

    fn remove(&mut self, spot: Spot, look: Look, same: bool) -> Result<Placed, PlaceError> {
        if !same {
            return Err(PlaceError::Changed);
        }
        let dir = look.kind() == Some(Kind::Dir);
        let flags = if dir { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        match rustix::fs::unlinkat(spot.act(), &spot.name[..], flags) {
            Err(Errno::EXIST) if dir => return Err(PlaceError::NotEmpty),
            result => result?,
        }
        self.touch(spot.under.as_fd());
        Ok(Placed { before: Some(look), now: None })
    }

    fn set_attrs(&mut self, path: &RelPath, ino: u64, attrs: &Attrs) -> Result<Placed, PlaceError> {
        let spot = self.spot(path)?;
        let (held, before) = spot.look()?;
        if before.fingerprint.ino != ino {
            return Err(PlaceError::Changed);
        }
        let act = match &spot.over {
            Some(over) => open_at(over.as_fd(), &spot.name, OFlags::PATH)?,
            None => held.try_clone()?,
        };
        let stat = rustix::fs::fstat(&act)?;
        if stat.st_ino != ino {
            return Err(PlaceError::Changed);
        }
        let kind = before.kind().ok_or(PlaceError::Changed)?;
        if kind != Kind::Symlink && before.attrs.mode != attrs.mode & Attrs::MODE_MASK {
            // A directory's set-group-id bit is this machine's own affair.
            let kept = if kind == Kind::Dir { Mode::from_raw_mode(stat.st_mode) & Mode::SGID } else { Mode::empty() };
            rustix::fs::chmod(descriptor_path(act.as_fd()), bits(attrs.mode) | kept)?;
        }
        match kind {
            Kind::Dir => {}
            Kind::File => rustix::fs::utimensat(&act, descriptor_path(act.as_fd()), &times(attrs.mtime), AtFlags::empty())?,
            Kind::Symlink => {
                rustix::fs::utimensat(spot.act(), &spot.name[..], &times(attrs.mtime), AtFlags::SYMLINK_NOFOLLOW)?;
            }
        }
        let now = settled(&before, attrs.mtime, held.as_fd());
        self.touch(held.as_fd());
        Ok(Placed { before: Some(before), now: Some(now) })
    }
}

fn rename(from: &Spot, to: &Spot, flags: RenameFlags) -> Result<(), Errno> {
    match rustix::fs::renameat_with(from.act(), &from.name[..], to.act(), &to.name[..], flags) {
        Err(Errno::INVAL | Errno::NOSYS) if flags == RenameFlags::NOREPLACE => rename_unflagged(from, to),
        result => result,
    }
}

/// Moves to a free name on a file system that knows no `RENAME_NOREPLACE`. A link takes no name that is taken; a directory, which
/// cannot be linked, can at the worst take the place of an empty one.
fn rename_unflagged(from: &Spot, to: &Spot) -> Result<(), Errno> {
    let stat = rustix::fs::statat(from.act(), &from.name[..], AtFlags::SYMLINK_NOFOLLOW)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return match rustix::fs::statat(to.act(), &to.name[..], AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(Errno::EXIST),
            Err(Errno::NOENT) => rustix::fs::renameat(from.act(), &from.name[..], to.act(), &to.name[..]),
            Err(error) => Err(error),
        };
    }
    rustix::fs::linkat(from.act(), &from.name[..], to.act(), &to.name[..], AtFlags::empty())?;
    rustix::fs::unlinkat(from.act(), &from.name[..], AtFlags::empty()).or_else(|error| {
        rustix::fs::unlinkat(to.act(), &to.name[..], AtFlags::empty())?;
        Err(error)
    })
}

/// The thing of that kind and fingerprint, if it still is there.
fn still(spot: &Spot, expected: &Fingerprint, kind: Kind) -> Result<(OwnedFd, Look), PlaceError> {
    let (held, look) = spot.look()?;
    if look.kind() != Some(kind) || look.fingerprint != *expected {
        return Err(PlaceError::Changed);
    }
    Ok((held, look))
}
