//! The synchronized directory as a descriptor, and the one door by which everything below it is reached.

use super::path::RelPath;
use crate::model::STATE_DIR;
use crate::model::VolumeId;
use data_encoding::HEXLOWER_PERMISSIVE;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::ResolveFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::PoisonError;
use std::sync::RwLock;

/// No link is followed, nothing above the start and nothing on another mount is reached.
const BELOW: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_XDEV);

/// How many bytes of a path are given to the kernel at once; it takes 4095.
const PIECE: usize = 3000;

/// The file in the state directory that tells that this directory is the one that was synchronized.
const MARKER: &[u8] = b"root";

/// Opens what `name` is, itself: a symbolic link at the end is opened with `O_PATH` and refused (`ELOOP`) otherwise.
pub(super) fn open_at(dir: BorrowedFd<'_>, name: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    loop {
        match rustix::fs::openat2(dir, name, flags, Mode::empty(), BELOW) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
}

/// Opens what is at `path` below `dir`, as [`open_at`]; paths longer than the kernel takes are walked in pieces.
pub(super) fn open_below(dir: BorrowedFd<'_>, path: &RelPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut names = path.names().iter().peekable();
    let mut at: Option<OwnedFd> = None;
    loop {
        let mut piece = Vec::new();
        while let Some(name) = names.next_if(|name| piece.is_empty() || piece.len() + name.as_bytes().len() < PIECE) {
            if !piece.is_empty() {
                piece.push(b'/');
            }
            piece.extend_from_slice(name.as_bytes());
        }
        if piece.is_empty() {
            piece.push(b'.');
        }
        let last = names.peek().is_none();
        let wanted = if last { flags } else { OFlags::PATH | OFlags::DIRECTORY };
        let next = open_at(at.as_ref().map_or(dir, AsFd::as_fd), &piece, wanted)?;
        if last {
            return Ok(next);
        }
        at = Some(next);
    }
}

/// Whether the error says that nothing is there: the name is missing, or something on the way is no directory.
pub(super) fn says_absent(error: Errno) -> bool {
    matches!(error, Errno::NOENT | Errno::NOTDIR | Errno::LOOP)
}

/// `None` where nothing is there; every other error stays one.
pub(super) fn if_there<T>(result: Result<T, Errno>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if says_absent(error) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The path of an open descriptor, for the calls that take no descriptor. It leads to the very thing that is open,
/// below whatever was mounted there since.
pub(super) fn descriptor_path(fd: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}

/// What tells that a directory is the one that was synchronized before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// Random, made once for each directory.
    pub id: [u8; 16],
    pub volume: VolumeId,
}

impl Marker {
    /// A new marker for a directory that is to hold `volume`.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub fn new(volume: VolumeId) -> io::Result<Self> {
        let mut id = [0; 16];
        getrandom::fill(&mut id).map_err(io::Error::other)?;
        Ok(Self { id, volume })
    }

    fn to_text(&self) -> String {
        format!("syncfs root 1\nid {}\nvolume {}\n", data_encoding::HEXLOWER.encode(&self.id), self.volume)
    }

    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let id_of = |line: &str, key: &str| HEXLOWER_PERMISSIVE.decode(line.strip_prefix(key)?.as_bytes()).ok()?.try_into().ok();
        if lines.next() != Some("syncfs root 1") {
            return None;
        }
        Some(Self { id: id_of(lines.next()?, "id ")?, volume: VolumeId(id_of(lines.next()?, "volume ")?) })
    }
}

/// The synchronized directory, opened before anything is mounted over it. Everything below is reached through this descriptor,
/// never by a path of the system, and no symbolic link is ever followed.
#[derive(Debug)]
pub struct Root {
    dir: OwnedFd,
    dev: u64,
    ino: u64,
    through: RwLock<Option<Over>>,
}

/// The way to the directory through the mount.
#[derive(Debug)]
struct Over {
    path: PathBuf,
    /// Of the mount; the path leads elsewhere once that is gone.
    dev: u64,
}

fn open_over(path: &Path) -> Result<OwnedFd, Errno> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

