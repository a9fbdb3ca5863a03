//! The mount as programs see it: real mounts over temporary directories.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::time::Instant;

use rustix::fs::OFlags;
use syncfs::fs::gate::Gate;
use syncfs::fs::gate::Ino;
use syncfs::fs::mount::MountOptions;
use syncfs::fs::mount::Mounted;
use syncfs::fs::mount::Note;
use syncfs::fs::mount::What;
use syncfs::fs::mount::mount;

/// What makes this binary a daemon that holds a mount until it is killed.
const HOLD: &str = "SYNCFS_TEST_HOLD";

/// A mount over a temporary directory, gone with the test, however it ends.
struct World {
    mounted: Option<Mounted>,
    gate: Arc<Gate>,
    notes: Receiver<Note>,
    under: OwnedFd,
    dir: tempfile::TempDir,
}

fn open_dir(path: &Path) -> OwnedFd {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, rustix::fs::Mode::empty()).unwrap()
}

impl World {
    /// `None`, loudly, where there is no FUSE; that is a failure in CI.
    fn new() -> Option<Self> {
        Self::with("")
    }

    fn with(options: &str) -> Option<Self> {
        if !Path::new("/dev/fuse").exists() {
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "/dev/fuse is missing: nothing of the mount can be tested");
            eprintln!("\n!!! NOT TESTED: /dev/fuse is missing, so this test of the mount did not run !!!\n");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let gate = Arc::new(Gate::new());
        let (sender, notes) = channel();
        let options = MountOptions::default().parse(options).unwrap();
        let mounted = mount(open_dir(dir.path()), dir.path(), Arc::clone(&gate), sender, &options).unwrap();
        // The directory was opened before: this one leads underneath for the tests to compare.
        let under = open_dir(&PathBuf::from(dir.path()));
        Some(Self { mounted: Some(mounted), gate, notes, under, dir })
    }
}

/// Not a test of its own: the other process of some tests, which mounts and stays until it is killed.
#[test]
fn hold_a_mount() {
    let Ok(path) = std::env::var(HOLD) else { return };
    let gate = Arc::new(Gate::new());
    let (sender, notes) = channel();
    let options = MountOptions::default().parse(&std::env::var("SYNCFS_TEST_OPTIONS").unwrap_or_default()).unwrap();
    syncfs::fs::mount::clean_stale(Path::new(&path)).unwrap();
    let mounted = mount(open_dir(Path::new(&path)), Path::new(&path), gate, sender, &options).unwrap();
    for note in notes {
        eprintln!("{note:?} {}", String::from_utf8_lossy(&note.name));
    }
    drop(mounted);
}
