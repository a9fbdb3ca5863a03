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
