//! The stage: contents that are whole and verified, on their way into the user's tree.

use super::observe::Look;
use super::observe::look_at;
use super::observe::look_fd;
use super::root::Root;
use super::root::descriptor_path;
use super::root::if_there;
use super::root::open_at;
use super::root::private_dir;
use crate::model::Hash;
use crate::model::NodeId;
use data_encoding::HEXLOWER;
use rustix::fs::AtFlags;
use rustix::fs::Dir;
use rustix::fs::FileType;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::io::Read;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The stage's name in the state directory.
const STAGE: &[u8] = b"stage";
/// Its path below the root, also through a mount.
pub(super) const STAGE_PATH: &[u8] = b".syncfs/stage";
const UNFINISHED: &str = "tmp-";
const LIMBO: &str = "limbo-";
/// From this many files on one `syncfs` is cheaper than an `fsync` each.
const SYNC_EACH: usize = 32;
/// A stage file until it is placed: nobody else reads it.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Why bytes did not become a staged file. Nothing of them stays.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The bytes are not those that the hash names.
    #[error("the bytes are not the announced content")]
    WrongBytes,
    /// The disk is full, or the user's share of it.
    #[error("no space left on the disk (ENOSPC)")]
    NoSpace,
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for StageError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOSPC | Errno::DQUOT => Self::NoSpace,
            error => Self::Io(error.into()),
        }
    }
}

fn stage_error(error: io::Error) -> StageError {
    match error.raw_os_error() {
        Some(number) => Errno::from_raw_os_error(number).into(),
        None => error.into(),
    }
}

/// What [`Stage::sweep`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Wanted contents that are whole.
    pub kept: usize,
    /// Leftovers and damaged contents that are not there any more.
    pub removed: usize,
}

/// The directory `.syncfs/stage` of a root: contents by hash, and nodes between two places ("limbo").
#[derive(Debug)]
pub struct Stage {
    dir: OwnedFd,
}

fn content_name(hash: &Hash) -> Vec<u8> {
    HEXLOWER.encode(&hash.0).into_bytes()
}

pub(super) fn limbo_name(node: &NodeId) -> Vec<u8> {
    format!("{LIMBO}{node}").into_bytes()
}

fn limbo_node(name: &[u8]) -> Option<NodeId> {
    HEXLOWER.decode(name.strip_prefix(LIMBO.as_bytes())?).ok()?.try_into().ok().map(NodeId)
}

impl Stage {
    /// Opens the stage of `root`; it is made where it is not there. [`Stage::sweep`] comes before anything else.
    ///
    /// # Errors
    /// When it cannot be made or is on another file system than the root.
    pub fn open(root: &Root) -> io::Result<Self> {
        let state = root.state_dir()?;
        Ok(Self { dir: private_dir(state.as_fd(), STAGE, root.identity().0)? })
    }

    pub(super) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// A name in the stage that nobody has.
    pub(super) fn unused_name(&self) -> io::Result<Vec<u8>> {
        let mut random = [0; 12];
        getrandom::fill(&mut random).map_err(io::Error::other)?;
        Ok(format!("{UNFINISHED}{}", HEXLOWER.encode(&random)).into_bytes())
    }

