//! Many at once: mappings, locks between processes, big directories, threads that hammer.

use std::fs;
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::process::Command;

use rustix::fs::FlockOperation;

use crate::world::World;
use crate::world::wait_for;

/// What makes this binary the other process of the test of locks.
const LOCK: &str = "SYNCFS_TEST_LOCK";

/// A store through a shared mapping is in the file underneath after msync, and a write is seen through the mapping.
#[test]
fn a_shared_mapping_is_the_file() {
    let Some(world) = World::new() else { return };
    let file = File::options().read(true).write(true).create_new(true).open(world.path("f")).unwrap();
    file.set_len(8192).unwrap();
    let append = crate::world::append(&world.path("f"));
    // SAFETY: a fresh shared mapping of 8192 bytes of a file that keeps its length; only the bytes in it are touched, and it is
    // not used after it is unmapped.
    unsafe {
        let map = libc::mmap(
            std::ptr::null_mut(),
            8192,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            std::os::fd::AsRawFd::as_raw_fd(&file),
            0,
        );
        assert_ne!(map, libc::MAP_FAILED);
        let bytes = map.cast::<u8>();
        bytes.add(4096).write_volatile(b'!');
        assert_eq!(libc::msync(map, 8192, libc::MS_SYNC), 0);
        file.write_all_at(b"w", 0).unwrap();
        assert_eq!(bytes.read_volatile(), b'w');
        assert_eq!(libc::munmap(map, 8192), 0);
    }
    drop(append);
    let content = fs::read(world.under("f")).unwrap();
    assert_eq!((content.len(), content[0], content[4096]), (8192, b'w', b'!'));
}

/// Both kinds of locks hold between processes that use the mount.
#[test]
fn locks_hold_between_processes() {
    let Some(world) = World::new() else { return };
    world.write("f", "");
    let file = File::options().read(true).write(true).open(world.path("f")).unwrap();
    let other = || {
        let own = std::env::current_exe().unwrap();
        let other = Command::new(own).args(["shared::the_other_process", "--exact"]).env(LOCK, world.path("f")).output();
        other.unwrap().status.success()
    };
    assert!(other(), "nobody holds a lock yet");
    rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(!other(), "flock is held");
    rustix::fs::flock(&file, FlockOperation::Unlock).unwrap();
    rustix::fs::fcntl_lock(&file, FlockOperation::LockExclusive).unwrap();
    assert!(!other(), "a POSIX lock is held");
    rustix::fs::fcntl_lock(&file, FlockOperation::Unlock).unwrap();
    assert!(other(), "all locks are given back");
}

/// Not a test of its own: the other process of the test of locks.
#[test]
fn the_other_process() {
    let Ok(path) = std::env::var(LOCK) else { return };
    let file = File::options().read(true).write(true).open(path).unwrap();
    rustix::fs::flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).unwrap();
    rustix::fs::fcntl_lock(file.as_fd(), FlockOperation::NonBlockingLockExclusive).unwrap();
}

/// A listing of 5,000 entries shows each that stays exactly once, while others are removed.
#[test]
fn a_big_listing_survives_removals() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("big")).unwrap();
    for i in 0..5000 {
        File::create(world.under(format!("big/{i}"))).unwrap();
    }
    let mut seen = Vec::new();
    for (at, entry) in fs::read_dir(world.path("big")).unwrap().enumerate() {
        let name: u32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        seen.push(name);
        // Removes the odd ones as they come, and some that have not come yet.
        if name % 2 == 1 {
            let _ = fs::remove_file(world.path(format!("big/{name}")));
        }
        if at % 3 == 0 {
            let _ = fs::remove_file(world.path(format!("big/{}", ((at * 2 + 2001) % 5000) | 1)));
        }
    }
    let mut even: Vec<u32> = seen.into_iter().filter(|name| name % 2 == 0).collect();
    even.sort_unstable();
    assert_eq!(even, (0..5000).step_by(2).collect::<Vec<_>>());
    fs::remove_dir_all(world.path("big")).unwrap();
    assert!(!world.under("big").exists());
}

/// Threads that make, rename, link, read and remove files in directories that are themselves renamed see only what they wrote,
/// and both trees are the same in the end.
#[test]
fn threads_may_hammer() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("moving")).unwrap();
    let world = &world;
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                let dir = world.path(format!("t{thread}"));
                for round in 0..60 {
                    fs::create_dir(&dir).unwrap();
                    let text = format!("{thread} {round}").repeat(round + 1);
                    fs::write(dir.join("a"), &text).unwrap();
                    fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
                    fs::write(dir.join("new"), &text).unwrap();
                    fs::rename(dir.join("new"), dir.join("a")).unwrap();
                    let away = world.path(format!("moved{thread}"));
                    fs::rename(&dir, &away).unwrap();
                    assert_eq!(fs::read_to_string(away.join("a")).unwrap(), text);
                    assert_eq!(fs::read_to_string(away.join("b")).unwrap(), text);
                    fs::write(world.path(format!("common-{thread}-{}", round % 5)), &text).unwrap();
                    fs::remove_dir_all(&away).unwrap();
                }
            });
        }
        scope.spawn(move || {
            for _ in 0..200 {
                for entry in fs::read_dir(world.path("")).unwrap() {
                    let _ = entry.unwrap().metadata();
                }
            }
        });
        scope.spawn(move || {
            // A file held open goes wherever its directory goes.
            let file = File::options().read(true).write(true).create_new(true).open(world.path("moving/f")).unwrap();
            for round in 0..100u8 {
                let (from, to) = if round % 2 == 0 { ("moving", "gone") } else { ("gone", "moving") };
                fs::rename(world.path(from), world.path(to)).unwrap();
                file.write_all_at(&[round], u64::from(round)).unwrap();
                assert_eq!(file.metadata().unwrap().len(), u64::from(round) + 1);
                assert_eq!(fs::metadata(world.path(to).join("f")).unwrap().len(), u64::from(round) + 1);
            }
        });
    });
    let list = |path| {
        let mut names: Vec<_> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(list(world.path("")), list(world.under("")));
    assert_eq!(list(world.path("")).len(), 6 * 5 + 1);
}

/// What is changed beside the mount shows once the kernel was told: content, names that came and names that went.
#[test]
fn changes_beside_the_mount_are_seen() {
    use syncfs::fs::mount::Invalidation;
    let Some(world) = World::new() else { return };
    world.write("f", "before");
    world.write("gone", "");
    assert_eq!(world.read("f"), "before");
    assert!(!world.path("came").exists());
    fs::write(world.under("f"), "after!").unwrap();
    fs::write(world.under("came"), "").unwrap();
    fs::remove_file(world.under("gone")).unwrap();
    let root = world.ino("").ino;
    world.mounted.invalidate(Invalidation::Content { ino: world.ino("f").ino });
    for name in ["came", "gone"] {
        world.mounted.invalidate(Invalidation::Entry { dir_ino: root, name: name.into() });
    }
    wait_for("the content", || world.read("f") == "after!");
    wait_for("the new name", || world.path("came").exists());
    wait_for("the removed name", || !world.path("gone").exists());
}
