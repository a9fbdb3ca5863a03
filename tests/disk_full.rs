//! The receiving client's disk is full: the old content stays whole, the status says so, everything else flows, nothing is acknowledged
//! that is not there, and it heals by itself when there is room.

mod common;

use common::World;
use common::tree;
use rustix::mount::MountFlags;
use rustix::mount::UnmountFlags;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::path::PathBuf;

/// The size of the disk in MiB.
const DISK: usize = 16;

/// A small disk; it is taken away in the end.
struct Disk(PathBuf);

impl Disk {
    /// `None` where this user may not mount one: only root can run these tests.
    fn new(at: PathBuf) -> Option<Self> {
        fs::create_dir(&at).expect("a new directory");
        let options = std::ffi::CString::new(format!("size={DISK}m,mode=0755")).expect("no NUL");
        match rustix::mount::mount("syncfs-test", &at, "tmpfs", MountFlags::empty(), &*options) {
            Ok(()) => Some(Self(at)),
            Err(rustix::io::Errno::PERM) => {
                eprintln!("skipped: mounting a small tmpfs needs root");
                None
            }
            Err(error) => panic!("tmpfs: {error}"),
        }
    }

    /// Fills the disk up to `left` bytes.
    fn fill(&self, left: u64) -> PathBuf {
        let filler = self.0.join("filler");
        let stat = rustix::fs::statvfs(&self.0).expect("statvfs");
        let free = stat.f_bfree * stat.f_frsize;
        fs::write(&filler, vec![b'x'; usize::try_from(free.saturating_sub(left)).expect("a small disk")])
            .expect("there is room for it");
        filler
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = rustix::mount::unmount(&self.0, UnmountFlags::DETACH) {
            eprintln!("left mounted: {}: {error}", self.0.display());
        }
    }
}

/// A world whose second client lives on a small disk, and that disk.
fn world() -> Option<(World, Disk)> {
    let mut world = World::cold();
    let disk = Disk::new(world.path().join("disk"))?;
    world.c2.dir = disk.0.join("c2");
    fs::create_dir(&world.c2.dir).expect("a new directory");
    world.c1.start(&world.hub);
    world.c2.start(&world.hub);
    world.settle();
    Some((world, disk))
}

/// `len` bytes that do not compress and that no other `tag` shares a piece with.
fn noise(tag: u64, len: usize) -> Vec<u8> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&tag.to_le_bytes());
    let mut bytes = vec![0; len];
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

#[track_caller]
fn put(world: &World, name: &str, bytes: &[u8]) {
    fs::write(world.c1.dir.join(name), bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Waits until c2 reports that there is no room for `name`.
#[track_caller]
fn no_room_for(world: &World, name: &str) {
    common::wait_for(&format!("c2 says that there is no room for {name}"), || {
        let status = world.c2.status()?;
        let errors = status["errors"].as_array().ok_or("no errors")?;
        let says = |error: &Value| {
            let what = error["what"].as_str().unwrap_or_default();
            error["path"] == name && what.contains("no space left") && what.contains("ENOSPC")
        };
        if errors.iter().any(says) && status["idle"] == false { Ok(()) } else { Err(status.to_string()) }
    });
}

/// Waits until c2 holds exactly these bytes at `name`.
#[track_caller]
fn holds(world: &World, name: &str, bytes: &[u8]) {
    common::wait_for(&format!("c2 holds {name}"), || {
        let there = fs::read(world.c2.dir.join(name)).map_err(|error| error.to_string())?;
        if there == bytes { Ok(()) } else { Err(format!("{} bytes, others", there.len())) }
    });
}

/// The hub has records that c2 has not acknowledged, and keeps them.
#[track_caller]
fn the_hub_waits(world: &World) {
    let hub = world.hub.status().expect("a status");
    let clients = hub["clients"].as_array().expect("clients");
    let c2 = clients.iter().find(|client| client["name"] == "c2").expect("c2 is registered");
    let behind = c2["acked"].as_u64() < hub["seq"].as_u64() || c2["held"].as_u64() > Some(0);
    assert!(behind, "c2 has acknowledged what it has not applied: {hub}");
    assert!(hub["log"].as_u64() > Some(0), "the hub has forgotten what c2 lacks: {hub}");
}

/// Room again: all of it arrives, nothing is wrong any more, and the hub may forget the records.
#[track_caller]
fn heals(world: &mut World) {
    world.settle();
    assert!(tree::read(&world.c1.dir) == tree::read(&world.c2.dir), "c1 and c2 differ");
    assert_eq!(world.c2.status().expect("a status")["errors"], Value::Array(Vec::new()));
    common::wait_for("the hub has forgotten what all have", || {
        let hub = world.hub.status()?;
        if hub["log"] == 0 { Ok(()) } else { Err(hub.to_string()) }
    });
}

/// A new version of a large file does not fit: the old one stays until whoever filled the disk makes room.
#[test]
fn a_new_version_does_not_fit() {
    let Some((mut world, disk)) = world() else { return };
    let (old, new) = (noise(1, 5 << 20), noise(2, 5 << 20));
    put(&world, "big", &old);
    put(&world, "small", b"one");
    world.settle();
    let filler = disk.fill(3 << 20);
    put(&world, "big", &new);
    no_room_for(&world, "big");
    assert!(fs::read(world.c2.dir.join("big")).expect("it is there") == old, "the old content is not whole");
    the_hub_waits(&world);

    // Everything else flows, both ways.
    put(&world, "small", b"two");
    holds(&world, "small", b"two");
    fs::write(world.c2.dir.join("from c2"), "2").expect("there is room for a small file");
    common::wait_for("c1 holds it", || fs::read(world.c1.dir.join("from c2")).map_err(|error| error.to_string()));
    no_room_for(&world, "big");
    the_hub_waits(&world);
    // Nor does a restart do harm.
    world.c2.stop(common::Stop::Kill);
    assert!(fs::read(world.c2.dir.join("big")).expect("it is there") == old, "the old content is not whole");
    world.c2.start(&world.hub);
    no_room_for(&world, "big");
    assert!(fs::read(world.c2.dir.join("big")).expect("it is there") == old, "the old content is not whole");
    the_hub_waits(&world);

    fs::remove_file(filler).expect("the filler");
    heals(&mut world);
    assert!(fs::read(world.c2.dir.join("big")).expect("it is there") == new);
}

/// Nothing at all fits any more; another file's removal, that arrives the same way, makes room.
#[test]
fn a_removal_makes_room() {
    let Some((mut world, disk)) = world() else { return };
    let filler = noise(3, 6 << 20);
    put(&world, "filler", &filler);
    put(&world, "edited", b"old\n");
    world.settle();
    disk.fill(0);
    put(&world, "big", &noise(4, 4 << 20));
    put(&world, "edited", &b"new\n".repeat(2_000));
    no_room_for(&world, "big");
    no_room_for(&world, "edited");
    assert_eq!(fs::read(world.c2.dir.join("edited")).expect("it is there"), b"old\n");
    assert!(!Path::new(&world.c2.dir.join("big")).exists(), "a torn file is there");
    the_hub_waits(&world);
    fs::remove_file(world.c1.dir.join("filler")).expect("an unlink through the mount");
    heals(&mut world);
}
