//! Where things lie: the user's state directory, a client's state, the directory that a path is in.
//!
//! A synchronized directory may be covered by a mount whose process is dead. Nothing here looks through one: it is found by the
//! directory above it.

use super::failure::Code;
use super::failure::Failure;
use super::failure::one_line;
use crate::model::STATE_DIR;
use rustix::fs::FlockOperation;
use rustix::fs::flock;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;
use std::time::Instant;

/// The file that the process that works with a state has claimed.
const CLAIM: &str = "running";
/// How long, and how often, a process that is ending is waited for.
const PATIENCE: Duration = Duration::from_secs(15);
const AGAIN: Duration = Duration::from_millis(20);

/// `$XDG_STATE_HOME/syncfs` or `~/.local/state/syncfs`; it need not exist.
///
/// # Errors
/// When the environment says neither.
pub fn user_state() -> Result<PathBuf, Failure> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    base.map(|base| base.join("syncfs")).ok_or_else(|| {
        Failure::new(Code::Failed, "this user has no home directory", "Set HOME or XDG_STATE_HOME, or give --state DIR.")
    })
}

/// Puts the path into an I/O error.
pub fn at(path: &Path) -> impl FnOnce(io::Error) -> Failure {
    move |error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => "See who may read and write there.",
            io::ErrorKind::StorageFull | io::ErrorKind::ReadOnlyFilesystem => "See how much space is left there.",
            _ => "Look at the path named.",
        };
        Failure::new(Code::Failed, format!("{}: {error}", path.display()), hint)
    }
}

/// The real path of what is there, without looking at it: it may be covered by a dead mount.
///
/// # Errors
/// Those of following the path up to it.
pub fn real(path: &Path) -> io::Result<PathBuf> {
    match std::fs::canonicalize(path) {
        Err(error) if error.raw_os_error() == Some(libc::ENOTCONN) => {
            let name = path.file_name().ok_or(error)?;
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(std::fs::canonicalize(parent.unwrap_or(Path::new(".")))?.join(name))
        }
        other => other,
    }
}

/// Where a client keeps its state if nothing else was said.
pub fn state_in(dir: &Path) -> PathBuf {
    dir.join(OsStr::from_bytes(STATE_DIR))
}

/// A client's state directory, opened before anything is mounted over it.
#[derive(Debug)]
pub struct StateDir {
    /// Its real path, by which other processes know it.
    pub path: PathBuf,
    open: File,
    /// The store claims the directory itself for moments, hence a file.
    claim: File,
}

impl StateDir {
    /// Opens the state directory at `path`; it is made with mode 0700 where it is missing.
    ///
    /// # Errors
    /// When it cannot be made or opened.
    pub fn open(path: &Path) -> Result<Self, Failure> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(at(path))?;
        let path = std::fs::canonicalize(path).map_err(at(path))?;
        let open = File::open(&path).map_err(at(&path))?;
        let claim = path.join(CLAIM);
        let claim = File::options().create(true).append(true).mode(0o600).open(&claim).map_err(at(&claim))?;
        Ok(Self { path, open, claim })
    }

    /// A path to `name` in it that leads underneath whatever is mounted over it since, in this process only.
    pub fn inside(&self, name: &str) -> PathBuf {
        format!("/proc/self/fd/{}/{name}", self.open.as_raw_fd()).into()
    }

    /// Claims it until this value is dropped or the process ends. A process that is just ending is waited for.
    ///
    /// # Errors
    /// When another process keeps it.
    pub fn claim(&self) -> Result<(), Failure> {
        let until = Instant::now() + PATIENCE;
        while let Err(errno) = flock(&self.claim, FlockOperation::NonBlockingLockExclusive) {
            if errno != Errno::WOULDBLOCK {
                return Err(at(&self.path)(errno.into()));
            }
            if Instant::now() > until {
                let sentence = format!("another process works with the state in {}", self.path.display());
                return Err(Failure::new(
                    Code::Refused,
                    sentence,
                    "See what `syncfs status` says, or wait for a `syncfs sync` to end.",
                ));
            }
            std::thread::sleep(AGAIN);
        }
        Ok(())
    }

    /// Waits until nobody has claimed it.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait_until_free(&self) -> io::Result<()> {
        Ok(flock(&self.claim, FlockOperation::LockShared)?)
    }

    /// Makes the names in it durable.
    ///
    /// # Errors
    /// What the disk says.
    pub fn sync(&self) -> io::Result<()> {
        self.open.sync_all()
    }
}

/// A path as a word of a shell command; control characters in it are shown, not meant.
pub fn shell_word(path: &Path) -> String {
    let text = one_line(&path.to_string_lossy());
    let plain = |c: char| c.is_alphanumeric() || "/._-+,:@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', "'\\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A command that is shown can be pasted, whatever the directory is called.
    #[test]
    fn paths_are_words() {
        assert_eq!(shell_word(Path::new("/home/me/notes")), "/home/me/notes");
        assert_eq!(shell_word(Path::new("/my notes")), "'/my notes'");
        assert_eq!(shell_word(Path::new("/o'clock")), "'/o'\\''clock'");
    }

    /// The state directory is the owner's, and is reached when it has been renamed away.
    #[test]
    fn the_state_directory_stays_reachable() {
        use std::os::unix::fs::PermissionsExt;
        let base = tempfile::tempdir().unwrap();
        let state = StateDir::open(&base.path().join("a/b")).unwrap();
        assert_eq!(std::fs::metadata(&state.path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::rename(&state.path, base.path().join("c")).unwrap();
        std::fs::write(state.inside("x"), "x").unwrap();
        assert_eq!(std::fs::read(base.path().join("c/x")).unwrap(), b"x");
    }
}
