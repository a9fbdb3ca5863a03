//! Each operation through the mount, compared with the directory underneath.

use std::fs;
use std::fs::File;
use std::io::Read;
use std::io::Seek;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::fs::AtFlags;
use rustix::fs::CWD;
use rustix::fs::FallocateFlags;
use rustix::fs::Mode;
use rustix::fs::OFlags;
use rustix::fs::RenameFlags;
use rustix::fs::SeekFrom;
use rustix::fs::Timespec;
use rustix::fs::Timestamps;
use rustix::fs::UTIME_OMIT;
use rustix::fs::XattrFlags;
use rustix::io::Errno;

use crate::world::World;
use crate::world::append;
use crate::world::errno;

/// What is done through the mount is done to the directory underneath, and the two look the same.
#[test]
fn what_is_done_is_done_underneath() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("d")).unwrap();
    world.write("d/f", "hello");
    std::os::unix::fs::symlink("d/f", world.path("s")).unwrap();
    fs::set_permissions(world.path("d/f"), fs::Permissions::from_mode(0o640)).unwrap();
    rustix::fs::mknodat(CWD, world.path("p"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(world.path("u")).unwrap();
    for name in ["d", "d/f", "s", "p", "u"] {
        let (here, there) = (world.path(name).symlink_metadata().unwrap(), world.under(name).symlink_metadata().unwrap());
        let facts = |meta: &fs::Metadata| (meta.ino(), meta.mode(), meta.size(), meta.nlink(), meta.mtime(), meta.mtime_nsec());
        assert_eq!(facts(&here), facts(&there), "{name}");
    }
    assert_eq!(fs::read_link(world.path("s")).unwrap(), PathBuf::from("d/f"));
    assert_eq!(world.read("s"), "hello");
    assert_eq!(world.read_under("d/f"), "hello");

    File::options().write(true).open(world.path("d/f")).unwrap().set_len(2).unwrap();
    assert_eq!(world.read_under("d/f"), "he");
    rustix::fs::open(world.path("d/f"), OFlags::WRONLY | OFlags::TRUNC, Mode::empty()).unwrap();
    assert_eq!(world.read("d/f"), "");
    assert_eq!(errno(fs::remove_dir(world.path("d"))), libc::ENOTEMPTY);
    assert_eq!(errno(File::create_new(world.path("d/f"))), libc::EEXIST);

    fs::rename(world.path("d"), world.path("e")).unwrap();
    world.write("e/f", "moved");
    assert_eq!(world.read_under("e/f"), "moved");
    fs::remove_file(world.path("e/f")).unwrap();
    fs::remove_dir(world.path("e")).unwrap();
    assert!(!world.under("e").exists());
    assert_eq!(errno(File::open(world.path("e/f"))), libc::ENOENT);
    let (here, there) = (rustix::fs::statvfs(world.path("")).unwrap(), rustix::fs::statvfs(world.under("")).unwrap());
    assert_eq!((here.f_blocks, here.f_namemax), (there.f_blocks, there.f_namemax));
}

/// A rename keeps an existing target or exchanges with it when asked to, and replaces it otherwise.
#[test]
fn renames_keep_exchange_and_replace() {
    let Some(world) = World::new() else { return };
    world.write("a", "A");
    world.write("b", "B");
    let rename = |flags| rustix::fs::renameat_with(CWD, world.path("a"), CWD, world.path("b"), flags);
    assert_eq!(rename(RenameFlags::NOREPLACE), Err(Errno::EXIST));
    assert_eq!((world.read("a"), world.read("b")), ("A".into(), "B".into()));
    rename(RenameFlags::EXCHANGE).unwrap();
    assert_eq!((world.read("a"), world.read("b")), ("B".into(), "A".into()));
    assert_eq!((world.read_under("a"), world.read_under("b")), ("B".into(), "A".into()));
    fs::create_dir(world.path("d")).unwrap();
    world.write("d/x", "X");
    rustix::fs::renameat_with(CWD, world.path("d"), CWD, world.path("a"), RenameFlags::EXCHANGE).unwrap();
    assert_eq!((world.read("a/x"), world.read("d")), ("X".into(), "B".into()));
    fs::rename(world.path("d"), world.path("b")).unwrap();
    assert_eq!(world.read("b"), "B");
    assert!(!world.path("d").exists());
}

/// Two handles that append never write over each other, nor over bytes appended beside the mount.
#[test]
fn appends_go_to_the_end() {
    let Some(world) = World::new() else { return };
    let mut one = append(&world.path("log"));
    let mut two = append(&world.path("log"));
    one.write_all(b"one ").unwrap();
    two.write_all(b"two ").unwrap();
    append(&world.under("log")).write_all(b"beside ").unwrap();
    one.write_all(b"three").unwrap();
    assert_eq!(world.read_under("log"), "one two beside three");
}

/// A file that was unlinked while open can still be read, written, measured and truncated.
#[test]
fn an_unlinked_file_lives_on_in_its_handle() {
    let Some(world) = World::new() else { return };
    world.write("f", "hello");
    let mut file = File::options().read(true).write(true).open(world.path("f")).unwrap();
    fs::remove_file(world.path("f")).unwrap();
    assert!(!world.under("f").exists());
    world.write("f", "another");
    let meta = file.metadata().unwrap();
    assert_eq!((meta.nlink(), meta.size()), (0, 5));
    file.set_permissions(fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    file.set_len(2).unwrap();
    file.seek(std::io::SeekFrom::End(0)).unwrap();
    file.write_all(b"y").unwrap();
    let mut text = String::new();
    file.rewind().unwrap();
    file.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hey");
    assert_eq!(world.read("f"), "another");
}

/// A directory that was removed while a process is in it can still be looked at, and is empty.
#[test]
fn a_removed_directory_lives_on_for_its_users() {
    let Some(world) = World::new() else { return };
    for name in ["d", "e", "f"] {
        fs::create_dir(world.path(name)).unwrap();
    }
    let removed = crate::world::open_dir(&world.path("d"));
    let replaced = crate::world::open_dir(&world.path("e"));
    fs::remove_dir(world.path("d")).unwrap();
    fs::rename(world.path("f"), world.path("e")).unwrap();
    fs::create_dir(world.path("d")).unwrap();
    for dir in [removed, replaced] {
        assert_eq!(rustix::fs::fstat(&dir).unwrap().st_nlink, 0);
        assert_eq!(rustix::fs::openat(&dir, "x", OFlags::CREATE | OFlags::RDWR, Mode::RUSR).unwrap_err(), Errno::NOENT);
        assert_eq!(rustix::fs::Dir::new(dir).unwrap().filter(Result::is_ok).count(), 0);
    }
}

/// Times and links of a symlink are its own, not those of what it points to.
#[test]
fn symlinks_have_attributes_of_their_own() {
    let Some(world) = World::new() else { return };
    std::os::unix::fs::symlink("nowhere", world.path("s")).unwrap();
    let time = Timespec { tv_sec: 978_307_200, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, world.path("s"), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    fs::hard_link(world.path("s"), world.path("t")).unwrap();
    let meta = world.under("t").symlink_metadata().unwrap();
    assert_eq!((meta.mtime(), meta.mtime_nsec(), meta.nlink()), (978_307_200, 5, 2));
    assert_eq!(fs::read_link(world.path("t")).unwrap(), PathBuf::from("nowhere"));
}

/// Hard links are one inode: content, length and link count are the same by every name, also after one is gone.
#[test]
fn hard_links_are_one_file() {
    let Some(world) = World::new() else { return };
    fs::create_dir(world.path("d")).unwrap();
    world.write("a", "one");
    fs::hard_link(world.path("a"), world.path("d/b")).unwrap();
    let (a, b) = (world.path("a").metadata().unwrap(), world.path("d/b").metadata().unwrap());
    assert_eq!((a.ino(), a.nlink(), b.nlink()), (b.ino(), 2, 2));
    world.write("d/b", "longer");
    assert_eq!((world.read("a"), world.path("a").metadata().unwrap().size()), ("longer".into(), 6));
    fs::remove_file(world.path("a")).unwrap();
    assert_eq!(world.path("d/b").metadata().unwrap().nlink(), 1);
    fs::rename(world.path("d/b"), world.path("d/c")).unwrap();
    fs::set_permissions(world.path("d/c"), fs::Permissions::from_mode(0o611)).unwrap();
    assert_eq!(world.read_under("d/c"), "longer");
    assert_eq!(world.under("d/c").metadata().unwrap().mode() & 0o777, 0o611);
}

/// Extended attributes are set, read, listed and removed; the state is answered and cannot be set.
#[test]
fn extended_attributes_work() {
    let Some(world) = World::new() else { return };
    world.write("f", "");
    let path = world.path("f");
    let get = |path: &PathBuf, name| {
        let mut value = [0; 64];
        rustix::fs::getxattr(path, name, &mut value[..]).map(|length| String::from_utf8_lossy(&value[..length]).into_owned())
    };
    rustix::fs::setxattr(&path, "user.colour", b"blue", XattrFlags::empty()).unwrap();
    assert_eq!(get(&path, "user.colour"), Ok("blue".into()));
    assert_eq!(get(&world.under("f"), "user.colour"), Ok("blue".into()));
    assert_eq!(rustix::fs::setxattr(&path, "user.colour", b"red", XattrFlags::CREATE), Err(Errno::EXIST));
    let mut names = [0; 64];
    let length = rustix::fs::listxattr(&path, &mut names[..]).unwrap();
    assert!(names[..length].split(|&byte| byte == 0).any(|name| name == b"user.colour"));
    rustix::fs::removexattr(&path, "user.colour").unwrap();
    assert_eq!(get(&path, "user.colour"), Err(Errno::NODATA));
    assert_eq!(get(&path, "user.syncfs.state"), Ok("ok".into()));
    assert_eq!(rustix::fs::setxattr(&path, "user.syncfs.state", b"x", XattrFlags::empty()), Err(Errno::PERM));
}

/// Setting one time leaves the other alone to the nanosecond, and times before 1970 survive.
#[test]
fn times_are_kept_exactly() {
    let Some(world) = World::new() else { return };
    world.write("f", "");
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let set = |atime, mtime| {
        let times = Timestamps { last_access: atime, last_modification: mtime };
        rustix::fs::utimensat(CWD, world.path("f"), &times, AtFlags::empty()).unwrap();
        let (here, there) = (world.path("f").metadata().unwrap(), world.under("f").metadata().unwrap());
        let facts = |meta: &fs::Metadata| [(meta.atime(), meta.atime_nsec()), (meta.mtime(), meta.mtime_nsec())];
        assert_eq!(facts(&here), facts(&there));
        facts(&here)
    };
    let first = Timespec { tv_sec: 1_000_000_000, tv_nsec: 123_456_789 };
    let before = Timespec { tv_sec: -315_619_200, tv_nsec: 250_000_000 };
    assert_eq!(set(first, before), [(1_000_000_000, 123_456_789), (-315_619_200, 250_000_000)]);
    assert_eq!(set(Timespec { tv_sec: 5, tv_nsec: 6 }, omit), [(5, 6), (-315_619_200, 250_000_000)]);
    assert_eq!(set(omit, Timespec { tv_sec: 7, tv_nsec: 8 }), [(5, 6), (7, 8)]);
    world.write("f", "written");
    assert!(world.path("f").metadata().unwrap().mtime() > 1_000_000_000, "a write sets the time of modification");
}

/// The umask that counts is the caller's, not the daemon's.
#[test]
fn the_umask_is_the_callers() {
    let Some(world) = World::new() else { return };
    for (umask, mode) in [("000", 0o666), ("027", 0o640)] {
        let name = format!("f{umask}");
        let made = format!("umask {umask}; : > {name}; mkdir d{umask}");
        assert!(Command::new("sh").args(["-c", &made]).current_dir(world.path("")).status().unwrap().success());
        assert_eq!(world.under(&name).metadata().unwrap().mode() & 0o777, mode);
        assert_eq!(world.under(format!("d{umask}")).metadata().unwrap().mode() & 0o666, mode);
    }
}

/// With `allow_other` what another user makes is his, he may do what its bits say, and the state directory is none of his.
#[test]
fn new_files_belong_to_the_caller() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let Some(world) = World::with("allow_other") else { return };
    const NOBODY: u32 = 65534;
    fs::create_dir(world.under(".syncfs")).unwrap();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o777)).unwrap();
    world.write("private", "root's");
    fs::set_permissions(world.path("private"), fs::Permissions::from_mode(0o600)).unwrap();
    let as_nobody = |script: &str| {
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(world.path("")).uid(NOBODY).gid(NOBODY).stderr(std::process::Stdio::null());
        shell.status().unwrap().success()
    };
    assert!(as_nobody("echo x > f && mkdir d && ln -s x s && mkfifo p && echo y > d/g && chmod 600 f"));
    for name in ["f", "d", "s", "p", "d/g"] {
        let meta = world.under(name).symlink_metadata().unwrap();
        assert_eq!((meta.uid(), meta.gid()), (NOBODY, NOBODY), "{name}");
    }
    assert!(!as_nobody("cat private"));
    assert!(!as_nobody("ls .syncfs"));
    assert!(as_nobody("mv f d/f && rm -r d s p"));
}