impl Root {
    /// Opens the directory at `path`; nothing is created or changed.
    ///
    /// # Errors
    /// When it is not there, is no directory or may not be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&dir)?;
        Ok(Self { dir, dev: stat.st_dev, ino: stat.st_ino, through: RwLock::new(None) })
    }

    /// Device and inode of the directory.
    pub fn identity(&self) -> (u64, u64) {
        (self.dev, self.ino)
    }

    /// The directory underneath.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Sets the path at which the same directory is reached through the mount: from now on the user's tree is changed through it, so
    /// that watchers see the change and the kernel's caches stay right. `None`: by the directory underneath again, as also after
    /// the mount was taken away.
    ///
    /// Nothing is kept open: an open directory would keep the mount in use, and `fusermount3 -u` out. The mount must show the inode
    /// numbers of the directory underneath and should not let the kernel keep entries of `.syncfs`.
    ///
    /// # Errors
    /// When nothing is there.
    pub fn through(&self, mounted: Option<&Path>) -> io::Result<()> {
        let over = match mounted {
            Some(path) => Some(Over { path: path.to_owned(), dev: rustix::fs::fstat(open_over(path)?)?.st_dev }),
            None => None,
        };
        *self.through.write().unwrap_or_else(PoisonError::into_inner) = over;
        Ok(())
    }

    /// The directory opened through the mount, for one change.
    pub(super) fn mounted(&self) -> Result<Option<OwnedFd>, Errno> {
        let through = self.through.read().unwrap_or_else(PoisonError::into_inner);
        let Some(over) = through.as_ref() else { return Ok(None) };
        let opened = open_over(&over.path)?;
        let is_there = rustix::fs::fstat(&opened)?.st_dev == over.dev;
        Ok(is_there.then_some(opened))
    }

    /// Opens (for reading) the state directory `.syncfs`; it is made, for the owner only, where it is not there.
    ///
    /// # Errors
    /// When it is no directory, lies on another file system, or cannot be made or closed to others.
    pub fn state_dir(&self) -> io::Result<OwnedFd> {
        private_dir(self.dir(), STATE_DIR, self.dev)
    }

    /// A path of the state directory that keeps leading underneath after a mount was laid over the root; for this process only.
    pub fn state_path(&self) -> PathBuf {
        Path::new(&descriptor_path(self.dir())).join(String::from_utf8_lossy(STATE_DIR).as_ref())
    }

    /// The identity marker; `None` where the directory was never synchronized, or was emptied.
    ///
    /// # Errors
    /// When it cannot be read, or is no marker (`InvalidData`): that is never the same as "none".
    pub fn marker(&self) -> io::Result<Option<Marker>> {
        let Some(state) = if_there(open_at(self.dir(), STATE_DIR, OFlags::PATH | OFlags::DIRECTORY))? else {
            return Ok(None);
        };
        let Some(file) = if_there(open_at(state.as_fd(), MARKER, OFlags::RDONLY | OFlags::NONBLOCK))? else {
            return Ok(None);
        };
        let mut text = String::new();
        File::from(file).take(4096).read_to_string(&mut text)?;
        let bad = || io::Error::new(io::ErrorKind::InvalidData, "the identity marker .syncfs/root is damaged");
        Marker::from_text(&text).ok_or_else(bad).map(Some)
    }

    /// Writes the identity marker durably; the old one, if any, is whole until the new one is.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_marker(&self, marker: &Marker) -> io::Result<()> {
        let state = self.state_dir()?;
        let new = [MARKER, b".new"].concat();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(rustix::fs::openat(&state, &new[..], flags, Mode::RUSR | Mode::WUSR)?);
        file.write_all(marker.to_text().as_bytes())?;
        file.sync_all()?;
        rustix::fs::renameat(&state, &new[..], &state, MARKER)?;
        Ok(rustix::fs::fsync(&state)?)
    }
}

/// Opens the directory `name` of ours, for the owner only and on device `dev`; it is made durably where it is not there.
pub(super) fn private_dir(parent: BorrowedFd<'_>, name: &[u8], dev: u64) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let dir = match open_at(parent, name, flags) {
        Err(Errno::NOENT) => {
            match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            rustix::fs::fsync(rustix::fs::openat(parent, ".", flags | OFlags::CLOEXEC, Mode::empty())?)?;
            open_at(parent, name, flags)?
        }
        result => result?,
    };
    let stat = rustix::fs::statat(&dir, "", AtFlags::EMPTY_PATH)?;
    if stat.st_dev != dev {
        return Err(io::Error::new(io::ErrorKind::CrossesDevices, "the state directory .syncfs is on another file system"));
    }
    if stat.st_mode & 0o7777 != 0o700 {
        rustix::fs::fchmod(&dir, Mode::RWXU)?;
    }
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// The marker comes back as written; a directory without one has none; a damaged one is an error, not "none".
    #[test]
    fn the_marker_tells_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert_eq!(root.marker().unwrap(), None);
        let marker = Marker::new(VolumeId([7; 16])).unwrap();
        root.write_marker(&marker).unwrap();
        assert_eq!(root.marker().unwrap(), Some(marker));
        assert_eq!(std::fs::metadata(dir.path().join(".syncfs")).unwrap().mode() & 0o7777, 0o700);
        std::fs::write(root.state_path().join("root"), "").unwrap();
        assert_eq!(root.marker().unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// A state directory that is a link to somewhere else is not used.
    #[test]
    fn the_state_directory_is_no_link() {
        let dir = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join(".syncfs")).unwrap();
        let root = Root::open(dir.path()).unwrap();
        assert!(root.state_dir().is_err() && root.write_marker(&Marker::new(VolumeId([0; 16])).unwrap()).is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
