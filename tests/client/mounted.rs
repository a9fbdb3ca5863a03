//! Mounted directories: every change shows on the other side.

use crate::site::Device;
use crate::site::Site;
use crate::site::wait_equal;
use crate::site::wait_for;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use syncfs::client::Choice;
use syncfs::client::Reply;
use syncfs::client::Request;
use syncfs::client::request;

/// Says loudly that there is no FUSE; a failure in CI.
fn fuse_is_here() -> bool {
    let here = Path::new("/dev/fuse").exists();
    assert!(here || std::env::var("CI").as_deref() != Ok("true"), "/dev/fuse is missing: the mount cannot be tested");
    if !here {
        eprintln!("\n!!! NOT TESTED: /dev/fuse is missing, so this test of the mount did not run !!!\n");
    }
    here
}

fn pair() -> Option<(Site, Device, Device)> {
    fuse_is_here().then(|| {
        let site = Site::new();
        let (mut a, mut b) = (site.device("a"), site.device("b"));
        a.start(true);
        b.start(true);
        (site, a, b)
    })
}

/// An edit, a new file, a new mode and a removal made through one mount show in the other.
#[test]
fn changes_show_on_the_other_side() {
    let Some((_site, a, b)) = pair() else { return };
    a.write("notes.md", "one\n");
    wait_equal(&[&a, &b]);
    assert_eq!(b.read("notes.md"), "one\n");
    b.write("notes.md", "one\ntwo\n");
    wait_equal(&[&a, &b]);
    assert_eq!(a.read("notes.md"), "one\ntwo\n");
    a.write("d/x", "x");
    fs::remove_file(a.path("notes.md")).unwrap();
    wait_equal(&[&a, &b]);
    assert!(b.has("d/x") && !b.has("notes.md"));
    fs::remove_dir_all(b.path("d")).unwrap();
    wait_equal(&[&a, &b]);
    assert!(!a.has("d"));
}

/// A renamed directory of many files is a rename there, too: every inode stays.
#[test]
fn a_renamed_directory_keeps_its_inodes() {
    let Some((_site, a, b)) = pair() else { return };
    for n in 0..500 {
        a.write(&format!("before/f{n}"), format!("file {n}\n"));
    }
    wait_equal(&[&a, &b]);
    let inode = |n: u32, dir: &str| b.path(format!("{dir}/f{n}")).metadata().unwrap().ino();
    let before: Vec<u64> = (0..500).map(|n| inode(n, "before")).collect();
    fs::rename(a.path("before"), a.path("after")).unwrap();
    wait_equal(&[&a, &b]);
    assert!(!b.has("before"));
    assert_eq!((0..500).map(|n| inode(n, "after")).collect::<Vec<_>>(), before);
}

/// What is written while the hub is away arrives when it is back.
#[test]
fn a_hub_that_was_away() {
    let Some((mut site, a, b)) = pair() else { return };
    a.write("f", "1");
    wait_equal(&[&a, &b]);
    site.stop();
    wait_for("both notice", || !a.status().connected && !b.status().connected);
    a.write("f", "22");
    b.write("g", "3");
    assert!(!a.status().idle);
    site.start();
    wait_equal(&[&a, &b]);
    assert_eq!((b.read("f"), a.read("g")), ("22".into(), "3".into()));
}

