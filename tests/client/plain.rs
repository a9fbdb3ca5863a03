//! Directories without a mount: each run finds what was done before it.

use crate::site::Site;
use crate::site::wait_equal;
use std::fs;

/// What one device has the other one gets: files of every size, directories, links, modes.
#[test]
fn two_directories_become_equal() {
    let site = Site::new();
    let (mut a, mut b) = (site.device("a"), site.device("b"));
    let large: Vec<u8> = (0..3_000_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    a.write("hello.txt", "hello world\n");
    a.write("deep/er/empty", "");
    a.write("large.bin", &large);
    b.write("from b.txt", "b\n");
    std::os::unix::fs::symlink("hello.txt", a.path("link")).unwrap();
    a.start(false);
    b.start(false);
    wait_equal(&[&a, &b]);
    assert_eq!(b.read("hello.txt"), "hello world\n");
    assert_eq!(b.read("deep/er/empty"), "");
    assert_eq!(fs::read(b.path("large.bin")).unwrap(), large);
    assert_eq!(fs::read_link(b.path("link")).unwrap().to_str(), Some("hello.txt"));
    assert_eq!(a.read("from b.txt"), "b\n");
}

/// A directory that was emptied is not a removal of everything; with the word of a person it is.
#[test]
fn an_emptied_directory_stops_everything() {
    let site = Site::new();
    let mut a = site.device("a");
    let state = tempfile::tempdir().unwrap();
    a.write("f", "1");
    let settings = |a: &crate::site::Device| syncfs::client::ClientSettings { state: state.path().into(), ..a.settings(false) };
    a.client = Some(syncfs::client::Client::start(settings(&a)).unwrap());
    a.wait_idle();
    a.stop();
    fs::remove_dir_all(a.path(".syncfs")).unwrap();
    fs::remove_file(a.path("f")).unwrap();
    let refused = syncfs::client::Client::start(settings(&a)).unwrap_err();
    assert_eq!(refused.kind(), syncfs::client::Kind::Refused);
    assert!(refused.hint().contains("--accept-empty"), "{refused:?}");
    let meant = syncfs::client::ClientSettings { accept_empty: true, ..settings(&a) };
    a.client = Some(syncfs::client::Client::start(meant).unwrap());
    a.wait_idle();
    assert!(!a.has("f"));
}

/// Edits of different lines on both sides, made while nobody watched, are merged.
#[test]
fn edits_meet() {
    let site = Site::new();
    let (mut a, mut b) = (site.device("a"), site.device("b"));
    let text: String = (0..20).map(|n| format!("this is line number {n} of the text\n")).collect();
    a.write("t.txt", &text);
    a.sync();
    b.sync();
    assert_eq!(b.read("t.txt"), text);
    a.write("t.txt", text.replace("number 3 of", "number three of").replace("number 7 of", "number seven of"));
    b.write("t.txt", text.replace("number 15 of", "number fifteen of"));
    a.sync();
    b.sync();
    a.sync();
    let merged = b.read("t.txt");
    assert!(merged.contains("number three of") && merged.contains("number fifteen of"), "{merged}");
    assert_eq!(a.read("t.txt"), merged);
}
