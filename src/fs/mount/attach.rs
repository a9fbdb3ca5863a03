//! Attaching to a mount point and letting go of it, by our own hands: fuser 0.18.0 would, after somebody else unmounted us,
//! unmount whatever is there now.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::process::Stdio;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;
use rustix::net::RecvAncillaryBuffer;
use rustix::net::RecvAncillaryMessage;
use rustix::net::RecvFlags;

use super::options::MountOptions;
use super::options::is_plain;

/// The file system type in the table of mounts.
const TYPE: &str = "fuse.syncfs";
const DEVICE: &str = "/dev/fuse";

/// A mount of ours in the table of mounts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Listed {
    device: String,
    path: PathBuf,
    kind: String,
}

/// The real path of a mount point, also under a dead mount.
///
/// # Errors
/// Those of following the path.
pub fn real_path(mountpoint: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(mountpoint) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let name = mountpoint.file_name().ok_or(error)?;
            let parent = mountpoint.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(std::fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name))
        }
        other => other,
    }
}

/// Mounts, and returns the descriptor of `/dev/fuse` that speaks for the mount: directly as root, else by `fusermount3`.
///
/// # Errors
/// What mount(2) or `fusermount3` say; `InvalidInput` for a source name that would be read as options.
pub fn attach(mountpoint: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    if !is_plain(&options.fsname) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the source name of a mount must not look like options"));
    }
    if rustix::process::geteuid().is_root() {
        match mount_directly(mountpoint, options) {
            // Root of a container, without the capability.
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            other => return other,
        }
    }
    mount_by_fusermount(mountpoint, options)
}

fn checked_by_kernel(options: &MountOptions) -> bool {
    options.default_permissions || options.allow_other
}

fn mount_directly(mountpoint: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    let device = rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| io::Error::new(errno.kind(), format!("cannot open {DEVICE}: {errno}; is the fuse module loaded?")))?;
    let mode = rustix::fs::stat(mountpoint)?.st_mode;
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mut data = format!("fd={},rootmode={mode:o},user_id={uid},group_id={gid}", device.as_raw_fd());
    if checked_by_kernel(options) {
        data.push_str(",default_permissions");
    }
    if options.allow_other {
        data.push_str(",allow_other");
    }
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::NODEV, !options.dev);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NOEXEC, !options.exec);
    flags.set(MountFlags::NOATIME, !options.atime);
    flags.set(MountFlags::SYNCHRONOUS, options.sync);
    flags.set(MountFlags::DIRSYNC, options.dirsync);
    let data = CString::new(data)?;
    rustix::mount::mount(options.fsname.as_str(), mountpoint, TYPE, flags, data.as_c_str())?;
    Ok(device)
}

fn fusermount() -> Command {
    Command::new(std::env::var_os("FUSERMOUNT_PATH").unwrap_or_else(|| "fusermount3".into()))
}

fn missing(error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot run fusermount3 (install the package fuse3): {error}"))
}

