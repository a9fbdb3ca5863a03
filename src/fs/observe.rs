//! Looking at the directory underneath. An error is never a fact: only "not there" says that something is not there.

use super::ignore::never_synced;
use super::path::RelPath;
use super::root::Root;
use super::root::if_there;
use super::root::open_at;
use super::root::open_below;
use crate::model::Attrs;
use crate::model::Fingerprint;
use crate::model::Hash;
use crate::model::Kind;
use crate::model::Mtime;
use crate::model::Name;
use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::OFlags;
use rustix::fs::Statx;
use rustix::fs::StatxAttributes;
use rustix::fs::StatxFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;

/// How many bytes are read at once.
const READ: usize = 256 << 10;

/// What something in the directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LookKind {
    Dir,
    File,
    Symlink {
        target: Vec<u8>,
    },
    /// A fifo, socket or device: never synchronized.
    Other,
}

/// What was seen at a path, without following a link there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    pub kind: LookKind,
    /// As they would travel.
    pub attrs: Attrs,
    pub fingerprint: Fingerprint,
    /// The number of hard links.
    pub nlink: u32,
}

impl Look {
    /// The kind of node it can be; `None` for what is never synchronized.
    pub fn kind(&self) -> Option<Kind> {
        match self.kind {
            LookKind::Dir => Some(Kind::Dir),
            LookKind::File => Some(Kind::File),
            LookKind::Symlink { .. } => Some(Kind::Symlink),
            LookKind::Other => None,
        }
    }
}

/// The entries of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// In byte order of the names.
    pub entries: Vec<(Name, Look)>,
    /// Entries that are there and cannot be seen because something is mounted on them; nothing is known of what they are.
    pub covered: Vec<Name>,
    /// How many entries never travel: the state directory, editors' own files, fifos, sockets, devices. A directory that has such
    /// entries cannot be removed.
    pub ignored: usize,
}

/// The result of reading a file that should still be the one that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reading<T> {
    Read(T),
    /// It is another file, has changed (also while it was read), or is not there any more: look again.
    Changed,
    /// It has more bytes than the limit.
    TooLarge,
}

fn time(at: rustix::fs::StatxTimestamp) -> Mtime {
    Mtime { secs: at.tv_sec, nanos: at.tv_nsec }
}

fn fingerprint(stat: &Statx) -> Fingerprint {
    Fingerprint {
        dev: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
        ino: stat.stx_ino,
        size: stat.stx_size,
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
    }
}

fn statx(dir: BorrowedFd<'_>, name: &[u8], flags: AtFlags) -> Result<Statx, Errno> {
    rustix::fs::statx(dir, name, flags | AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT, StatxFlags::BASIC_STATS)
}

fn look_of(stat: &Statx, target: Option<Vec<u8>>) -> Look {
    let kind = match (FileType::from_raw_mode(stat.stx_mode.into()), target) {
        (FileType::Directory, _) => LookKind::Dir,
        (FileType::RegularFile, _) => LookKind::File,
        (FileType::Symlink, Some(target)) => LookKind::Symlink { target },
        _ => LookKind::Other,
    };
    let as_node = match kind {
        LookKind::Dir => Kind::Dir,
        LookKind::Symlink { .. } => Kind::Symlink,
        LookKind::File | LookKind::Other => Kind::File,
    };
    Look {
        kind,
        attrs: Attrs::of(as_node, stat.stx_mode.into(), time(stat.stx_mtime)),
        fingerprint: fingerprint(stat),
        nlink: stat.stx_nlink,
    }
}

/// What the open thing is; `fd` may be an `O_PATH` descriptor of a link.
pub(super) fn look_fd(fd: BorrowedFd<'_>) -> Result<Look, Errno> {
    let stat = statx(fd, b"", AtFlags::EMPTY_PATH)?;
    let link = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Symlink;
    let target = if link { Some(rustix::fs::readlinkat(fd, "", Vec::new())?.into_bytes()) } else { None };
    Ok(look_of(&stat, target))
}

