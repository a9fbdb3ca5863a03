//! How a mount begins and ends.

use std::ffi::OsStr;
use std::fs;
use std::fs::File;
use std::io;
use std::io::BufRead;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use std::time::Instant;

use syncfs::fs::gate::Gate;
use syncfs::fs::mount::Invalidation;
use syncfs::fs::mount::MountOptions;
use syncfs::fs::mount::Mounted;
use syncfs::fs::mount::clean_stale;
use syncfs::fs::mount::mount;

use crate::world::DEADLINE;
use crate::world::World;
use crate::world::errno;
use crate::world::fuse_is_here;
use crate::world::open_dir;

/// What makes this binary a daemon that holds a mount until it is killed.
const HOLD: &str = "SYNCFS_TEST_HOLD";
/// What makes it use its own mount all the time.
const BUSY: &str = "SYNCFS_TEST_BUSY";

fn mount_at(path: &Path) -> io::Result<Mounted> {
    mount(open_dir(path), path, Arc::new(Gate::new()), channel().0, &MountOptions::default())
}

/// Unmounted, the directory is plain and has everything; unmounting again is no error.
#[test]
fn unmounting_leaves_a_plain_directory() {
    let Some(world) = World::new() else { return };
    world.write("f", "kept");
    world.mounted.unmount().unwrap();
    world.mounted.wait().unwrap();
    assert!(world.mounted.has_ended());
    assert_eq!(world.read("f"), "kept");
    let before = world.ino("f");
    assert_eq!(world.gate.writers(before), 0);
    fs::write(world.path("g"), "plain").unwrap();
    assert_eq!(world.read_under("g"), "plain");
    world.mounted.unmount().unwrap();
}

/// A file that is open when the mount goes can be used until it is closed, and then the session ends.
#[test]
fn an_open_file_outlives_the_unmount() {
    let Some(world) = World::new() else { return };
    let file = File::create_new(world.path("f")).unwrap();
    world.mounted.unmount().unwrap();
    assert!(!world.mounted.has_ended());
    file.write_all_at(b"late", 0).unwrap();
    drop(file);
    assert!(world.mounted.wait_for(DEADLINE));
    assert_eq!(world.read("f"), "late");
}

/// A directory that is mounted already is refused, and the mount there goes on.
#[test]
fn a_second_mount_is_refused() {
    let Some(world) = World::new() else { return };
    world.write("f", "here");
    assert_eq!(clean_stale(&world.path("")).unwrap(), 0);
    let second = mount_at(&world.path(""));
    assert_eq!(second.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
    assert_eq!(world.read("f"), "here");
}

/// After somebody else unmounted us, letting go touches nothing that was mounted there since.
#[test]
fn a_foreign_mount_is_left_alone() {
    let Some(world) = World::new() else { return };
    let done = Command::new("fusermount3").args(["-u", "--"]).arg(world.path("")).status().unwrap();
    assert!(done.success());
    assert!(world.mounted.wait_for(DEADLINE));
    let second = mount_at(&world.path("")).unwrap();
    world.mounted.unmount().unwrap();
    assert_eq!(clean_stale(&world.path("")).unwrap(), 0);
    assert_eq!(mount_at(&world.path("")).unwrap_err().kind(), io::ErrorKind::AlreadyExists, "the second is still there");
    second.unmount().unwrap();
    assert!(second.wait_for(DEADLINE));
}

/// Kills the daemon and lets go of its mount, however the test ends.
struct Daemon(Child, std::path::PathBuf);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = clean_stale(&self.1);
    }
}

/// What a daemon killed in full work leaves behind does not hinder the next mount, and every closed file is there.
#[test]
fn a_dead_mount_is_cleaned_up() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let own = std::env::current_exe().unwrap();
    let child = Command::new(own)
        .args(["lives::hold_a_mount", "--exact", "--nocapture"])
        .env(HOLD, dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut daemon = Daemon(child, dir.path().to_owned());
    let output = io::BufReader::new(daemon.0.stdout.take().unwrap());
    assert!(output.lines().map_while(Result::ok).any(|line| line.contains("mounted now")));
    fs::write(dir.path().join("f"), "saved").unwrap();
    let open = File::create_new(dir.path().join("g")).unwrap();
    daemon.0.kill().unwrap();
    daemon.0.wait().unwrap();
    assert_eq!(errno(fs::read_dir(dir.path().join("sub"))), libc::ENOTCONN);

    assert_eq!(clean_stale(dir.path()).unwrap(), 1);
    let again = mount_at(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "saved");
    assert!(open.write_all_at(b"x", 0).is_err(), "a handle from before is dead");
    again.unmount().unwrap();
    again.wait().unwrap();
    assert_eq!(clean_stale(dir.path()).unwrap(), 0);
}