fn mount_by_fusermount(mountpoint: &Path, options: &MountOptions) -> io::Result<OwnedFd> {
    let mut words = vec![format!("fsname={}", options.fsname), "subtype=syncfs".to_owned()];
    let mut word = |wanted: bool, text: &str| {
        if wanted {
            words.push(text.to_owned());
        }
    };
    word(options.allow_other, "allow_other");
    word(checked_by_kernel(options), "default_permissions");
    word(options.dev, "dev");
    word(options.suid, "suid");
    word(!options.exec, "noexec");
    word(!options.atime, "noatime");
    word(options.sync, "sync");
    word(options.dirsync, "dirsync");
    let (ours, theirs) = UnixStream::pair()?;
    // The socket is its standard input, so that it need not be inherited by every other child of this process.
    let child = fusermount()
        .args(["-o", &words.join(","), "--"])
        .arg(mountpoint)
        .env("_FUSE_COMMFD", "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| missing(&error))?;
    let device = receive(&ours);
    let output = child.wait_with_output()?;
    match device? {
        Some(device) => Ok(device),
        None => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
    }
}

fn receive(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut bytes = [io::IoSliceMut::new(&mut byte)];
    loop {
        match rustix::net::recvmsg(socket, &mut bytes, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message {
            return Ok(descriptors.next());
        }
    }
    Ok(None)
}

/// The device number, as the table of mounts writes it, of our mount at a path; `None` when the uppermost mount there is not
/// one of ours.
///
/// # Errors
/// Those of reading the table.
pub fn device_at(mountpoint: &Path) -> io::Result<Option<String>> {
    let top = table()?.into_iter().rfind(|listed| listed.path == mountpoint);
    Ok(top.filter(|listed| listed.kind == TYPE).map(|listed| listed.device))
}

/// Lets go of our mount at a path, lazily: files still open in it go on until they are closed.
///
/// # Errors
/// `ResourceBusy` when something else was mounted over it; nothing is unmounted then. Else what umount2(2) or `fusermount3`
/// say. It is no error when the mount is not there any more.
pub fn detach(mountpoint: &Path, device: &str) -> io::Result<()> {
    let mounts = table()?;
    let there: Vec<_> = mounts.iter().filter(|listed| listed.path == mountpoint).collect();
    if !there.iter().any(|listed| listed.device == device) {
        return Ok(());
    }
    if there.last().is_none_or(|top| top.device != device) {
        let text = format!("something else is mounted over {}", mountpoint.display());
        return Err(io::Error::new(io::ErrorKind::ResourceBusy, text));
    }
    detach_top(mountpoint)
}

fn detach_top(mountpoint: &Path) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        match rustix::mount::unmount(mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Err(Errno::PERM) => {}
            other => return other.map_err(io::Error::from),
        }
    }
    let output = fusermount().args(["-u", "-z", "--"]).arg(mountpoint).output().map_err(|error| missing(&error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// Detaches what a crashed daemon left: mounts of ours at this path that nobody serves any more. Returns how many there were.
/// A mount that is served is left alone. To be called before the directory is opened to be mounted over.
///
/// # Errors
/// Those of reading the table of mounts or of unmounting.
pub fn clean_stale(mountpoint: &Path) -> io::Result<usize> {
    let mountpoint = match real_path(mountpoint) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        other => other?,
    };
    let mut cleaned = 0;
    while device_at(&mountpoint)?.is_some() {
        // Not stat: it may be answered from the kernel's cache.
        match rustix::fs::statfs(&mountpoint) {
            Err(Errno::NOTCONN | Errno::CONNABORTED) => detach_top(&mountpoint)?,
            _ => break,
        }
        cleaned += 1;
    }
    Ok(cleaned)
}

fn table() -> io::Result<Vec<Listed>> {
    Ok(std::fs::read("/proc/self/mountinfo")?.split(|&byte| byte == b'\n').filter_map(listed).collect())
}

/// A line: id, parent, device, root, mount point, options, optional fields, a dash, type, source, options of the file system.
fn listed(line: &[u8]) -> Option<Listed> {
    let mut fields = line.split(|&byte| byte == b' ');
    let device = String::from_utf8(fields.nth(2)?.to_vec()).ok()?;
    let path = std::ffi::OsString::from_vec(unescaped(fields.nth(1)?));
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8(fields.next()?.to_vec()).ok()?;
    Some(Listed { device, path: path.into(), kind })
}

/// Blanks and the like are written as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, after)) = rest.split_first() {
        let octal = (first == b'\\').then(|| after.get(..3)).flatten();
        let value = octal.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &after[3..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    bytes
}

/// Flushes what is still dirty in the page cache of the mount, best effort: a lazy unmount does not.
pub fn flush(mountpoint: &Path) {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let flushed = rustix::fs::open(mountpoint.as_os_str().as_bytes(), flags, Mode::empty()).and_then(rustix::fs::syncfs);
    if let Err(errno) = flushed {
        tracing::debug!(%errno, "could not flush the mount before unmounting");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line of the table is read with its escapes and whatever optional fields there are.
    #[test]
    fn the_table_of_mounts_is_read() {
        let line = b"36 35 0:98 / /mnt/my\\040notes\\134x rw,noatime shared:1 master:2 - fuse.syncfs notes rw,user_id=0";
        let expected = Listed { device: "0:98".into(), path: "/mnt/my notes\\x".into(), kind: "fuse.syncfs".into() };
        assert_eq!(listed(line), Some(expected));
        assert_eq!(listed(b""), None);
        assert_eq!(unescaped(b"a\\"), b"a\\");
    }
}
