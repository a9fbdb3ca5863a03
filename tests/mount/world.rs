//! A mount for a test, and what tests ask of it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::Mode;
use rustix::fs::OFlags;
use syncfs::fs::gate::Gate;
use syncfs::fs::gate::Ino;
use syncfs::fs::mount::MountOptions;
use syncfs::fs::mount::Mounted;
use syncfs::fs::mount::Note;
use syncfs::fs::mount::What;
use syncfs::fs::mount::mount;

/// Long enough for a machine under load; nothing waits for it when all is well.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A mount over a temporary directory, gone with the test, however it ends.
pub struct World {
    // Before the directory: it must be unmounted before it is removed.
    pub mounted: Mounted,
    pub gate: Arc<Gate>,
    pub notes: Mutex<Receiver<Note>>,
    under: OwnedFd,
    dir: tempfile::TempDir,
}

/// Says loudly that there is no FUSE; a failure in CI.
pub fn fuse_is_here() -> bool {
    let here = Path::new("/dev/fuse").exists();
    assert!(here || std::env::var("CI").as_deref() != Ok("true"), "/dev/fuse is missing: the mount cannot be tested");
    if !here {
        eprintln!("\n!!! NOT TESTED: /dev/fuse is missing, so this test of the mount did not run !!!\n");
    }
    here
}

pub fn open_dir(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).unwrap()
}

impl World {
    pub fn new() -> Option<Self> {
        Self::with("")
    }

    pub fn with(options: &str) -> Option<Self> {
        fuse_is_here().then(|| {
            let dir = tempfile::tempdir().unwrap();
            let under = open_dir(dir.path());
            let gate = Arc::new(Gate::new());
            let (sender, notes) = channel();
            let options = MountOptions::default().parse(options).unwrap();
            let served = under.try_clone().unwrap();
            let mounted = mount(served, dir.path(), Arc::clone(&gate), sender, &options).unwrap();
            Self { mounted, gate, notes: Mutex::new(notes), under, dir }
        })
    }

    /// A path through the mount.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The same path in the directory underneath.
    pub fn under(&self, name: impl AsRef<Path>) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.under.as_raw_fd())).join(name)
    }

    pub fn write(&self, name: &str, content: &str) {
        std::fs::write(self.path(name), content).unwrap();
    }

    pub fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub fn read_under(&self, name: &str) -> String {
        std::fs::read_to_string(self.under(name)).unwrap()
    }

    /// The inode as the gate knows it.
    pub fn ino(&self, name: &str) -> Ino {
        let meta = std::fs::symlink_metadata(self.under(name)).unwrap();
        Ino { dev: meta.dev(), ino: meta.ino() }
    }

    /// Blocks a file as the engine does.
    pub fn block(&self, name: &str) -> Ino {
        let ino = self.ino(name);
        wait_for("nobody writes it", || self.gate.block_unless_written(ino).is_ok());
        self.mounted.invalidate_attrs(ino.ino);
        ino
    }

    /// Everything noted until a file made now was closed.
    pub fn noted(&self) -> Vec<(String, What)> {
        let fence = "fence";
        self.write(fence, "");
        let mut seen = Vec::new();
        let notes = self.notes.lock().unwrap();
        let deadline = Instant::now() + DEADLINE;
        loop {
            let note = notes.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap();
            let name = String::from_utf8_lossy(&note.name).into_owned();
            if name != fence {
                seen.push((name, note.what));
            } else if note.what == What::Closed {
                return seen;
            }
        }
    }

    /// Runs on a thread that is the applier.
    pub fn as_applier<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        std::thread::scope(|scope| {
            let applier = scope.spawn(|| {
                let _applier = self.gate.register_applier();
                act()
            });
            applier.join().unwrap()
        })
    }
}

/// Waits for a condition.
pub fn wait_for(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !met() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::yield_now();
    }
}

/// The error number of something that must fail.
pub fn errno<T>(result: io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("it should have failed"),
        Err(error) => error.raw_os_error().unwrap_or_else(|| panic!("no error number: {error}")),
    }
}

pub fn append(path: &Path) -> File {
    File::options().append(true).create(true).open(path).unwrap()
}