/// Names are bytes: 255 of them at most, in any encoding.
#[test]
fn names_are_bytes() {
    let Some(world) = World::new() else { return };
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe \n\x01");
    let (long, longer) = ("x".repeat(255), "x".repeat(256));
    for name in [odd, long.as_ref()] {
        fs::write(world.path(name), "here").unwrap();
        assert_eq!(fs::read(world.under(name)).unwrap(), b"here");
    }
    assert_eq!(errno(fs::write(world.path(longer), "")), libc::ENAMETOOLONG);
    let mut listed: Vec<_> = fs::read_dir(world.path("")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    listed.sort();
    assert_eq!(listed, [long.as_ref(), odd]);
}

/// A tree deeper than a path may be long can be walked and used.
#[test]
fn deep_trees_are_reached() {
    let Some(world) = World::new() else { return };
    let mut dir = crate::world::open_dir(&world.path(""));
    let name = "d".repeat(200);
    for _ in 0..40 {
        rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &name, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::RDWR | OFlags::CREATE;
    let file = File::from(rustix::fs::openat(&dir, "f", flags, Mode::RUSR | Mode::WUSR).unwrap());
    file.write_all_at(b"deep", 0).unwrap();
    assert_eq!(rustix::fs::statat(&dir, "f", AtFlags::empty()).unwrap().st_size, 4);
}

/// Holes are punched, found, and copied around without reading.
#[test]
fn space_is_allocated_punched_and_copied() {
    let Some(world) = World::new() else { return };
    let file = File::options().read(true).write(true).create_new(true).open(world.path("f")).unwrap();
    file.write_all_at(&[7; 1 << 20], 0).unwrap();
    rustix::fs::fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 1 << 19).unwrap();
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Data(0)).unwrap(), 1 << 19);
    assert_eq!(rustix::fs::seek(&file, SeekFrom::Hole(1 << 19)).unwrap(), 1 << 20);
    let mut byte = [1];
    file.read_exact_at(&mut byte, 5).unwrap();
    assert_eq!(byte, [0]);
    let copy = File::options().read(true).write(true).create_new(true).open(world.path("g")).unwrap();
    let (mut from, mut to) = (1 << 19, 0);
    let copied = rustix::fs::copy_file_range(&file, Some(&mut from), &copy, Some(&mut to), 4096).unwrap();
    assert_eq!(copied, 4096);
    assert_eq!(fs::read(world.under("g")).unwrap(), [7; 4096]);
    copy.sync_all().unwrap();
    File::open(world.path("")).unwrap().sync_all().unwrap();
}

/// The state directory is in no listing, can be reached by name, and cannot be removed, replaced or renamed.
#[test]
fn the_state_directory_is_hidden_and_safe() {
    let Some(world) = World::new() else { return };
    assert_eq!(errno(fs::create_dir(world.path(".syncfs"))), libc::EPERM);
    fs::create_dir(world.under(".syncfs")).unwrap();
    fs::write(world.under(".syncfs/marker"), "id").unwrap();
    world.mounted.invalidate(syncfs::fs::mount::Invalidation::Entry { dir_ino: world.ino("").ino, name: b".syncfs".into() });
    crate::world::wait_for("it is seen", || world.path(".syncfs").exists());
    assert_eq!(fs::read_dir(world.path("")).unwrap().count(), 0);
    assert_eq!(world.read(".syncfs/marker"), "id");
    world.write("f", "");
    assert_eq!(errno(fs::rename(world.path(".syncfs"), world.path("x"))), libc::EPERM);
    assert_eq!(errno(fs::remove_dir(world.path(".syncfs"))), libc::EPERM);
    fs::remove_file(world.under(".syncfs/marker")).unwrap();
    assert!(fs::remove_dir(world.path(".syncfs")).is_err());
    assert!(world.under(".syncfs").exists());
}