/// What is at `name` in `dir`, with an `O_PATH` descriptor that keeps meaning it whatever happens to the name.
pub(super) fn look_at(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Option<(OwnedFd, Look)>> {
    let Some(fd) = if_there(open_at(dir, name, OFlags::PATH))? else { return Ok(None) };
    let look = look_fd(fd.as_fd())?;
    Ok(Some((fd, look)))
}

impl Root {
    /// What is at `path`; `None` when nothing is there, also when something on the way is no directory.
    ///
    /// # Errors
    /// Everything else, and `CrossesDevices` where something is mounted at or above the path.
    pub fn look(&self, path: &RelPath) -> io::Result<Option<Look>> {
        let Some(fd) = if_there(open_below(self.dir(), path, OFlags::PATH))? else { return Ok(None) };
        Ok(Some(look_fd(fd.as_fd())?))
    }

    /// What is in the directory at `path`; `None` when no directory is there.
    ///
    /// A name that is renamed while the listing is read may be missing from it: look at the path before taking it for gone.
    ///
    /// # Errors
    /// As [`Root::look`]; one unreadable entry fails the whole listing.
    pub fn list(&self, path: &RelPath) -> io::Result<Option<Listing>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let Some(dir) = if_there(open_below(self.dir(), path, flags))? else { return Ok(None) };
        let mut listing = Listing::default();
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let bytes = entry.file_name().to_bytes();
            if matches!(bytes, b"." | b"..") {
                continue;
            }
            let Ok(name) = Name::new(bytes) else {
                listing.ignored += 1;
                continue;
            };
            if never_synced(bytes) {
                listing.ignored += 1;
                continue;
            }
            let stat = match statx(dir.as_fd(), bytes, AtFlags::empty()) {
                Err(Errno::NOENT) => continue,
                stat => stat?,
            };
            if stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) || fingerprint(&stat).dev != self.identity().0 {
                listing.covered.push(name);
                continue;
            }
            let look = if FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Symlink {
                match look_at(dir.as_fd(), bytes)? {
                    Some((_, look)) => look,
                    None => continue,
                }
            } else {
                look_of(&stat, None)
            };
            if look.kind == LookKind::Other {
                listing.ignored += 1;
            } else {
                listing.entries.push((name, look));
            }
        }
        listing.entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        listing.entries.dedup_by(|(a, _), (b, _)| a == b);
        listing.covered.sort();
        Ok(Some(listing))
    }

    /// The file at `path` for reading, and what it is; `None` when no regular file is there.
    ///
    /// # Errors
    /// As [`Root::look`], and when the file may not be read.
    pub fn open_read(&self, path: &RelPath) -> io::Result<Option<(File, Look)>> {
        let opened = open_below(self.dir(), path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY);
        let fd = match opened {
            Err(Errno::NXIO) => return Ok(None),
            opened => if_there(opened)?,
        };
        let Some(fd) = fd else { return Ok(None) };
        let look = look_fd(fd.as_fd())?;
        Ok((look.kind == LookKind::File).then(|| (File::from(fd), look)))
    }

    /// Makes the file or the directory at `path` durable. Returns whether it is there; a link is durable with its directory.
    ///
    /// # Errors
    /// When it cannot be opened or the disk reports an error.
    pub fn sync(&self, path: &RelPath) -> io::Result<bool> {
        match open_below(self.dir(), path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY) {
            Err(Errno::LOOP) => Ok(true),
            // Who may not read it says so elsewhere.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::NXIO | Errno::ACCESS) => Ok(false),
            opened => match rustix::fs::fsync(opened?) {
                // Nothing that holds bytes.
                Err(Errno::INVAL) => Ok(false),
                synced => Ok(synced.map(|()| true)?),
            },
        }
    }

    /// The hash of the file at `path`, if it is the file of `expected` from the first byte read to the last.
    /// Somebody who holds the file mapped for writing may still change it without a trace until he lets go.
    ///
    /// # Errors
    /// When the file cannot be read, or ends before its size.
    pub fn hash(&self, path: &RelPath, expected: &Fingerprint) -> io::Result<Reading<Hash>> {
        let mut hasher = blake3::Hasher::new();
        let read = self.read(path, expected, u64::MAX, |bytes| {
            hasher.update(bytes);
        })?;
        Ok(match read {
            Reading::Read(()) => Reading::Read(Hash(*hasher.finalize().as_bytes())),
            Reading::Changed => Reading::Changed,
            Reading::TooLarge => Reading::TooLarge,
        })
    }

    /// The bytes of the file at `path`, at most `limit`, under the same condition as [`Root::hash`].
    ///
    /// # Errors
    /// As [`Root::hash`].
    pub fn read_all(&self, path: &RelPath, expected: &Fingerprint, limit: u64) -> io::Result<Reading<Vec<u8>>> {
        let mut all = Vec::new();
        let read = self.read(path, expected, limit, |bytes| all.extend_from_slice(bytes))?;
        Ok(match read {
            Reading::Read(()) => Reading::Read(all),
            Reading::Changed => Reading::Changed,
            Reading::TooLarge => Reading::TooLarge,
        })
    }

    fn read(&self, path: &RelPath, expected: &Fingerprint, limit: u64, mut take: impl FnMut(&[u8])) -> io::Result<Reading<()>> {
        let Some((mut file, look)) = self.open_read(path)? else { return Ok(Reading::Changed) };
        if look.fingerprint != *expected {
            return Ok(Reading::Changed);
        }
        if expected.size > limit {
            return Ok(Reading::TooLarge);
        }
        let mut buffer = vec![0; READ.min((expected.size as usize).saturating_add(1))];
        let mut total = 0;
        loop {
            let read = match file.read(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                read => read?,
            };
            total += read as u64;
            if read == 0 || total > expected.size {
                break;
            }
            take(&buffer[..read]);
        }
        if look_fd(file.as_fd())?.fingerprint != *expected || total > expected.size {
            return Ok(Reading::Changed);
        }
        if total < expected.size {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file ended before its size"));
        }
        Ok(Reading::Read(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn path(at: &str) -> RelPath {
        RelPath::from_bytes(at.as_bytes()).unwrap()
    }

    /// A listing names what travels, in byte order, and counts what does not.
    #[test]
    fn a_listing() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        root.state_dir().unwrap();
        std::fs::write(dir.path().join("b"), "bytes").unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        symlink("nowhere", dir.path().join("c")).unwrap();
        std::fs::write(dir.path().join(".b.swp"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        let listing = root.list(&RelPath::ROOT).unwrap().unwrap();
        let kinds: Vec<_> = listing.entries.iter().map(|(name, look)| (name.as_bytes().to_vec(), look.kind.clone())).collect();
        let link = LookKind::Symlink { target: b"nowhere".to_vec() };
        assert_eq!(kinds, [(b"a".to_vec(), LookKind::Dir), (b"b".to_vec(), LookKind::File), (b"c".to_vec(), link)]);
        assert_eq!((listing.ignored, listing.covered), (3, vec![]));
        for (name, look) in &listing.entries {
            assert_eq!(root.look(&RelPath::ROOT.join(name)).unwrap().as_ref(), Some(look));
        }
    }

    /// What is below a file, a link or nothing is not there; a fifo and a socket are no files and nobody waits for them.
    #[test]
    fn not_there() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        std::fs::write(dir.path().join("f"), "").unwrap();
        symlink("f", dir.path().join("l")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap();
        rustix::fs::mkfifoat(root.dir(), "p", rustix::fs::Mode::RWXU).unwrap();
        for at in ["f/x", "l/x", "x", "x/y"] {
            assert_eq!(root.look(&path(at)).unwrap(), None, "{at}");
        }
        for at in ["l", "s", "p", "x", ""] {
            assert!(root.open_read(&path(at)).unwrap().is_none(), "{at}");
        }
        assert_eq!(root.list(&path("f")).unwrap(), None);
    }

    /// A file is hashed and read whole while it is the one expected, and "changed" or "too large" otherwise.
    #[test]
    fn reading_checks_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let bytes = vec![42; (1 << 20) + 3];
        std::fs::write(dir.path().join("f"), &bytes).unwrap();
        let seen = root.look(&path("f")).unwrap().unwrap().fingerprint;
        assert_eq!(root.hash(&path("f"), &seen).unwrap(), Reading::Read(Hash::of(&bytes)));
        assert_eq!(root.read_all(&path("f"), &seen, seen.size).unwrap(), Reading::Read(bytes));
        assert_eq!(root.read_all(&path("f"), &seen, seen.size - 1).unwrap(), Reading::TooLarge);
        std::fs::write(dir.path().join("g"), "x").unwrap();
        std::fs::rename(dir.path().join("g"), dir.path().join("f")).unwrap();
        assert_eq!(root.hash(&path("f"), &seen).unwrap(), Reading::Changed);
        std::fs::remove_file(dir.path().join("f")).unwrap();
        assert_eq!(root.read_all(&path("f"), &seen, 9).unwrap(), Reading::Changed);
    }

    /// A directory on which something is mounted is neither listed as gone nor entered.
    #[test]
    fn a_mount_inside_is_covered() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let at = dir.path().join("m");
        std::fs::create_dir(&at).unwrap();
        rustix::mount::mount("tmpfs", &at, "tmpfs", rustix::mount::MountFlags::empty(), c"size=64k").unwrap();
        let (listing, below) = (root.list(&RelPath::ROOT), root.look(&path("m/x")));
        rustix::mount::unmount(&at, rustix::mount::UnmountFlags::DETACH).unwrap();
        let listing = listing.unwrap().unwrap();
        assert_eq!((listing.entries.len(), listing.covered), (0, vec![Name::new(b"m").unwrap()]));
        assert_eq!(below.unwrap_err().kind(), io::ErrorKind::CrossesDevices);
    }
}