/// A daemon that is busy in its own mount when it is killed ends all the same, and takes nobody with it: neither it nor another
/// process waits for an answer that nobody gives any more.
#[test]
fn a_daemon_busy_in_its_own_mount_can_be_killed() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 0..12 {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["lives::hold_a_mount", "--exact", "--nocapture"])
            .envs([(HOLD, dir.path().as_os_str()), (BUSY, OsStr::new("1"))])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut daemon = Daemon(child, dir.path().to_owned());
        let output = io::BufReader::new(daemon.0.stdout.take().unwrap());
        assert!(output.lines().map_while(Result::ok).any(|line| line.contains("mounted now")));
        fs::write(dir.path().join("f"), "saved").unwrap();
        let (one, two) = (dir.path().join("theirs"), dir.path().join("theirs again"));
        let user = std::thread::spawn(move || while fs::write(&one, "x").and_then(|()| fs::rename(&one, &two)).is_ok() {});
        std::thread::sleep(Duration::from_millis(10 + 7 * round));
        daemon.0.kill().unwrap();
        let since = Instant::now();
        while daemon.0.try_wait().unwrap().is_none() {
            if since.elapsed() > DEADLINE {
                // Else the test would wait for it as well.
                let _ = rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::FORCE);
                panic!("a killed daemon did not end");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        user.join().unwrap();
        assert_eq!(clean_stale(dir.path()).unwrap(), 1);
        assert_eq!(fs::read_to_string(dir.path().join("f")).unwrap(), "saved");
    }
}

/// Renames through a mount for ever, as an applier does.
fn be_busy(path: &Path, name: &str) {
    let (one, two) = (path.join(name), path.join(format!("{name} again")));
    fs::write(&one, name).unwrap();
    loop {
        fs::rename(&one, &two).unwrap();
        fs::rename(&two, &one).unwrap();
    }
}

/// Not a test of its own: the daemon that is killed.
#[test]
fn hold_a_mount() {
    let Ok(path) = std::env::var(HOLD) else { return };
    let path = Path::new(&path);
    clean_stale(path).unwrap();
    let options = MountOptions::default().parse(&std::env::var("SYNCFS_TEST_OPTIONS").unwrap_or_default()).unwrap();
    let (sender, notes) = channel();
    let mounted = mount(open_dir(path), path, Arc::new(Gate::new()), sender, &options).unwrap();
    if std::env::var_os(BUSY).is_some() {
        let dir_ino = fs::metadata(path).unwrap().ino();
        std::thread::spawn(move || {
            loop {
                for name in ["one", "theirs"] {
                    mounted.invalidate(Invalidation::Entry { dir_ino, name: name.into() });
                }
                std::thread::sleep(Duration::from_micros(1));
            }
        });
        for name in ["one", "two"] {
            let path = path.to_owned();
            std::thread::spawn(move || be_busy(&path, name));
        }
    } else {
        std::mem::forget(mounted);
    }
    println!("mounted now");
    for note in notes {
        eprintln!("{:?} {} in {}", note.what, note.name.escape_ascii(), note.dir_ino);
    }
}

/// A directory that cannot be mounted over is an error that leaves nothing behind.
#[test]
fn what_is_no_directory_is_refused() {
    if !fuse_is_here() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("f");
    fs::write(&file, "x").unwrap();
    let opened = File::open(&file).unwrap().into();
    let error = mount(opened, dir.path(), Arc::new(Gate::new()), channel().0, &MountOptions::default()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    assert!(mount_at(dir.path()).unwrap().unmount().is_ok());
}