/// Different bytes under one name on two devices: one file, blocked on one device, readable from both sides, until a person chooses.
#[test]
fn a_conflict_is_shown_and_resolved() {
    let Some((mut site, a, b)) = pair() else { return };
    a.write("f.bin", b"\0base");
    wait_equal(&[&a, &b]);
    site.stop();
    wait_for("both notice", || !a.status().connected && !b.status().connected);
    a.write("f.bin", b"\0from a");
    b.write("f.bin", b"\0from b");
    site.start();
    wait_for("a conflict", || a.status().conflicts.len() + b.status().conflicts.len() == 1);
    let (stuck, other) = if a.status().conflicts.is_empty() { (&b, &a) } else { (&a, &b) };
    wait_for("the block", || fs::write(stuck.path("f.bin"), "no").is_err_and(|error| error.raw_os_error() == Some(libc::EROFS)));
    let conflict = stuck.status().conflicts[0].clone();
    let sides: Vec<Vec<u8>> = conflict.sides.iter().map(|side| fs::read(stuck.path(side)).unwrap()).collect();
    let (mine, theirs) = (fs::read(stuck.path("f.bin")).unwrap(), fs::read(other.path("f.bin")).unwrap());
    assert_eq!(sides, [b"\0base".to_vec(), mine.clone(), theirs.clone()]);
    let state = stuck.path(".syncfs");
    let how = Request::Resolve { path: b"f.bin".to_vec(), how: Choice::Both, seen: None };
    assert_eq!(request(&state, &how).unwrap(), Some(Reply::Done));
    wait_equal(&[&a, &b]);
    assert_eq!(fs::read(stuck.path("f.bin")).unwrap(), theirs);
    let beside = if std::ptr::eq(stuck, &a) { "f (a).bin" } else { "f (b).bin" };
    assert_eq!(fs::read(other.path(beside)).unwrap(), mine);
    assert!(!stuck.path(&conflict.sides[1]).exists());
    fs::write(stuck.path("f.bin"), "yes").unwrap();
    wait_equal(&[&a, &b]);
}

/// What a process does past the mount, in the directory underneath, is seen as well.
#[test]
fn a_change_past_the_mount_is_seen() {
    if !fuse_is_here() {
        return;
    }
    let site = Site::new();
    let (mut a, mut b) = (site.device("a"), site.device("b"));
    a.write("d/f", "1");
    let under = fs::File::open(&a.root).unwrap();
    a.start(true);
    b.start(true);
    wait_equal(&[&a, &b]);
    let past = format!("/proc/self/fd/{}/d", std::os::fd::AsRawFd::as_raw_fd(&under));
    fs::write(format!("{past}/f"), "22").unwrap();
    fs::write(format!("{past}/new"), "3").unwrap();
    wait_for("the edit", || b.read("d/f") == "22" && b.read("d/new") == "3");
    wait_for("the mount shows it", || a.read("d/f") == "22" && a.read("d/new") == "3");
}

/// A directory that at first holds nothing but an editor's swap file is nobody else's business; with the first file in it, it is, and
/// so it is where the rest of it was removed elsewhere.
#[test]
fn a_directory_of_ignored_files_gets_a_real_one() {
    let Some((_site, a, b)) = pair() else { return };
    fs::create_dir_all(a.path("new/deep")).unwrap();
    a.write("new/deep/.f.swp", "");
    a.write("old/f", "1");
    wait_equal(&[&a, &b]);
    assert!(!b.has("new") && b.has("old/f"));
    a.write("new/deep/f", "1");
    wait_for("the first file", || b.has("new/deep/f") && b.read("new/deep/f") == "1");
    a.write("old/.f.swp", "");
    fs::remove_dir_all(b.path("old")).unwrap();
    wait_for("the removal", || !a.has("old/f"));
    wait_equal(&[&a, &b]);
    a.write("old/g", "2");
    wait_for("the next file", || b.has("old/g") && b.read("old/g") == "2");
    wait_equal(&[&a, &b]);
}

/// A stopped client leaves a plain directory with every file; what is done to it then is found by the next start.
#[test]
fn a_stop_leaves_a_plain_directory() {
    let Some((_site, mut a, b)) = pair() else { return };
    a.write("d/f", "1");
    wait_equal(&[&a, &b]);
    a.stop();
    assert_eq!(a.read("d/f"), "1");
    a.write("d/f", "changed");
    fs::rename(a.path("d"), a.path("e")).unwrap();
    a.start(true);
    wait_equal(&[&a, &b]);
    assert_eq!(b.read("e/f"), "changed");
    assert!(!b.has("d"));
    let stop = Request::Stop { wait_idle: true };
    assert_eq!(request(&a.path(".syncfs"), &stop).unwrap(), Some(Reply::Done));
    assert!(a.client.as_ref().unwrap().ended());
    assert_eq!(a.read("e/f"), "changed");
    a.stop();
}