    fn create(&self) -> Result<(Vec<u8>, File), StageError> {
        let name = self.unused_name()?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.dir, &name[..], flags, PRIVATE)?;
        Ok((name, fd.into()))
    }

    /// Begins a content of `len` bytes.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn writer(self: &Arc<Self>, hash: Hash, len: u64) -> Result<StagedWriter, StageError> {
        let (name, file) = self.create()?;
        Ok(StagedWriter { stage: self.clone(), name, file, hasher: blake3::Hasher::new(), hash, left: len, finished: false })
    }

    /// Whether the whole content is here. What the stage holds after a crash is only sure after [`Stage::sweep`].
    ///
    /// # Errors
    /// When the stage cannot be read.
    pub fn has(&self, hash: &Hash) -> io::Result<bool> {
        Ok(look_at(self.dir(), &content_name(hash))?.is_some())
    }

    /// The content for reading; `None` when it is not here.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open_content(&self, hash: &Hash) -> io::Result<Option<File>> {
        self.opened(&content_name(hash))
    }

    fn opened(&self, name: &[u8]) -> io::Result<Option<File>> {
        Ok(if_there(open_at(self.dir(), name, OFlags::RDONLY | OFlags::NONBLOCK))?.map(File::from))
    }

    /// Removes a content that nobody will place; none is fine too.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self, hash: &Hash) -> io::Result<()> {
        self.discard(&content_name(hash))
    }

    /// Removes a file, link or empty directory of the stage.
    pub(super) fn discard(&self, name: &[u8]) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => if_there(rustix::fs::unlinkat(&self.dir, name, AtFlags::REMOVEDIR)).map(|_| ()),
            result => if_there(result).map(|_| ()),
        }
    }

    /// Makes contents durable together, and everything that lies in the stage by name. It must come before what needs them to
    /// survive a power cut, which is placing them.
    ///
    /// # Errors
    /// When one is not here or the disk reports an error; then none may be taken for durable.
    pub fn sync(&self, hashes: &[Hash]) -> io::Result<()> {
        if hashes.len() > SYNC_EACH {
            return Ok(rustix::fs::syncfs(&self.dir)?);
        }
        for hash in hashes {
            let file = self.open_content(hash)?.ok_or(io::ErrorKind::NotFound)?;
            file.sync_all()?;
        }
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    /// Removes at a start what a crash left behind and nobody wants: unfinished files, contents that are not in `keep`, contents
    /// that are not what their names say. Nodes in limbo, and names that are not the stage's, are never touched.
    ///
    /// # Errors
    /// When the stage cannot be read or changed.
    pub fn sweep(&self, keep: &BTreeSet<Hash>) -> io::Result<Swept> {
        let mut swept = Swept::default();
        for name in self.names()? {
            let hash = HEXLOWER.decode(&name).ok().and_then(|bytes| bytes.try_into().ok()).map(Hash);
            match hash {
                Some(hash) if keep.contains(&hash) && self.is_whole(&name, &hash)? => swept.kept += 1,
                None if !name.starts_with(UNFINISHED.as_bytes()) => {}
                _ => {
                    self.discard(&name)?;
                    swept.removed += 1;
                }
            }
        }
        Ok(swept)
    }

    fn is_whole(&self, name: &[u8], hash: &Hash) -> io::Result<bool> {
        let Some((held, look)) = look_at(self.dir(), name)? else { return Ok(false) };
        if look.kind() != Some(crate::model::Kind::File) {
            return Ok(false);
        }
        self.make_private(held.as_fd())?;
        let Some(mut file) = self.opened(name)? else { return Ok(false) };
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; 256 << 10];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => return Ok(*hasher.finalize().as_bytes() == hash.0),
                Ok(read) => hasher.update(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
        }
    }

    /// Gives a staged file that was prepared for a place the stage's own mode again, so that it stays readable.
    pub(super) fn make_private(&self, held: BorrowedFd<'_>) -> io::Result<()> {
        Ok(rustix::fs::chmod(descriptor_path(held), PRIVATE)?)
    }

    fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_bytes().to_vec());
            }
        }
        names.sort();
        Ok(names)
    }

    /// The nodes that are between two places, in order of their ids.
    ///
    /// # Errors
    /// When the stage cannot be read.
    pub fn limbo(&self) -> io::Result<Vec<(NodeId, Look)>> {
        let mut found = Vec::new();
        for name in self.names()? {
            let Some(node) = limbo_node(&name) else { continue };
            if let Some((_, look)) = look_at(self.dir(), &name)? {
                found.push((node, look));
            }
        }
        Ok(found)
    }

    /// The name of the staged content to be placed and its descriptor; with `more` a durable copy, because it is placed again.
    pub(super) fn take(&self, hash: &Hash, more: bool) -> Result<Option<(Vec<u8>, File)>, StageError> {
        let name = content_name(hash);
        let Some(mut original) = self.opened(&name)? else { return Ok(None) };
        if FileType::from_raw_mode(rustix::fs::fstat(&original)?.st_mode) != FileType::RegularFile {
            return Err(StageError::WrongBytes);
        }
        if !more {
            return Ok(Some((name, original)));
        }
        let (copy_name, mut copy) = self.create()?;
        let copied = match rustix::fs::ioctl_ficlone(&copy, &original) {
            Ok(()) => Ok(()),
            Err(_) => io::copy(&mut original, &mut copy).map(|_| ()),
        };
        let whole = copied.and_then(|()| copy.sync_all()).and_then(|()| {
            let sizes = (look_fd(original.as_fd())?.fingerprint.size, look_fd(copy.as_fd())?.fingerprint.size);
            if sizes.0 == sizes.1 { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
        });
        match whole {
            Ok(()) => Ok(Some((copy_name, copy))),
            Err(error) => {
                self.discard(&copy_name)?;
                Err(stage_error(error))
            }
        }
    }
}

/// A content that is being written into the stage; dropped before [`StagedWriter::finish`] it leaves nothing.
#[derive(Debug)]
pub struct StagedWriter {
    stage: Arc<Stage>,
    name: Vec<u8>,
    file: File,
    hasher: blake3::Hasher,
    hash: Hash,
    left: u64,
    finished: bool,
}

