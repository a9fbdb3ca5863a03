//! A blocked file: nobody overwrites it, whichever way; everything else goes on.

use std::fs;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::Access;
use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::XattrFlags;

use crate::world::World;
use crate::world::errno;
use crate::world::wait_for;

type Way = (&'static str, fn(&Path, &Path) -> io::Result<()>);

/// Every way to change or replace the first path; the second is another file.
const WAYS: [Way; 17] = [
    ("open to write", |file, _| File::options().write(true).open(file).map(drop)),
    ("open to read and write", |file, _| File::options().read(true).write(true).open(file).map(drop)),
    ("open to append", |file, _| File::options().append(true).open(file).map(drop)),
    ("create over it", |file, _| File::create(file).map(drop)),
    ("open to read, truncating", |file, _| Ok(rustix::fs::open(file, OFlags::RDONLY | OFlags::TRUNC, Mode::empty()).map(drop)?)),
    ("truncate", |file, _| {
        let path = std::ffi::CString::new(file.as_os_str().as_encoded_bytes())?;
        // SAFETY: a valid C string.
        if unsafe { libc::truncate(path.as_ptr(), 1) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }),
    ("rename it away", |file, other| fs::rename(file, other.with_extension("away"))),
    ("rename over it", |file, other| fs::rename(other, file)),
    ("rename it over another", |file, other| fs::rename(file, other)),
    ("exchange with it", |file, other| Ok(rustix::fs::renameat_with(CWD, other, CWD, file, RenameFlags::EXCHANGE)?)),
    ("exchange it", |file, other| Ok(rustix::fs::renameat_with(CWD, file, CWD, other, RenameFlags::EXCHANGE)?)),
    ("unlink", |file, _| fs::remove_file(file)),
    ("link", |file, other| fs::hard_link(file, other.with_extension("link"))),
    ("set an attribute", |file, _| Ok(rustix::fs::setxattr(file, "user.a", b"b", XattrFlags::empty())?)),
    ("remove an attribute", |file, _| Ok(rustix::fs::removexattr(file, "user.kept")?)),
    ("ask for write access", |file, _| Ok(rustix::fs::access(file, Access::WRITE_OK)?)),
    ("ask for effective write access", |file, _| {
        Ok(rustix::fs::accessat(CWD, file, Access::WRITE_OK | Access::READ_OK, AtFlags::EACCESS)?)
    }),
];

/// All of a file that must not change.
fn facts(world: &World, name: &str) -> (String, u64, u32, u64, i64, i64) {
    let meta = world.under(name).metadata().unwrap();
    (world.read_under(name), meta.ino(), meta.mode(), meta.nlink(), meta.mtime(), meta.mtime_nsec())
}

fn blocked_world(options: &str) -> Option<World> {
    let world = World::with(options)?;
    fs::create_dir(world.path("d")).unwrap();
    world.write("d/file", "mine");
    world.write("d/other", "other");
    rustix::fs::setxattr(world.path("d/file"), "user.kept", b"k", XattrFlags::empty()).unwrap();
    Some(world)
}

fn refuses_each_way(options: &str, from: usize) {
    let Some(world) = blocked_world(options) else { return };
    world.block("d/file");
    let before = facts(&world, "d/file");
    for (way, act) in &WAYS[..from] {
        assert_eq!(errno(act(&world.path("d/file"), &world.path("d/other"))), libc::EROFS, "{way}");
        assert_eq!(facts(&world, "d/file"), before, "{way}");
        assert_eq!(world.read("d/other"), "other", "{way}");
    }
    let names = fs::read_dir(world.under("d")).unwrap().count();
    assert_eq!(names, 2, "nothing else came to be");
}

/// Each way to change or replace a blocked file is refused with EROFS, also for root, and changes nothing.
#[test]
fn each_way_is_refused() {
    refuses_each_way("", WAYS.len());
}

/// The same where the kernel checks permissions first (root may do anything there, but not this).
#[test]
fn each_way_is_refused_with_default_permissions() {
    if rustix::process::geteuid().is_root() {
        // The kernel answers access(2) itself then.
        refuses_each_way("allow_other", WAYS.len() - 2);
    }
}

/// A blocked file is read as ever, shown without its write bits, and says why; chmod and utimes succeed and change nothing.
#[test]
fn a_blocked_file_is_readable_and_shown_read_only() {
    let Some(world) = blocked_world("") else { return };
    let path = world.path("d/file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    world.block("d/file");
    wait_for("the write bits are hidden", || path.metadata().unwrap().mode() & 0o777 == 0o444);
    assert_eq!(world.read("d/file"), "mine");
    let before = facts(&world, "d/file");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    File::open(&path).unwrap().set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
    assert_eq!(facts(&world, "d/file"), before);
    let mut value = [0; 16];
    let length = rustix::fs::getxattr(&path, "user.syncfs.state", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"conflict");
}

/// Beside a blocked file everything can be written, its directory can be renamed, and when the block ends so can the file.
#[test]
fn a_block_is_one_file_and_ends() {
    let Some(world) = blocked_world("") else { return };
    let ino = world.block("d/file");
    world.write("d/other", "written");
    world.write("d/new", "new");
    fs::rename(world.path("d"), world.path("e")).unwrap();
    assert_eq!(errno(fs::write(world.path("e/file"), "x")), libc::EROFS);
    world.gate.unblock(ino);
    world.mounted.invalidate_attrs(ino.ino);
    wait_for("the write bits are back", || world.path("e/file").metadata().unwrap().mode() & 0o200 != 0);
    world.write("e/file", "resolved");
    assert_eq!(world.read_under("e/file"), "resolved");
}

/// A handle opened before a block that could not wait is refused; a block that can wait waits for it.
#[test]
fn a_handle_from_before_is_refused() {
    let Some(world) = blocked_world("") else { return };
    let file = File::options().write(true).open(world.path("d/file")).unwrap();
    let other = File::options().write(true).open(world.path("d/other")).unwrap();
    let ino = world.ino("d/file");
    assert!(world.gate.block_unless_written(ino).is_err());
    file.write_all_at(b"M", 0).unwrap();
    world.gate.block(ino);
    assert_eq!(errno(file.write_all_at(b"X", 0)), libc::EROFS);
    assert_eq!(errno(file.set_len(0)), libc::EROFS);
    other.write_all_at(b"O", 0).unwrap();
    assert_eq!((world.read_under("d/file"), world.read_under("d/other")), ("Mine".into(), "Other".into()));
}

/// A mount made with `ro` refuses users everything and still lets the applier place.
#[test]
fn a_read_only_mount_is_for_the_applier() {
    let Some(world) = World::with("ro") else { return };
    assert_eq!(errno(fs::write(world.path("f"), "x")), libc::EROFS);
    assert_eq!(errno(fs::create_dir(world.path("d"))), libc::EROFS);
    world.as_applier(|| fs::write(world.path("f"), "placed").unwrap());
    assert_eq!(world.read("f"), "placed");
    assert_eq!(errno(fs::remove_file(world.path("f"))), libc::EROFS);
}