/// A full disk holds back what does not fit, says so, and takes it when there is room.
#[test]
fn a_full_disk_waits() {
    if !fuse_is_here() || !rustix::process::geteuid().is_root() {
        return;
    }
    let site = Site::new();
    let mut a = site.device("a");
    let small = tempfile::tempdir().unwrap();
    rustix::mount::mount("tmpfs", small.path(), "tmpfs", rustix::mount::MountFlags::empty(), c"size=8m").unwrap();
    let mut b = site.device_at("b", small.path().into(), None);
    let filler = vec![7; 4 << 20];
    b.write("filler", &filler);
    a.start(true);
    b.start(true);
    wait_equal(&[&a, &b]);
    let large: Vec<u8> = (0..1_200_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    a.write("large", &large);
    a.write("small", "fits");
    wait_for("the small one", || b.read("small") == "fits");
    wait_for("an error", || b.status().errors.iter().any(|error| error.what.contains("no space")));
    assert!(!b.has("large"));
    fs::remove_file(a.path("filler")).unwrap();
    wait_equal(&[&a, &b]);
    assert!(fs::read(b.path("large")).unwrap() == large);
    drop(b);
    rustix::mount::unmount(small.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
}

/// The ways in which programs save are one edit of one file each: nothing is removed, nothing is left over, nobody is told anything.
#[test]
fn every_way_to_save_is_an_edit() {
    let Some((_site, a, b)) = pair() else { return };
    a.write("n.md", "one\n");
    wait_equal(&[&a, &b]);
    let saved = |text: &str| {
        wait_equal(&[&a, &b]);
        assert_eq!(b.read("n.md"), text);
        assert_eq!(fs::read_dir(&b.root).unwrap().count(), 1, "{text}");
    };
    fs::write(a.path(".tmpXYZ"), "renamed over\n").unwrap();
    fs::rename(a.path(".tmpXYZ"), a.path("n.md")).unwrap();
    saved("renamed over\n");
    fs::rename(a.path("n.md"), a.path("n.md~")).unwrap();
    fs::write(a.path("n.md"), "renamed away\n").unwrap();
    fs::remove_file(a.path("n.md~")).unwrap();
    saved("renamed away\n");
    fs::remove_file(a.path("n.md")).unwrap();
    fs::write(a.path("n.md"), "removed first\n").unwrap();
    saved("removed first\n");
    assert!(a.status().notices.is_empty() && b.status().notices.is_empty());
}

/// What the hub sends waits while somebody has the file open for writing, and is merged with what he wrote.
#[test]
fn an_open_writer_is_not_overtaken() {
    let Some((_site, a, b)) = pair() else { return };
    a.write("n.md", "first\n\nsecond\n\nthird\n\nfourth\n");
    wait_equal(&[&a, &b]);
    let mut open = fs::File::options().append(true).open(b.path("n.md")).unwrap();
    a.write("n.md", "FIRST\n\nSECOND\n\nthird\n\nfourth\n");
    a.wait_idle();
    wait_for("the edit is known there", || b.status().pending_down == 1);
    assert!(!b.status().idle && b.read("n.md").starts_with("first"));
    open.write_all(b"end\n").unwrap();
    drop(open);
    wait_equal(&[&a, &b]);
    let merged = a.read("n.md");
    assert!(["FIRST", "SECOND", "end"].iter().all(|word| merged.contains(word)), "{merged}");
    assert_eq!(b.read("n.md"), merged);
}

/// Two devices that write, move and remove at the same time end with the same tree.
#[test]
fn a_burst_from_both_sides_converges() {
    let Some((_site, a, b)) = pair() else { return };
    std::thread::scope(|scope| {
        for (device, name) in [(&a, "a"), (&b, "b")] {
            scope.spawn(move || {
                for n in 0..150 {
                    let path = format!("burst/{}/{name}{n}", n % 7);
                    device.write(&path, format!("{name} {n}"));
                    match n % 4 {
                        0 => fs::rename(device.path(&path), device.path(format!("burst/{name}-moved-{n}"))).unwrap(),
                        1 => fs::remove_file(device.path(&path)).unwrap(),
                        _ => {}
                    }
                }
            });
        }
    });
    wait_equal(&[&a, &b]);
    let moved = |device: &Device| fs::read_dir(device.path("burst")).unwrap().count();
    assert_eq!((moved(&a), moved(&b)), (7 + 2 * 38, 7 + 2 * 38));
}