impl StagedWriter {
    /// Appends `bytes`.
    ///
    /// # Errors
    /// [`StageError::WrongBytes`] for more bytes than announced, [`StageError::NoSpace`], or another error of the disk.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(StageError::WrongBytes)?;
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(stage_error)
    }

    /// Gives the content its name, if it is the announced one. It is not durable before [`Stage::sync`].
    ///
    /// # Errors
    /// [`StageError::WrongBytes`] when length or hash differ; nothing stays.
    pub fn finish(mut self) -> Result<(), StageError> {
        if self.left != 0 || *self.hasher.finalize().as_bytes() != self.hash.0 {
            return Err(StageError::WrongBytes);
        }
        rustix::fs::renameat(&self.stage.dir, &self.name[..], &self.stage.dir, &content_name(&self.hash)[..])?;
        self.finished = true;
        Ok(())
    }
}

impl Drop for StagedWriter {
    fn drop(&mut self) {
        if !self.finished
            && let Err(error) = self.stage.discard(&self.name)
        {
            tracing::warn!(%error, "an unfinished file stays in the stage until the next start");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> (tempfile::TempDir, Arc<Stage>) {
        let dir = tempfile::tempdir().unwrap();
        let stage = Stage::open(&Root::open(dir.path()).unwrap()).unwrap();
        (dir, Arc::new(stage))
    }

    fn put(stage: &Arc<Stage>, bytes: &[u8]) -> Hash {
        let mut writer = stage.writer(Hash::of(bytes), bytes.len() as u64).unwrap();
        bytes.chunks(3).for_each(|chunk| writer.write(chunk).unwrap());
        writer.finish().unwrap();
        Hash::of(bytes)
    }

    /// Bytes that are not the announced ones get no name and leave nothing: others, fewer, more.
    #[test]
    fn wrong_bytes_are_refused() {
        let (_dir, stage) = stage();
        for (len, bytes) in [(3, &b"abx"[..]), (4, b"abc"), (2, b"abc"), (3, b"ab")] {
            let mut writer = stage.writer(Hash::of(b"abc"), len).unwrap();
            let result = writer.write(bytes).and_then(|()| writer.finish());
            assert!(matches!(result, Err(StageError::WrongBytes)), "{bytes:?}");
        }
        assert!(stage.names().unwrap().is_empty() && !stage.has(&Hash::of(b"abc")).unwrap());
    }

    /// A content can be staged twice, is there once, readable, and gone after its removal.
    #[test]
    fn staging_is_idempotent() {
        let (_dir, stage) = stage();
        let hashes = [put(&stage, b"hello"), put(&stage, b"hello"), put(&stage, b"")];
        stage.sync(&hashes).unwrap();
        assert_eq!(stage.names().unwrap().len(), 2);
        assert_eq!(io::read_to_string(stage.open_content(&hashes[0]).unwrap().unwrap()).unwrap(), "hello");
        stage.remove(&hashes[0]).unwrap();
        stage.remove(&hashes[0]).unwrap();
        assert!(!stage.has(&hashes[0]).unwrap() && stage.sync(&hashes).is_err());
    }

    /// A batch is made durable in one go.
    #[test]
    fn a_large_batch_is_synced() {
        let (_dir, stage) = stage();
        let hashes: Vec<Hash> = (0..40u8).map(|n| put(&stage, &[n])).collect();
        stage.sync(&hashes).unwrap();
        assert_eq!(stage.names().unwrap().len(), 40);
    }

    /// After a crash the wanted and whole content stays; unfinished, unwanted and torn ones go; limbo and strange names stay.
    #[test]
    fn a_start_sweeps_what_nobody_wants() {
        let (dir, stage) = stage();
        let (wanted, torn, unwanted) = (put(&stage, b"wanted"), put(&stage, b"torn"), put(&stage, b"unwanted"));
        let at = dir.path().join(".syncfs/stage");
        std::fs::write(at.join(torn.to_string()), "").unwrap();
        std::fs::write(at.join("tmp-0"), "half").unwrap();
        std::fs::create_dir(at.join("tmp-1")).unwrap();
        std::fs::create_dir_all(at.join(format!("limbo-{}/d", NodeId([1; 16])))).unwrap();
        std::fs::write(at.join("strange"), "").unwrap();
        let wanted_name = at.join(wanted.to_string());
        std::fs::set_permissions(&wanted_name, std::os::unix::fs::PermissionsExt::from_mode(0o000)).unwrap();
        let swept = stage.sweep(&BTreeSet::from([wanted, torn])).unwrap();
        assert_eq!(swept, Swept { kept: 1, removed: 4 });
        assert!(stage.has(&wanted).unwrap() && !stage.has(&torn).unwrap() && !stage.has(&unwanted).unwrap());
        assert_eq!(stage.limbo().unwrap().len(), 1);
        assert_eq!(stage.names().unwrap().len(), 3);
    }
}
